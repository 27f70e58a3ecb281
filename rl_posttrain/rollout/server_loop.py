"""Requests to servers run in a thread of their own, so that any thread of the trainer may wait for them."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
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
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def repeat(self, act: Callable[[], Coroutine[Any, Any, None]], every_s: float) -> None:
        """Do something again and again, until the loop is closed."""

        async def repeating() -> None:
            while True:
                await asyncio.sleep(every_s)
                await act()

        asyncio.run_coroutine_threadsafe(repeating(), self._loop)

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


async def together(wanted: Sequence[Coroutine[Any, Any, Completion]], timeout_s: float) -> list[Completion]:
    """The completions, of which one must come every `timeout_s`.

    Raises:
        ServerError: none came for so long, or one failed; the others are given up.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in wanted]
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
