"""Completions that are made to hang, crash or fool a reward: none is paid, and the workers are whole afterwards."""

import time
from pathlib import Path

import pytest
from conftest import slowness
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_posttrain.rewards import countdown_equation, math_accuracy, think_answer_format
from rl_posttrain.rewards.accuracy import exact_verdict, final_answer, judge
from rl_posttrain.rewards.answers import cleaned
from rl_posttrain.rewards.by_workers import pool

MEGABYTE = 2**20
QUESTION = "Q: What is the square of 7, less 42? Show your work, and put the answer into \\boxed{}.\nA:"

# In a box, in a tag and bare. None of them is 7, \sqrt{2} or x+1.
ANSWERS = [
    # Large numbers and powers of powers.
    "9**9**9**9", "97**89**60**50", "9^9^9^9", "9^{9^{9^{9}}}", r"10^{10^{10}}", "10^{999999999}", "1e999999999",
    "99999999!", "3!!!!!!!!", "((9!)!)!", r"\binom{999999}{9999}", "9" * 900, "9" * 5_000, "-" * 900 + "7",
    "0." + "0" * 900 + "1", "1/0", r"\frac{1}{0}", r"\frac{0}{0}", "1/3/5/7", "2**10", "7//1", "0x7", "0b111",
    "7_000", "1_0", "7e-0001", "\N{ARABIC-INDIC DIGIT SEVEN}e1",
    # Nesting and length.
    "(" * 450 + "7" + ")" * 450, "[" * 10_000, "(" * 10_000 + "7" + ")" * 10_000, "{" * 10_000 + "}" * 10_000,
    r"\frac{1}{" * 90 + "2" + "}" * 90, r"\sqrt{" * 150 + "2" + "}" * 150, r"\left(" * 150, "x^" * 300 + "x",
    "+" * 900, "1," * 450, "1+" * 450 + "1", "7 " * 450, "\\" * 900, "$" * 900, "7" + " " * 900 + "8", "x" * 999,
    # LaTeX that a parser may trip over.
    r"\begin{pmatrix}" * 40, r"\begin{pmatrix}" + r"1&2\\" * 150 + r"\end{pmatrix}", r"\text{", r"\text{}",
    r"\text{7", r"\frac{7}", r"\frac", r"\frac{}{}", r"\sqrt", r"\sqrt{}", r"\def\x{\x\x}\x", r"\input{/etc/passwd}",
    r"\write18{id}", r"\int\int\int", r"\sum_{n=1}^{\infty}", r"\sum_{n=1}^{10^9} n", r"\int_0^\infty e^{-x^2} dx",
    r"\prod_{k=1}^{99999} k", r"\lim_{x \to 0}", "%", "&", "_", "^", "~", "#", r"\\", r"\,", "{}", "()", "[]", "}{",
    ")(", "=", "==", "7=", "<", "<7>", "||", "''", '""',
    # Code.
    "__import__('os').system('exit 7')", "exec('7')", "eval('3+4')", "lambda: 7", "7 if True else 8",
    "[7 for _ in range(9**9)]", "().__class__.__bases__[0].__subclasses__()", "os.abort()", "{{7*1}}", "${7}", "%d",
    "{0.__class__}", "7;import os", "`7`",
    # Characters.
    "\N{ARABIC-INDIC DIGIT SEVEN}", "\N{FULLWIDTH DIGIT SEVEN}", "\N{SUPERSCRIPT SEVEN}", "\N{ROMAN NUMERAL SEVEN}",
    "\N{CIRCLED DIGIT SEVEN}", "\N{MATHEMATICAL BOLD DIGIT SEVEN}", "\N{DEVANAGARI DIGIT SEVEN}",
    "\N{CJK UNIFIED IDEOGRAPH-4E03}", "7\x00", "\x007", "\x00", "7\x07", "\ud800", "7\udfff", "\N{ZERO WIDTH SPACE}7",
    "7\N{COMBINING ENCLOSING KEYCAP}", "\N{RIGHT-TO-LEFT OVERRIDE}7", "\N{CYRILLIC SMALL LETTER HA}+1",
    "x\N{FULLWIDTH PLUS SIGN}1", "\N{DIVISION SLASH}7", "\ufeff7",
    # Two answers, and answers taken back.
    "6, 7", "7, 8", r"7 \text{ or } 8", "7 or 8", "{7, 8}", "[7, 8]", "7; 8", "7 and 8", "7-8", "7...8", "7~8",
    "1 2 3 4 5 6 7 8", r"\pm 7", "not 7", "7?", "7!", "-7", "minus 7", "7 is wrong", "more than 7", "x > 7",
    r"x \ge 7", r"\neq 7", "7 squared", r"\sqrt{2}, \sqrt{3}", r"\pm\sqrt{2}", r"x+1, x-1", r"\{x+1, x\}",
    r"\sqrt{2} \text{ or } 2", r"x+1 \lor x",
    # A right number with what makes it wrong, and the question handed back.
    "7 million", "7 dozen", "7%%", "7x", "7i", r"7\pi", "7^2", "7_2", "1.7", "7.1", "70", "07.7", "1,7", "7,7", "3+4",
    "49-42", r"7^2-42", r"\sqrt{49}", r"|{-7}|", "14/2", r"\frac{14}{2}", r"\lfloor 7.9 \rfloor", "seven", "VII",
    QUESTION, QUESTION * 5,
    # What no answer is.
    "nan", "NaN", "inf", "-inf", "None", "null", "True", "undefined", r"\nan", "zoo", "oo", "I", "E", "Symbol('x')",
    "S(7)/0",
]  # fmt: skip
PLACES = [r"so \boxed{%s}", "so <answer>%s</answer>"]
WHOLE = [
    "", " ", "\n" * MEGABYTE, "a" * 4 * MEGABYTE, "8 " * MEGABYTE, "1" * MEGABYTE, "-" * MEGABYTE, "," * MEGABYTE,
    "." * MEGABYTE, r"\boxed{" * 200_000, r"\boxed" * 200_000, r"\boxed{" * 50_000 + "8" + "}" * 50_000,
    "{" * MEGABYTE, "}" * MEGABYTE, r"\boxed{7" + "{" * MEGABYTE, r"\boxed{8}" * 100_000, "<answer>" * 100_000,
    "</answer>" * 100_000, "####" * 200_000, "<answer>" * 50_000 + "8" + "</answer>" * 50_000, "<think>" * 100_000,
    "1," * 500_000, "1,234" * 200_000 + ",", "1e" * 500_000, "1/" * 500_000, "$" * MEGABYTE, "\\" * MEGABYTE,
    "\x00" * MEGABYTE, "\ud800" * 100_000, "(" * 10_000 + ")" * 10_000,
    # Hidden in the thinking, or thought without an end.
    r"<think>\boxed{7}</think> I cannot say.", r"<think><answer>7</answer></think>", "<think>7",
    "<think>#### 7</think>", r"<think>\boxed{7}", r"<think>a</think> \boxed{8} <think>\boxed{7}</think>",
    "<think><think>7</think></think>", r"<think> \boxed{\sqrt{2}} </think>", r"<think>\boxed{x+1}",
    "<answer>7</answer></think>",
    # Two answers: the last counts.
    r"\boxed{7} no, \boxed{8}", "<answer>7</answer><answer>8</answer>", "#### 7\n#### 8", "7, or rather 8",
    r"\boxed{7}\boxed{}", r"\boxed{x+1} \boxed{x}",
    r"<answer>\boxed{7} \boxed{8}</answer> \boxed{\boxed{7}\boxed{8}}", "<answer>7", "</answer>7<answer>8",
    r"\boxed{7", "7 \\boxed{", "#### seven (7) or 8", QUESTION,
]  # fmt: skip
GOLDS = ["7", r"\sqrt{2}", "x+1"]
# What is paid after all, and rightly: the places that are asked for hold no answer, and the last expression is 7.
COMPLETIONS = [place % answer for answer in ANSWERS for place in PLACES] + WHOLE
PAID_AS_7 = {"<answer>7", r"\boxed{7", "7 \\boxed{", r"so \boxed{\text{7}"}


