"""What can go wrong for a user, as exceptions whose message is the one line the command prints."""

import difflib
from collections.abc import Iterable


class RlPosttrainError(Exception):
    """Base of every error a user can cause or mend; the command line prints its message and exits with status 2."""


class RecipeError(RlPosttrainError, ValueError):
    """A recipe, an override or a plug-in name that cannot be used as written."""


class HubError(RecipeError):
    """The Hugging Face hub did not give a model: it has none of that name, or it cannot be reached."""


class RunError(RlPosttrainError):
    """A run directory that is missing, already there, not writable, or not readable as a run."""


class EngineError(RlPosttrainError):
    """An engine (vLLM, DeepSpeed) that was asked for and is missing, or that did not do what the recipe says."""


class WeightSyncError(EngineError):
    """The rollout engine samples from other weights than the trainer holds."""


class RewardError(RlPosttrainError):
    """A reward function that raised, or returned something that is no list of numbers."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest of `known` as a hint, or all of them when none is near."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known: {', '.join(known)}"


def one_line(error: BaseException, *, limit: int = 500) -> str:
    """The error's message on one line, cut to `limit` characters; the name of its class where it has no message."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def class_and_message(error: BaseException, *, limit: int = 500) -> str:
    """``ValueError: the message``, on one line: for an exception of somebody else's code."""
    message = one_line(error, limit=limit)
    name = type(error).__name__
    return message if message == name else f"{name}: {message}"
