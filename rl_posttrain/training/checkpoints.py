"""Checkpoints: marked once they are whole, and only as many kept as the recipe says."""

import shutil
from pathlib import Path

from rl_posttrain.runs.directory import checkpoint_step


def finish_checkpoint(folder: str | Path, step: int, *, keep: int) -> None:
    """Mark the checkpoint of `step` as whole, then remove all but the newest `keep`."""
    newest = Path(folder) / f"checkpoint-{step}"
    (newest / "complete").touch()
    others = [path for path in Path(folder).glob("checkpoint-*") if path != newest]
    for path in sorted(others, key=checkpoint_step, reverse=True)[keep - 1 :]:
        shutil.rmtree(path)
