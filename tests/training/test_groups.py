"""Groups that teach nothing: kept, left out of the update with the same gradient, or drawn anew."""

import math
from collections import Counter

import pytest
import torch
from conftest import run_command

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.schema import AlgorithmSection
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.training.groups import equally_paid, resample, without_skipped
from rl_posttrain.training.train import train

NAN = math.nan
LOSSES = AlgorithmSection.model_fields["loss"].annotation.__args__
GROUP = 4


def test_a_group_is_equal_when_every_reward_paid_all_of_it_the_same():
    rewards = [
        [1, 0.1], [1, 0.1],  # equal
        [1, 0.1], [1, 0.2],  # the shaped sum varies
        [1, 0.0], [0, 1.0],  # the sum is the same, and what is right is not
        [NAN, 0.5], [NAN, 0.5],  # no judgement of either
        [NAN, 0.5], [0, 0.5],
        [NAN, NAN], [NAN, NAN],
    ]  # fmt: skip
    equal = equally_paid(torch.tensor(rewards), 2)
    assert equal.tolist() == [True] * 2 + [False] * 4 + [True] * 2 + [False] * 2 + [True] * 2


# The update


@pytest.fixture(scope="module")
def trainer(tiny_recipe, make_trainer):
    trainer = make_trainer(
        load_recipe(tiny_recipe, ["distributed.engine=none", "rollout.engine=transformers", "model.dtype=float32"])
    )
    trainer.current_gradient_accumulation_steps = 2
    trainer.model.train()
    return trainer


def micro_batch(dull_groups: set[int]) -> dict[str, torch.Tensor]:
    """Two groups of four completions of unequal lengths, sampled from another policy; dull ones have no advantage."""
    generator = torch.Generator().manual_seed(7)

    def tokens(width):
        return torch.randint(3, 90, (2 * GROUP, width), generator=generator)

    lengths = torch.tensor([6, 2, 5, 4, 1, 6, 3, 2])
    advantages = torch.randn(2 * GROUP, generator=generator)
    skipped = torch.zeros(2 * GROUP, dtype=torch.bool)
    for group in dull_groups:
        advantages[group * GROUP : (group + 1) * GROUP] = 0.0
        skipped[group * GROUP : (group + 1) * GROUP] = True
    order = torch.randperm(2 * GROUP, generator=generator)  # TRL shuffles completions over micro batches
    batch = {
        "prompt_ids": tokens(5),
        "prompt_mask": torch.ones(2 * GROUP, 5, dtype=torch.long),
        "completion_ids": tokens(6),
        "completion_mask": (torch.arange(6) < lengths[:, None]).long(),
        "advantages": advantages,
        "old_per_token_logps": -3 - torch.rand(2 * GROUP, 6, generator=generator),
        "skipped": skipped,
    }
    return {name: value[order] for name, value in batch.items()} | {"num_items_in_batch": lengths.sum() * 2}


