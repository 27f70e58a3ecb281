"""How often 95 % intervals hold what is true, at few seeds: over tasks, along curves, and for the time to a threshold.

    python experiments/verdicts/intervals.py [--studies 1000] [--seed 0]

Tasks: scores of two variants without a true difference. How often does a stratified bootstrap of the difference of
interquartile means (or of means) exclude 0, and how often does the t test over tasks, on which verdicts stand, find a
difference? Scores are normal, with a spread for each task; once all runs are independent, and once a variant's runs
of one seed have a shift on every task. Curves: a noisy curve over 100 steps, with an offset for each run. How often
is the true mean inside of the pointwise band, at one step and at all steps? And how often are all true differences of
tenths of the run inside of their intervals? Time to a threshold: lognormal times, followed to a fixed length, so that
some runs never get there. How often do the intervals of the median and of the restricted mean hold the true ones?
"""

import argparse
import math
from pathlib import Path

import numpy as np
from scipy import stats

from rl_posttrain.study.along import differences_along
from rl_posttrain.study.bands import band
from rl_posttrain.study.equivalence import estimate
from rl_posttrain.study.foreign.run import ForeignRun
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.measures import common_ruler, trailing_mean
from rl_posttrain.study.outcomes import FINISHED
from rl_posttrain.study.robust import stratified
from rl_posttrain.study.survival import Followed, time_to

NUM_SEEDS = (3, 5, 10)
NUM_TASKS = (1, 4)
NUM_DRAWS = 1000
SMOOTHING = 5
TRUE_MEDIAN, SPREAD, END = 50.0, 0.5, 80.0  # of lognormal times, and the planned length


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    number, seed = arguments.studies, arguments.seed
    print(f"{number} studies a line\n\nfalse differences over tasks, at a level of 5 %")
    print(f"{'tasks':>6s}{'seeds':>6s}{'IQM':>10s}{'mean':>10s}{'t test':>10s}{'t, shared shift':>17s}")
    for num_tasks in NUM_TASKS:
        for num_seeds in NUM_SEEDS:
            found = false_differences(number, num_tasks, num_seeds, seed)
            print(f"{num_tasks:6d}{num_seeds:6d}" + row(found, 10, 10, 10, 17), flush=True)
    print(f"\nthe true curve is inside\n{'seeds':>6s}{'band, a step':>14s}{'band, all':>12s}{'ten tenths':>12s}")
    for num_seeds in NUM_SEEDS:
        found = curves_inside(number, num_seeds, seed)
        print(f"{num_seeds:6d}" + row(found, 14, 12, 12), flush=True)
    print(f"\nthe true time is inside\n{'seeds':>6s}{'median':>10s}{'mean':>10s}{'median bounded':>16s}")
    for num_seeds in NUM_SEEDS:
        found = times_inside(number, num_seeds, seed)
        print(f"{num_seeds:6d}" + row(found, 10, 10, 16), flush=True)


def row(shares: tuple[float, ...], *widths: int) -> str:
    return "".join(f"{share:{width}.1%}" for share, width in zip(shares, widths, strict=True))


def false_differences(num_studies: int, num_tasks: int, num_seeds: int, seed: int) -> tuple[float, float, float, float]:
    """Shares of studies without a true difference in which each method finds one."""
    generator = np.random.default_rng([seed, num_tasks, num_seeds])
    found = np.zeros(4)
    for _ in range(num_studies):
        spreads = generator.uniform(0.02, 0.1, num_tasks)
        mine, theirs = (generator.normal(0.5, spreads, (num_seeds, num_tasks)).T for _ in range(2))
        found[:2] += _bootstrap_claims(mine, theirs, generator)
        found[2] += _over_tasks(mine, theirs) < 0.05
        shifts = generator.normal(0.0, 0.05, (2, num_seeds))
        found[3] += _over_tasks(mine + shifts[0], theirs + shifts[1]) < 0.05
    return tuple(found / num_studies)


