"""Importing this module puts another optimizer into every `Trainer` of transformers and TRL that this process makes.

    RL_POSTTRAIN_OPTIMIZER=adams RL_POSTTRAIN_OPTIMIZER_OPTIONS='{"betas": [0.9, 0.95]}' python train.py

where train.py has the line ``import rl_posttrain.optim.autoswap``. The options are arguments of `use_optimizer`, as
JSON. Without RL_POSTTRAIN_OPTIMIZER the import swaps nothing, and says so. `rl-posttrain optim run` does the same for
programs without that line.

When the process ends, it says which optimizer ran in which trainer, also in processes that it started. If none did, its
exit status is 2.
"""

import atexit
import functools
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from rl_posttrain.errors import EngineError, RecipeError, RlPosttrainError, one_line
from rl_posttrain.machine.process import is_main_process
from rl_posttrain.optim.swap import check_choice, check_of, log_line, running_optimizer, use_optimizer
from rl_posttrain.optim.swapped import (
    NAME,
    NOTES,
    OPTIONS,
    Note,
    none_ran,
    ran_anywhere,
    read_notes,
    save_refusal,
    tell,
)

_MISTAKE = 2


class AutoSwap:
    """The swap of a process: puts the optimizer into trainers as they are made, and notes what becomes of them.

    Args:
        name, options: as `use_optimizer` takes them.
    """

    def __init__(self, name: str, options: dict[str, Any]):
        self._name, self._options = name, options
        self.notes: list[Note] = []
        self._watches: WeakSet[_Watch] = WeakSet()
        self._others: dict[str, Note] = {}
        self._inside: torch.optim.Optimizer | None = None

    def install(self) -> None:
        """Be called by every trainer that is made, by every step of an optimizer, and by an error that nobody catches.

        The constructor is the one place that all trainers go through, also those with a loop or a `create_optimizer` of
        their own. torch's hooks on steps see what such a trainer really runs.
        """
        from transformers.trainer import Trainer

        make = Trainer.__init__

        @functools.wraps(make)
        def make_and_swap(trainer: Any, *args: Any, **kwargs: Any) -> None:
            make(trainer, *args, **kwargs)
            self.put_into(trainer)

        Trainer.__init__ = make_and_swap
        register_optimizer_step_pre_hook(self._before_step)
        register_optimizer_step_post_hook(self._after_step)
        uncaught = sys.excepthook

        def one_line_for_ours(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            if not (issubclass(kind, RlPosttrainError) and _is_of_the_swap(traceback)):
                uncaught(kind, error, traceback)
                return
            message = one_line(error, limit=1000)
            if not save_refusal(message):
                _print(message)

        sys.excepthook = one_line_for_ours

    def put_into(self, trainer: Any) -> None:
        """Swap the optimizer of a trainer that was made just now.

        Raises:
            RecipeError: as `use_optimizer` does; the program gave it an optimizer, for example.
        """
        use_optimizer(trainer, self._name, **self._options)
        check_of(trainer).kept_for = f"{NAME}={self._name} is set, by rl-posttrain optim run or the environment"
        watch = _Watch(trainer)
        self._watches.add(watch)
        self.notes.append(watch.note)
        trainer.add_callback(watch)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for watch in self._watches:
            if watch.check.built() is optimizer:
                self._inside = optimizer
                watch.called(optimizer)
                return
        if self._inside is not None:  # a part of ours
            return
        for watch in self._watches:
            if running_optimizer(watch.trainer.optimizer) is optimizer:
                raise EngineError(
                    f"optimizer={self._name}: {watch.note.trainer} trains with {_in_full(optimizer)}, which it made by "
                    "itself; let it call create_optimizer() of transformers' Trainer"
                )
        note = self._others.get(_in_full(optimizer))
        if note is None:
            note = self._others[_in_full(optimizer)] = Note("", _rank(), _in_full(optimizer))
            self.notes.append(note)
            log_line(
                f"{NAME}={self._name} does not reach {note.optimizer}, which makes steps outside of any trainer",
                logging.WARNING,
            )
        note.calls += 1
        note.save(now=note.calls == 1)

    def _after_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._inside is optimizer:
            self._inside = None

    def save_notes(self) -> None:
        for note in self.notes:
            note.save()


class _Watch:
    """A callback of transformers that counts the steps of a trainer; other events go by."""

    def __init__(self, trainer: Any):
        self.trainer, self.check = trainer, check_of(trainer)
        self.note = Note(type(trainer).__name__, trainer.args.process_index)
        self.note.save()

    def called(self, optimizer: torch.optim.Optimizer) -> None:
        self.note.optimizer, self.note.calls = _in_full(optimizer), self.note.calls + 1
        self.note.save(now=self.note.calls == 1)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.note.trainings += 1

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.note.steps += 1
        self.note.save(now=False)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        self.note.save()

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def _in_full(optimizer: torch.optim.Optimizer) -> str:
    return f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"


def _is_of_the_swap(traceback: TracebackType | None) -> bool:
    """Whether an error comes from an optimizer that was put in, and not from the program's own use of rl_posttrain."""
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith("rl_posttrain.optim."):
            return True
        traceback = traceback.tb_next
    return False


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _print(line: str) -> None:
    print(f"rl-posttrain: {line}", file=sys.stderr, flush=True)


def _read_environment() -> tuple[str, dict[str, Any]]:
    text = os.environ.get(OPTIONS) or "{}"
    try:
        options = json.loads(text)
    except ValueError as error:
        raise RecipeError(f'{OPTIONS}={text}: {error}; write JSON, such as {{"betas": [0.9, 0.95]}}') from None
    if not isinstance(options, dict):
        raise RecipeError(f'{OPTIONS}={text}: not a mapping; write one, such as {{"betas": [0.9, 0.95]}}')
    name = os.environ[NAME]
    check_choice(name, options, key=NAME)
    return name, options


def _tell_and_leave(name: str, folder: Path) -> None:
    """Tell what ran in this process and in those that it started, and set the exit status if nothing did."""
    notes, refusals = read_notes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    lines = tell(name, notes)
    # Python keeps here an exception that ended the program, and has shown it.
    failed = bool(refusals) or not (ran_anywhere(notes) or hasattr(sys, "last_value"))
    if failed:
        lines.append(refusals[0] if refusals else none_ran(name, notes))
    for line in lines if is_main_process() else ():
        _print(line)
    if failed:  # the process is ending: by now there is no other way to set its status
        logging.shutdown()
        sys.stdout.flush()
        os._exit(_MISTAKE)


def _start() -> None:
    if not os.environ.get(NAME):
        log_line(f"{NAME} is not set: no optimizer is swapped", logging.WARNING)
        return
    try:
        name, options = _read_environment()
    except RlPosttrainError as error:
        save_refusal(one_line(error, limit=1000))
        _print(one_line(error, limit=1000))
        sys.exit(_MISTAKE)
    swap = AutoSwap(name, options)
    swap.install()
    if not os.environ.get(NOTES):  # otherwise the process that has set it tells: `optim run`, or the one that began
        os.environ[NOTES] = tempfile.mkdtemp(prefix="rl-posttrain-")
        folder = Path(os.environ[NOTES])
        _at_exit(lambda: _tell_and_leave(name, folder))
    _at_exit(swap.save_notes)  # runs before the other


def _at_exit(function: Callable[[], None]) -> None:
    """Call it when this process ends, and not when a fork of it does."""
    process = os.getpid()
    atexit.register(lambda: function() if os.getpid() == process else None)


_start()
