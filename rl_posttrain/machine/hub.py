"""The Hugging Face hub, asked once and shortly whether it answers: its own libraries would try for half a minute."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from rl_posttrain.errors import class_and_message

_PROBE_S = 5.0
_KEEP_S = 60.0  # how long an answer holds
_answers: dict[tuple[str, str], tuple[float, str | None]] = {}


@contextlib.contextmanager
def hub(name: str, kind: Literal["model", "dataset"] = "model") -> Iterator[str | None]:
    """Within, the hub's libraries load `name` from the hub, or, where it does not answer, from their cache alone.

    Args:
        name: on the hub. For a folder on this machine nothing is asked.

    Yields:
        Why the hub does not give it, in words; None if it may.
    """
    reason = None if Path(name).is_dir() else why_not_reached(name, kind)
    with _offline() if reason else contextlib.nullcontext():
        yield reason


def why_not_reached(name: str, kind: Literal["model", "dataset"]) -> str | None:
    """Why the hub does not give `name`, in words; None if it answers that it has it."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    asked, answer = _answers.get((kind, name), (float("-inf"), None))
    if time.monotonic() - asked < _KEEP_S:
        return answer
    reason = None
    try:
        getattr(huggingface_hub.HfApi(), f"{kind}_info")(name, timeout=_PROBE_S)
    except OfflineModeIsEnabled:
        return "HF_HUB_OFFLINE is set, and it was not loaded before"
    except HfHubHTTPError as error:
        what = "data set" if kind == "dataset" else kind
        reason = f"it has no such {what}, or does not show it: {class_and_message(error, limit=100)}"
    except Exception as error:  # of whichever HTTP library huggingface_hub uses
        reason = f"it cannot be reached: {type(error).__name__}"
    _answers[kind, name] = time.monotonic(), reason
    return reason


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Within, the hub's libraries look only into their cache."""
    import huggingface_hub

    places = [huggingface_hub.constants]
    if "datasets" in sys.modules:
        import datasets

        places.append(datasets.config)
    before = [module.HF_HUB_OFFLINE for module in places]
    try:
        for module in places:
            module.HF_HUB_OFFLINE = True
        yield
    finally:
        for module, value in zip(places, before, strict=True):
            module.HF_HUB_OFFLINE = value
