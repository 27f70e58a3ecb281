"""Requests to servers run in a thread of their own, so that any thread of the trainer may wait for them."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.server_client import ServerError, open_session

_Result = TypeVar("_Result")


class Loop:
    """An event loop in a thread of its own, where all requests run."""

    def __init__(self):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="servers", daemon=True)
        self._thread.start()
        self.is_open = True
        self.http = self.run(self._open_session())

    @staticmethod
    async def _open_session() -> Any:
        return open_session()

    def run(self, coroutine: Coroutine[Any, Any, _Result]) -> _Result:
        """What a coroutine gives. A signal that ends the waiting ends the coroutine, too."""
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, coroutine: Coroutine[Any, Any, _Result]) -> "Future[_Result]":
        """Run a coroutine; what it will give."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def repeat(self, act: Callable[[], Coroutine[Any, Any, None]], every_s: float) -> None:
        """Do something again and again, until the loop is closed."""

        async def repeating() -> None:
            while True:
                await asyncio.sleep(every_s)
                await act()

        self.start(repeating())

    def close(self) -> None:
        """End what runs, and the thread."""
        if not self.is_open:
            return
        self.is_open = False
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.http.close()


def in_thread(act: Callable[[], _Result]) -> "asyncio.Future[_Result]":
    """What a function gives that may hang: its thread keeps no process from ending."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()

    def settle(result: Any, error: Exception | None) -> None:
        if future.done():  # nobody waits any more
            return
        future.set_exception(error) if error else future.set_result(result)

    def run() -> None:
        result, error = None, None
        try:
            result = act()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="may hang", daemon=True).start()
    return future


async def together(
    wanted: Sequence[Coroutine[Any, Any, Completion]], timeout_s: float, *, one_by_one: bool = False
) -> list[Completion]:
    """The completions, of which one must come every `timeout_s`.

    Args:
        one_by_one: whether each is asked for once the one before has come.

    Raises:
        ServerError: none came for so long, or one failed; the others are given up.
    """
    turn = asyncio.Semaphore(1 if one_by_one else max(1, len(wanted)))

    async def in_turn(coroutine: Coroutine[Any, Any, Completion]) -> Completion:
        async with turn:
            return await coroutine

    tasks = [asyncio.create_task(in_turn(coroutine)) for coroutine in wanted]
    waiting = set(tasks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise ServerError(f"it gave no completion for {timeout_s:g} s (rollout.server_timeout_s)")
            for task in done:
                task.result()
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for coroutine in wanted:
            coroutine.close()  # whose turn did not come
