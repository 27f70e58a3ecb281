"""Isolated rewards: worker processes call the function on one completion at a time, with a time limit.

Each has a fork server of its own (rewards/serving.py), which has imported the reward's file: that counts in no call's
limit, and a worker that is ended is replaced at once, without importing again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl_posttrain.errors import RewardError
from rl_posttrain.recipe.reward_spec import RewardSpec, resolve_reward
from rl_posttrain.recipe.schema import RewardSection
from rl_posttrain.rewards.workers import Outcome, WorkerPool, pool_for
from rl_posttrain.scoring.calling import Failed, call_all
from rl_posttrain.scoring.returned import NotNumbers, numbers_of
from rl_posttrain.users_code import contained, what_it_did

# Objects of the trainer that cannot be sent to another process.
NOT_FOR_WORKERS = ("trainer_state", "log_extra", "log_metric")
_WORKER_MEMORY_BYTES = 4 * 2**30


def pool(spec: RewardSpec) -> WorkerPool:
    """This process's workers for an isolated reward. `pool(spec).start()` starts them in the background."""
    return pool_for(
        f"{__name__}:scorer",
        made_with=json.dumps({"fn": spec.fn, "args": spec.args, "key": spec.key}),
        memory_bytes=_WORKER_MEMORY_BYTES,
        start_limit_s=spec.import_timeout_s,
    )


def call_isolated(spec: RewardSpec, rows: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """Call a reward in worker processes.

    Args:
        spec: `timeout_s` is the limit for each completion. A worker that exceeds it is killed. `import_timeout_s` is
            the limit for importing its file, once.
        rows: one per completion: the arguments by name (completion, prompt, columns).

    Returns:
        One outcome per row. Its value is the reward, or what the function did in place of giving one.

    Raises:
        RewardError: its file cannot be imported there, or takes too long; or it returned what is not allowed.
    """
    where = f"{spec.key}.fn={spec.name}"
    try:
        outcomes = pool(spec).run([(dict(row),) for row in rows], timeout_s=spec.timeout_s)
    except RewardError as error:
        raise RewardError(
            f"{where}: its worker processes did not start ({error}); import less at the top of its file, or set "
            f"{spec.key}.import_timeout_s"
        ) from error
    found = []
    for place, outcome in enumerate(outcomes):
        if outcome.status == "done":
            kind, value = outcome.value
            if kind == "not allowed":
                raise RewardError(f"{where}: on row {place} of {len(rows)} alone it {value}")
            outcome = Outcome("done" if kind == "reward" else "failed", value)
        elif outcome.status == "failed":
            outcome = Outcome("failed", f"raised {outcome.value}")
        found.append(outcome)
    return found


def scorer(made_with: str) -> Callable[[dict[str, Any]], tuple[str, Any]]:
    """The function that a worker calls on each row. Runs in the fork server, and imports the reward's file.

    It returns ``("reward", the reward)``, ``("not allowed", what it returned)`` or ``("failed", what it did)``.
    """
    named = json.loads(made_with)
    spec = resolve_reward(RewardSection(fn=named["fn"], args=named["args"]), named["key"])

    def score_row(row: dict[str, Any]) -> tuple[str, Any]:
        (got,) = call_all([(spec.function, {name: [value] for name, value in row.items()} | dict(spec.arguments))])
        if isinstance(got, Failed):
            return "failed", what_it_did(got.error)
        try:
            with contained():
                return "reward", numbers_of(got, 1)[0]
        except NotNumbers as error:
            return "not allowed", str(error)
        except Exception as error:
            return "failed", what_it_did(error)

    return score_row
