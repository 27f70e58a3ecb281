"""The run directory: what is in it, how to write it so that nothing is lost, and how to read it back.

recipe.yaml        the resolved recipe
environment.json   versions, device, commit, command
inputs.json        checksums of rows, code and model, and what has changed since it began; see inputs.py
metrics.jsonl      one object per step, flushed every step
evaluations/       step_000030/: the evaluation after that step, step_000000 before training; see evaluations.py
rollouts/          step_000001.jsonl: every completion of the step with its prompt, rewards and advantage
checkpoints/       checkpoint-N, as transformers writes them, with a manifest and a copy of the rows; .writing/ has one
                   until it is whole; best.json names the best; final/ is the trained model
tensorboard/       event files
curve.png          written at the end
stopped.json       why a guard stopped the run, until it goes on
summary.json       written last: a run that has one is finished
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RunError
from rl_posttrain.runs.columns import Columns, columns_of, step_of
from rl_posttrain.runs.evaluations import RESULTS_FILE
from rl_posttrain.runs.files import (
    check_regular,
    is_unfinished_start,
    last_lines,
    read_json_lines,
    read_json_object,
    to_json,
    write_atomically,
)
from rl_posttrain.runs.lock import is_locked, try_lock
from rl_posttrain.runs.manifest import MANIFEST_FILE
from rl_posttrain.runs.yaml12 import read_yaml

STOPPED_FILE = "stopped.json"
BEST_FILE = "best.json"  # in checkpoints/: which of them is the best
CRITIC_FILE = "critic.safetensors"  # of a checkpoint; the model is the policy alone


def checkpoint_step(checkpoint: Path) -> int:
    """The step after which a checkpoint was written, from its folder's name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


