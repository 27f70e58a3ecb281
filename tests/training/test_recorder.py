"""Rows of metrics and rollouts from what the loop tells: real rewards of a recipe, completions by hand."""

import pytest

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.training.clock import Clock
from rl_posttrain.training.recorder import Recorder

SPECS = resolve(load_recipe("quickstart")).rewards
LOGS = {"loss": 0.25, "grad_norm": 2.0, "learning_rate": 1e-5}


@pytest.fixture
def written() -> list:
    return []


@pytest.fixture
def recorder(written):
    return Recorder(SPECS, lambda row, rollouts: written.append((row, rollouts)), list, Clock(lambda phase: None))


def completions(*rewards: float) -> list[Completion]:
    return [
        Completion(
            [1, 2], [3] * number, "stop" if number == 1 else "length", row={"prompt": "p", "answer": "7"}, text="7",
            rewards={"math_accuracy": reward}, reward=reward, advantage=0.0,
        )
        for number, reward in enumerate(rewards, start=1)
    ]  # fmt: skip


def row_of(recorder, step, **trl_metrics):
    return recorder.row(step, LOGS, trl_metrics, {"update_norm": 0.5})


def test_a_row_by_hand(recorder):
    recorder.drawn(1, completions(1.0, 0.0, 0.5), {"tokens": 12})
    row = row_of(recorder, 1, entropy=[1.0, 3.0], num_tokens=[99])
    assert row["reward"] == row["rewards/math_accuracy"] == 0.5
    assert row["accuracy"] == pytest.approx(1 / 3)
    assert (row["completion_length"], row["truncated_share"]) == (2.0, pytest.approx(2 / 3))
    assert (row["loss"], row["grad_norm"], row["lr"], row["entropy"]) == (0.25, 2.0, 1e-5, 2.0)
    assert (row["tokens"], row["update_norm"]) == (12, 0.5)
    assert "num_tokens" not in row


def test_what_a_reward_logs_on_one_step_is_not_repeated_on_the_next(recorder):
    recorder.log_metric("math_accuracy/timeout", 0.25)
    recorder.log_metric("math_accuracy/timeout", 0.75)
    recorder.drawn(1, completions(1.0), {})
    assert row_of(recorder, 1)["math_accuracy/timeout"] == 0.5
    recorder.drawn(2, completions(1.0), {})
    assert "math_accuracy/timeout" not in row_of(recorder, 2)


def test_completions_describe_every_step_that_trains_on_them_and_are_written_once(recorder, written):
    recorder.drawn(1, completions(1.0, 0.0), {"tokens": 7})
    recorder.describe(sampling_logprob_difference=0.01)
    recorder.evaluated({"eval/accuracy": 0.5})
    for step in (1, 2):
        recorder.write(row_of(recorder, step))
    (first, rollouts), (second, none) = written
    for name in ("reward", "tokens", "completion_length", "sampling_logprob_difference"):
        assert first[name] == second[name]
    assert (len(rollouts), none) == (2, [])
    assert first["eval/accuracy"] == 0.5
    assert "eval/accuracy" not in second


def test_rollouts_hold_what_rewards_logged_of_each_completion(recorder, written):
    recorder.log_extra("hint", ["a", "b"])
    recorder.drawn(3, completions(1.0, 0.0), {})
    recorder.write(row_of(recorder, 3))
    assert written[0][1] == [
        {
            "step": 3, "prompt": "p", "completion": "7", "answer": "7", "rewards": {"math_accuracy": reward},
            "reward": reward, "advantage": 0.0, "num_tokens": number, "finish_reason": reason, "extra": {"hint": hint},
        }
        for number, (reward, reason, hint) in enumerate([(1.0, "stop", "a"), (0.0, "length", "b")], start=1)
    ]  # fmt: skip
    recorder.drawn(4, completions(1.0), {})
    recorder.write(row_of(recorder, 4))
    assert "extra" not in written[1][1][0]
