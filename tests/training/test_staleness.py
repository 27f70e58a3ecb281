"""Completions from older weights, in whole runs on the tiny model."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import run_command
from hits import runs_folder, state_files, without_costs
from test_training import train

from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.training.ahead import DRAWN_AHEAD_FILE

# At this rate a step changes what a token's probability is. An epoch has two steps.
OPTIONS = (
    "distributed.engine=none", "run.deterministic=true", "model.dtype=float32", "algorithm.num_steps=6",
    "checkpoint.every_steps=1", "checkpoint.keep=9", "eval.every_steps=3", "task.num_train=8",
)  # fmt: skip


def trained_ahead(recipe: Path, staleness: int) -> RunDirectory:
    return train(recipe, f"ahead-{staleness}", *OPTIONS, f"rollout.max_staleness={staleness}")


@pytest.fixture(scope="module")
def ahead(tiny_recipe) -> RunDirectory:
    return trained_ahead(tiny_recipe, 1)


def test_each_step_is_drawn_from_the_weights_of_the_schedule(ahead):
    assert [row["staleness"] for row in ahead.metrics()] == [0, 1, 1, 1, 1, 1]
    check_schedule(ahead, 1)


def test_a_run_goes_on_from_what_was_drawn_ahead_bit_for_bit_also_in_a_later_epoch(ahead, tiny_recipe):
    check_resumed(ahead, tiny_recipe, 1)


@pytest.mark.long
def test_two_steps_ahead_are_as_fixed(tiny_recipe):
    run = trained_ahead(tiny_recipe, 2)
    assert [row["staleness"] for row in run.metrics()] == [0, 1, 2, 2, 2, 2]
    check_schedule(run, 2)
    check_resumed(run, tiny_recipe, 2)


@pytest.mark.long
def test_two_processes_draw_ahead_and_go_on(tiny_recipe):
    options = (*OPTIONS, "rollout.max_staleness=1")
    whole = train(tiny_recipe, "ahead-processes", *options, processes=2)
    check_schedule(whole, 1)
    check_resumed(whole, tiny_recipe, 1, processes=2)


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
        saved = json.loads((run.checkpoints_path / f"checkpoint-{step}" / DRAWN_AHEAD_FILE).read_text())
        assert list(saved) == [str(later) for later in range(step + 1, min(step + staleness, 6) + 1)]
        for later, drawn in saved.items():
            old = int(later) - 1 - staleness
            assert {completion["weights_step"] for completion in drawn["completions"]} == {old}
            off = {number: difference(run, number, drawn["completions"]) for number in range(max(1, old - 1), step + 1)}
            assert off[old] < 0.005
            assert min(value for number, value in off.items() if number != old) > 0.02


def difference(run: RunDirectory, step: int, completions: list[dict]) -> float:
    """Nats a token between the probabilities that completions were drawn with and those of a checkpoint's weights."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(run.checkpoints_path / f"checkpoint-{step}", dtype=torch.float32)
    total = count = 0
    for completion in completions:
        ids, own = torch.tensor([completion["prompt_ids"] + completion["token_ids"]]), len(completion["token_ids"])
        with torch.no_grad():
            logprobs = model(ids).logits[0, -own - 1 : -1].log_softmax(-1)
        found = logprobs.gather(1, ids[0, -own:, None])[:, 0]
        total += (found - torch.tensor(completion["logprobs"])).abs().sum().item()
        count += own
    return total / count


def check_resumed(whole: RunDirectory, recipe: Path, staleness: int, processes: int = 1) -> None:
    """A copy that has lost what came after step 3 goes on from there to the same end."""
    name = f"{whole.name}-again"
    copy = runs_folder(recipe) / name
    shutil.copytree(whole.path, copy)
    (copy / "summary.json").unlink()
    for step in (4, 5, 6):
        shutil.rmtree(copy / "checkpoints" / f"checkpoint-{step}")
    options = (*OPTIONS, f"rollout.max_staleness={staleness}", f"run.name={name}", "--resume")
    done = run_command("train", recipe, *options, processes=processes)
    assert done.returncode == 0, done.stderr
    again = RunDirectory.open(copy)
    assert without_costs(again.metrics()) == without_costs(whole.metrics())
    assert [again.rollouts(step) for step in range(1, 7)] == [whole.rollouts(step) for step in range(1, 7)]
    for step in (4, 5, 6):
        names = (f"checkpoint-{step}/{DRAWN_AHEAD_FILE}", f"checkpoint-{step}/model.safetensors")
        assert len({state(run, names[1]) for run in (whole, again)}) == 1
        assert len({json.dumps(drawn(run, names[0])) for run in (whole, again)}) == 1
    assert state_files(again.checkpoints()[-1]) == state_files(whole.checkpoints()[-1])


def state(run: RunDirectory, name: str) -> bytes:
    return (run.checkpoints_path / name).read_bytes()


def drawn(run: RunDirectory, name: str) -> list:
    return [(step, saved["completions"]) for step, saved in json.loads(state(run, name)).items()]
