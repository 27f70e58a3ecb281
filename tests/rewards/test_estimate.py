"""Values of expressions at a point: they may show that two differ, and never that equal ones do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_answer_cases import CASES

from rl_posttrain.rewards.answers import cleaned
from rl_posttrain.rewards.estimate import _estimate, differ


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\frac{3\sqrt{5}}{2}", 3 * 5**0.5 / 2),
        (r"-\pi/4", -0.7853981633974483),
        (r"2^{10}-\frac{1}{2} \cdot 4", 1022.0),
        (r"\sqrt[3]{8}(1+2)", 6.0),
        ("(1-3)^2", 4.0),
        ("e^{2}", 7.38905609893065),
        ("2 * 3 / 4", 1.5),
        (r"\frac{1}{2}\pi + .5", 2.0707963267948966),
    ],
)
def test_values_by_hand(text, value):
    assert _estimate(text)[0].value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "1/2x", "x2", r"1\frac{1}{2}", "1 2", "x^23", "2^3^4", "f(x)", "2i", "5!", r"\sin x", "|x|", "x_1", "x=1",
        "1,2", "", "50%", "(", ")", "x+", r"\frac{1}", r"\frac12", "x^", r"\sqrt", "1..2", r"\text{x}", "1/0",
        "((-8))^{0.5}", "9^{999}", "(" * 30 + "x" + ")" * 30, "xyz", "x" * 400, "\u0661", "x\x00", r"45^\circ",
    ],
)  # fmt: skip
def test_what_is_not_read_or_could_be_read_otherwise_says_nothing(text):
    assert _estimate(text) is None
    assert not differ(text, "2")


def test_equal_expressions_of_the_table_do_not_differ_and_most_wrong_ones_do():
    pairs = [(cleaned(case.answer), cleaned(case.gold), case.reward) for case in CASES]
    assert not [pair for pair in pairs if pair[2] == 1.0 and differ(*pair[:2])]
    assert differ("x+1", "x-1")
    assert differ(r"\frac{a}{b}", r"\frac{b}{a}")
    assert not differ("x+1", "y+1")  # other variables: math-verify's to decide
    assert not differ("10^{20}+x-10^{20}", "x")  # rounding has eaten the x
    assert not differ(r"\sqrt{2}", "1.414214")  # math-verify rounds to six decimals
    assert differ(r"\sqrt{2}", "1.41")


LEAVES = st.sampled_from(["x", "y", "2", "3", "7", r"\pi"])
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda ab: rf"\left({ab[0]}+{ab[1]}\right)"),
        st.tuples(inner, inner).map(lambda ab: rf"\left({ab[0]}\right)\cdot\left({ab[1]}\right)"),
        st.tuples(inner, inner).map(lambda ab: rf"\frac{{{ab[0]}}}{{{ab[1]}}}"),
        st.tuples(inner, st.sampled_from(["2", "3"])).map(lambda ab: rf"\left({ab[0]}\right)^{{{ab[1]}}}"),
        inner.map(lambda a: rf"\sqrt{{{a}}}"),
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(TREES)
def test_values_are_those_of_sympy(tree):
    import sympy
    from sympy.parsing.sympy_parser import parse_expr

    text = cleaned(tree)
    estimate = _estimate(text)
    for old, new in ((r"\cdot", "*"), (r"\pi", "pi"), ("^", "**"), (r"\sqrt", "sqrt"), (r"}{", ")/("), (r"\frac", "")):
        text = text.replace(old, new)
    expected = parse_expr(text.replace("{", "(").replace("}", ")"))
    at = {sympy.Symbol(name): _estimate(name)[0].value for name in "xy"}
    assert estimate[0].value == pytest.approx(float(expected.subs(at)), rel=1e-9)
