"""How runs ended: what counts as a failure, and what is a notice alone."""

import numpy as np
import pytest
import yaml
from made_runs import ONE_REWARD
from scipy import stats

from rl_posttrain.runs.columns import columns_of
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.histories import read_runs
from rl_posttrain.study.outcomes import Share, ended_in, last_tenth_of, usual_distance

NAN = float("nan")


def ended(rewards, **columns):
    rows = [{"step": step, "reward": reward} for step, reward in enumerate(rewards, 1)]
    for key, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[key] = value
    return ended_in(columns_of(rows))


def test_a_run_of_finite_values_is_finished():
    assert ended([0.5] * 100).finished


@pytest.mark.parametrize(("bad", "failed"), [(range(45, 101), True), (range(96, 101), True), ([100], True)])
def test_a_run_whose_reward_ends_in_nan_has_failed(bad, failed):
    outcome = ended([None if step in bad else 0.5 for step in range(1, 101)])
    assert outcome.failed == failed
    assert outcome.reason == f"its reward is not finite since step {min(bad)}"


@pytest.mark.parametrize("bad", [range(45, 90), [99], [91, 93, 95, 97]])
def test_a_run_that_recovered_is_finished(bad):
    assert ended([None if step in bad else 0.5 for step in range(1, 101)]).finished


def test_half_of_the_last_tenth_is_too_much():
    assert ended([None if step in (91, 93, 95, 97, 99) else 0.5 for step in range(1, 101)]).failed


@pytest.mark.parametrize("key", ["loss", "grad_norm"])
def test_a_loss_or_a_gradient_norm_that_ends_in_nan_is_a_failure_too(key):
    assert ended([0.5] * 100, **{key: [0.1] * 44 + [None] * 56}).failed
    assert ended([0.5] * 100, **{key: [0.1] * 99 + [None]}).finished  # one update that was skipped


def test_rewards_that_stop_are_a_failure_and_rewards_of_every_tenth_step_are_none():
    def columns(recorded):
        rows = [{"step": step, "loss": 0.1} | ({"reward": 0.5} if step in recorded else {}) for step in range(1, 101)]
        return ended_in(columns_of(rows))

    assert columns(range(1, 60)).reason == "it recorded no reward since step 60"
    assert columns(range(10, 101, 10)).finished
    assert columns(range(9, 100, 10)).finished  # 99 is the last
    assert columns(range(10, 71, 10)).failed
    assert columns(range(1, 100)).finished  # the row of a last evaluation


def test_no_finite_reward_at_all():
    assert ended_in(columns_of([{"step": 1, "reward": None, "loss": 0.1}])).failed


