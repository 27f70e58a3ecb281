"""The lock of a run, or of a comparison: it says whether a living process holds it, and ends with that process."""

import fcntl
import time
from pathlib import Path
from typing import IO

# `is_locked` holds the lock for a moment; whoever wants to lock in that moment must not take this for another process.
_TRIES, _PAUSE_S = 5, 0.05


def try_lock(file: IO | int) -> bool:
    """Lock an open file, or a folder's descriptor, for this process; False where another process has it."""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            continue
    return False


def is_locked(path: Path) -> bool:
    """Whether some process has locked the file; False where there is no such file, or it cannot be opened."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
