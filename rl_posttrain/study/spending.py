"""Alpha spending: at which level each look at growing data may test, so that all looks together keep one level.

Lan and DeMets 1983 (doi:10.2307/2336502). Their levels are for means of a known spread. With few seeds the t test at
these levels would claim too much (5.8 % in place of 5 % with looks at 3 to 20 seeds), so the levels here come from the
joint distribution of the t statistics themselves, by simulation with a fixed seed.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import stats

# How much of the level of one side is spent up to a share of the data, in (0, 1].
SPENDING: dict[str, Callable[[float, float], float]] = {
    # Boundaries of nearly one height.
    "pocock": lambda share, alpha: alpha * math.log1p((math.e - 1) * share),
    # Boundaries that are very high at first: hardly any early end, and a last test at nearly the whole level.
    "obrien-fleming": lambda share, alpha: 2 * float(stats.norm.sf(stats.norm.isf(alpha / 2) / math.sqrt(share))),
}
_PATHS = 1_000_000  # the level of 0.05 is then kept within 0.0005


@lru_cache
def nominal_levels(looks: tuple[int, ...], alpha: float, sides: int, spending: str) -> tuple[float, ...]:
    """The level of the t test at each look.

    Args:
        looks: number of seeds at each look, rising, from 2 on.
        alpha: level over all looks together.
        sides: 2 for a test of difference; 1 for each of the two tests of equivalence.
        spending: one of `SPENDING`.

    Returns:
        A level for each look; p values below it are claims.
    """
    p_values = _null_p_values(looks)
    if sides == 2:
        p_values = [2 * np.minimum(found, 1 - found) for found in p_values]
    spent = [sides * SPENDING[spending](number / looks[-1], alpha / sides) for number in looks]
    levels, open_paths = [], np.arange(_PATHS)
    for found, target in zip(p_values, np.diff(spent, prepend=0.0), strict=True):
        found = found[open_paths]
        place = round(target * _PATHS)  # so many of the paths may cross here for the first time
        level = float(np.partition(found, place)[place])
        levels.append(level)
        open_paths = open_paths[found >= level]
    return tuple(levels)


@lru_cache(maxsize=4)
def _null_p_values(looks: tuple[int, ...]) -> list[np.ndarray]:
    """One-sided p values of the t test at each look on the same growing data without a difference; (`_PATHS`,) each."""
    generator = np.random.default_rng(0)
    number, mean, squares, found = 0, np.zeros(_PATHS), np.zeros(_PATHS), []
    for look in looks:
        more = look - number
        # The mean and the squared deviations of the seeds that are added, and then those of all (Chan et al. 1983).
        added = generator.standard_normal(_PATHS) / math.sqrt(more)
        if more > 1:
            squares += generator.chisquare(more - 1, _PATHS)
        distance = added - mean
        squares += distance**2 * number * more / look
        mean = mean + distance * more / look
        number = look
        found.append(stats.t.sf(mean / np.sqrt(squares / (look - 1) / look), look - 1))
    return found
