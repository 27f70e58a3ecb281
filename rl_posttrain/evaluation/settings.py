"""Whatever decides an evaluation's samples, as plain data: samples of other settings are never mixed with these."""

from collections.abc import Sequence
from typing import Any

from rl_posttrain.recipe.resolve import TaskSpec
from rl_posttrain.recipe.schema import RewardSection
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.tasks.prepare import rows_digest
from rl_posttrain.tasks.rows import TaskRows


def settings_of(
    *,
    model: str,
    dtype: str,
    engine: str,
    task: TaskSpec,
    rows: TaskRows,
    rewards: Sequence[RewardSection],
    sampling: Sampling,
    seed: int,
) -> dict[str, Any]:
    """The head of settings.json and results.json.

    Args:
        model: its name, as results show it.
        rows: the task's; the digest of those to evaluate on tells data of the same name apart.
    """
    return {
        "model": model,
        "dtype": dtype,
        "engine": engine,
        "task": {
            "name": task.name,
            "version": task.version,
            "rows_sha256": rows_digest(rows.eval),
            "template": rows.template,
        },
        "rewards": [
            reward.model_dump(mode="json", exclude={"on_error", "isolated", "timeout_s"}) for reward in rewards
        ],
        "sampling": {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "max_new_tokens": sampling.max_tokens,
            **sampling.other,
        },
        "seed": seed,
    }
