"""Isolated rewards: worker processes call the function on one completion at a time, with a time limit."""

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rl_posttrain.recipe.reward_spec import RewardSpec, resolve_reward
from rl_posttrain.recipe.schema import RewardSection
from rl_posttrain.rewards.workers import Outcome, WorkerPool, pool_for

# Objects of the trainer that cannot be sent to another process.
NOT_FOR_WORKERS = ("trainer_state", "log_extra", "log_metric")
_WORKER_MEMORY_BYTES = 4 * 2**30


def pool() -> WorkerPool:
    """This process's workers for isolated rewards. `pool().start()` starts them in the background."""
    return pool_for(f"{__name__}:score_row", memory_bytes=_WORKER_MEMORY_BYTES)


def call_isolated(spec: RewardSpec, rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Call a reward in worker processes.

    Args:
        spec: `timeout_s` is the limit for each completion. A worker that exceeds it is killed.
        rows: one per completion: the arguments by name (completion, prompt, columns).

    Returns:
        One outcome per row; its value is the reward.
    """
    named = json.dumps({"fn": spec.fn, "args": spec.args})
    return pool().run([(named, spec.key, dict(row)) for row in rows], timeout_s=spec.timeout_s)


def score_row(named: str, key: str, row: dict[str, Any]) -> Any:
    """The reward of one row. Runs in the worker; returns what JSON can hold."""
    spec = _resolved(named, key)
    values = spec.function(**{name: [value] for name, value in row.items()}, **spec.arguments)
    if not isinstance(values, Sequence) or len(values) != 1:
        raise TypeError(f"returned {values!r} for 1 completion; return a list with one number")
    return None if values[0] is None else float(values[0])


@functools.lru_cache(maxsize=64)
def _resolved(named: str, key: str) -> RewardSpec:
    return resolve_reward(RewardSection(**json.loads(named)), key)
