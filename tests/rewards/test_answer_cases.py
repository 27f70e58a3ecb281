"""The tables of answers in cases/: what math_accuracy pays, and where math-verify would pay otherwise."""

import logging
import re
from pathlib import Path
from typing import NamedTuple

import math_verify
import pytest

from rl_posttrain.rewards.accuracy import judge, unread_golds

TABLE = Path(__file__).with_name("cases") / "answers.txt"
COMPLETIONS = TABLE.with_name("completions.txt")


class Case(NamedTuple):
    reward: float
    gold: str
    answer: str
    why_math_verify_differs: str


def read_cases() -> list[Case]:
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = [[field.strip() for field in line.split(" || ")] for line in lines if line and not line.startswith("#")]
    return [Case(float(reward), gold, answer, " ".join(why)) for reward, gold, answer, *why in rows]


CASES = read_cases()


def read_completions() -> list[tuple[float, str, str]]:
    rows = [line.split(" || ") for line in COMPLETIONS.read_text(encoding="utf-8").splitlines() if " || " in line]
    rows = [[re.sub(r"\\u([0-9a-f]{4})", lambda code: chr(int(code[1], 16)), field) for field in row] for row in rows]
    return [(float(reward), gold, completion) for reward, gold, completion in rows if reward in ("0", "1")]


@pytest.fixture(scope="module")
def verdicts():
    completions = [rf"so it is \boxed{{{case.answer}}}." for case in CASES]
    return judge(completions, [case.gold for case in CASES], batch_timeout_s=600)


def test_every_answer_is_paid_what_the_table_says(verdicts):
    assert len(CASES) >= 300
    wrong = [
        f"{case.answer!r} for {case.gold!r}: paid {verdict.reward}, {verdict.decided}"
        for case, verdict in zip(CASES, verdicts, strict=True)
        if verdict.reward != case.reward
    ]
    assert not wrong, "\n".join(wrong)


def test_every_completion_is_paid_what_the_table_says():
    rows = read_completions()
    assert len(rows) >= 500
    verdicts = judge([completion for _, _, completion in rows], [gold for _, gold, _ in rows])
    wrong = [
        f"{completion!r} for {gold!r}: paid {verdict}"
        for (reward, gold, completion), verdict in zip(rows, verdicts, strict=True)
        if verdict is None or verdict.reward != reward
    ]
    assert not wrong, "\n".join(wrong)


def test_every_disagreement_with_math_verify_is_explained_and_no_other_is(verdicts, caplog):
    caplog.set_level(logging.ERROR)
    unexplained, agreeing = [], []
    for case, verdict in zip(CASES, verdicts, strict=True):
        gold, answer = (math_verify.parse(rf"\boxed{{{text}}}") for text in (case.gold, case.answer))
        if not gold or not answer:
            continue  # math-verify decides nothing
        agrees = float(math_verify.verify(gold, answer)) == verdict.reward
        if not agrees and not case.why_math_verify_differs:
            unexplained.append(case)
        if agrees and case.why_math_verify_differs:
            agreeing.append(case)
    assert not unexplained
    assert not agreeing


def test_numbers_need_no_mathematics_library(verdicts):
    symbolic = {case.gold for case, verdict in zip(CASES, verdicts, strict=True) if verdict.decided == "symbolic"}
    assert not [gold for gold in symbolic if gold.replace(".", "").replace("-", "").isdigit()]
    assert sum(verdict.decided == "exact" for verdict in verdicts) > len(CASES) // 2


def test_every_gold_of_the_table_can_be_read():
    assert unread_golds([case.gold for case in CASES]) == ([], [], [])
    assert unread_golds(["7", r"\frac{", None, " ", r"\frac{", "x+"]) == ([r"\frac{", "x+"], [], [])
