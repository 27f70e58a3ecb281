import ast
import operator as op
import re
from fractions import Fraction

import numpy
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from rl_posttrain.errors import RecipeError
from rl_posttrain.rewards import countdown_equation
from rl_posttrain.rewards.countdown import MalformedExpressionError, evaluate


def score(expression, numbers, target, **options):
    completion = f"<think>let me see</think> <answer>{expression}</answer>"
    (reward,) = countdown_equation(completions=[completion], numbers=[numbers], target=[target], **options)
    return reward


@pytest.mark.parametrize(
    ("expression", "numbers", "target", "reward"),
    [
        ("1 + 2 * 3", [1, 2, 3], 7, 1.0),
        ("(1 + 2) * 3", [3, 2, 1], 9, 1.0),
        (" ( 1+2 )\n*3 = 9 ", [1, 2, 3], 9, 1.0),
        ("10 - 4 - 3", [3, 4, 10], 3, 1.0),  # from the left, not 10 - (4 - 3)
        ("12 / 3 / 2", [2, 3, 12], 2, 1.0),
        ("8 / (3 - 8 / 3)", [3, 3, 8, 8], 24, 1.0),  # exact: floats give 23.999999999999993
        ("1 / 3 * 3", [1, 3, 3], 1, 1.0),
        ("((5)) - (3)", [3, 5], 2, 1.0),
        # operators, brackets and wrappers as models write them
        (r"(1 + 2) \times 3", [1, 2, 3], 9, 1.0),
        (r"1 + 2 \cdot 3", [1, 2, 3], 7, 1.0),
        (r"12 \div 3 \div 2", [2, 3, 12], 2, 1.0),
        (r"2\times3", [2, 3], 6, 1.0),
        (r"2\times(3)", [2, 3], 6, 1.0),
        ("(1 + 2) \N{MULTIPLICATION SIGN} 3", [1, 2, 3], 9, 1.0),
        ("2 \N{MIDDLE DOT} 3", [2, 3], 6, 1.0),
        ("2 \N{DOT OPERATOR} 3", [2, 3], 6, 1.0),
        ("12 \N{DIVISION SIGN} 3 = 4", [3, 12], 4, 1.0),
        ("12 \N{DIVISION SLASH} 3", [3, 12], 4, 1.0),
        ("5 \N{MINUS SIGN} 3", [3, 5], 2, 1.0),
        ("5 \N{EN DASH} 3", [3, 5], 2, 1.0),
        (r"\frac{8}{4}", [4, 8], 2, 1.0),
        (r"\dfrac{8}{3 - \frac{8}{3}} = 24", [3, 3, 8, 8], 24, 1.0),
        (r"\frac{8}{4 - 4}", [4, 4, 8], 2, 0.0),
        (r"\frac84", [4, 8], 2, 0.0),
        (r"\frac{8}(4)", [4, 8], 2, 0.0),
        ("[(1 + 2) * 3] - 4", [1, 2, 3, 4], 5, 1.0),
        ("{1 + 2} * 3", [1, 2, 3], 9, 1.0),
        ("(1 + 2] * 3", [1, 2, 3], 9, 0.0),
        ("$(1 + 2) * 3$", [1, 2, 3], 9, 1.0),
        ("$$(1 + 2) * 3 = 9$$", [1, 2, 3], 9, 1.0),
        (r"\((1 + 2) * 3\)", [1, 2, 3], 9, 1.0),
        (r"\[ (1 + 2) * 3 = 9. \]", [1, 2, 3], 9, 1.0),
        (r"\left(1 + 2\right) \, \times 3", [1, 2, 3], 9, 1.0),
        (r"\boxed{(1 + 2) * 3}", [1, 2, 3], 9, 1.0),
        (r"$\boxed{(1 + 2) * 3 = 9}$.", [1, 2, 3], 9, 1.0),
        ("**(1 + 2) * 3**", [1, 2, 3], 9, 1.0),
        ("`(1 + 2) * 3`", [1, 2, 3], 9, 1.0),
        ("(1 + 2) * 3.", [1, 2, 3], 9, 1.0),
        ("1 - 4 = -3", [1, 4], -3, 1.0),
        ("1 - 4 = \N{MINUS SIGN}3", [1, 4], -3, 1.0),
        (r"2 \sqrt 9", [2, 9], 6, 0.0),
        (r"2 \timesx 3", [2, 3], 6, 0.0),
        ("$1 + 2$ = $3$", [1, 2], 3, 1.0),
        ("1$2 + 3", [12, 3], 15, 0.0),
        # a leading zero is another number than the given one
        ("07 - 3", [3, 7], 4, 0.0),
        ("00 + 3", [0, 3], 3, 0.0),
        ("0 + 3", [0, 3], 3, 1.0),
        # wrong value, or another target stated
        ("1 + 2 + 3", [1, 2, 3], 7, 0.1),
        ("1 + 2 * 3 = 8", [1, 2, 3], 7, 0.1),
        ("7 / 2", [2, 7], 3, 0.1),
        # not exactly the numbers
        ("1 + 2 + 4", [1, 2, 3], 7, 0.0),
        ("3 + 4", [3, 4, 4], 7, 0.0),
        ("3 + 4 + 0", [3, 4], 7, 0.0),
        ("3 + 4", [3], 7, 0.0),
        ("7", [3, 4], 7, 0.0),
        ("34", [3, 4], 34, 0.0),
        # not in the grammar
        ("2 ** 10", [2, 10], 1024, 0.0),
        ("7 // 2", [7, 2], 3, 0.0),
        ("(1.5) * 2", [1, 5, 2], 3, 0.0),
        ("2 (3)", [2, 3], 6, 0.0),
        ("(2)(3)", [2, 3], 6, 0.0),
        ("2 3", [2, 3], 23, 0.0),
        ("-2 + 3", [2, 3], 1, 0.0),
        ("3 - -2", [2, 3], 5, 0.0),
        ("3 + (2", [2, 3], 5, 0.0),
        ("3 + 2)", [2, 3], 5, 0.0),
        ("3 + ", [3], 3, 0.0),
        ("()", [], 0, 0.0),
        ("", [], 0, 0.0),
        ("3 + 2 = 5 = 5", [2, 3], 5, 0.0),
        ("5 = 3 + 2", [2, 3], 5, 0.0),
        ("3 + 2 =", [2, 3], 5, 0.0),
        ("3 + 2 = 5.0", [2, 3], 5, 0.0),
        ("3 + 2 and done", [2, 3], 5, 0.0),
        ("3e0 + 2", [3, 2], 5, 0.0),
        ("1_0 + 2", [10, 2], 12, 0.0),
        ("3 + ٢", [3, 2], 5, 0.0),
        ("3 + ²", [3, 2], 5, 0.0),
        ("3\N{NO-BREAK SPACE}+ 2", [3, 2], 5, 0.0),
        ("3 % 2", [3, 2], 1, 0.0),
        ("__import__('os').getpid()", [], 0, 0.0),
        # no value
        ("3 / (2 - 2)", [2, 2, 3], 3, 0.0),
        # bounds
        ("9999999999 + 1", [9999999999, 1], 10**10, 0.0),
        ("(" * 20 + "3" + ")" * 20, [3], 3, 1.0),
        ("(" * 21 + "3" + ")" * 21, [3], 3, 0.0),
        (" " * 193 + "3+4 = 7", [3, 4], 7, 1.0),
        (" " * 194 + "3+4 = 7", [3, 4], 7, 0.0),
        ("(" * 100_000, [3], 3, 0.0),
        ("9*" * 50_000 + "9", [3], 3, 0.0),
    ],
)
def test_reward(expression, numbers, target, reward):
    assert score(expression, numbers, target, partial_credit=0.1) == reward
    assert score(expression, numbers, target) == (1.0 if reward == 1.0 else 0.0)


