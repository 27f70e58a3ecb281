"""Files of a checkpoint that would run code when they are unpickled: it does not run, and one line names them."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import run_command

from rl_posttrain.errors import RunError
from rl_posttrain.models.export import export_model
from rl_posttrain.models.universal import convert_to_universal, fp32_masters, only_weights
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.manifest import write_manifest


class Evil:
    """Unpickling one makes a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def poison(file: Path, mark: Path) -> None:
    """Put one more object into a file of torch.save, under a name that nobody looks at."""
    saved = torch.load(file, map_location="cpu", weights_only=False)
    torch.save(saved | {"note": Evil(mark)}, file)


@pytest.fixture(scope="module", params=[("plain", "distributed.engine=none"), ("zero2", "distributed.zero_stage=2"),
                                        ("zero3", "distributed.zero_stage=3")], ids=lambda param: param[0])  # fmt: skip
def trained(tiny_recipe, request) -> tuple[RunDirectory, list]:
    name, engine = f"safe-{request.param[0]}", request.param[1]
    arguments = ["train", tiny_recipe, f"run.name={name}", engine, "rollout.engine=transformers",
                 "checkpoint.every_steps=2", "algorithm.num_steps=3", "checkpoint.keep=2"]  # fmt: skip
    done = run_command(*arguments)
    assert done.returncode == 0, done.stderr
    return RunDirectory.open(tiny_recipe.parent / "runs" / name), arguments


def test_a_resume_runs_nothing_that_a_checkpoint_says(trained, tmp_path):
    run, arguments = trained
    shutil.rmtree(run.checkpoints_path / "checkpoint-3")
    (run.path / "summary.json").unlink()
    folder, kept = run.checkpoints_path / "checkpoint-2", tmp_path / "kept"
    shutil.copytree(folder, kept)
    file = next(file for file in sorted(folder.rglob("*.pt")) if "optim" in file.name)
    poison(file, tmp_path / "mark")
    (folder / "complete").unlink()
    write_manifest(folder)
    done = run_command(*arguments, "--resume")
    assert not (tmp_path / "mark").exists(), "code of the checkpoint ran"
    assert done.returncode == 2, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith(f"rl-posttrain: {folder}: a file in it holds an object of posix.mkdir, and is not read")
    if file.name.startswith(("bf16_zero", "zero_pp")):
        with pytest.raises(RunError, match=r"holds an object of posix\.mkdir"):
            fp32_masters(folder)
        with pytest.raises(RunError, match=r"holds an object of posix\.mkdir"):
            convert_to_universal(folder / "global_step2", tmp_path / "universal")
        with pytest.raises(RunError, match=r"holds an object of posix\.mkdir"):
            export_model(run, tmp_path / "exported", step=2, dtype="float32")
    assert not (tmp_path / "mark").exists(), "code of the checkpoint ran"
    # What the run wrote itself is read.
    shutil.rmtree(folder)
    kept.rename(folder)
    assert run_command(*arguments, "--resume").returncode == 0


def test_loading_is_as_before_afterwards(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    file = tmp_path / "file.pt"
    torch.save({"path": tmp_path}, file)
    with pytest.raises(RunError, match=f"^{tmp_path}: a file in it holds an object of pathlib"), only_weights(tmp_path):
        torch.load(file, weights_only=False)
    assert os.environ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] == "1"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    assert torch.load(file, weights_only=False)["path"] == tmp_path


def test_the_project_unpickles_and_evaluates_nothing_else():
    """Workers of rewards get pickles from the trainer, and answer in JSON."""
    root = Path(__file__).parents[2]
    words = ("pickle.load", "weights_only=False", " eval(", "(eval(", " exec(", "marshal", "dill", "joblib.load")
    found = {}
    for folder in ("rl_posttrain", "rewards", "launch", "examples"):
        for path in (root / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for word in words:
                if word in text:
                    found.setdefault(path.relative_to(root).as_posix(), []).append(word)
    assert found == {"rewards/serving.py": ["pickle.load"]}
