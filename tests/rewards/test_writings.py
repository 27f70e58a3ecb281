"""Golds written otherwise are paid, and wrong answers that look like them are not: 300 golds, 40 writings of each."""

import random
import re
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import slowness

from rl_posttrain.rewards.accuracy import judge
from rl_posttrain.rewards.writings import Writing, bare, near_misses, plain_text, rewrites, shape_of

CASES = Path(__file__).with_name("cases")
NUM_WRITINGS = 20
SHARE = 0.995
BATCH = 64
# Sections of golds.txt whose golds have one shape.
SHAPES = {"number": "expression", "variables": "expression"}


class Gold(NamedTuple):
    kind: str
    text: str


class Judged(NamedTuple):
    gold: Gold
    writing: Writing
    expected: float
    reward: float | None

    def __str__(self) -> str:
        kind, rule, gold = self.gold.kind, self.writing.rule, self.gold.text
        return f"{kind} | {rule} | {gold} | {self.writing.completion!r} | paid {self.reward}, not {self.expected}"


def read_golds() -> list[Gold]:
    golds, kind = [], ""
    for line in (CASES / "golds.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            kind = line.removeprefix("## ")
        elif line and not line.startswith("#"):
            golds.append(Gold(kind, line))
    return golds


GOLDS = read_golds()


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    asked = [
        (gold, writing, expected)
        for gold in GOLDS
        for make, expected in ((rewrites, 1.0), (near_misses, 0.0))
        for writing in make(gold.text, NUM_WRITINGS)
    ]
    verdicts = [
        verdict
        for start in range(0, len(asked), BATCH)
        for verdict in judge(
            [writing.completion for _, writing, _ in asked[start : start + BATCH]],
            [gold.text for gold, _, _ in asked[start : start + BATCH]],
        )
    ]
    return [Judged(*case, verdict.reward) for case, verdict in zip(asked, verdicts, strict=True)]


def test_there_are_300_golds_of_every_kind_with_as_many_writings_of_each():
    kinds = [gold.kind for gold in GOLDS]
    assert len(GOLDS) >= 300
    assert len(set(GOLDS)) == len(GOLDS)
    assert min(map(kinds.count, kinds)) >= 12
    for gold in GOLDS:
        assert shape_of(bare(gold.text)) == SHAPES.get(gold.kind, gold.kind), gold
        for make in (rewrites, near_misses):
            writings = make(gold.text, NUM_WRITINGS)
            assert len({(writing.text, writing.place) for writing in writings}) == NUM_WRITINGS, (gold, make)
            assert writings == make(gold.text, NUM_WRITINGS)


def test_right_answers_are_paid_and_wrong_ones_are_not(judged):
    wrong = [case for case in judged if case.reward != case.expected]
    share = 1 - len(wrong) / len(judged)
    print(f"{share:.2%} of {len(judged)} answers")
    assert share >= SHARE, "\n".join(map(str, wrong))


def test_no_wrong_answer_is_paid(judged):
    lines = (CASES / "paid_misses.txt").read_text(encoding="utf-8").splitlines()
    known = {tuple(line.split(" || ")[:2]) for line in lines if line and not line.startswith("#")}
    paid = [case for case in judged if case.expected == 0.0 and case.reward]
    assert not [str(case) for case in paid if (case.gold.text, case.writing.text) not in known]


# By hand: what people and models write, and wrong answers that look like it.
@pytest.mark.parametrize(
    ("gold", "same", "wrong"),
    [
        ("1000", ["1,000", "1{,}000", r"1\,000", "10^{3}", "x = 1000", "997 + 3 = 1000", "$1000$", r"\$1000"],
         ["1, 000", "2000", "-1000", "1000xy", r"\frac{1}{1000}", "998 + 2", r"1000 \text{ or } 1001", "1000.0001"]),
        ("0.75", [".75", r"\frac{3}{4}", "3/4"], ["0.76", "0,75", r"\pm 0.75", "1.75"]),
        (r"-\frac{1}{6}",
         ["-1/6", r"\frac{-1}{6}", r"\frac{1}{-6}", "-(1/6)", r"-\frac16", r"-\dfrac{1}{6}"],
         [r"\frac{1}{6}", "-1", "-6", "-6/1", "-0.167", "-1, 6"]),
        (r"\frac{7}{12}", [r"\frac{7}{12} \approx 0.583", r"\frac{ 7 }{ 12 }", "(7/12)"], ["0.583", r"\frac{7}{13}"]),
        (r"50\%", ["50", "0.5", "50 percent", r"\frac{1}{2}"], [r"5\%", r"51\%", "0.05"]),
        (r"15\text{ cm}^2",
         ["15", "15 square centimeters", r"15\text{ sq cm}"],
         [r"15\text{ cm}^3", r"15\text{ kg}", "16"]),
        ("3:45 pm", ["3:45 p.m.", "3:45 PM", r"\text{3:45 pm}"], ["3:45 am", "4:45 pm", "3:46 pm", "45"]),
        ("1011_2", ["(1011)_2", r"1011_{\text{two}}", "1011_{2}"], ["1011_{3}", "1111_{2}", "-1011_{2}"]),
        (r"\frac{1}{2}mv^2", [r"\frac{mv^2}{2}", "mv^2/2", "0.5mv^2"], [r"2(\frac{1}{2}mv^2)", r"\frac{1}{2}uv^2"]),
        ("12+10t", ["10t + 12", "10t+12"], ["12 - 10t", "12", "10t", "12+11t", "12+10u"]),
        ("x > 2", ["2 < x", r"(2, \infty)", r"\{x \mid x > 2\}"], [r"x \ge 2", "x < 2", "x > 3", "2", "x = 2"]),
        ("(1,2)", ["(1, 2)", r"\left(1, 2\right)", "(x, y) = (1, 2)"], ["(2, 1)", r"\{1, 2\}", "1, 2", "[1, 2]"]),
        ("-1,3,3", ["3, 3, -1", r"\{-1, 3, 3\}"], ["-1, 3", "-1, 3, 4", "(-1, 3, 3)"]),
        ("B", ["(B)", r"\text{(B)}", "b"], ["C", "B or A", "not B"]),
    ],
)  # fmt: skip
def test_writings_are_those_that_people_write(gold, same, wrong):
    texts, misses = ([writing.text for writing in make(gold)] for make in (rewrites, near_misses))
    assert not set(same) - set(texts)
    assert not set(wrong) - set(misses)
    assert not set(texts) & set(misses)


def test_a_completion_holds_the_answer_in_its_place():
    completions = [writing.completion for writing in rewrites("42")]
    assert r"So the answer is $\boxed{42}$." in completions
    assert "Let us see.\n#### **42**" in completions
    assert "Final Answer: The final answer is $42$. I hope it is correct." in completions
    tag = re.compile(r"<think>.*</think>\n<answer>The answer is 42\.</answer>")
    assert any(map(tag.fullmatch, completions))


def test_any_text_is_a_gold():
    """Golds with a part cut out, doubled or mistyped, and random characters: no error, and an answer soon."""
    dice = random.Random(0)
    characters = r"0123456789+-*/^_{}()[]\\ ,.;:=<>|$%&#abcxyzie"
    texts = [
        "7" + " " * 900 + "8",
        "1," * 450,
        "(" * 10_000,
        "{" * 10_000,
        "9" * 5_000,
        "\ud800",
        "7\x00",
        "x_0",
        "y==3",
    ]
    for gold in GOLDS * 4:
        start, end = sorted(dice.choices(range(len(gold.text) + 1), k=2))
        inserted = dice.choice(["", dice.choice(characters), gold.text[start:end] * 2])
        texts.append(gold.text[:start] + inserted + gold.text[dice.choice([start, start + 1, end]) :])
        texts.append("".join(dice.choices(characters, k=dice.randint(1, 14))))
    started = time.process_time()
    for text in texts:
        for make in (rewrites, near_misses):
            assert len(make(text, 5)) <= 5
        plain_text(text)
    assert time.process_time() - started < 60 * slowness()


def test_a_gold_of_no_known_shape_is_written_in_few_ways_and_has_no_near_misses():
    assert rewrites(" ") == near_misses(" ") == near_misses("see the proof of (3), which holds") == []
    assert rewrites("see the proof of (3), which holds")[0].text == "see the proof of (3), which holds"