def test_the_last_answer_is_read_and_only_tags_count():
    completions = [
        "<answer>1 + 1</answer> no, <answer>1 + 2</answer>",
        [{"role": "assistant", "content": "<answer>1 + 2</answer>"}],
        "1 + 2",
        "<answer>1 + 2",
        "<answer>1 + 2</answer>",
        "<answer>1 + 2</answer>",
    ]
    numbers = [[1, 2]] * 4 + [None, [1, 2]]
    assert countdown_equation(completions, numbers, [3] * 5 + [None]) == [1.0, 1.0, 0.0, 0.0, None, None]


@pytest.mark.parametrize(
    ("numbers", "target"),
    [
        ("[1, 2, 3]", "9"),
        ("1,2,3", 9),
        ("1 2 3", 9.0),
        ("(1, 2, 3)", " 9 "),
        ("{3, 2, 1}", "9.0"),
        ((1, 2, 3), 9),
        ([1.0, 2.0, 3.0], 9),
        (["1", "2", "3"], "9"),
        (numpy.array([1, 2, 3]), numpy.int64(9)),
        (numpy.array([1.0, 2.0, 3.0]), numpy.float32(9)),
        ([numpy.int32(1), numpy.int64(2), numpy.float64(3)], numpy.array(9)),
        (torch.tensor([1, 2, 3]), torch.tensor(9)),
        ([1, 2, 3], Fraction(9)),
    ],
)
def test_numbers_and_target_are_read_as_data_sets_have_them(numbers, target):
    assert score("(1 + 2) * 3", numbers, target) == 1.0
    assert score("(1 + 2) * 3 = 9", numbers, target) == 1.0
    assert score("1 + 2 + 3", numbers, target) == 0.0


