"""Deciding on one answer, first without math-verify and then with it. Only worker processes import this module."""

from rl_posttrain.rewards.accuracy import exact_verdict
from rl_posttrain.rewards.answers import cleaned, symbolic
from rl_posttrain.rewards.verdict import Verdict

_BY_MATH_VERIFY = {
    "right": Verdict(1.0, "symbolic"),
    "wrong": Verdict(0.0, "symbolic"),
    "unparseable": Verdict(0.0, "unparseable"),
    "no gold": Verdict(None, "unparseable"),
}


def decide(found: str | None, gold: str) -> Verdict | str:
    """The verdict on an answer. If `found` is None: "readable" or "unreadable", which is math-verify's of the gold."""
    if found is None:
        return "readable" if symbolic.can_read(cleaned(gold)) else "unreadable"
    return exact_verdict(found, gold) or _BY_MATH_VERIFY[symbolic.compare(cleaned(gold), cleaned(found))]


# The first time imports and builds tables.
decide("1+x", "x+1")
