"""The run directory: what is in it, writing it so that nothing is lost, reading it back.

recipe.yaml        the resolved recipe
environment.json   versions, device, commit, command
metrics.jsonl      one object a step, flushed every step
rollouts/          step_000001.jsonl: every completion of the step with its prompt, rewards and advantage
checkpoints/       checkpoint-N, as transformers writes them; final/ holds the trained model
tensorboard/       event files
curve.png          written at the end
summary.json       written last: a run that has one is finished
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from rl_posttrain.errors import RunError
from rl_posttrain.runs.files import read_json_lines, read_json_object, to_json, write_atomically

_END_BYTES = 2**16  # of metrics.jsonl: room for many rows
# What save_pretrained leaves for a model and its tokenizer.
_MODEL_FILES = {".safetensors", ".json", ".jinja", ".model", ".txt"}


def checkpoint_step(checkpoint: Path) -> int:
    """The step after which a checkpoint was written; its folder's name says it."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


class RunDirectory:
    """One run on disk. Make one with `create`, read one back with `open`."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.metrics_path = self.path / "metrics.jsonl"
        self.rollouts_path = self.path / "rollouts"
        self.checkpoints_path = self.path / "checkpoints"
        self.curve_path = self.path / "curve.png"

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.path)).name  # "." has none

    @classmethod
    def create(cls, path: Path, *, recipe_yaml: str) -> "RunDirectory":
        """A new run directory; it never takes the place of one that is there.

        Raises:
            RunError: the directory exists, or cannot be written.
        """
        path = Path(path)
        if (path / "recipe.yaml").exists():
            state = "a finished run" if (path / "summary.json").exists() else "an unfinished run"
            raise RunError(
                f"run.name={path.name}: {path} holds {state}; go on with it by --resume, or set another run.name"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"run.name={path.name}: {path} exists and is no run; set another run.name or run.output_dir")
        run = cls(path)
        try:
            for folder in (run.rollouts_path, run.checkpoints_path):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path / "recipe.yaml", recipe_yaml)
        except OSError as error:
            raise RunError(
                f"run.output_dir={path.parent}: cannot write {path}: {error.strerror}; set a folder that you may write"
            ) from error
        return run

    @classmethod
    def open(cls, path: Path | str) -> "RunDirectory":
        """The run at `path`.

        Raises:
            RunError: there is none.
        """
        path = Path(path)
        if not (path / "recipe.yaml").is_file():
            raise RunError(f"no run at {path}: it has no recipe.yaml; name a folder that `rl-posttrain train` wrote")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run, so that no other process trains it or takes it away; a process that ends lets go.

        Raises:
            RunError: another process holds it.
        """
        with (self.path / "recipe.yaml").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError(
                    f"run.name={self.name}: another process is training {self.path}; wait for it, or end it"
                ) from error
            yield

    def recipe_text(self) -> str:
        return (self.path / "recipe.yaml").read_text(encoding="utf-8")

    def recipe(self) -> dict:
        """Its sections.

        Raises:
            RunError: the file is no recipe.
        """
        try:
            recipe = yaml.safe_load(self.recipe_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            recipe = None
        if not isinstance(recipe, dict):
            raise RunError(f"{self.path / 'recipe.yaml'}: no recipe; it was damaged, or is another program's")
        return recipe

    def metrics(self) -> list[dict]:
        """One row per finished step, in order."""
        return read_json_lines(self.metrics_path) if self.metrics_path.exists() else []

    def last_row(self) -> dict | None:
        """The newest finished step's metrics, from the end of the file; None before the first."""
        if not self.metrics_path.exists():
            return None
        with self.metrics_path.open("rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _END_BYTES)
            file.seek(start)
            lines = file.read().split(b"\n")
        # What stands after the last line break is half a row; what stands before the first may be the end of one.
        whole = [line for line in lines[start > 0 : -1] if line.startswith(b"{") and line.endswith(b"}")]
        if not whole and start > 0:  # rows longer than what was read
            rows = self.metrics()
            return rows[-1] if rows else None
        return json.loads(whole[-1]) if whole else None

    def rollouts(self, step: int) -> list[dict]:
        """The completions that one step trained on, as they were scored: its own, or those of an earlier one it shares.

        Raises:
            RunError: the run has no such step.
        """
        path = self._rollout_file(step)
        if not path.exists() and any(row["step"] == step for row in self.metrics()):
            earlier = (file for file in self.rollouts_path.glob("step_*.jsonl") if file < path)
            path = max(earlier, default=path)  # none where somebody cleared the folder
        if not path.exists():
            raise RunError(f"{self.path}: no rollouts of step {step}")
        return read_json_lines(path)

    def environment(self) -> dict:
        return read_json_object(self.path / "environment.json") or {}

    def summary(self) -> dict | None:
        """What the run came to; None while it is not finished."""
        return read_json_object(self.path / "summary.json")

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written whole: an empty file `complete` is put in last."""
        whole = [folder for folder in self._checkpoints() if (folder / "complete").is_file()]
        return max(whole, key=checkpoint_step, default=None)

    def copy_final_model(self, checkpoint: Path) -> None:
        """Make checkpoints/final from a checkpoint: its model and tokenizer, without the optimizer; whole or absent."""
        final = self.checkpoints_path / "final"
        temporary = self.checkpoints_path / ".final"
        for leftover in (final, temporary):
            shutil.rmtree(leftover, ignore_errors=True)
        temporary.mkdir()
        for file in checkpoint.iterdir():
            if file.is_file() and file.suffix in _MODEL_FILES and file.name != "trainer_state.json":
                shutil.copy2(file, temporary)
        temporary.rename(final)

    def write_environment(self, environment: dict) -> None:
        write_atomically(self.path / "environment.json", to_json(environment, indent=2) + "\n")

    def write_summary(self, summary: dict) -> None:
        write_atomically(self.path / "summary.json", to_json(summary, indent=2) + "\n")

    def append_metrics(self, row: dict) -> None:
        """Add one step's row; it is on disk when this returns."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(to_json(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_rollouts(self, step: int, rows: list[dict]) -> None:
        write_atomically(self._rollout_file(step), "".join(to_json(row) + "\n" for row in rows))

    def drop_checkpoints(self) -> None:
        """Remove what a run goes on from, once it is finished; the final model stays."""
        for folder in self._checkpoints():
            shutil.rmtree(folder)

    def rewind(self, step: int) -> list[dict]:
        """Forget what came after `step`, the one a resumed run starts from; returns the rows that stay."""
        kept = [row for row in self.metrics() if row["step"] <= step]
        write_atomically(self.metrics_path, "".join(to_json(row) + "\n" for row in kept))
        for file in self.rollouts_path.glob("step_*.jsonl"):
            if int(file.stem.removeprefix("step_")) > step:
                file.unlink()
        for folder in self._checkpoints():
            if checkpoint_step(folder) > step:
                shutil.rmtree(folder)
        return kept

    def _checkpoints(self) -> list[Path]:
        folders = self.checkpoints_path.glob("checkpoint-*")
        return [folder for folder in folders if folder.name.removeprefix("checkpoint-").isdigit()]

    def _rollout_file(self, step: int) -> Path:
        return self.rollouts_path / f"step_{step:06d}.jsonl"