def _bootstrap_claims(mine: np.ndarray, theirs: np.ndarray, generator: np.random.Generator) -> list[bool]:
    """Whether the interval of the difference of interquartile means, and of means, excludes 0; (K, S) each."""
    drawn = []
    for scores in (mine, theirs):
        places = generator.integers(scores.shape[1], size=(NUM_DRAWS, *scores.shape))
        values = np.take_along_axis(scores[None], places, axis=2).reshape(NUM_DRAWS, -1)
        drawn.append((stats.trim_mean(values, 0.25, axis=1), values.mean(axis=1)))
    ends = [np.quantile(one - other, [0.025, 0.975]) for one, other in zip(*drawn, strict=True)]
    return [bool(low > 0 or high < 0) for low, high in ends]


def _over_tasks(mine: np.ndarray, theirs: np.ndarray) -> float:
    """P value of the t test that verdicts over tasks stand on, unpaired; (K, S) each."""
    parts = [
        estimate("a", [(None, score) for score in one], "b", [(None, score) for score in other], None)
        for one, other in zip(mine, theirs, strict=True)
    ]
    return stratified(parts).p_different


def curves_inside(num_studies: int, num_seeds: int, seed: int) -> tuple[float, float, float]:
    """Shares of steps, and of studies, at which the pointwise band holds the true mean; and of studies, all tenths."""
    generator = np.random.default_rng([seed, num_seeds])
    steps = np.arange(1.0, 101)
    truth = 0.1 + 0.5 * np.minimum(1.0, steps / 40)
    leads = np.linspace(0.0, 0.1, 100)
    at_a_step = everywhere = in_tenths = 0.0
    for _ in range(num_studies):
        curves = {
            variant: mean + generator.normal(0.0, 0.03, (num_seeds, 1)) + generator.normal(0.0, 0.05, (num_seeds, 100))
            for variant, mean in (("adamw", truth), ("adams", truth + leads))
        }
        _, mean, half = band([(steps, trailing_mean(one, SMOOTHING)) for one in curves["adamw"]])
        inside = np.abs(mean - trailing_mean(truth, SMOOTHING)) <= half
        at_a_step += inside.mean()
        everywhere += inside.all()
        collection = Collection(
            [_run(variant, number, one) for variant, found in curves.items() for number, one in enumerate(found)], []
        )
        pairs = {"adams": range(num_seeds)}
        found = differences_along(collection, "adamw", pairs, 0.0, common_ruler(collection.runs))["adams"]
        true = leads.reshape(10, 10).mean(axis=1)
        in_tenths += bool(((np.array(found.low) <= true) & (true <= np.array(found.high))).all())
    return at_a_step / num_studies, everywhere / num_studies, in_tenths / num_studies


def _run(variant: str, seed: int, rewards: np.ndarray) -> History:
    name = f"{variant}-seed{seed}"
    columns = {"step": np.arange(1.0, len(rewards) + 1), "reward": rewards}
    source = ForeignRun(Path(f"{name}.csv"))
    return History(name, Path(name), variant, seed, columns, {}, {}, FINISHED, len(rewards), source)


def times_inside(num_studies: int, num_seeds: int, seed: int) -> tuple[float, float, float]:
    """Shares of studies whose intervals hold the true median and restricted mean, and that bound the median above."""
    generator = np.random.default_rng([seed, num_seeds])
    log = stats.lognorm(SPREAD, scale=TRUE_MEDIAN)
    true_mean = log.expect(ub=END, lb=0) + END * log.sf(END)
    median = mean = bounded = 0
    for _ in range(num_studies):
        times = log.rvs(num_seeds, random_state=generator)
        found = time_to([Followed(min(time, END), bool(time <= END)) for time in times], END)
        high = math.inf if found.median_high is None else found.median_high
        median += (found.median_low or 0.0) <= TRUE_MEDIAN <= high
        mean += found.mean_low <= true_mean <= found.mean_high
        bounded += found.median_high is not None
    return median / num_studies, mean / num_studies, bounded / num_studies


if __name__ == "__main__":
    main()
