"""Completions that are drawn before their step begins, in a thread, while the trainer updates.

Step k trains on completions of the weights after max(0, k - 1 - n) steps, n being `rollout.max_staleness`: a fixed
schedule, and not whatever is ready, so that a run repeats itself and a resumed one goes on as the same run.

Who does what: the thread calls the engine's `generate` and nothing else. Weights are brought to the engine, and
whatever processes do together is done, by the main thread alone, when no draw is in flight.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from rl_posttrain.rollout.completion import Completion
from rl_posttrain.rollout.engine import RolloutEngine, Sampling

DRAWN_AHEAD_FILE = "drawn_ahead.json"  # in a checkpoint: what was drawn for the steps after it
_SAVED = ("prompt_ids", "token_ids", "finish_reason", "logprobs", "weights_step")


@dataclass(frozen=True)
class _Drawn:
    """A finished draw of this process: its completions, without rows and text, and the seconds that it took."""

    completions: list[Completion]
    seconds: float


class DrawsAhead:
    """The draws of this process for its next steps.

    Args:
        engine: has weights of its own, so that it may sample while the policy's change.
        sampling: of the steps.
        max_staleness: how many steps the sampler's weights may be older than the policy's; 1 or more.
        shares_cores: whether it samples in this process; on a CPU it then gets half of the threads.
    """

    def __init__(self, engine: RolloutEngine, sampling: Sampling, max_staleness: int, *, shares_cores: bool):
        self.max_staleness, self._sampling = max_staleness, sampling
        self._saved_sampling = json.loads(json.dumps(asdict(sampling)))  # as a checkpoint gives it back
        self._engine = engine
        self._draws: dict[int, Future[_Drawn]] = {}
        self._num_threads = torch.get_num_threads()
        # The thread first: libraries that know one number for all threads get the trainer's.
        own = self._num_threads // 2 if shares_cores and not torch.cuda.is_available() else 0
        self._thread = ThreadPoolExecutor(1, "sampler", torch.set_num_threads, (max(1, own),))
        self._thread.submit(torch.get_num_threads).result()
        torch.set_num_threads(max(1, self._num_threads - own))
        if shares_cores:
            self._compile()

    def _compile(self) -> None:
        """Let the engine compile what it compiles with its first completion, while nobody updates.

        torch sets a flag for the whole process while it compiles. DeepSpeed's hooks, for one, do nothing then, and
        ZeRO-3 fails in the next step.
        """
        self.generate([[0]], [0], replace(self._sampling, max_tokens=1, other={}))

    def generate(self, prompts: Sequence[list[int]], seeds: Sequence[int], sampling: Sampling) -> list[Completion]:
        """As the engine's, in the thread, after all draws that were begun before."""
        return self._thread.submit(self._engine.generate, prompts, seeds, sampling).result()

    def begin(self, step: int, weights_step: int, prompts: list[list[int]], seeds: list[int]) -> None:
        """Begin the draw of `step`; the engine has the weights after `weights_step` steps until it is done."""

        def draw() -> _Drawn:
            started = perf_counter()
            completions = self._engine.generate(prompts, seeds, self._sampling)
            for completion in completions:
                completion.weights_step = weights_step
            return _Drawn(completions, perf_counter() - started)

        self._draws[step] = self._thread.submit(draw)

    def missing(self, step: int, last_step: int) -> list[int]:
        """The steps from `step` on, no later than `last_step`, whose draws may begin when `step` does and have not."""
        return [
            ahead for ahead in range(step, min(step + self.max_staleness, last_step) + 1) if ahead not in self._draws
        ]

    def lacks(self, step: int) -> bool:
        """Whether nobody has begun the draw of `step`."""
        return step not in self._draws

    def take(self, step: int) -> tuple[list[Completion], float]:
        """The completions of `step`, once they are drawn, and the seconds that it took.

        They are kept until a later step is taken: this one may be dropped.

        Raises:
            EngineError: the engine failed.
        """
        for earlier in [number for number in self._draws if number < step]:
            del self._draws[earlier]
        drawn = self._draws[step].result()
        # Rewards, advantages and the rest are written into a completion; what is kept stays as the engine gave it.
        return [Completion(**_plain(completion)) for completion in drawn.completions], drawn.seconds

    def finish(self) -> None:
        """Wait until no draw is in flight."""
        for draw in self._draws.values():
            draw.result()

    def forget(self) -> None:
        """Drop all draws: their weights are not those of this run any more."""
        for draw in self._draws.values():
            draw.cancel()
        self._draws.clear()
        self._thread.submit(int).result()

    def save(self, folder: Path, steps_done: int, gather: Callable[[list], list], *, writes: bool) -> None:
        """Write the draws of the steps after `steps_done` into a checkpoint, once they are done.

        Every process calls it.

        Args:
            writes: whether this process writes; those of the others come to it.
        """
        saved = {}
        for step in range(steps_done + 1, steps_done + 1 + self.max_staleness):
            own = [self._draws[step].result()] if step in self._draws else []
            completions = gather([_plain(completion) for drawn in own for completion in drawn.completions])
            seconds = gather([drawn.seconds for drawn in own])
            if completions:
                saved[step] = {
                    "seconds": max(seconds), "sampling": self._saved_sampling, "completions": completions,
                }  # fmt: skip
        if writes:
            (folder / DRAWN_AHEAD_FILE).write_text(json.dumps(saved), encoding="utf-8")

    def load(
        self, folder: Path, prompts_of: Callable[[int], list[list[int]]], rank: int, gather: Callable[[list], list]
    ) -> None:
        """Take the draws of a checkpoint. Every process calls it, reads all of them, and takes its share.

        A resumed run may be allowed to have other rows, another sampling or a lower limit of staleness. A step's draw
        that does not fit is left aside, and made again.

        Args:
            prompts_of: token ids of the prompts of a step of this process.
        """
        path = folder / DRAWN_AHEAD_FILE
        for step, saved in (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}).items():
            prompts = prompts_of(int(step))
            own = saved["completions"][rank * len(prompts) : (rank + 1) * len(prompts)]
            fits = [fields["prompt_ids"] for fields in own] == prompts and saved["sampling"] == self._saved_sampling
            oldest = int(step) - 1 - self.max_staleness
            if all(gather([fits and all(fields["weights_step"] >= oldest for fields in own)])):
                self._draws[int(step)] = done = Future()
                done.set_result(_Drawn([Completion(**fields) for fields in own], saved["seconds"]))

    def close(self) -> None:
        """Wait for the thread's end, and give the trainer its threads back."""
        self._thread.shutdown(cancel_futures=True)
        torch.set_num_threads(self._num_threads)


def _plain(completion: Completion) -> dict[str, Any]:
    """What the engine gave, as plain data."""
    return {name: getattr(completion, name) for name in _SAVED}
