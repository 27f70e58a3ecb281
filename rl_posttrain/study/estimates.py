"""A difference of two means over seeds, with its standard error.

Two runs of one seed can be a pair (pairs.py). Where all runs are pairs the test is the paired t test; where none are,
it is Welch's; where some are, it is the test for partly overlapping samples of Derrick, Russ, Toher and White (2017,
doi:10.22237/jmasm/1493597280), of which the other two are special cases.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

ALPHA = 0.05


@dataclass(frozen=True)
class Estimate:
    """A difference of means with its standard error and degrees of freedom.

    Attributes:
        unit: what makes a pair.
        measured: the difference that is shown, where `difference` was moved towards zero for the interval.
        singles: runs of both that are in no pair, beside pairs.
        p_without_spread: p value of an exact permutation test, which stands for the t test where there is no spread.
    """

    difference: float
    error: float
    freedom: float
    num_pairs: int
    paired: bool
    unit: str = "seeds"
    measured: float | None = None
    singles: tuple[int, int] = (0, 0)
    p_without_spread: float = 1.0

    @property
    def number(self) -> int:
        """Seeds of the variant that has fewer."""
        return self.num_pairs + min(self.singles)

    @property
    def shown(self) -> float:
        """The difference as it is shown."""
        return self.difference if self.measured is None else self.measured

    def p_below(self, limit: float) -> float:
        """P value of the claim that the true difference is below `limit`."""
        return float(_t_tail(limit - self.difference, self.error, self.freedom))

    def p_above(self, limit: float) -> float:
        return float(_t_tail(self.difference - limit, self.error, self.freedom))

    @property
    def p_different(self) -> float:
        if not self.error:
            return self.p_without_spread if self.difference else 1.0
        return min(1.0, 2 * min(self.p_below(0.0), self.p_above(0.0)))

    def p_equivalent(self, margin: float) -> float:
        """Without any spread nothing says how far off the difference can be, so there is no equivalence."""
        return max(self.p_below(margin), self.p_above(-margin)) if self.error else 1.0

    def interval(self, alpha: float = ALPHA) -> tuple[float, float]:
        half = float(special.stdtrit(self.freedom, 1 - alpha / 2)) * self.error
        return self.difference - half, self.difference + half


def overlapping(one: np.ndarray, other: np.ndarray, alone: np.ndarray, other_alone: np.ndarray) -> Estimate:
    """The difference of two means from pairs and single runs; `one` and `other`, (K,), are the pairs, in one order."""
    mine, theirs = np.concatenate([one, alone]), np.concatenate([other, other_alone])
    number, sizes, singles = len(one), (len(mine), len(theirs)), (len(alone), len(other_alone))
    difference = float(mine.mean() - theirs.mean())
    if number and singles == (0, 0):
        error, freedom = float((one - other).std(ddof=1)) / math.sqrt(number), number - 1.0
    else:
        parts = [float(part.var(ddof=1)) / len(part) for part in (mine, theirs)]
        welch = sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True))
        freedom = sum(parts) ** 2 / welch if welch else sum(sizes) - 2.0
        together = sum(parts)
        if number:
            deviations = one.std(ddof=1) * other.std(ddof=1)
            alike = float(np.cov(one, other)[0, 1] / deviations) if deviations else 0.0
            together -= 2 * alike * float(mine.std(ddof=1) * theirs.std(ddof=1)) * number / (sizes[0] * sizes[1])
            freedom = number - 1 + (freedom - number + 1) * sum(singles) / (sum(singles) + 2 * number)
        error = math.sqrt(max(together, 0.0))
    # What is left of a spread of zero is rounding.
    if error <= 1e-12 * float(np.abs(np.concatenate([mine, theirs])).max()):
        error = 0.0
    arrangements = 2**number if singles == (0, 0) else math.comb(sum(sizes), sizes[0])
    num_pairs = number or min(sizes)
    return Estimate(
        difference, error, freedom, num_pairs, bool(number),
        singles=singles if number else (0, 0), p_without_spread=min(1.0, 2 / arrangements),
    )  # fmt: skip


def _t_tail(distance: float, error: float, freedom: float) -> float:
    return special.stdtr(freedom, -distance / error)
