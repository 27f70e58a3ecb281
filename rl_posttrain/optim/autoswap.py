"""Importing this module puts another optimizer into every `Trainer` of transformers and TRL that this process makes.

    RL_POSTTRAIN_OPTIMIZER=adams RL_POSTTRAIN_OPTIMIZER_OPTIONS='{"betas": [0.9, 0.95]}' python train.py

where train.py has the line ``import rl_posttrain.optim.autoswap``. The options are arguments of `use_optimizer`, as
JSON. Without RL_POSTTRAIN_OPTIMIZER the import swaps nothing, and says so. `rl-posttrain optim run` does the same for
programs without that line.

When the process ends, it says which optimizer ran in which trainer, also in processes that it started. If none did, or
a trainer was refused, its exit status is 2.
"""

import atexit
import functools
import json
import logging
import multiprocessing.util
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakSet

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from rl_posttrain.errors import EngineError, RecipeError, RlPosttrainError, one_line
from rl_posttrain.machine.process import is_main_process
from rl_posttrain.optim.swap import TrainerEvents, check_of, resolve_choice, running_optimizer, use_optimizer
from rl_posttrain.optim.swapped import (
    NAME,
    OPTIONS,
    Note,
    judge,
    log_line,
    own_folder,
    read_notes,
    save_refusal,
    say,
    tell,
)

_MISTAKE = 2
_LONGEST_END_S = 10.0


