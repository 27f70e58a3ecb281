"""The samples of an evaluation on disk: what was drawn is kept, and only what is missing is drawn."""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rl_posttrain.errors import RunError
from rl_posttrain.runs.evaluations import SAMPLES_FILE, SETTINGS_FILE
from rl_posttrain.runs.files import read_json_lines, read_json_object, to_json, write_atomically

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """What statistics need of one sample.

    Attributes:
        right: whether its answer is right; None where no reward judges it.
        well_formed: whether it has the form asked for; None where no reward judges that.
        vote: its answer, as it counts in a vote; None where it has no readable one.
        rewards: by name.
        reward: their weighted sum.
        num_tokens: of the completion.
        truncated: whether it was cut at the limit.
    """

    right: bool | None
    well_formed: bool | None
    vote: str | None
    rewards: Mapping[str, float | None]
    reward: float | None
    num_tokens: int
    truncated: bool

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> "Sample":
        """From a row of samples.jsonl."""
        return cls(
            right=row["right"],
            well_formed=row["well_formed"],
            vote=row["vote"],
            rewards=row["rewards"],
            reward=row["reward"],
            num_tokens=row["num_tokens"],
            truncated=row["finish_reason"] == "length",
        )


def check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Fail where samples of `settings` cannot go into `folder`, as far as is seen before anything is written.

    Args:
        settings: as JSON gives them back.

    Raises:
        RunError: there is a file of that name, or it has samples of other settings.
    """
    above = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RunError(f"{folder}: cannot be written ({above} is no folder that you can write); name another folder")
    earlier = read_json_object(folder / SETTINGS_FILE)
    if earlier is None:
        if (folder / SAMPLES_FILE).exists():
            raise RunError(f"{folder}: has {SAMPLES_FILE} and no {SETTINGS_FILE}; name another folder")
        return
    if earlier != settings:
        changed, before, now = _first_change(earlier, settings)
        raise RunError(
            f"{folder}: its samples were drawn with {changed}={_short(before)}, not {_short(now)}; name another "
            "folder, or remove this one"
        )


class SampleFile:
    """The folder of one evaluation; only the main process has one.

    Args:
        folder: made where it is missing, and locked for as long as this lives.
        settings: whatever decides the samples. A folder with other settings is refused.

    Raises:
        RunError: the folder holds samples of another evaluation, another process writes it, or it cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder = folder
        self._path = folder / SAMPLES_FILE
        plain = json.loads(to_json(settings))
        check_folder(folder, plain)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
        except OSError as error:
            raise RunError(f"{folder}: cannot be written ({error.strerror}); name another folder") from error
        self.samples: dict[Place, Sample] = {}
        try:
            check_folder(folder, plain)  # another process may have written it
            if not (folder / SETTINGS_FILE).exists():
                write_atomically(folder / SETTINGS_FILE, to_json(settings, indent=2) + "\n")
            self._read()
        except BaseException:
            self._lock.close()  # the error may outlive this, and would hold the lock
            raise

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append samples that are not there yet; they are on disk when this returns."""
        lines = [to_json(row) for row in rows if (row["question"], row["sample"]) not in self.samples]
        with self._path.open("a", encoding="utf-8") as file:
            file.write("".join(line + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        # As they are read back: a reward that is not a number is null there.
        self._take(json.loads(line) for line in lines)

    def _read(self) -> None:
        if not self._path.exists():
            return
        rows = read_json_lines(self._path)
        try:
            self._take(rows)
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"a sample without {error}" if isinstance(error, KeyError) else "a sample of another form"
            raise RunError(f"{self._path}: {reason}; the file is damaged, remove it") from None
        if not self._path.read_bytes().endswith(b"\n"):
            # A process was killed while it wrote the last line.
            write_atomically(self._path, "".join(to_json(row) + "\n" for row in rows))

    def _take(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.samples |= {(row["question"], row["sample"]): Sample.of_row(row) for row in rows}

    def _locked(self) -> IO[bytes]:
        """An open file that holds the lock; it ends with the file or the process."""
        file = (self.folder / ".lock").open("wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{self.folder}: another process evaluates into it; wait for it, or name another folder"
            ) from None
        return file


def _first_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """The first key that differs, such as ``sampling.temperature``, and its two values."""
    key = next(key for key in {**before, **now} if before.get(key) != now.get(key))
    one, other = before.get(key), now.get(key)
    if isinstance(one, dict) and isinstance(other, dict):
        inner, one, other = _first_change(one, other)
        key = f"{key}.{inner}"
    return key, one, other


def _short(value: Any) -> str:
    text = to_json(value)
    return text if len(text) <= 80 else text[:77] + "..."
