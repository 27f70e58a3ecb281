"""What all processes of a run have to do alike."""

from collections.abc import Callable
from typing import TypeVar

from accelerate.utils import broadcast_object_list

from rl_posttrain.machine.process import is_main_process

_Answer = TypeVar("_Answer")


def of_main_process(find: Callable[[], _Answer]) -> _Answer:
    """What `find` gives on the main process, on every process; a collective. The others do not call `find`."""
    answers = [find() if is_main_process() else None]
    broadcast_object_list(answers)
    return answers[0]
