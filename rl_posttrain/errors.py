"""Errors that a user can cause or fix. Their message is the one line that the command prints."""

import difflib
import errno
import os
import signal
from collections.abc import Iterable

_FIXES = {
    errno.ENOSPC: "the disk is full; free some space there",
    errno.EDQUOT: "your quota of the disk is used up; free some space there",
    errno.EACCES: "it may not be read or written; change its permissions, or name another place",
    errno.EPERM: "it may not be read or written; change its permissions, or name another place",
    errno.EROFS: "it cannot be written to; name another place",
    errno.EIO: "the disk reports an error; look into the system's log",
    errno.ENOENT: "it is not there; correct the path",
    errno.ENAMETOOLONG: "the name is too long for a file; name a shorter one",
    errno.EMFILE: "too many files are open; raise the limit with `ulimit -n`",
}


class RlPosttrainError(Exception):
    """Base class. The command line prints the message and exits with status 2."""


class RecipeError(RlPosttrainError, ValueError):
    """A recipe, an override or a plug-in name that cannot be used as written."""


class HubError(RecipeError):
    """The Hugging Face hub did not give a model or a data set: it has none of that name, or it cannot be reached."""


class RunError(RlPosttrainError):
    """A run directory that is missing, already there, not writable, or not readable as a run."""


class EngineError(RlPosttrainError):
    """An engine (vLLM, DeepSpeed) that is missing, or that did not do what the recipe says."""


class EngineLost(EngineError):
    """An engine that was there is gone. Once it is back, the run can go on."""


class WeightSyncError(EngineError):
    """The rollout engine samples from other weights than the trainer holds."""


class RewardError(RlPosttrainError):
    """A reward function that raised an error, or returned something other than a list of numbers."""


class Interrupted(BaseException):
    """A signal asked this process to end. No `Exception`: code that handles its own errors must let it pass.

    Args:
        number: of the signal.
        message: what is kept, and how to go on.
    """

    def __init__(self, number: int, message: str = ""):
        self.number = signal.Signals(number)
        super().__init__(message or f"stopped by {self.number.name}")

    @property
    def status(self) -> int:
        """The exit status, as shells count it: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP, 138 for SIGUSR1."""
        return 128 + self.number


class GuardError(RlPosttrainError):
    """A guard stopped the run: more steps would not have helped."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint: the most similar name in `known`, or all of them where none is similar."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"


def one_line(error: BaseException, *, limit: int = 500) -> str:
    """The error's message on one line, cut to `limit` characters; the name of its class where it has no message."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # the user's class of exception may fail in __str__
        text = ""
    text = text or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def class_and_message(error: BaseException, *, limit: int = 500) -> str:
    """``ValueError: the message``, on one line. For exceptions of other people's code."""
    message = one_line(error, limit=limit)
    name = type(error).__name__
    return message if message == name else f"{name}: {message}"


def refusal(error: OSError) -> str:
    """What the system refused, as ``path: what is wrong; what to do``."""
    names = " and ".join(
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))
    )
    reason = _FIXES.get(error.errno, f"{error.strerror}; remove the cause, and try again")
    return f"{names}: {reason}" if names else f"writing or reading a file: {reason}"