@pytest.mark.parametrize(
    "numbers",
    ["one, two", "1, 2.5", [1, 2.5], [1, None], [-1, 2], ["a"], 7, {"1": 2}, [True, 2], [[1, 2]], "-1, 2", "[]"],
)
def test_numbers_that_cannot_be_read_are_refused(numbers):
    with pytest.raises(RecipeError, match=r"^numbers=.*give a list of whole numbers"):
        score("1 + 2", numbers, 3)


@pytest.mark.parametrize("target", ["three", 2.5, [3], "3, 4", True, float("inf"), {}])
def test_a_target_that_cannot_be_read_is_refused(target):
    with pytest.raises(RecipeError, match=r"^target=.*give a whole number"):
        score("1 + 2", [1, 2], target)


def test_a_puzzle_that_is_missing_is_not_judged():
    for missing in (None, float("nan"), " "):
        assert score("1 + 2", missing, 3) is None
        assert score("1 + 2", [1, 2], missing) is None


@pytest.mark.parametrize("partial_credit", [-0.1, 1.0])
def test_partial_credit_stays_below_a_right_answer(partial_credit):
    with pytest.raises(RecipeError, match=rf"partial_credit={partial_credit}: "):
        score("1 + 2", [1, 2], 3, partial_credit=partial_credit)


# An independent oracle: a random tree knows its value and its numbers, and is written out with the parentheses it needs
# (or more of them). The reward sees the text only.
TREES = st.recursive(
    st.integers(0, 99), lambda child: st.tuples(st.sampled_from("+-*/"), child, child, st.booleans()), max_leaves=8
)
STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}


def value_of(tree):
    if isinstance(tree, int):
        return Fraction(tree)
    operator, left, right, _ = tree
    left, right = value_of(left), value_of(right)
    if operator == "/":
        return None if left is None or not right else left / right
    if left is None or right is None:
        return None
    return {"+": left + right, "-": left - right, "*": left * right}[operator]


def leaves_of(tree):
    return [tree] if isinstance(tree, int) else leaves_of(tree[1]) + leaves_of(tree[2])


def written(tree, outer=0):
    """`tree` as text that may stand where an operand binding at least as tightly as `outer` is wanted."""
    if isinstance(tree, int):
        return str(tree)
    operator, left, right, more_parentheses = tree
    strength = STRENGTH[operator]
    text = f"{written(left, strength)} {operator} {written(right, strength + 1)}"
    return f"({text})" if strength < outer or more_parentheses else text


@given(tree=TREES, shuffled=st.randoms(use_true_random=False))
def test_value_and_numbers_agree_with_random_trees(tree, shuffled):
    text, value, numbers = written(tree), value_of(tree), leaves_of(tree)
    assume(len(text) <= 200)
    shuffled.shuffle(numbers)
    if value is None:
        assert score(text, numbers, 1, partial_credit=0.25) == 0.0
        return
    assert score(text, numbers, value, partial_credit=0.25) == 1.0
    assert score(text, numbers, value + 1, partial_credit=0.25) == 0.25
    assert score(text, [*numbers, 1], value, partial_credit=0.25) == 0.0
    assert score(text, numbers[1:], value, partial_credit=0.25) == 0.0
    assert score(text, [numbers[0] + 1, *numbers[1:]], value, partial_credit=0.25) == 0.0


def python_judgement(text):
    """The value by Python's own parser, narrowed to + - * / over whole numbers; None for any other text."""
    if re.search(r"\b0[0-9]", text):
        return None  # Python takes 00
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        return None

    def value(node):
        match node:
            case ast.Constant(value=int(number)):
                return Fraction(number)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div() as operator, right=right):
                operate = {ast.Add: op.add, ast.Sub: op.sub, ast.Mult: op.mul, ast.Div: op.truediv}[type(operator)]
                return operate(value(left), value(right))
            case _:
                raise TypeError(node)

    try:
        return value(tree)
    except (TypeError, ZeroDivisionError):
        return None


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from(["1", "20", "0", "+", "-", "*", "/", "(", ")", "(", ")", " ", "."]), max_size=9).map(
        "".join
    )
)
@example("1*(20-1)/20")
@example("1**20")
@example("20//1")
@example("-1+20")
@example("1 20")
@example("(1)(20)")
@example("1.0")
@example("(1+20)*0")
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_any_text_is_judged_as_python_judges_it(text):
    assume(not re.search("[0-9]{10}", text))  # beyond the bound on digits, which Python does not have
    try:
        value, numbers = evaluate(text)
    except (MalformedExpressionError, ZeroDivisionError):
        value, numbers = None, None
    assert value == python_judgement(text)
    if value is not None:
        assert numbers == [int(run) for run in re.findall("[0-9]+", text)]
