"""Run directories that were written and not trained, by the project's own RunDirectory."""

import math

import numpy as np

from rl_posttrain.runs.columns import columns_of
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.series import summarize
from rl_posttrain.study.plan import PlannedRun


def finish(planned: PlannedRun, reward: float, noise: float = 0.001) -> None:
    """A finished run at a planned place, whose reward rises to `reward`; NaN: it diverges in its second half.

    Runs of one seed record the same prompts and first weights, so that they are pairs.
    """
    diverges, level = math.isnan(reward), 0.5 if math.isnan(reward) else reward
    generator = np.random.default_rng([planned.seed, int(1e9 * abs(level))])
    run = RunDirectory.create(planned.path, recipe_yaml=planned.recipe.to_yaml())
    run.write_environment({"initial_weights_sha256": f"weights{planned.seed}"})
    rows = []
    for step in range(1, planned.num_steps + 1):
        value = level * min(1.0, 2 * step / planned.num_steps) + float(generator.normal(0, noise))
        row = {
            "step": step,
            "reward": math.nan if diverges and 2 * step > planned.num_steps else value,
            "seconds": 2.0 * step,
            "prompts_sha256": f"seed{planned.seed} step{step}",
        }
        rows.append(row)
        run.append_metrics(row)
    run.write_summary(summarize(columns_of(rows)))