def test_nothing_hostile_is_paid_nor_costs_its_time_limit_and_the_workers_are_whole_afterwards():
    assert len(COMPLETIONS) >= 200
    for gold in GOLDS:
        started = time.process_time()
        verdicts = judge(COMPLETIONS, [gold] * len(COMPLETIONS), timeout_s=5 * slowness(), batch_timeout_s=600)
        # Any of the texts of a million characters would take hours if a search took the square of that.
        assert time.process_time() - started < 20 * slowness()
        paid = {c for c, v in zip(COMPLETIONS, verdicts, strict=True) if v.reward}
        assert paid == (PAID_AS_7 if gold == "7" else set())
        assert [c for c, v in zip(COMPLETIONS, verdicts, strict=True) if v.decided == "timeout"] == []
    assert math_accuracy([r"\boxed{1+x}", r"\boxed{1+y}"] * 2, ["x+1", "y+1"] * 2) == [1.0] * 4
    assert len(pool().process_ids) == pool().num_workers
    for process in pool().process_ids:
        assert resident_bytes(process) < 2**30


# Each would take seconds to hours if it were worked out.
LONG = [
    r"\sum_{i=1}^{1000}\sum_{j=1}^{1000} i j x", r"\sum_{i=1}^{99}\sum_{j=1}^{99}\sum_{k=1}^{99} \sin(ijkx)",
    r"\sum_{k=1}^{999} k^{3000}", r"\prod_{k=1}^{1000} \frac{k^9+1}{k^8+7}", r"\sum_{k=1}^{1000} \frac{1}{k^{20}}",
]  # fmt: skip


