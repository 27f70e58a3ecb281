"""Which runs there are at a path, of ours and of other programs."""

from pathlib import Path

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.foreign.files import KNOWN, foreign_inside, is_foreign


def sources_in(path: Path) -> list[RunDirectory | Path]:
    """Run directories, and paths of runs of other programs; not read yet.

    Raises:
        RunError: there is none.
    """
    if RunDirectory.is_at(path):
        return [RunDirectory.open(path)]
    if is_foreign(path):
        return [path]
    inside: list[RunDirectory | Path] = []
    if path.is_dir():
        ours = [RunDirectory.open(child) for child in path.iterdir() if RunDirectory.is_at(child)]
        inside = sorted([*ours, *foreign_inside(path)], key=lambda run: run if isinstance(run, Path) else run.path)
    if not inside:
        known = f"a folder that `rl-posttrain train` wrote, a folder of such folders, or of other programs {KNOWN}"
        reason = "there is no run in it" if path.exists() else "there is no such file or folder"
        raise RunError(f"RUN={path}: {reason}; name {known}")
    return inside