class AutoSwap:
    """The swap of a process: puts the optimizer into trainers as they are made, and notes what becomes of them.

    Args:
        name, options: as `use_optimizer` takes them.
    """

    def __init__(self, name: str, options: dict[str, Any]):
        self._name, self._options = name, options
        self.notes: list[Note] = []
        self.unsaved_refusals: list[str] = []
        self.exits_by: object = None  # of sys.exit
        self._told: WeakSet[BaseException] = WeakSet()
        self._watches: WeakSet[_Watch] = WeakSet()
        self._others: dict[str, Note] = {}

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
        uncaught = sys.excepthook

        def one_line_for_ours(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
            if not (issubclass(kind, RlPosttrainError) and _is_of_the_swap(traceback)):
                uncaught(kind, error, traceback)
                return
            self._refuse(error)

        sys.excepthook = one_line_for_ours

    def note_exit(self) -> None:
        """Note what sys.exit is called with: Python tells no one, and it is to stay the exit status."""
        leave = sys.exit

        @functools.wraps(leave)
        def note_and_leave(status: object = None, /) -> None:
            if threading.current_thread() is threading.main_thread():
                self.exits_by = status
            leave(status)

        sys.exit = note_and_leave

    def put_into(self, trainer: Any) -> None:
        """Swap the optimizer of a trainer that was made just now.

        Raises:
            RecipeError: as `use_optimizer` does; the program gave it an optimizer, for example.
        """
        try:
            use_optimizer(trainer, self._name, **self._options)
        except RlPosttrainError as error:
            note = Note(type(trainer).__name__, trainer.args.process_index)
            self.notes.append(note)
            self._refuse(error, note)
            raise
        check_of(trainer).kept_for = f"{NAME}={self._name} is set, by rl-posttrain optim run or the environment"
        watch = _Watch(trainer)
        watch.check.tell = lambda error: self._refuse(error, watch.note)
        self._watches.add(watch)
        self.notes.append(watch.note)
        trainer.add_callback(watch)

    def _refuse(self, error: RlPosttrainError, note: Note | None = None) -> None:
        """Keep a refusal for the end, once: the program may catch the error, or show it in a way of its own."""
        if error in self._told:
            return
        self._told.add(error)
        message = one_line(error, limit=1000)
        if not save_refusal(message):
            self.unsaved_refusals.append(message)
            say(message)
        if note is not None:
            note.refused = True
            note.save()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for watch in self._watches:
            if watch.check.built() is optimizer:
                watch.called(optimizer)
                return
        if _is_part_of_a_step([watch.check.built() for watch in self._watches]):
            return
        for watch in self._watches:
            if running_optimizer(watch.trainer.optimizer) is optimizer:
                error = EngineError(
                    f"optimizer={self._name}: {watch.note.trainer} trains with {_in_full(optimizer)}, which it made by "
                    "itself; let it call create_optimizer() of transformers' Trainer"
                )
                self._refuse(error, watch.note)
                raise error
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

    def save_notes(self) -> None:
        for note in self.notes:
            note.save()


class _Watch(TrainerEvents):
    """Counts the steps of a trainer."""

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


def _is_part_of_a_step(optimizers: list[torch.optim.Optimizer | None]) -> bool:
    """Whether one of `optimizers` is making a step now: by the stack, no hook tells when an error ends one."""
    frame = sys._getframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if caller is not None and any(caller is optimizer for optimizer in optimizers):
            return True
        frame = frame.f_back
    return False


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


def _read_environment() -> tuple[str, dict[str, Any]]:
    text = os.environ.get(OPTIONS) or "{}"
    try:
        options = json.loads(text)
    except ValueError as error:
        raise RecipeError(f'{OPTIONS}={text}: {error}; write JSON, such as {{"betas": [0.9, 0.95]}}') from None
    if not isinstance(options, dict):
        raise RecipeError(f'{OPTIONS}={text}: not a mapping; write one, such as {{"betas": [0.9, 0.95]}}')
    name = os.environ[NAME]
    resolve_choice(name, options, key=NAME)
    return name, options


def _tell_and_leave(name: str, swap: AutoSwap, folder: Path) -> None:
    """Tell what ran in this process and in those that it started, and set the exit status if that is not as asked."""
    # Python calls this at the end anyway. Children that nobody joined train on until then, and have their notes, too.
    multiprocessing.util._exit_function()
    notes, refusals = read_notes(folder)
    notes += [note for note in swap.notes if not note.is_saved]
    refusals += swap.unsaved_refusals
    shutil.rmtree(folder, ignore_errors=True)
    # Python keeps here an exception that ended the program, and has shown it.
    error = judge(name, notes, refusals, ended_well=not hasattr(sys, "last_value"))
    for line in [*tell(name, notes), *filter(None, [error])] if is_main_process() else ():
        say(line)
    # sys.exit(3) and sys.exit("message") stay what they are, unless a trainer was refused.
    failed_by_itself = not (swap.exits_by is None or swap.exits_by == 0)
    if error and (refusals or not failed_by_itself):  # it is ending: by now nothing else sets its status
        logging.shutdown()
        sys.stdout.flush()
        if refusals:
            os._exit(_MISTAKE)
        _end_as_the_program_or_with(_MISTAKE)


def _end_as_the_program_or_with(status: int) -> None:
    """End the process with the program's own exit status, or with `status` where that is 0 or cannot be learned.

    Python tells nobody what `raise SystemExit(3)` ends it with. So a fork returns from here and ends as the program
    would, and this process looks at how.
    """
    try:
        child = os.fork()
    except (OSError, RuntimeError):  # Python 3.12 makes no fork while it ends
        os._exit(status)
    if not child:
        return
    deadline = time.monotonic() + _LONGEST_END_S
    ended, how = os.waitpid(child, os.WNOHANG)
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
        ended, how = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    own = os.waitstatus_to_exitcode(how) if ended else 0
    os._exit(own if own > 0 else status)


def _start() -> None:
    if not os.environ.get(NAME):
        log_line(f"{NAME} is not set: no optimizer is swapped", logging.WARNING)
        return
    try:
        name, options = _read_environment()
    except RlPosttrainError as error:
        save_refusal(one_line(error, limit=1000))
        say(one_line(error, limit=1000))
        sys.exit(_MISTAKE)
    swap = AutoSwap(name, options)
    swap.install()
    folder = own_folder()
    if folder is not None:  # otherwise another process tells: `optim run`, or the one that began
        swap.note_exit()
        _at_exit(lambda: _tell_and_leave(name, swap, folder))
    _at_exit(swap.save_notes)  # runs before the other


def _at_exit(function: Callable[[], None]) -> None:
    """Call it when this process ends, and not when a fork of it does."""
    process = os.getpid()
    atexit.register(lambda: function() if os.getpid() == process else None)


_start()
