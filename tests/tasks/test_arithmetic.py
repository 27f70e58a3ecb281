import os
import re
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.arithmetic import arithmetic

ALL = ["+", "-", "*", "/"]


def parsed(row):
    a, operator, b = re.fullmatch(r"What is ([0-9]+) (\S) ([0-9]+)\?", row["question"]).groups()
    return int(a), operator, int(b)


@pytest.mark.parametrize("digits", [1, 2, 4, 9])
def test_answers_are_right_and_operands_in_range(digits):
    rows = arithmetic(num_train=400, num_eval=40, seed=3, operators=ALL, digits=digits)
    for row in rows.train + rows.eval:
        a, operator, b = parsed(row)
        assert 0 <= a < 10**digits
        assert 0 <= b < 10**digits
        expected = {"+": a + b, "-": a - b, "*": a * b, "/": Fraction(a, b) if operator == "/" else None}[operator]
        assert row["answer"] == str(expected)  # a division with a remainder would print as a fraction


def test_all_questions_are_reached():
    rows = arithmetic(num_train=1000, num_eval=16, seed=0, operators=["/"], digits=1)
    divisions = {(a, "/", b) for b in range(1, 10) for a in range(10) if a % b == 0}
    assert len(divisions) == 9 + 23  # zero over each divisor, and sum(9 // b)
    assert {parsed(row) for row in rows.train} | {parsed(row) for row in rows.eval} == divisions


@pytest.mark.parametrize("digits", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_train_and_eval_share_no_question_and_eval_has_no_repeats(digits, seed):
    rows = arithmetic(num_train=2048, num_eval=100, seed=seed, operators=["+", "-"], digits=digits)
    train, held_out = [parsed(row) for row in rows.train], [parsed(row) for row in rows.eval]
    assert len(train) == 2048
    assert len(set(held_out)) == 100
    assert not set(train) & set(held_out)


def test_train_repeats_only_once_all_questions_are_used():
    few = arithmetic(num_train=70, num_eval=30, seed=0, operators=["+"], digits=1)
    assert len({row["question"] for row in few.train}) == 70
    many = arithmetic(num_train=210, num_eval=30, seed=0, operators=["+"], digits=1)
    assert set(Counter(row["question"] for row in many.train).values()) == {3}


def test_operators_are_balanced_and_mixed():
    rows = arithmetic(num_train=402, num_eval=42, seed=0, operators=ALL, digits=2)
    assert sorted(Counter(parsed(row)[1] for row in rows.train).values()) == [100, 100, 101, 101]
    assert sorted(Counter(parsed(row)[1] for row in rows.eval).values()) == [10, 10, 11, 11]
    assert len({parsed(row)[1] for row in rows.train[:40]}) == 4


def test_eval_does_not_change_with_num_train_and_does_with_seed():
    def held_out(**changes):
        return arithmetic(**{"num_train": 8, "num_eval": 32, "seed": 0, "digits": 2, **changes}).eval

    assert held_out() == held_out(num_train=2000)
    assert held_out() != held_out(seed=1)


def test_rows_are_the_same_in_another_process_with_another_hash_seed():
    program = (
        "from rl_posttrain.tasks.arithmetic import arithmetic; from rl_posttrain.tasks.countdown import countdown\n"
        "import sys; assert not {'torch', 'datasets', 'transformers'} & set(sys.modules)\n"
        "print(arithmetic(num_train=20, num_eval=5, seed=7), countdown(num_train=20, num_eval=5, seed=7))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"digits": 0}, r"task\.digits=0: "),
        ({"digits": 10}, r"task\.digits=10: "),
        ({"num_train": 0}, r"task\.num_train=0: "),
        ({"num_eval": -1}, r"task\.num_eval=-1: "),
        ({"operators": ["^"]}, r"task\.operators=\['\^'\]: '\^' is no operator"),
        ({"operators": []}, r"task\.operators=\[\]: "),
        ({"operators": ["+", "+"]}, r"one twice"),
        ({"num_eval": 51, "operators": ["+"]}, r"task\.num_eval=51: .*half.*set num_eval to 50 at most"),
        ({"num_eval": 33, "operators": ["+", "/"]}, r"task\.num_eval=33: .*set num_eval to 32 at most"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        arithmetic(**{"num_train": 8, "num_eval": 8, "seed": 0, **options})


def test_half_of_the_questions_can_be_held_out():
    rows = arithmetic(num_train=8, num_eval=50, seed=0, operators=["+"])
    assert len({row["question"] for row in rows.eval}) == 50
    assert len(arithmetic(num_train=8, num_eval=32, seed=0, operators=["+", "/"]).eval) == 32


def test_examples_change_no_row_and_are_no_eval_question():
    plain = arithmetic(num_train=50, num_eval=40, seed=3, operators=["+"], digits=1)
    shown = arithmetic(num_train=50, num_eval=40, seed=3, operators=["+"], digits=1, num_examples=3)
    assert (plain.train, plain.eval) == (shown.train, shown.eval)
    assert len({example.question for example in shown.examples}) == 3
    assert not {example.question for example in shown.examples} & {row["question"] for row in shown.eval}
    for example in shown.examples:
        a, b = re.fullmatch(r"What is (\d) \+ (\d)\?", example.question).groups()
        assert (example.working, example.answer) == (f"{a} + {b} = {int(a) + int(b)}", str(int(a) + int(b)))


def test_without_numbers_of_rows_there_are_enough_to_evaluate_on():
    assert len(arithmetic(seed=0).eval) == 100  # half of all one-digit sums and differences
    assert len(arithmetic(seed=0, digits=2).eval) == 128
