"""Where the answer stands in a text without a box, tag or mark, against a table that was written by hand."""

import time
from pathlib import Path

import pytest
from conftest import slowness

from rl_posttrain.rewards.statements import last_expression, stated

TABLE = Path(__file__).parent / "cases/places.txt"
CASES = [
    line.replace("\N{RETURN SYMBOL}", "\n").rpartition(" || ")[::2]
    for line in TABLE.read_text(encoding="utf-8").splitlines()
    if " || " in line
]


@pytest.mark.parametrize(("text", "found"), CASES)
def test_what_a_text_states_is_found_whole(text, found):
    assert (last_expression(text) or "-") == found
    # An earlier paragraph changes nothing, unless there were no words but the answer.
    if found != "-" and not text.replace(" ", "").rstrip(".").isalpha():
        assert last_expression(f"We add 17 and 18.\n\n{text}") == found


def test_a_single_line_states_the_same():
    assert stated("She has 42 apples left.") == "42 apples"
    assert stated("B") == "B"
    assert stated("") is None


HOSTILE = [
    "answer is ", "answer to ", "answer: **", "$1 ", "$ 1", "1.\n", "\n\n1.", "1.\n\n", "12\n\n", "x = ", "1, ", "(1, ",
    r"\(1", r"\[", r"$\$", "$$", r"\begin{align}", r"\begin{array}&\\", "<a ", "<a x=", "<|", "1-a", "a'", "|a", "|",
    "and ", "3 and ", "3 apples ", "5 a ", "_", "x_", "-", "=", "--", "`", "*", "**", "1:", "1/", "1'", "{", "}", "{1",
    r"\boxed", r"\text{", "step 3 ", "(A) ", "answer is no\n\n", "not ", "In 3, ", "a-", "1...", "\u00bd", "5 square ",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_the_search_takes_linear_time(piece):
    text = piece * (100_000 // len(piece))
    for hostile in (text, text + "7", "7 " + text, "answer: " + text, text + "\n\nno"):
        started = time.process_time()
        last_expression(hostile)
        stated(hostile)
        assert time.process_time() - started < 2 * slowness()
