"""Which checkpoints stay: the newest, and the best; killed between two files, a run still has both."""

import pytest

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.runs.manifest import find_damage
from rl_posttrain.training.checkpoints import finish_checkpoint
from rl_posttrain.training.resume import Start, is_over, rewind

BEST_BY_REWARD = ("checkpoint.keep_best={metric: reward}", "algorithm.stop_at={reward: 0.95}")


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    recipe = load_recipe("quickstart", [f"run.output_dir={tmp_path}", *BEST_BY_REWARD])
    return RunDirectory.create(recipe.run_path, recipe_yaml=recipe.to_yaml())


def best(step: int, value: float) -> dict:
    return {"step": step, "metric": "reward", "mode": "max", "value": value}


def save(run: RunDirectory, step: int, keep: int, found: dict | None, *, updates_per_step: int = 2) -> set[int]:
    """A checkpoint as transformers names it; the steps whose checkpoints are there afterwards."""
    folder = run.writing_path / f"checkpoint-{step * updates_per_step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(f"weights of step {step}")
    run.metrics_path.touch()
    finish_checkpoint(run, step * updates_per_step, step, keep=keep, best=found)
    return {checkpoint_step(folder) for folder in run.checkpoints()}


def test_the_best_stays_beside_the_newest(run):
    assert save(run, 7, 1, best(7, 0.5)) == {7}
    assert save(run, 20, 1, best(7, 0.5)) == {7, 20}
    assert save(run, 50, 1, best(7, 0.5)) == {7, 50}
    assert run.best() == best(7, 0.5)
    assert save(run, 120, 2, best(120, 0.75)) == {50, 120}
    assert run.best() == best(120, 0.75)
    run.drop_checkpoints()
    assert [folder.name for folder in run.checkpoints()] == ["checkpoint-120"]


def test_without_keep_best_there_is_none(run):
    assert save(run, 7, 1, None) == {7}
    assert save(run, 20, 1, None) == {20}
    assert run.best() is None
    run.drop_checkpoints()
    assert run.checkpoints() == []


def test_a_resumed_run_knows_the_best_from_its_rows(run):
    recipe = load_recipe(run.path / "recipe.yaml")
    for step, reward in enumerate([0.1, 0.6, 0.3, 0.7, 0.9], start=1):
        run.append_metrics({"step": step, "reward": reward})
    save(run, 2, 1, best(2, 0.6))
    save(run, 3, 1, best(2, 0.6))
    # Step 4 is better, and was killed before best.json said so; step 5 has no checkpoint and will be made again.
    save(run, 4, 2, best(2, 0.6))
    start, said = Start(run.checkpoints_path / "checkpoint-4", run.metrics()[:4]), []
    rewind(recipe, run, start, said.append)
    assert [row["step"] for row in run.metrics()] == [1, 2, 3, 4]
    assert run.best() == best(4, 0.7)
    # Whoever removes checkpoints by hand has the best of what is left.
    (run.checkpoints_path / "checkpoint-4" / "complete").unlink()
    rewind(recipe, run, start, said.append)
    assert run.best() == best(2, 0.6)
    assert said == []
    # A best checkpoint that is damaged is not the best any more, and that is said.
    (run.checkpoints_path / "checkpoint-2" / "model.safetensors").write_text("weights of step 7")
    rewind(recipe, run, Start(run.checkpoints_path / "checkpoint-3", run.metrics()[:3]), said.append)
    assert run.best() == best(3, 0.3)
    assert said == ["the best checkpoint is lost: checkpoint-2: model.safetensors has other bytes than were written"]
    rewind(recipe, run, Start(), said.append)
    assert run.best() is None


def test_a_checkpoint_has_its_name_once_it_is_whole(run):
    run.append_metrics({"step": 1, "reward": 0.5})
    (run.writing_path / "checkpoint-8").mkdir(parents=True)  # of a process that was killed
    assert run.checkpoints() == []
    run.drop_unfinished_checkpoint()
    assert save(run, 1, 1, None) == {1}
    assert not run.writing_path.exists()
    folder = run.checkpoints_path / "checkpoint-1"
    assert sorted(file.name for file in folder.iterdir()) == ["complete", "metrics.jsonl", "model.safetensors"]
    assert (folder / "metrics.jsonl").read_bytes() == run.metrics_path.read_bytes()
    assert find_damage(folder) is None


def test_a_run_is_over_at_its_last_step_or_where_it_stopped(run):
    recipe = load_recipe(run.path / "recipe.yaml")
    rows = [{"step": step, "reward": 0.96 if step == 2 else 0.5} for step in range(1, 31)]
    starts = [Start(run.checkpoints_path / f"checkpoint-{step}", rows[:step]) for step in (1, 2, 3, 30)]
    assert [is_over(recipe, start) for start in starts] == [False, True, False, True]
    assert not is_over(recipe, Start())
