"""How often verdicts over seeds are wrong on runs whose truth is known, and how often they find a true difference.

    python experiments/verdicts/calibration.py [--comparisons 1000] [--only collapse] [--seed 0]

Every run is made up, and judged as `rl-posttrain report` judges runs of ours. A reward curve rises over 40 of 100 steps
to a plateau; every step has noise. Seeds of two variants share what `correlation` says of a plateau's variance, because
they share questions and first weights. Two truths are tried in each scenario: no difference in the mean, where "better"
and "worse" are false; and a difference of the margin (0.05) or more, where "equivalent" is false. A report is wrong
where one of its verdicts is. The last column says in how many of the wrong reports the wrong verdict carries the notice
that its seeds cannot exclude failures and collapses, or that the runs were logged differently.
"""

import argparse
import dataclasses
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rl_posttrain.study.foreign.run import ForeignRun
from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.judging import Judgement, judge
from rl_posttrain.study.outcomes import FINISHED, Outcome

MARGIN = 0.05
ALLOWED = 0.07
RECIPE = {"rewards": [{"fn": "math_accuracy", "range": [0.0, 1.0]}]}
WORDS = ("better", "worse", "equivalent", "undecided", "none")
RUN_SPREADS = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08)
NOT_EQUAL, EQUAL = "not equal", "equal"
_STEPS = np.arange(1.0, 101.0)
_RAMP = np.minimum(1.0, _STEPS / 40)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Made-up runs of a baseline and its variants.

    Attributes:
        num_seeds: of each variant; `baseline_seeds` of the baseline, where these are others.
        first_seed: of the variants; the baseline's is 0.
        spread: standard deviation of a run's plateau; `baseline_spread` of the baseline's, where it is another.
        correlation: of the plateaus of two variants at one seed.
        tails: degrees of freedom of the spread (Student's t, of which `spread` is the scale then); 0 for normal.
        values: a plateau is one of these two, and nothing else, so that seeds often have no spread; () for any.
        collapse, baseline_collapse: share of runs that lose 0.6 in the last third of the steps.
        failure, baseline_failure: share of runs that end half-way, and count as 0.
        plateau: of the baseline in the mean.
        lead: what a variant that neither collapses nor fails has above the baseline, without the true difference.
        log_every: steps between the variants' rows, each the mean of the steps since the row before.
        floor: rewards below 0 are 0.
        truths: which of the two truths the scenario has.
    """

    name: str
    num_seeds: int = 5
    num_variants: int = 2
    baseline_seeds: int | None = None
    first_seed: int = 0
    spread: float = 0.035
    baseline_spread: float | None = None
    correlation: float = 0.5
    tails: int = 0
    values: tuple[float, ...] = ()
    collapse: float = 0.0
    baseline_collapse: float = 0.0
    failure: float = 0.0
    baseline_failure: float = 0.0
    plateau: float = 0.7
    lead: float = 0.0
    log_every: int = 1
    measure: str = "final"
    floor: bool = False
    truths: tuple[str, ...] = (EQUAL, NOT_EQUAL)


def scenarios() -> Iterator[Scenario]:
    """The scenarios of the table, in its order."""
    for seeds in (3, 5, 10):
        for correlation in (0.0, 0.9):
            yield Scenario("normal", seeds, correlation=correlation)
    for variants in (5, 10):
        yield Scenario("several variants", 5, variants)
    yield Scenario("several variants", 3, 10)
    for seeds in (3, 5, 10):
        yield Scenario("heavy tails (t, 2 degrees)", seeds, correlation=0.0, tails=2, spread=0.02)
    for seeds in (3, 5, 10):
        yield Scenario("unequal spreads (1 : 4)", seeds, spread=0.08, baseline_spread=0.02, correlation=0.0)
    yield Scenario("unequal spreads, 3 of 10 seeds", 3, baseline_seeds=10, spread=0.06, baseline_spread=0.02)
    for correlation in (0.0, 0.9):
        yield Scenario("baseline 0-5, variant 3-8", 6, baseline_seeds=6, first_seed=3, correlation=correlation)
    for seeds in (3, 5, 10):
        yield Scenario("a fifth of all runs collapses", seeds, collapse=0.2, baseline_collapse=0.2)
    for seeds in (3, 5, 10):
        yield Scenario("a fifth of the variant's collapses", seeds, collapse=0.2, truths=(NOT_EQUAL,))
    for seeds in (3, 5, 10):
        yield Scenario("the same, 0.12 better else", seeds, collapse=0.2, lead=0.12, truths=(EQUAL,))
    for seeds in (3, 5, 10):
        yield Scenario("a fifth of all runs fails", seeds, failure=0.2, baseline_failure=0.2)
    yield Scenario("a fifth of the variant's fails", 5, failure=0.2, truths=(NOT_EQUAL,))
    for seeds in (3, 5):
        yield Scenario("two values alone", seeds, values=(0.55, 0.65), plateau=0.6, correlation=0.0)
    yield Scenario("all at the floor", 5, plateau=-0.3, floor=True, truths=(NOT_EQUAL,))
    yield Scenario("variant logs every 10th step", 5, log_every=10)
    yield Scenario("the same, area", 5, log_every=10, measure="auc", truths=(EQUAL,))


def true_difference(scenario: Scenario) -> float:
    """What is added to a variant's plateau where the truth is a difference of the margin in the mean, or more.

    Where the variant alone collapses or fails, that is the difference, and nothing is added.
    """
    alone = scenario.collapse > scenario.baseline_collapse or scenario.failure > scenario.baseline_failure
    return 0.0 if alone else MARGIN / (1 - scenario.failure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--only", default="", help="scenarios whose name has this text")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    number = arguments.comparisons
    print(f"{number} reports for each number; margin {MARGIN}; allowed {ALLOWED:.0%}\n")
    print("| scenario | seeds | variants | correlation | false better/worse | false equivalent | noticed |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for scenario in scenarios():
        if arguments.only in scenario.name:
            print(_row(scenario, number, arguments.seed), flush=True)
    if not arguments.only:
        _print_power(number, arguments.seed)


def _row(scenario: Scenario, number: int, seed: int) -> str:
    cells, wrong, noticed = [], 0, 0
    for truth in (EQUAL, NOT_EQUAL):
        if truth not in scenario.truths:
            cells.append("-")
            continue
        found = false_reports(scenario, truth, number, seed)
        cells.append(f"{len(found) / number:.1%}".replace("%", " %"))
        if len(found) > ALLOWED * number:
            cells[-1] = f"**{cells[-1]}**"
            wrong, noticed = wrong + len(found), noticed + sum(found)
    shown = f"{noticed / wrong:.0%}".replace("%", " %") if wrong else "not needed"
    numbers = (scenario.num_seeds, scenario.num_variants, f"{scenario.correlation:g}")
    return "| " + " | ".join(map(str, (scenario.name, *numbers, *cells, shown))) + " |"


def _print_power(number: int, seed: int) -> None:
    print("\nThe power at 5 seeds, 2 variants, correlation 0.5:\n")
    print("| spread | no difference: equivalent | the margin: better | twice the margin: better |")
    print("| --- | --- | --- | --- |")
    for spread in RUN_SPREADS:
        scenario = Scenario("power", spread=spread * 2**0.5)  # of which half is the seed's
        counts = [simulate(scenario, difference, number, seed) for difference in (0.0, MARGIN, 2 * MARGIN)]
        shares = (counts[0]["equivalent"], counts[1]["better"], counts[2]["better"])
        print(f"| {spread:g} | " + " | ".join(f"{share / number:.1%}".replace("%", " %") for share in shares) + " |")


def false_reports(scenario: Scenario, truth: str, number: int, seed: int) -> list[bool]:
    """Of each wrong report among `number`, whether every wrong verdict in it carries a notice."""
    difference = true_difference(scenario) if truth == NOT_EQUAL else 0.0
    false_words = ("equivalent",) if truth == NOT_EQUAL else ("better", "worse")
    found = []
    for judgement in judgements(scenario, difference, number, seed):
        wrong = [comparison for comparison in judgement.comparisons if comparison.word in false_words]
        if wrong:
            logged = any("logged at different distances" in notice for notice in judgement.notices)
            found.append(logged or all("failed or collapsed" in comparison.sentence for comparison in wrong))
    return found


def simulate(scenario: Scenario, difference: float, number: int, seed: int) -> Counter[str]:
    """How often each verdict is given to the first variant, whose plateau is `difference` above the baseline's."""
    return Counter(found.comparisons[0].word for found in judgements(scenario, difference, number, seed))


def judgements(scenario: Scenario, difference: float, number: int, seed: int) -> Iterator[Judgement]:
    """`number` judgements of made-up runs."""
    mark = zlib.crc32(f"{scenario} {difference}".encode())  # each scenario has random numbers of its own
    generator = np.random.default_rng([seed, mark])
    for _ in range(number):
        yield judge(make_runs(generator, scenario, difference), margin=MARGIN, measure=scenario.measure)


def make_runs(generator: np.random.Generator, scenario: Scenario, difference: float) -> Collection:
    """The runs of the baseline, adamw, and of the variants, at their seeds."""
    last = scenario.first_seed + max(scenario.num_seeds, scenario.baseline_seeds or 0)
    shared = _spread(generator, scenario, last) * scenario.correlation**0.5
    own = (1 - scenario.correlation) ** 0.5
    runs = []
    for place in range(scenario.num_variants):
        is_baseline = place == 0
        variant = "adamw" if is_baseline else f"variant{place}"
        seeds = range(scenario.first_seed, scenario.first_seed + scenario.num_seeds)
        scale = scenario.spread
        if is_baseline:
            seeds = range(scenario.baseline_seeds or scenario.num_seeds)
            scale = scenario.baseline_spread or scenario.spread
        noise = scale * (shared[seeds] + own * _spread(generator, scenario, len(seeds)))
        plateaus = scenario.plateau + noise + (0.0 if is_baseline else difference + scenario.lead)
        if scenario.values:
            low, high = scenario.values
            chance = 0.5 + (0.0 if is_baseline else difference / (high - low))
            plateaus = np.where(generator.random(len(seeds)) < chance, high, low)
        collapses, fails = (
            generator.random(len(seeds)) < (base if is_baseline else own_share)
            for own_share, base in (
                (scenario.collapse, scenario.baseline_collapse),
                (scenario.failure, scenario.baseline_failure),
            )
        )
        runs += [
            _run(generator, scenario, variant, seed, *of_run)
            for seed, *of_run in zip(seeds, plateaus, collapses, fails, strict=True)
        ]
    return Collection(runs, left_out=[])


def _spread(generator: np.random.Generator, scenario: Scenario, number: int) -> np.ndarray:
    return generator.standard_t(scenario.tails, number) if scenario.tails else generator.standard_normal(number)


def _run(
    generator, scenario: Scenario, variant: str, seed: int, plateau: float, collapses: bool, fails: bool
) -> History:
    rewards = 0.1 + (plateau - 0.1) * _RAMP
    if collapses:
        rewards = rewards - 0.6 * (_STEPS > 67)
    if not scenario.values:
        rewards = rewards + generator.normal(0.0, 0.05, len(_STEPS))
    if scenario.floor:
        rewards = np.maximum(rewards - 0.2, 0.0)
    steps = _STEPS
    if fails:
        steps, rewards = steps[:50], rewards[:50]
    if scenario.log_every > 1 and variant != "adamw":
        steps = steps[scenario.log_every - 1 :: scenario.log_every]
        rewards = rewards[: len(steps) * scenario.log_every].reshape(len(steps), -1).mean(axis=1)
    name = f"{variant}-seed{seed}"
    return History(
        name=name,
        path=Path(name),
        variant=variant,
        seed=seed,
        columns={"step": steps, "reward": rewards},
        recipe=RECIPE,
        environment={"initial_weights_sha256": f"of seed {seed}"},
        outcome=Outcome("failed", "cut short") if fails else FINISHED,
        num_planned=len(_STEPS),
        source=ForeignRun(Path(f"{name}.csv")),
        prompts=(f"of seed {seed}",) * len(steps),
    )


if __name__ == "__main__":
    main()
