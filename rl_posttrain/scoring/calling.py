"""Calling reward functions in this process: contained, with copies of the columns; coroutines together in one loop."""

import asyncio
import copy
import hashlib
import inspect
import os
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rl_posttrain.users_code import contained

# Types of which a list is copied as a whole.
_UNCHANGEABLE = {int, float, str, bool, type(None), bytes}


class Failed(NamedTuple):
    """A call that raised."""

    error: Exception


def call_all(calls: Sequence[tuple[Callable, Mapping[str, Any]]]) -> list[Any]:
    """What each call returned, or how it failed; in the order of the calls.

    A function can change neither the columns nor what the run draws by chance. What it draws itself follows from its
    completions. Where functions are async, what they return is awaited together, as TRL does, in one event loop that
    lives as long as this process: clients of servers belong to a loop.

    Args:
        calls: function and keyword arguments each. Of `completions` every call gets its own.
    """
    results = [_call(function, named) for function, named in calls]
    waiting = [place for place, result in enumerate(results) if inspect.isawaitable(result)]
    if waiting:
        seed = seed_of([named["completions"] for _, named in calls])
        for place, result in zip(waiting, _await_all([results[place] for place in waiting], seed), strict=True):
            results[place] = result
    return results


def _call(function: Callable, named: Mapping[str, Any]) -> Any:
    try:
        with contained(seed_of(named["completions"])):
            returned = function(**{name: _own(name, value) for name, value in named.items()})
            # A generator runs when it is read, so that it is read here.
            return _read(returned, len(named["completions"])) if isinstance(returned, Iterator) else returned
    except Exception as error:
        return Failed(error)


def _read(returned: Iterator, num_completions: int) -> list[Any]:
    """At most one value more than there are completions: a generator may have no end."""
    return [value for _, value in zip(range(num_completions + 1), returned, strict=False)]


def seed_of(completions: Any) -> int:
    """A seed that follows from completions alone, so that a resumed run repeats what its rewards draw."""
    digest = hashlib.blake2b(repr(completions).encode("utf-8", "backslashreplace"), digest_size=7)
    return int.from_bytes(digest.digest(), "big")


def _own(name: str, value: Any) -> Any:
    """An argument as the function gets it: it may change it in place."""
    # The trainer's state can be set, and its history grows with the run, so that it is not copied.
    return copy.copy(value) if name == "trainer_state" else _copied(value)


def _copied(value: Any) -> Any:
    """A copy down to what cannot be changed; what cannot be copied, as it is."""
    if type(value) is list:
        return value.copy() if set(map(type, value)) <= _UNCHANGEABLE else [_copied(item) for item in value]
    if type(value) in _UNCHANGEABLE or callable(value):
        return value
    try:
        return copy.deepcopy(value)
    except Exception:  # a user's class may raise anything when it is copied
        return value


_lock, _loop = threading.Lock(), None


def _await_all(waiting: Sequence[Awaitable], seed: int) -> list[Any]:
    """What awaitables gave, or how each failed; all at once, in the loop of this process."""

    async def one(awaitable: Awaitable) -> Any:
        try:
            return await awaitable
        except BaseException as error:  # SystemExit, too: it would end the loop's thread
            return _Raised(error)

    async def together() -> list[Any]:
        return await asyncio.gather(*map(one, waiting))

    with contained(seed):
        results = asyncio.run_coroutine_threadsafe(together(), _running_loop()).result()
    return [_failed(result.error) if isinstance(result, _Raised) else result for result in results]


class _Raised(NamedTuple):
    error: BaseException


def _failed(error: BaseException) -> Failed:
    try:
        with contained():  # which says what would end the process
            raise error
    except Exception as said:
        return Failed(said)


def _running_loop() -> asyncio.AbstractEventLoop:
    """The loop, in a thread of its own: the main thread may have one already, as in a notebook."""
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_run, args=(_loop,), name="rewards", daemon=True).start()
        return _loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except BaseException:  # of a task that a reward made: whoever waits for the task gets it, too
            continue


def _leave_to_parent() -> None:
    global _lock, _loop
    _lock, _loop = threading.Lock(), None  # a fork has no thread that runs it


os.register_at_fork(after_in_child=_leave_to_parent)
