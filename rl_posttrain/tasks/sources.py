"""Where the rows of a data set come from: a local file, a local folder, or the Hugging Face hub."""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rl_posttrain.errors import HubError, RecipeError, class_and_message, one_line
from rl_posttrain.machine.hub import hub
from rl_posttrain.tasks.readers import READERS, Record, read_records

# How the files of a split are called at their start.
SPLITS = {"train": ("train",), "test": ("test",), "validation": ("validation", "valid", "val", "dev")}
# Where a folder has them: people clone repositories of the hub, which have a folder a subset, or one called data.
_PLACES = ("", "main", "default", "data")
_NOT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_PACKED = (".gz", ".zip", ".zst", ".xz", ".bz2", ".tar", ".tgz")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def load_splits(
    path: str, *, key: str = "task.path", subset: str | None = None, hub_subset: str | None = None
) -> dict[str, Iterable[Record]]:
    """The rows of each split, by columns; they are read when they are gone through, and only once.

    Args:
        path: a file; a folder with train* and test* files, or with such files in a folder named like `subset`, `main`,
            `default` or `data`; a folder of `datasets.save_to_disk`; or the name of a data set on the hub.
        key: the recipe's key that says `path`, for errors.
        subset: of a data set on the hub; or the only folder in a folder to look into.
        hub_subset: of a data set on the hub; of no meaning for a folder.

    Returns:
        Splits by name. A single file, and a folder with files of other names, are the split `train`.

    Raises:
        RecipeError: there is no such file or folder, or it has no data in it.
        HubError: the hub has no such data set or subset, or cannot be reached and has not been before.
    """
    where = f"{key}={path}"
    try:
        local = Path(path).expanduser()
        is_file, is_folder = local.is_file(), local.is_dir()
    except (OSError, ValueError, RuntimeError) as error:  # too long, or ~ of nobody
        raise RecipeError(f"{where}: no path of a file ({one_line(error, limit=60)}); correct it") from None
    if is_file:
        if local.suffix.lower() in _PACKED:
            raise RecipeError(f"{where}: a packed file; unpack it, and name what was in it")
        if local.suffix.lower() not in READERS:
            raise RecipeError(f"{where}: not of a known kind; give a file that ends in {', '.join(READERS)}")
        return {"train": read_records(local, where)}
    if is_folder:
        return _of_folder(local, where, subset)
    if local.exists():
        raise RecipeError(f"{where}: a pipe, a socket or a device, and no file; give a file or a folder")
    if local.suffix.lower() in READERS or not _HUB_NAME.fullmatch(path) or path.startswith("."):
        raise RecipeError(
            f"{where}: no such file or folder; correct it, or name a data set on the hub, such as openai/gsm8k"
        )
    return _of_hub(path, where, subset or hub_subset)


def first_split(splits: Mapping[str, Iterable[Record]], *names: str) -> Iterable[Record]:
    """The first of these splits that is there, or the first of all. Which one has the rows differs between copies."""
    return splits[next((name for name in names if name in splits), next(iter(splits)))]


def _of_folder(folder: Path, where: str, subset: str | None) -> dict[str, Iterable[Record]]:
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        import datasets

        try:
            return _in_parts(datasets.load_from_disk(str(folder)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = class_and_message(error, limit=200)
            raise RecipeError(f"{where}: no whole folder of save_to_disk ({reason}); save it again") from error
    others: list[Path] = []
    for name in (subset,) if subset else _PLACES:
        place = folder / name
        files = sorted(file for file in place.glob("*") if file.is_file() and file.name not in _NOT_DATA)
        files = [file for file in files if file.suffix.lower() in READERS]
        splits = {
            split: _of_one_kind([f for f in files if f.name.startswith(starts)]) for split, starts in SPLITS.items()
        }
        if any(splits.values()):
            return {split: _read_all(found, where) for split, found in splits.items() if found}
        others = others or _of_one_kind(files)
    if others:
        return {"train": _read_all(others, where)}
    raise RecipeError(f"{where}: no {', '.join(READERS)} files there; put train.jsonl and test.jsonl into it")


def _of_one_kind(files: list[Path]) -> list[Path]:
    """The files of one ending: data sets often come in two forms side by side."""
    return next((found for kind in READERS if (found := [file for file in files if file.suffix.lower() == kind])), [])


def _read_all(files: list[Path], where: str) -> Iterator[Record]:
    return itertools.chain.from_iterable(read_records(file, where) for file in files)


def _of_hub(path: str, where: str, subset: str | None) -> dict[str, Iterable[Record]]:
    import datasets  # slow to import, and local files do not need it

    key = where.partition("=")[0]
    fix = f"check the name and the network, or download it elsewhere and set {key} to the file or folder"
    reason = None
    try:
        with hub(path, "dataset") as reason:
            return _in_parts(datasets.load_dataset(path, name=subset))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = reason or class_and_message(error, limit=200)
        raise HubError(f"{where}: no such file or folder, and the hub did not give it ({reason}); {fix}") from error


def _in_parts(loaded) -> dict[str, Iterable[Record]]:
    """The rows of a `DatasetDict`, or of one `Dataset`; never all of them in memory at once."""
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}

    def rows(split) -> Iterator[Record]:
        for table in split.with_format("arrow").iter(batch_size=10_000):
            yield from table.to_pylist()

    return {name: rows(split) for name, split in splits.items()}
