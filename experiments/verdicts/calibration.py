"""How often verdicts over seeds are wrong, and how often they find a true difference, on runs with known truth.

    python experiments/verdicts/calibration.py [--comparisons 2000] [--num-seeds 5] [--margin 0.05] [--seed 0]

Every comparison is between two made-up optimizers and is judged as `rl-posttrain report` judges runs. A reward curve
rises to a plateau. Every step has noise, every run has an offset, and every seed has an offset that both optimizers
share, because they share questions and first weights. The first table has three cases. Without a true difference,
"better" and "worse" are false claims (allowed: 5 %). With a difference equal to the margin, "equivalent" is a false
claim (allowed: 5 %). A difference of twice the margin should be found. The second table shows how often differences are
found when the spread between runs grows.
"""

import argparse
import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np

from rl_posttrain.study.foreign import ForeignRun
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.judging import judge
from rl_posttrain.study.outcomes import FINISHED

WORDS = ("better", "worse", "equivalent", "undecided")
RUN_SPREADS = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08)


@dataclasses.dataclass(frozen=True)
class Setting:
    """The made-up runs. Noise and spreads are standard deviations: of a step, of a run's plateau, and of a seed's."""

    num_seeds: int = 5
    num_steps: int = 100
    margin: float = 0.05
    step_noise: float = 0.05
    run_spread: float = 0.02
    seed_spread: float = 0.03
    start: float = 0.1
    plateau: float = 0.6
    ramp_steps: int = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=2000)
    parser.add_argument("--num-seeds", type=int, default=Setting.num_seeds)
    parser.add_argument("--margin", type=float, default=Setting.margin)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    setting = Setting(num_seeds=arguments.num_seeds, margin=arguments.margin)
    margin = setting.margin
    print(f"{arguments.comparisons} comparisons each; {setting}")
    print(f"\n{'true difference':26s}" + "".join(f"{word:>12s}" for word in WORDS))
    for name, difference in (("none", 0.0), ("the margin", margin), ("twice the margin", 2 * margin)):
        counts = simulate(arguments.comparisons, difference, arguments.seed, setting)
        print(f"{name:26s}" + "".join(f"{counts[word] / arguments.comparisons:12.1%}" for word in WORDS), flush=True)
    print(f"\n{'spread between runs':26s}{'none:':>12s}{'':12s}{'the margin:':>12s}{'twice:':>12s}")
    print(f"{'(standard deviation)':26s}{'equivalent':>12s}{'claims':>12s}{'better':>12s}{'better':>12s}")
    for spread in RUN_SPREADS:
        noisy = dataclasses.replace(setting, run_spread=spread)
        equal, margin_apart, twice = (
            simulate(arguments.comparisons, difference, arguments.seed, noisy) for difference in (0, margin, 2 * margin)
        )
        counts = (equal["equivalent"], equal["better"] + equal["worse"], margin_apart["better"], twice["better"])
        print(f"{spread:<26g}" + "".join(f"{count / arguments.comparisons:12.1%}" for count in counts), flush=True)


def simulate(num_comparisons: int, difference: float, seed: int, setting: Setting | None = None) -> Counter[str]:
    """How often each verdict is given where the one optimizer's plateau truly is `difference` above the other's."""
    setting = setting or Setting()
    generator = np.random.default_rng(seed)
    return Counter(
        judge(make_runs(generator, difference, setting), margin=setting.margin).comparisons[0].word
        for _ in range(num_comparisons)
    )


def make_runs(generator: np.random.Generator, difference: float, setting: Setting) -> Collection:
    """Finished runs of both optimizers at each seed, with a reward for every step."""
    shared = generator.normal(0.0, setting.seed_spread, setting.num_seeds)
    steps = np.arange(1.0, setting.num_steps + 1)
    ramp = np.minimum(1.0, steps / setting.ramp_steps)
    runs = []
    for variant, lead in (("adamw", 0.0), ("adams", difference)):
        for number in range(setting.num_seeds):
            plateau = setting.plateau + lead + shared[number] + generator.normal(0.0, setting.run_spread)
            rewards = setting.start + (plateau - setting.start) * ramp
            rewards = np.clip(rewards + generator.normal(0.0, setting.step_noise, len(steps)), 0.0, 1.0)
            name = f"{variant}-seed{number}"
            runs.append(
                History(
                    name=name,
                    path=Path(name),
                    variant=variant,
                    seed=number,
                    columns={"step": steps, "reward": rewards},
                    recipe={"rewards": [{"fn": "math_accuracy", "range": [0.0, 1.0]}]},
                    environment={"initial_weights_sha256": f"of seed {number}"},
                    outcome=FINISHED,
                    num_planned=setting.num_steps,
                    source=ForeignRun(Path(f"{name}.csv")),
                    prompts=(f"of seed {number}",) * setting.num_steps,
                )
            )
    return Collection(runs, left_out=[])


if __name__ == "__main__":
    main()
