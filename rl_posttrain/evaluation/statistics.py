"""Pure statistics of an evaluation: pass@k, maj@k, and means with standard errors over questions."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean over questions.

    Attributes:
        value: the mean; None where no question has a value.
        error: its standard error: the standard deviation of the questions' values (n - 1 in the denominator) over the
            root of their number. None for fewer than two questions.
    """

    value: float | None
    error: float | None


def mean_over_questions(values: Sequence[float | None]) -> Estimate:
    """The mean of one value per question, with its standard error; questions without a value are left out.

    The questions are taken for a sample of all such questions. So the error holds also for a single greedy answer to
    each, and the samples of one question count as one value, not as independent ones.
    """
    known = [value for value in values if value is not None]
    if not known:
        return Estimate(None, None)
    mean = math.fsum(known) / len(known)
    if len(known) < 2:
        return Estimate(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in known) / (len(known) - 1)
    return Estimate(mean, math.sqrt(variance / len(known)))


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """The chance that at least one of k samples is right, from n samples of which c are; unbiased.

    arXiv:2107.03374, eq. 1.

    Args:
        num_samples: n, at least k.
        num_correct: c.
    """
    if num_samples - num_correct < k:
        return 1.0
    return 1.0 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def majority_at_k(num_right: int, wrong: Sequence[int], num_unreadable: int, k: int) -> float:
    """The chance that the right answer wins a vote among k samples, drawn without replacement from those given.

    The most frequent answer wins. Answers that share the first place win equally often. An unreadable answer has no
    vote; where all k are unreadable, nothing wins. With k = 1 this is the share of right samples.

    Args:
        num_right: samples with the right answer.
        wrong: for each wrong answer, the number of samples that gave it.
        num_unreadable: samples without a readable answer.
        k: from 1 to the number of all samples.
    """
    several = [count for count in wrong if count > 1]
    num_single = len(wrong) - len(several)
    wins: Counter[int] = Counter()  # choices of k samples that the right answer wins, by the answers that tie with it
    for votes in range(1, min(num_right, k) + 1):
        # ways[(v, t)]: choices of v votes for wrong answers, none with more than `votes`, and t with exactly so many.
        ways: Counter[tuple[int, int]] = Counter()
        for chosen in range(min(num_single, k - votes) + 1):
            ways[chosen, chosen if votes == 1 else 0] += math.comb(num_single, chosen)
        for count in several:
            grown: Counter[tuple[int, int]] = Counter()
            for (used, tied), number in ways.items():
                for chosen in range(min(count, votes, k - votes - used) + 1):
                    grown[used + chosen, tied + (chosen == votes)] += number * math.comb(count, chosen)
            ways = grown
        for (used, tied), number in ways.items():
            rest = k - votes - used
            wins[tied] += number * math.comb(num_unreadable, rest) * math.comb(num_right, votes)
    # Whole numbers until here: with thousands of samples they are too large for a float.
    choices = math.comb(num_right + sum(wrong) + num_unreadable, k)
    return math.fsum(number / ((tied + 1) * choices) for tied, number in wins.items())
