"""A step's advantages as several processes make them: a thread for each, and a gather that waits for all of them."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from rl_posttrain.training.algorithms.algorithm import Advantages, Algorithm, Scored

# Far longer than a gather of small tensors takes: it ends a test in which the processes do not gather equally often.
_TIMEOUT_S = 60


def advantages_on(num_processes: int, algorithm: Algorithm, whole: Scored) -> list[Advantages]:
    """What each process makes of its equal share of the step `whole`, first to last."""
    barrier = threading.Barrier(num_processes, timeout=_TIMEOUT_S)
    places: list[torch.Tensor | None] = [None] * num_processes

    def on_process(rank: int) -> Advantages:
        def gather(tensor: torch.Tensor) -> torch.Tensor:
            places[rank] = tensor
            barrier.wait()
            every = torch.cat(places)
            barrier.wait()
            return every

        size = len(whole.mask) // num_processes
        own = slice(rank * size, (rank + 1) * size)
        parts = {
            name: getattr(whole, name)[own]
            for name in ("mask", "kl_penalty", "values", "truncated", "completions")
            if getattr(whole, name) is not None
        }
        try:
            return algorithm.advantages(dataclasses.replace(whole, start=rank * size, gather=gather, **parts))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(num_processes) as pool:
        return list(pool.map(on_process, range(num_processes)))