def gradient(trainer, inputs) -> tuple[torch.Tensor, int]:
    """The gradient of a micro batch's loss, and how many rows went through the model."""
    rows = []
    handle = trainer.model.register_forward_pre_hook(
        lambda module, arguments, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    trainer.model.zero_grad()
    trainer._compute_loss(trainer.model, dict(inputs)).backward()
    handle.remove()
    trainer._metrics["train"].clear()
    return torch.cat([p.grad.flatten() for p in trainer.model.parameters()]).clone(), sum(rows)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dull_groups", [set(), {1}, {0, 1}])
def test_skipping_gives_the_gradient_of_keeping_and_spends_less(trainer, loss, dull_groups):
    trainer.loss_type = loss
    trainer.importance_sampling_level = "sequence" if loss == "luspo" else "token"
    inputs = micro_batch(dull_groups)
    kept, rows_kept = gradient(trainer, {name: value for name, value in inputs.items() if name != "skipped"})
    skipped, rows_skipped = gradient(trainer, inputs)
    assert (rows_kept, rows_skipped) == (8, {0: 8, 1: 4, 2: 1}[len(dull_groups)])
    scale = kept.abs().max().item()
    assert (scale > 1e-6) == (len(dull_groups) < 2)
    torch.testing.assert_close(skipped, kept, rtol=1e-4, atol=1e-4 * scale)


def test_the_row_that_stays_of_an_all_dull_micro_batch_is_short_and_moves_nothing():
    inputs = micro_batch({0, 1})
    inputs["advantages"] += 1e-3  # what rounding leaves of equal rewards
    rows, factor = without_skipped(inputs, "dr_grpo", 1)
    assert rows["completion_mask"].sum() == 1
    assert rows["advantages"].tolist() == [0.0]
    assert factor == 1 / 8
    assert inputs["advantages"].ne(0).all()  # TRL uses its buffer again


def test_a_process_with_less_to_train_on_fills_up_with_rows_that_move_nothing():
    inputs = micro_batch({1})
    inputs["advantages"] += inputs["skipped"] * 1e-3
    rows, factor = without_skipped(inputs, "grpo", 6)
    assert rows["skipped"].sum() == 2
    assert rows["advantages"][rows["skipped"]].tolist() == [0.0, 0.0]
    assert rows["advantages"].count_nonzero() == 4
    assert rows["completion_mask"][rows["skipped"]].sum() == 1 + 2  # the shortest
    assert factor == 6 / 8


# Drawing anew

POOL = [{"prompt": f"p{number}", "answer": str(number)} for number in range(40)]


def drawn_for(rows, length=3):
    return [
        Completion([1] * 2, [int(row["answer"])] * length, "stop", row=row, text=f"{row['prompt']}#{place}")
        for place, row in enumerate(rows)
    ]


def resampled(dull: set[str], *, dull_later=frozenset(), max_rounds=3, others_need=False, pool=POOL, seed=1):
    rows = [dict(row) for row in pool[:4] for _ in range(GROUP)]
    rounds, first = [], {row["prompt"] for row in rows}

    def is_right(completions):
        prompts = [completion.row["prompt"] for completion in completions]
        return [
            place % GROUP == 0 and prompt not in dull and (prompt in first or not dull_later)
            for place, prompt in enumerate(prompts)
        ]

    def draw(asked, number):
        rounds.append(asked)
        assert number == len(rounds) - 1
        return drawn_for(asked)

    def gather(values):  # of the other process, if there is one: a dull group, and the prompts that it has
        return [*values, 1 if isinstance(values[0], int) else "p39"] if others_need else values

    completions, num_replaced = resample(
        drawn_for(rows), pool=pool, group_size=GROUP, max_rounds=max_rounds, is_right=is_right, draw=draw,
        rank=0, gather=gather, seed=seed,
    )  # fmt: skip
    for completion in completions:
        assert completion.token_ids == [int(completion.row["answer"])] * 3
        assert completion.text.startswith(f"{completion.row['prompt']}#")
    prompts = [completion.row["prompt"] for completion in completions]
    assert set(Counter(prompts).values()) == {GROUP}
    return prompts, rounds, num_replaced


def test_dull_groups_are_exchanged_for_prompts_that_the_step_does_not_have():
    prompts, rounds, num_replaced = resampled({"p1", "p3"})
    first, second, third, fourth = prompts[::GROUP]
    assert (first, third) == ("p0", "p2")
    assert not {second, fourth} & {f"p{number}" for number in range(4)}
    assert [len(asked) for asked in rounds] == [2 * GROUP]
    assert num_replaced == 2


def test_resampling_is_bounded_and_repeats_itself():
    prompts, rounds, num_replaced = resampled({"p1"}, dull_later={"all"}, max_rounds=2)
    assert [len(asked) for asked in rounds] == [GROUP, GROUP]
    assert num_replaced == 1
    assert resampled({"p1"}, dull_later={"all"}, max_rounds=2)[0] == prompts
    assert resampled({"p1"}, dull_later={"all"}, max_rounds=2, seed=2)[0] != prompts


def test_nothing_is_drawn_where_no_process_needs_it_and_as_often_where_another_does():
    assert resampled(set())[1:] == ([], 0)
    prompts, rounds, num_replaced = resampled(set(), others_need=True, max_rounds=2)
    assert prompts[::GROUP] == ["p0", "p1", "p2", "p3"]
    assert [len(asked) for asked in rounds] == [GROUP, GROUP]
    assert num_replaced == 0


def test_a_pool_as_small_as_the_step_is_drawn_from_all_the_same():
    _, rounds, _ = resampled({"p1"}, pool=POOL[:4], max_rounds=1)
    assert len(rounds) == 1


# Whole runs


def run_with(tiny_recipe, name, *overrides):
    plain = ("distributed.engine=none", "rollout.engine=transformers", "run.seed=3", "model.dtype=float32")
    return train(load_recipe(tiny_recipe, [f"run.name={name}", *plain, *overrides]))


def test_skip_trains_the_same_run_as_keep(tiny_recipe):
    rewards = "rewards=[{fn: math_accuracy}, {fn: think_answer_format}]"
    # Almost no random completion is right: nearly all groups are dull, and both runs stay where they are.
    keep, skip = (
        run_with(tiny_recipe, f"groups-{how}", rewards, f"algorithm.zero_variance_groups={how}")
        for how in ("keep", "skip")
    )
    for before, after in zip(keep.metrics(), skip.metrics(), strict=True):
        assert after["reward"] == before["reward"]
        assert after["skipped_share"] == before["frac_zero_variance"]
        assert after["grad_norm"] == pytest.approx(before["grad_norm"], rel=1e-3, abs=1e-6)
    assert any(row["skipped_share"] > 0 for row in skip.metrics())


def test_resample_records_what_it_trained_on(tiny_recipe):
    run = run_with(
        tiny_recipe, "groups-resample", "algorithm.zero_variance_groups=resample", "algorithm.max_resample_rounds=2"
    )
    for row in run.metrics():
        rollouts = run.rollouts(row["step"])
        assert 0 < row["resampled_share"] <= 1
        assert row["completion_length"] == pytest.approx(sum(rollout["num_tokens"] for rollout in rollouts) / 16)
        for start in range(0, 16, 4):
            group = rollouts[start : start + 4]
            assert len({rollout["prompt"] for rollout in group}) == 1
            for rollout in group:
                left, right = (int(part) for part in rollout["prompt"][len("Q: What is ") : -len("?\nA:")].split(" + "))
                assert rollout["answer"] == str(left + right)
                digits = sum(c.isdigit() for c in rollout["completion"]) / max(1, len(rollout["completion"]))
                assert rollout["rewards"]["digit_share"] == pytest.approx(digits)
    tokens = [row["tokens"] for row in run.metrics()]
    seen = sum(rollout["num_tokens"] for step in (1, 2, 3) for rollout in run.rollouts(step))
    assert tokens[-1] > 2 * seen  # with the prompts, and what was drawn and thrown away


def test_two_processes_skip_different_numbers_of_completions(tiny_recipe, tmp_path):
    # Of four groups on two processes, one of the first process alone teaches something.
    (tmp_path / "first.py").write_text(
        "import os\n"
        "def first(completions, **columns):\n"
        "    return [float(os.environ['RANK'] == '0' and place == 0) for place in range(len(completions))]\n"
    )
    plain = ("distributed.engine=none", "rollout.engine=transformers", "model.dtype=float32", "algorithm.num_steps=1")
    reward = f"rewards=[{{fn: '{tmp_path / 'first.py'}:first', judges: answer, range: [0, 1]}}]"
    choice = (reward, "algorithm.zero_variance_groups=skip")
    done = run_command("train", tiny_recipe, "run.name=groups-two", *plain, *choice, processes=2)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = RunDirectory.open(tiny_recipe.parent / "runs" / "groups-two").metrics()
    assert row["skipped_share"] == 0.75
    assert row["grad_norm"] > 0
