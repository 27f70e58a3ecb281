"""What is evaluated: a model, the model that a run trained, or one of its checkpoints."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rl_posttrain.errors import RunError
from rl_posttrain.models.find import resolve_model
from rl_posttrain.models.folder import check_checkpoint
from rl_posttrain.models.lora import whole_folder
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step


@dataclass(frozen=True)
class Subject:
    """One model to evaluate.

    Attributes:
        name: as results show it.
        location: local folder or hub name.
        run: that trained it; None for a model of its own.
        step: after which it was saved; None without a run.
    """

    name: str
    location: str
    run: RunDirectory | None = None
    step: int | None = None


def find_subject(text: str) -> Subject:
    """The model of a run directory, of a checkpoint in one, or of a folder, a hub name or the bundled model's name.

    Of a run it is the final model, or the newest checkpoint where the run has not ended.

    Raises:
        RunError: the run has neither, or the checkpoint is damaged.
        RecipeError: a path that holds no model.
    """
    path = Path(text).expanduser()
    if (path / "recipe.yaml").is_file():
        run = RunDirectory.open(path)
        final = run.checkpoints_path / "final"
        folder = final if final.is_dir() else run.last_checkpoint()
        if folder is None:
            raise RunError(f"{path}: the run has no model and no checkpoint yet; set checkpoint.every_steps next time")
        return _in_run(run, folder)
    above = path.resolve().parent.parent
    if path.is_dir() and path.resolve().parent.name == "checkpoints" and (above / "recipe.yaml").is_file():
        return _in_run(RunDirectory.open(above), path)
    return Subject(text, resolve_model(text, key="MODEL"))


def find_subjects(texts: Sequence[str]) -> dict[str, Subject]:
    """The models that `texts` name, by text; texts that name one model in one place have the same subject.

    Models of one name in several places are named as they were written, so that results tell them apart.

    Raises:
        RunError, RecipeError: as `find_subject`.
    """
    by_place: dict[str, Subject] = {}
    found, written = {}, {}
    for text in texts:
        subject = find_subject(text)
        found[text] = by_place.setdefault(subject.location, subject)
        written.setdefault(subject.location, text)
    names = Counter(subject.name for subject in by_place.values())
    named = {
        place: subject if names[subject.name] == 1 else replace(subject, name=written[place])
        for place, subject in by_place.items()
    }
    return {text: named[subject.location] for text, subject in found.items()}


def _in_run(run: RunDirectory, folder: Path) -> Subject:
    if folder.name == "final":
        last = run.last_row()
        step, name = last["step"] if last else None, run.name
    else:
        check_checkpoint(folder, fix="evaluate another")
        step = checkpoint_step(folder)
        name = f"{run.name}@{step}"
    return Subject(name, resolve_model(str(whole_folder(run, folder)), key="CHECKPOINT"), run, step)