class RunDirectory:
    """One run on disk. `create` makes a new one, `open` opens one that exists."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.metrics_path = self.path / "metrics.jsonl"
        self.rollouts_path = self.path / "rollouts"
        self.checkpoints_path = self.path / "checkpoints"
        self.writing_path = self.checkpoints_path / ".writing"  # a checkpoint until it is whole
        self.final_model_path = self.checkpoints_path / "final"
        self.saved_model_path = self.checkpoints_path / ".final"  # until it is whole
        self.evaluations_path = self.path / "evaluations"
        self.curve_path = self.path / "curve.png"

    @property
    def name(self) -> str:
        return Path(os.path.abspath(self.path)).name  # "." has none

    @classmethod
    def create(cls, path: Path, *, recipe_yaml: str) -> "RunDirectory":
        """A new run directory. One that exists is never overwritten.

        Raises:
            RunError: the directory exists, or cannot be written.
        """
        path = Path(path)
        if cls.is_at(path):
            raise RunError(f"run.name={path.name}: {path} is a run already; set another run.name")
        if path.exists() and not (path.is_dir() and is_unfinished_start(path)):
            raise RunError(
                f"run.name={path.name}: {path} exists and is not a run; set another run.name or run.output_dir"
            )
        run = cls(path)
        try:
            for folder in (run.rollouts_path, run.checkpoints_path):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path / "recipe.yaml", recipe_yaml)
        except OSError as error:
            raise RunError(
                f"run.output_dir={path.parent}: cannot write {path}: {error.strerror}; set another folder"
            ) from error
        return run

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether there is a run at `path`."""
        return (path / "recipe.yaml").is_file()

    @classmethod
    def open(cls, path: Path | str) -> "RunDirectory":
        """The run at `path`.

        Raises:
            RunError: there is no run.
        """
        path = Path(path)
        if not cls.is_at(path):
            raise RunError(f"no run at {path}: it has no recipe.yaml; name a folder that `rl-posttrain train` wrote")
        return cls(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the run, so that no other process trains or removes it. The lock ends with the process.

        Raises:
            RunError: another process has locked it.
        """
        with contextlib.ExitStack() as self._locks:
            file = self._locks.enter_context((self.path / "recipe.yaml").open("rb"))
            if not try_lock(file):
                busy = f"another process is training {self.path}; wait for it, or stop it"
                raise RunError(f"run.name={self.name}: {busy}")
            yield

    def is_locked(self) -> bool:
        """Whether a living process trains the run."""
        return is_locked(self.path / "recipe.yaml")

    def replace_recipe(self, recipe_yaml: str) -> None:
        """Another recipe for the run, which this process has locked, and has locked afterwards."""
        new = self.path / ".recipe.yaml"
        write_atomically(new, recipe_yaml)
        fcntl.flock(self._locks.enter_context(new.open("rb")), fcntl.LOCK_EX)
        os.replace(new, self.path / "recipe.yaml")

    def recipe_text(self) -> str:
        return (self.path / "recipe.yaml").read_text(encoding="utf-8")

    def recipe(self) -> dict:
        """The recipe as plain data, by section.

        Raises:
            RunError: the file is not a recipe.
        """
        try:
            recipe = read_yaml(self.recipe_text())
        except ValueError:  # no YAML, or no text
            recipe = None
        if not isinstance(recipe, dict):
            raise RunError(f"{self.path / 'recipe.yaml'}: not a recipe; it is damaged, or belongs to another program")
        return recipe

    def metrics(self) -> list[dict]:
        """One row per finished step, in order.

        Raises:
            RunError: the file cannot be read, or a row has no step above that of the row before.
        """
        rows = read_json_lines(self.metrics_path) if self.metrics_path.exists() else []
        before = 0
        for number, row in enumerate(rows, start=1):
            before = step_of(row, f"{self.metrics_path}:{number}", before)
        return rows

    def columns(self) -> tuple[Columns, tuple[str, ...]]:
        """The metrics in columns; and of each step that recorded it the hash of its prompts."""
        rows = self.metrics()
        return columns_of(rows), tuple(row["prompts_sha256"] for row in rows if "prompts_sha256" in row)

    def last_row(self) -> dict | None:
        """The metrics of the last finished step, read from the end of the file; None before the first step."""
        if not self.metrics_path.exists():
            return None
        check_regular(self.metrics_path)
        whole, is_all = last_lines(self.metrics_path)
        if not whole and not is_all:  # one row is longer than what was read
            rows = self.metrics()
            return rows[-1] if rows else None
        try:
            row = json.loads(whole[-1]) if whole else None
        except (ValueError, RecursionError):
            raise RunError(f"{self.metrics_path}: its last line is not JSON; the file is damaged, restore it") from None
        if row is not None:
            step_of(row, f"{self.metrics_path}: its last line", 0)
        return row

    def rollouts(self, step: int) -> list[dict]:
        """The completions that a step trained on, with their rewards. Steps that share completions have the same ones.

        Raises:
            RunError: the run has no such step.
        """
        path = self._rollout_file(step)
        if not path.exists() and any(row["step"] == step for row in self.metrics()):
            earlier = (file for file in self.rollouts_path.glob("step_*.jsonl") if file < path)
            path = max(earlier, default=path)  # somebody may have emptied the folder
        if not path.exists():
            raise RunError(f"{self.path}: no rollouts of step {step}")
        return read_json_lines(path)

    def evaluation_folder(self, step: int) -> Path:
        """The folder of the evaluation after `step` steps."""
        return self.evaluations_path / f"step_{step:06d}"

    def evaluation(self, step: int) -> dict | None:
        """The results of the evaluation after `step`, 0 before training; None where there was none."""
        return read_json_object(self.evaluation_folder(step) / RESULTS_FILE)

    def environment(self) -> dict:
        return read_json_object(self.path / "environment.json", num_processes=int, packages=dict) or {}

    def summary(self) -> dict | None:
        """The main numbers of a finished run; None for an unfinished one."""
        return read_json_object(self.path / "summary.json", steps=int)

    def last_checkpoint(self) -> Path | None:
        """The newest checkpoint that was written to its end; `runs.manifest.find_damage` knows if it still is whole."""
        return max(self.checkpoints(), key=checkpoint_step, default=None)

    def checkpoints(self) -> list[Path]:
        """The checkpoints that were written to their end, by step: `complete` is written into them last."""
        return [folder for folder in self.checkpoint_folders() if (folder / MANIFEST_FILE).is_file()]

    def checkpoint_folders(self) -> list[Path]:
        """The folders of all checkpoints, by step, also of those that lack something."""
        folders = self.checkpoints_path.glob("checkpoint-*")
        found = [folder for folder in folders if folder.name.removeprefix("checkpoint-").isdigit()]
        return sorted(found, key=checkpoint_step)

    def best(self) -> dict | None:
        """The best checkpoint's step, metric and value, where `checkpoint.keep_best` kept one."""
        return read_json_object(self.checkpoints_path / BEST_FILE)

    def write_environment(self, environment: dict) -> None:
        write_atomically(self.path / "environment.json", to_json(environment, indent=2) + "\n")

    def write_summary(self, summary: dict) -> None:
        write_atomically(self.path / "summary.json", to_json(summary, indent=2) + "\n")

    def stopped(self) -> dict | None:
        """Why a guard stopped the run: step, guard, policy, what it saw; None if none did, or it went on since."""
        return read_json_object(self.path / STOPPED_FILE)

    def write_stopped(self, why: Mapping[str, Any] | None) -> None:
        """Record why a guard stops the run; None: it goes on."""
        path = self.path / STOPPED_FILE
        if why is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, to_json(why, indent=2) + "\n")

    def write_best(self, best: Mapping[str, Any] | None) -> None:
        """Record which checkpoint is the best; None: there is none."""
        path = self.checkpoints_path / BEST_FILE
        if best is None:
            path.unlink(missing_ok=True)
        else:
            write_atomically(path, to_json(best, indent=2) + "\n")

    def append_metrics(self, row: dict) -> None:
        """Add the row of one step. When this returns, it is on disk."""
        with self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(to_json(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_rollouts(self, step: int, rows: list[dict]) -> None:
        write_atomically(self._rollout_file(step), "".join(to_json(row) + "\n" for row in rows))

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints that --resume needs; the final model and the best checkpoint stay."""
        best = self.best()
        self.drop_unfinished_checkpoint()
        for folder in self.checkpoint_folders():
            if best is None or checkpoint_step(folder) != best["step"]:
                shutil.rmtree(folder)

    def drop_unfinished_checkpoint(self) -> None:
        """Remove what a process left that was stopped while it wrote a checkpoint."""
        shutil.rmtree(self.writing_path, ignore_errors=True)

    def rewind(self, step: int, rows: Sequence[dict]) -> None:
        """Remove everything after `step`, from which a resumed run continues.

        Args:
            rows: of the steps up to `step`, which metrics.jsonl has then.
        """
        (self.path / "summary.json").unlink(missing_ok=True)  # of a finished run that goes on
        if rows:
            write_atomically(self.metrics_path, "".join(to_json(row) + "\n" for row in rows))
        else:
            self.metrics_path.unlink(missing_ok=True)
        self.drop_unfinished_checkpoint()
        for file in self.rollouts_path.glob("step_*.jsonl"):
            if _step_in(file.stem) > step:
                file.unlink()
        for folder in self.evaluations_path.glob("step_*"):
            if _step_in(folder.name) > step:
                shutil.rmtree(folder)
        for folder in self.checkpoint_folders():
            if checkpoint_step(folder) > step:
                shutil.rmtree(folder)

    def _rollout_file(self, step: int) -> Path:
        return self.rollouts_path / f"step_{step:06d}.jsonl"


def _step_in(name: str) -> int:
    return int(name.removeprefix("step_"))