def run_of_ours(path, rewards, *, num_steps=10, done=False, seed=0, optimizer="adams"):
    recipe = ONE_REWARD | {
        "run": {"seed": seed, "name": path.name},
        "algorithm": {"num_steps": num_steps},
        "optimizer": {"name": optimizer},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    run = RunDirectory.create(path, recipe_yaml=yaml.safe_dump(recipe))
    for step, reward in enumerate(rewards, 1):
        run.append_metrics({"step": step, "reward": reward})
    if done:
        run.write_summary({"steps": len(rewards)})
    return run


def outcome(run):
    return read_runs([run.path]).runs[0].outcome


def test_runs_of_ours(tmp_path):
    assert outcome(run_of_ours(tmp_path / "done", [0.5] * 10, done=True)).finished
    assert outcome(run_of_ours(tmp_path / "early", [0.5] * 3, done=True)).finished  # by algorithm.stop_at
    nan = outcome(run_of_ours(tmp_path / "nan", [0.5] * 6 + [NAN] * 4, done=True))
    assert (nan.word, nan.reason) == ("failed", "its reward is not finite since step 7")
    stopped = run_of_ours(tmp_path / "stopped", [0.5] * 4)
    stopped.write_stopped({"step": 5, "guard": "loss", "policy": "stop", "saw": "the loss is not finite"})
    assert outcome(stopped).reason == "stopped by guards.loss after 4 of 10 steps"


def test_a_run_is_running_as_long_as_a_process_holds_it(tmp_path):
    run = run_of_ours(tmp_path / "quick", [0.5] * 4)
    with run.locked():
        held = outcome(run)
        assert (held.word, held.reason) == ("running", "4 of 10 steps")
        assert run.is_locked()
    assert not run.is_locked()
    left = outcome(run)
    assert (left.word, left.reason) == ("failed", "cut short after 4 of 10 steps, and no process trains it")
    with run.locked():  # looking did not keep it locked
        pass


def write_csvs(folder, lengths, *, last="0.5"):
    folder.mkdir(exist_ok=True)
    for name, length in lengths.items():
        rows = "".join(f"{step},0.5\n" for step in range(1, length)) + f"{length},{last}\n"
        (folder / f"{name}.csv").write_text("step,reward\n" + rows)
    return folder


def test_a_csv_that_is_shorter_than_the_longest_has_failed(tmp_path):
    write_csvs(tmp_path, {"a-seed0": 100, "a-seed1": 42, "a-seed2": 99, "b-seed0": 98})
    runs = {run.name: run for run in read_runs([tmp_path]).runs}
    assert {name: run.outcome.word for name, run in runs.items()} == {
        "a-seed0": "finished",
        "a-seed1": "failed",
        "a-seed2": "finished",  # 0 to 99, or 1 to 99: nobody cuts a run there
        "b-seed0": "failed",
    }
    assert runs["a-seed1"].outcome.reason == "it ends at step 42 of 100"
    assert all(run.num_planned == 100 and run.plan_is_guessed for run in runs.values())


def test_the_user_may_say_how_many_steps_were_planned(tmp_path):
    write_csvs(tmp_path, {"a-seed0": 100, "a-seed1": 42})
    cut = read_runs([tmp_path], planned_steps=42)
    runs = cut.runs
    assert cut.notices[-1] == "--planned-steps 42: later steps of a-seed0 are left out; the longest has 100"
    assert [(run.outcome.word, run.columns["step"][-1]) for run in runs] == [("finished", 42), ("finished", 42)]
    longer = read_runs([tmp_path], planned_steps=200)
    assert [run.outcome.word for run in longer.runs] == ["failed", "failed"]
    assert not any("left out" in notice for notice in longer.notices)


@pytest.mark.parametrize("last", ["nan", "NaN", "inf", "-inf"])
def test_a_csv_that_ends_in_what_is_not_finite(tmp_path, last):
    write_csvs(tmp_path, {"a-seed0": 50}, last=last)
    assert read_runs([tmp_path]).runs[0].outcome.reason == "its reward is not finite since step 50"


def test_a_run_whose_reward_was_never_finite_is_absent(tmp_path):
    write_csvs(tmp_path, {"a-seed0": 3})
    (tmp_path / "a-seed1.csv").write_text("step,reward\n1,nan\n2,nan\n")
    collection = read_runs([tmp_path])
    assert [(run.name, run.variant, run.outcome.word) for run in collection.absent] == [("a-seed1", "a", "failed")]


@pytest.mark.parametrize(("count", "number"), [(1, 5), (3, 10), (0, 5), (5, 5)])
def test_shares_against_the_beta_distribution(count, number):
    low, high = Share(count, number).interval()
    tail = 0.025 if 0 < count < number else 0.05
    assert low == pytest.approx(0.0 if count == 0 else stats.beta.ppf(tail, count, number - count + 1))
    assert high == pytest.approx(1.0 if count == number else stats.beta.ppf(1 - tail, count + 1, number - count))


def test_none_of_five_still_allows_45_percent():
    assert Share(0, 5).words() == "0 of 5 (95 %: up to 45 %)"
    assert Share(5, 5).words() == "5 of 5 (95 %: from 55 %)"
    assert Share(1, 5).words() == "1 of 5 (95 %: 0.51 to 72 %)"


@pytest.mark.parametrize(("steps", "tenth"), [([7], 1), (range(1, 101), 10), (range(100), 10), (range(1, 12), 2)])
def test_the_last_tenth_in_steps(steps, tenth):
    assert last_tenth_of(np.array(steps, dtype=float)) == tenth


def test_the_last_tenth_of_every_tenth_step():
    steps = np.arange(10.0, 201.0, 10.0)
    assert (usual_distance(steps), last_tenth_of(steps)) == (10.0, 20.0)
