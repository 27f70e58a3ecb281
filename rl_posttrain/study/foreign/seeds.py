"""What is a variant and what is a seed in the names of runs that other programs made."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rl_posttrain.errors import RunError

# Dates and times that programs add to a name: 20260131-120000, 1769860800.
_STAMP = r"(?:[-_.]+\d{6,})*"
_CLEANRL = re.compile(r"(?P<variant>.+)__(?P<seed>\d+)__\d{9,}")  # environment__experiment__seed__time
_WORD = re.compile(rf"(?:^|(?<=[-_. /]))seed[-_= .]?(?P<seed>\d+)(?={_STAMP}(?:$|[-_. ]))", re.IGNORECASE)
_SHORT = re.compile(rf"(?P<variant>.+)[-_. ]s[-_=]?(?P<seed>\d{{1,4}}){_STAMP}", re.IGNORECASE)
_NUMBER = re.compile(r"(?P<variant>.*?[^-_])(?P<gap>__?|-)(?P<seed>\d{1,4})")
# A number after one of these is a setting, a version or a place in time.
_NO_SEED = re.compile(
    r"(?:^|[-_. ])(?:lr|steps?|epochs?|iters?|ckpt|checkpoint|bs|batch|size|k|n|g|group|samples|generations|len|length|"
    r"tokens|temp|temperature|betas?|eps|clip|kl|coef|wd|decay|rank|layers?|dim|warmup|version|ver|v|exp|experiment|config|"
    r"setting|variant|model|part|phase|stage|gpus?|nodes?|gpt|llama|qwen|phi|top|pass|level|day|week|zero)$|\d[eE]$",
    re.IGNORECASE,
)
LOOKED_FOR = (
    "seed0, seed_0 or seed=0 anywhere, -s0 at the end, -0 or _0 at the end where names differ in nothing else, and "
    "CleanRL's NAME__0__TIME"
)
PROPOSED_GROUP = "--group '(?P<variant>.+)-(?P<seed>[0-9]+)'"


@dataclass(frozen=True)
class Place:
    """Where a run stands in a comparison.

    Attributes:
        task: empty where the user's pattern says none.
        guessed: whether the seed is a bare number, which could be something else.
    """

    variant: str
    seed: int | None
    guessed: bool = False
    task: str = ""


def group_pattern(text: str) -> re.Pattern[str]:
    """``--group`` as a pattern.

    Raises:
        RunError: it is no regular expression, or has no group that is called variant.
    """
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise RunError(f"--group={text}: no regular expression ({error}); {PROPOSED_GROUP} is one") from error
    if "variant" not in pattern.groupindex or set(pattern.groupindex) - {"variant", "seed", "task"}:
        others = "may have (?P<seed>...) and (?P<task>...), and no others"
        raise RunError(f"--group={text}: it needs a group (?P<variant>...) and {others}")
    return pattern


def place_by_pattern(pattern: re.Pattern[str], name: str, path: str) -> Place | None:
    """What the user's pattern finds in a run's name, or else in its path; None where it finds nothing.

    Raises:
        RunError: the seed is no whole number.
    """
    match = pattern.search(name) or pattern.search(path)
    if match is None or not match["variant"]:
        return None
    seed = match["seed"] if "seed" in pattern.groupindex else None
    if seed is not None and not seed.isdecimal():
        raise RunError(f"--group={pattern.pattern}: in {name} the seed is {seed!r}, which is no whole number")
    task = match["task"] or "" if "task" in pattern.groupindex else ""
    return Place(match["variant"], None if seed is None else int(seed), task=task)


def places_by_names(names: Sequence[str]) -> list[Place]:
    """The variant and the seed of each run, as far as the names say so."""
    places = [_by_word(name) for name in names]
    weak = {name: _NUMBER.fullmatch(name) for name, place in zip(names, places, strict=True) if place is None}
    stems: dict[tuple[str, str], set[str]] = {}
    for match in filter(None, weak.values()):
        stems.setdefault((match["variant"], match["gap"]), set()).add(match["seed"])
    for index, name in enumerate(names):
        if places[index] is None:
            match = weak[name]
            if match and _are_seeds(match["variant"], stems[match["variant"], match["gap"]]):
                places[index] = Place(match["variant"], int(match["seed"]), guessed=True)
            else:
                places[index] = Place(name, None)
    return places


def _by_word(name: str) -> Place | None:
    if match := _CLEANRL.fullmatch(name):
        return Place(match["variant"], int(match["seed"]))
    if found := list(_WORD.finditer(name)):
        match = found[-1]
        # What stands around the seed is the variant, without the time after it.
        after = re.sub(rf"^{_STAMP}$", "", name[match.end() :])
        parts = [part for part in (name[: match.start()].rstrip("-_. "), after.strip("-_. ")) if part]
        return Place("-".join(parts) or name, int(match["seed"]))
    if match := _SHORT.fullmatch(name):
        return Place(match["variant"], int(match["seed"]))
    return None


def _are_seeds(stem: str, numbers: set[str]) -> bool:
    """Whether the numbers after a stem are seeds: of several runs, after no word of a setting, and no row of sizes."""
    values = {int(number) for number in numbers}
    sizes = all(value > 4 and (value % 10 == 0 or value & (value - 1) == 0) for value in values)
    return len(values) > 1 and not sizes and not _NO_SEED.search(stem)
