"""Pairs: a variant's run and the baseline's at one seed. They count as a pair where it was checked that they are one.

Two runs of ours are checked by what they recorded: the hash of their initial weights and of each step's prompts. A
seed that was read from a file's name says nothing of either; such runs are pairs only where the user says so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rl_posttrain.study.histories import Collection, History
from rl_posttrain.study.outcomes import listed

SAME, DIFFERENT, NOT_CHECKED, GUESSED = "same", "different", "not checked", "guessed"


@dataclass(frozen=True)
class Pairs:
    """Which seeds of each variant are pairs with the baseline's.

    Attributes:
        seeds: by variant, the baseline left out.
        notices: what was not paired, and what was paired unchecked, in sentences.
    """

    seeds: dict[str, frozenset[int]]
    notices: list[str]


def pairs_with(collection: Collection, baseline: str, *, assumed: bool) -> Pairs:
    """The pairs of every variant with `baseline`.

    Args:
        assumed: whether runs of one seed are pairs, too, where nothing was recorded that could be checked.
    """
    # Of a run that has not come to its first step nothing can be said yet.
    begun = {
        variant: [run for run in runs if isinstance(run, History) or not run.outcome.running]
        for variant, runs in collection.planned.items()
    }
    base = begun.get(baseline, [])
    seeds: dict[str, frozenset[int]] = {}
    said: dict[str, list[str]] = {}
    for variant, runs in begun.items():
        if variant == baseline:
            continue
        found = {seed: _checked(*both) for seed, both in _at_each_seed(runs, base).items()}
        wanted = (SAME, NOT_CHECKED, GUESSED) if assumed else (SAME,)
        seeds[variant] = frozenset(seed for seed, how in found.items() if how in wanted)
        for text in _in_words(found, runs, base, seeds[variant], assumed):
            said.setdefault(text, []).append(variant)
    return Pairs(seeds, [f"{listed(variants)} against {baseline}: {text}" for text, variants in said.items()])


def _at_each_seed(runs: Sequence, base: Sequence) -> dict[int, tuple[list, list]]:
    mine, theirs = ({run.seed for run in found if run.seed is not None} for found in (runs, base))
    return {
        seed: ([run for run in runs if run.seed == seed], [run for run in base if run.seed == seed])
        for seed in sorted(mine & theirs)
    }


def _checked(mine: Sequence, theirs: Sequence) -> str:
    """Whether all runs of one seed are alike in what they started from and were asked."""
    found = {_alike(one, other) for one in mine for other in theirs}
    return next(how for how in (DIFFERENT, GUESSED, NOT_CHECKED, SAME) if how in found)


def _alike(one, other) -> str:
    if not (one.recipe and other.recipe):
        return GUESSED
    if not (isinstance(one, History) and isinstance(other, History)):
        return NOT_CHECKED
    weights = [run.environment.get("initial_weights_sha256") for run in (one, other)]
    number = min(len(one.prompts), len(other.prompts))  # one of them may have failed early
    if (None not in weights and weights[0] != weights[1]) or one.prompts[:number] != other.prompts[:number]:
        return DIFFERENT
    return SAME if None not in weights and number else NOT_CHECKED


def _in_words(
    found: dict[int, str], runs: Sequence, base: Sequence, paired: frozenset[int], assumed: bool
) -> list[str]:
    said = []
    for how, reason in (
        (DIFFERENT, "other prompts or other initial weights"),
        (NOT_CHECKED, "prompts or initial weights were not recorded, so it was not checked that they are the same"),
        (GUESSED, "seeds are guessed from the names of files, and nothing says that prompts and weights are the same"),
    ):
        if at := [seed for seed, had in found.items() if had == how]:
            if how == DIFFERENT or not assumed:
                more = "" if how == DIFFERENT else "; --paired makes them pairs"
                said.append(f"{_seeds(at)} not paired: {reason}{more}")
            else:
                said.append(f"{_seeds(at)} paired as --paired says: {reason}")
    without = [[run.seed for run in some if run.seed is not None and run.seed not in found] for some in (runs, base)]
    if found and any(without):
        own, other = (_listed(sorted(set(some))) or "none" for some in without)
        said.append(f"seeds without a partner count too, unpaired: {own} of the variant, {other} of the baseline")
    if found and not paired:
        said.append("all runs are compared unpaired (Welch's test)")
    return said


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed {seeds[0]} is" if len(seeds) == 1 else f"seeds {_listed(seeds)} are"


def pairing(collection: Collection) -> list[str]:
    """Whether runs of one seed started from the same weights and had the same prompts in every variant: sentences."""
    by_seed: dict[int, list[History]] = {}
    for run in collection.runs:
        if run.seed is not None and run.recipe:
            by_seed.setdefault(run.seed, []).append(run)
    shared = {seed: runs for seed, runs in by_seed.items() if len({run.variant for run in runs}) > 1}
    if not shared:
        return []
    return [_same_weights(shared), _same_prompts(shared)]


def _same_weights(shared: dict[int, list[History]]) -> str:
    marks = {seed: [run.environment.get("initial_weights_sha256") for run in runs] for seed, runs in shared.items()}
    if any(None in found for found in marks.values()):
        return "initial weights: not recorded by every run, so not checked"
    unequal = [seed for seed, found in marks.items() if len(set(found)) > 1]
    if unequal:
        return f"initial weights: DIFFERENT between variants at seed {_listed(unequal)}; do not pair these runs"
    return f"initial weights: the same in every variant at each of {len(shared)} seeds"


def _same_prompts(shared: dict[int, list[History]]) -> str:
    unequal: dict[int, int] = {}
    for seed, runs in shared.items():
        if not all(run.prompts for run in runs):
            return "prompts: not recorded by every run, so not checked"
        number = min(len(run.prompts) for run in runs)
        if len({run.prompts[:number] for run in runs}) == 1:
            continue
        for step, marks in enumerate(zip(*(run.prompts for run in runs), strict=False), start=1):
            if len(set(marks)) > 1:
                unequal[seed] = step
                break
    if unequal:
        seed, step = next(iter(unequal.items()))
        return f"prompts: DIFFERENT between variants at seed {_listed(unequal)} (seed {seed}: from step {step} on)"
    return f"prompts: the same in the same order in every variant at each of {len(shared)} seeds"


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
