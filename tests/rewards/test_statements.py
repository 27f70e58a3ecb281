"""Where the answer stands in a text, against tables that were written by hand."""

import time
from pathlib import Path

import pytest
from conftest import slowness

from rl_posttrain.rewards.accuracy import final_answer
from rl_posttrain.rewards.statements import last_expression, stated


def cases(name):
    table = (Path(__file__).parent / "cases" / name).read_text(encoding="utf-8")
    lines = [line for line in table.splitlines() if " || " in line]
    return [line.replace("\N{RETURN SYMBOL}", "\n").split(" || ") for line in lines]


@pytest.mark.parametrize(("text", "found"), cases("places.txt"))
def test_what_a_text_states_is_found_whole(text, found):
    assert (last_expression(text) or "-") == found
    # An earlier paragraph changes nothing, unless there were no words but the answer.
    if found != "-" and not text.replace(" ", "").rstrip(".").isalpha():
        assert last_expression(f"We add 17 and 18.\n\n{text}") == found


@pytest.mark.parametrize(("place", "text", "found"), cases("marked_places.txt"))
def test_what_stands_in_a_marked_place_is_found(place, text, found):
    assert final_answer(text, [place]) == (None if found == "-" else found)
    assert final_answer(f"We add 17 and 18.\n{text}", [place]) == (None if found == "-" else found)


def test_an_empty_place_is_found_and_holds_nothing():
    assert final_answer(r"\boxed{7} \boxed{}") == ""
    assert final_answer("<answer></answer> 7") == ""
    assert final_answer("7 ####") == ""


def test_a_single_line_states_the_same():
    assert stated("She has 42 apples left.") == "42 apples"
    assert stated("B") == "B"
    assert stated("") is None


def test_only_the_end_of_a_long_text_is_read():
    assert last_expression("It is 7. " + "and so on " * 1_900) == "7"
    assert last_expression("It is 7. " + "and so on " * 2_100) is None


HOSTILE = [
    "answer is ", "answer to ", "answer: **", "$1 ", "$ 1", "1.\n", "\n\n1.", "1.\n\n", "12\n\n", "x = ", "1, ",
    "(1, ", r"\(1", r"\[", r"$\$", "$$", r"\begin{align}", r"\begin{array}&\\", "<a ", "<a x=", "<|", "1-a", "a'",
    "|a", "|", "and ", "3 and ", "3 apples ", "5 a ", "_", "x_", "-", "=", "--", "`", "*", "**", "1:", "1/", "1'",
    "{", "}", "{1", r"\boxed", r"\boxed{", r"\boxed 4", r"\framebox[", r"\fbox{}", "<answer>", "</answer>",
    "< answer ", "####", r"\text{", "step 3 ", "(A) ", "answer is no\n\n", "not ", "In 3, ", "a-", "1...", "\u00bd",
    "5 square ",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_the_search_takes_linear_time(piece):
    text = piece * (100_000 // len(piece))
    for hostile in (f"answer: {text}", f"7 {text}\n\nno"):
        started = time.process_time()
        last_expression(hostile)
        stated(hostile)
        final_answer(hostile)
        assert time.process_time() - started < 2 * slowness()
