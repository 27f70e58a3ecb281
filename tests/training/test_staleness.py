"""Completions from older weights, in whole runs on the tiny model."""

import json
import math
import shutil
from pathlib import Path

import pytest
from conftest import run_command
from hits import state_files, without_costs
from test_kills import values
from test_training import train

from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.training.ahead import DRAWN_AHEAD_FILE

# At this rate a step changes what a token's probability is. An epoch has two steps. Some ratios are above the limit.
OPTIONS = (
    "distributed.engine=none", "run.deterministic=true", "model.dtype=float32", "algorithm.num_steps=6",
    "checkpoint.every_steps=1", "checkpoint.keep=9", "eval.every_steps=3", "task.num_train=8",
    "rollout.max_staleness=1", "rollout.importance_max=1.1",
)  # fmt: skip


@pytest.fixture(scope="module")
def ahead(tiny_recipe) -> RunDirectory:
    return train(tiny_recipe, "ahead", *OPTIONS)


def test_each_step_is_drawn_from_the_weights_of_the_schedule(ahead):
    assert [row["staleness"] for row in ahead.metrics()] == [0, 1, 1, 1, 1, 1]
    check_schedule(ahead, 1)


def test_a_run_goes_on_from_what_was_drawn_ahead_bit_for_bit_also_in_a_later_epoch(ahead, tiny_recipe):
    check_resumed(ahead, tiny_recipe)


def test_the_row_has_the_mean_ratio_and_the_share_above_the_limit_as_counted_by_hand(ahead):
    """Of step 5, from the log-probabilities that the sampler gave and those of the weights after step 4."""
    row = ahead.metrics()[4]
    ratios = [ratio for ratios in ratios_of(ahead, 4, drawn_for(ahead, 4)["5"]["completions"]) for ratio in ratios]
    assert row["importance_ratio"] == pytest.approx(sum(ratios) / len(ratios), abs=1e-4)
    # Not one ratio is so near to the limit that rounding decides.
    assert min(abs(ratio - 1.1) for ratio in ratios) > 1e-4
    assert 0 < row["corrected_share"] < 1
    assert row["corrected_share"] == pytest.approx(sum(ratio > 1.1 for ratio in ratios) / len(ratios))


@pytest.mark.long
def test_two_steps_ahead_are_as_fixed(tiny_recipe):
    run = train(tiny_recipe, "ahead-2", *OPTIONS, "rollout.max_staleness=2")
    assert [row["staleness"] for row in run.metrics()] == [0, 1, 2, 2, 2, 2]
    check_schedule(run, 2)
    check_resumed(run, tiny_recipe, "rollout.max_staleness=2")


@pytest.mark.long
def test_the_loss_is_multiplied_by_the_weights_and_the_row_says_how(tiny_recipe):
    options = ("algorithm.num_steps=1", "rollout.importance_correction=tis")
    plain = train(tiny_recipe, "weighted-2", *options).metrics()[0]
    assert plain["importance_ratio"] == pytest.approx(1, abs=0.02)
    assert plain["corrected_share"] == 0
    # Every ratio is cut to a tenth: so is the gradient.
    cut = train(tiny_recipe, "weighted-0.1", *options, "rollout.importance_max=0.1").metrics()[0]
    assert cut["grad_norm"] == pytest.approx(plain["grad_norm"] / 10, rel=0.02)
    assert cut["corrected_share"] == 1
    assert cut["importance_ratio"] == plain["importance_ratio"]


def check_schedule(run: RunDirectory, staleness: int) -> None:
    """What a checkpoint holds was drawn from an older checkpoint's weights: its probabilities are those of no other."""
    for step in range(staleness + 1, 6):
        saved = drawn_for(run, step)
        assert list(saved) == [str(later) for later in range(step + 1, min(step + staleness, 6) + 1)]
        for later, drawn in saved.items():
            old = int(later) - 1 - staleness
            assert {completion["weights_step"] for completion in drawn["completions"]} == {old}
            off = {number: difference(run, number, drawn["completions"]) for number in range(max(1, old - 1), step + 1)}
            assert off[old] < 0.005
            assert min(value for number, value in off.items() if number != old) > 0.02


def difference(run: RunDirectory, step: int, completions: list[dict]) -> float:
    """Nats a token between the probabilities that completions were drawn with and those of a checkpoint's weights."""
    off = [abs(math.log(ratio)) for ratios in ratios_of(run, step, completions) for ratio in ratios]
    return sum(off) / len(off)


def ratios_of(run: RunDirectory, step: int, completions: list[dict]) -> list[list[float]]:
    """By completion and token: the probability under a checkpoint's weights over the one that it was drawn with."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run.checkpoints_path / f"checkpoint-{step}", dtype=torch.float32)
    found = []
    for completion in completions:
        ids, own = torch.tensor([completion["prompt_ids"] + completion["token_ids"]]), len(completion["token_ids"])
        with torch.no_grad():
            logprobs = model(ids).logits[0, -own - 1 : -1].log_softmax(-1)
        logprobs = logprobs.gather(1, ids[0, -own:, None])[:, 0]
        found.append((logprobs - torch.tensor(completion["logprobs"])).exp().tolist())
    return found


def drawn_for(run: RunDirectory, step: int) -> dict:
    """What the checkpoint after a step holds, by the step that it is for."""
    return json.loads((run.checkpoints_path / f"checkpoint-{step}" / DRAWN_AHEAD_FILE).read_text())


def check_resumed(whole: RunDirectory, recipe: Path, *more: str, processes: int = 1, kept: int = 3) -> None:
    """A copy that has lost what came after the step `kept` goes on from there to the same end."""
    copy = copy_until(whole, kept, f"{whole.name}-again")
    options = (*OPTIONS, *more, f"run.name={copy.name}", "--resume")
    done = run_command("train", recipe, *options, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    check_same(copy, whole)


def copy_until(whole: RunDirectory, kept: int, name: str) -> RunDirectory:
    """A copy of a run, as if it had been killed after the checkpoint of the step `kept`."""
    copy = RunDirectory(whole.path.with_name(name))
    shutil.copytree(whole.path, copy.path)
    (copy.path / "summary.json").unlink()
    for folder in copy.checkpoints():
        if checkpoint_step(folder) > kept:
            shutil.rmtree(folder)
    return copy


def check_same(again: RunDirectory, whole: RunDirectory) -> None:
    """Two runs have the same rows, completions, checkpoints, and draws for later steps."""
    assert without_costs(again.metrics()) == without_costs(whole.metrics())
    for step in range(1, 7):
        assert again.rollouts(step) == whole.rollouts(step)
    assert {folder.name for folder in again.checkpoints()} == {folder.name for folder in whole.checkpoints()}
    for folder in whole.checkpoints():
        ours, theirs = states(again.checkpoints_path / folder.name), states(folder)
        assert ours.keys() == theirs.keys()
        assert [name for name in theirs if ours[name] != theirs[name]] == []


def states(checkpoint: Path) -> dict:
    """By file of a checkpoint what training goes on from, without seconds and the run's name."""
    found: dict = {}
    for name, content in state_files(checkpoint).items():
        path = checkpoint / name
        if path.name == DRAWN_AHEAD_FILE:
            found[name] = [(step, drawn["completions"]) for step, drawn in json.loads(content).items()]
        else:
            found[name] = values(path) if path.suffix == ".pt" else content
    return found