def test_a_long_computation_is_given_up_in_this_process_and_a_batch_of_them_left_to_workers():
    for text in LONG:
        started = time.process_time()
        judge([rf"\boxed{{{text}}}"], [text + "+0"], timeout_s=0.1)
        assert time.process_time() - started < slowness()
    sums = [rf"\sum_{{k=1}}^{{{number}}} \Gamma(k x/7)" for number in range(960, 990)]
    started = time.process_time()
    judge([rf"\boxed{{{text}}}" for text in sums], [text + "+0" for text in sums], batch_timeout_s=0.1)
    assert time.process_time() - started < 2 * slowness()


def test_the_other_rewards_stand_the_same_completions():
    count = len(COMPLETIONS)
    started = time.process_time()
    assert sum(countdown_equation(COMPLETIONS, [[1, 2, 3]] * count, [7] * count)) == 0
    assert sum(think_answer_format(COMPLETIONS)) == 0
    assert time.process_time() - started < 2 * slowness()


PARTS = [
    "7", "2^{2005}", r"\frac{1}{2^{2005}}", "10^{400}", "x", "y", r"\pi", "i", r"\infty", "(1,2)", "[1,2)", r"\{1,2\}",
    r"\cup", "=", "<", r"\le", ">", r"\approx", r"\ne", r"\in", r"\mathbb{R}", ",", " or ", " and ", r"\pm",
    r"\text{ cm}", r"\text{Yes}", r"\%", r"^\circ", r"\sqrt{2}", r"\sin", r"\log", "f(x)", "f(1)", "|", "!", "-", "+",
    "/", ":", "_2", "_{10}", r"\pmod 3", r"\setminus \{3\}", r"\$", "3:30", "a.m.", "B", r"\sum_{k=1}^{n}k",
    "e^{e^{9}}", r"\lfloor x\rfloor", r"\ldots", "5 feet", "(x,y)", "x=1", r"\frac{dy}{dx}", "\N{SUPERSCRIPT TWO}",
    r"\begin{pmatrix}1\\2\end{pmatrix}",
]  # fmt: skip
FORMULAS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=5).map("".join)


@settings(max_examples=400)
@given(FORMULAS, FORMULAS | st.sampled_from(["7", r"\sqrt{2}", r"(-\infty,2^{2005})\cup(10^{400},\infty)", "3.5"]))
def test_no_formula_makes_the_reader_raise_whatever_the_gold(found, gold):
    for answer in (found, final_answer(found)):
        verdict = exact_verdict(answer or "", gold)
        assert verdict is None or verdict.reward in (0.0, 1.0)
    same = exact_verdict(gold, gold)
    assert same is None or same.reward == 1.0 or not cleaned(gold)


ALPHABET = r"0123456789+-*/^_=<>(){}[].,;:!?|&%$#\ abexyzBINA" + "\u03c0\u00b2\u2212\n\x00\ud800\u0667"
PIECES = [
    r"\boxed{", "}", "<answer>", "</answer>", "####", "<think>", "</think>", r"\frac", r"\sqrt{", r"\text{",
    r"\begin{pmatrix}", r"\end{pmatrix}", r"\int", r"\sum_{n=1}^", r"\left(", r"\infty", r"\pm", "**", "1,000",
    "9" * 30, "__import__", " or ", r"\%",
]  # fmt: skip
TEXTS = st.lists(st.one_of(st.text(ALPHABET, max_size=6), st.sampled_from(PIECES)), max_size=14).map("".join)


@settings(max_examples=200)
@given(
    TEXTS, st.sampled_from([r"\boxed{%s}", "<answer>%s</answer>", "%s"]), st.sampled_from(["7", "(1,2)", "yes", "B"])
)
def test_any_text_is_judged_against_golds_that_need_no_library(text, place, gold):
    (verdict,) = judge([place.replace("%s", text)], [gold])
    assert verdict.reward in (0.0, 1.0)
    assert verdict.decided in ("exact", "unparseable", "missing") or gold == "(1,2)"


@settings(max_examples=5)
@given(st.lists(TEXTS, min_size=24, max_size=24))
def test_any_batch_is_judged_in_order_whatever_else_is_in_it(texts):
    right, wrong = r"\boxed{\frac{\sqrt{12}}{2}}", r"\boxed{\sqrt{5}}"
    batch = [right, wrong, *(rf"\boxed{{{text}}}" for text in texts), right, wrong]
    rewards = math_accuracy(batch, [r"\sqrt{3}"] * len(batch), timeout_s=5 * slowness(), batch_timeout_s=600)
    assert rewards[:2] == rewards[-2:] == [1.0, 0.0]
    assert set(rewards) <= {0.0, 1.0}


def resident_bytes(process: int) -> int:
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        pytest.skip("memory is read from /proc")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
