"""Runs as `read_runs` makes them, without files."""

from pathlib import Path

import numpy as np

from rl_posttrain.study.foreign.run import ForeignRun
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.outcomes import FINISHED, Outcome

ONE_REWARD = {"rewards": [{"fn": "math_accuracy", "weight": 1.0, "range": [0.0, 1.0]}]}
FAILED, RUNNING = Outcome("failed", "cut short"), Outcome("running", "4 of 10 steps")


def history(
    rewards,
    *,
    name="run",
    variant="adams",
    seed=0,
    recipe=None,
    outcome=FINISHED,
    num_planned=None,
    steps=None,
    **columns,
):
    """A run; NaN where a step recorded nothing. It was to make the steps that it made, where nothing else is said."""
    steps = np.arange(1.0, len(rewards) + 1) if steps is None else steps
    columns = {"step": steps, "reward": rewards} | {key.replace("__", "/"): value for key, value in columns.items()}
    recipe = recipe or {}
    return History(
        name=name,
        path=Path(name),
        variant=variant,
        seed=seed,
        columns={key: np.asarray(column, dtype=float) for key, column in columns.items()},
        recipe=recipe,
        environment={"initial_weights_sha256": f"of seed {seed}"},
        outcome=outcome,
        num_planned=num_planned or recipe.get("algorithm", {}).get("num_steps") or int(steps[-1]),
        source=ForeignRun(Path(f"{name}.csv")),
        prompts=tuple(f"{seed}-{step}" for step in range(len(rewards))),
    )


def study(levels, **options):
    """A run of 10 steps at one level for each variant and seed; `levels`: variant to the seeds' levels."""
    runs = [
        history([level] * 10, name=f"{variant}-{seed}", variant=variant, seed=seed, **options)
        for variant, found in levels.items()
        for seed, level in enumerate(found)
    ]
    return Collection(runs, left_out=[])
