"""The parser of expressions and their values at points, against sympy, against hand-computed values, and in time."""

import contextlib
import threading
import time
from fractions import Fraction

import pytest
from conftest import slowness
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_posttrain.rewards.answers.evaluation import evaluate
from rl_posttrain.rewards.answers.expressions import parse
from rl_posttrain.rewards.answers.nodes import variables
from rl_posttrain.rewards.answers.points import Point, TooLargeError, UndefinedError
from rl_posttrain.rewards.answers.typography import cleaned
from rl_posttrain.rewards.answers.values import equal, proportional, real_value


def value(text):
    return real_value(parse(cleaned(text)))


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        (r"2^{10}-\frac{1}{2} \cdot 4", 1022),
        (r"\sqrt[3]{8}(1+2)", 6),
        ("(1-3)^2", 4),
        ("-2^2", -4),
        ("2 * 3 / 4", Fraction(3, 2)),
        (r"\frac12 \cdot 5!", 60),
        (r"1\frac{1}{2} + 1", Fraction(5, 2)),
        (r"\binom{10}{3}", 120),
        (r"\frac{100!}{98!}", 9900),
        (r"\sqrt{\frac{4}{9}}", Fraction(2, 3)),
        (r"\sqrt[3]{-8}", -2),
        (r"\sum_{k=1}^{10} k^2", 385),
        (r"\prod_{i=1}^{4} i", 24),
        (r"\lfloor 7.9 \rfloor + \lceil -1.5 \rceil", 6),
        (r"\max(3, 7, 5) - \gcd(12, 18)", 1),
        (r"|{-3}|\cdot 2", 6),
        ("10^-2", Fraction(1, 100)),
        (r"50\%", Fraction(1, 2)),
        (r"(3) (4)", 12),
    ],
)
def test_rational_values_are_exact(text, exact):
    assert value(text) == exact
    assert isinstance(value(text), Fraction)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        (r"\frac{3\sqrt{5}}{2}", 3 * 5**0.5 / 2),
        (r"-\pi/4", -0.7853981633974483),
        ("e^{2}", 7.38905609893065),
        (r"\frac{1}{2}\pi + .5", 2.0707963267948966),
        (r"\sin 30^\circ", 0.5),
        (r"\cos^2 1", 0.2919265817264289),
        (r"\sin^{-1} 1", 1.5707963267948966),
        (r"\log_2 8 + \ln e", 4.0),
        (r"\ln 2 \cdot \log_3 5", 1.015442265),
        (r"\sin 2\pi", 0.0),
        ("sqrt(2) + 2*pi", 7.6973988695527),
        (r"√12", 3.4641016151377544),
        (r"e^{i\pi} + 2", 1.0),
        (r"\tan^{-1} 1 \cdot 4", 3.141592653589793),
    ],
)
def test_other_values_by_hand(text, near):
    assert float(value(text)) == pytest.approx(near, rel=1e-7, abs=1e-30)


@pytest.mark.parametrize(
    "text",
    [
        "x2", "1 2", "2^3^4", "", "(", ")", "x+", r"\frac{1}", "x^", r"\sqrt", "1..2", r"\text{apples}", "a=b", "1,2",
        "(" * 40 + "x" + ")" * 40, "1+" * 200 + "1", "5!!", "hello", "\u0661", "x\x00", r"\foo{x}", "1/2x", "2 + , 3",
    ],
)  # fmt: skip
def test_what_is_no_expression_or_could_be_read_in_two_ways_is_not_read(text):
    assert parse(text) is None


EQUAL = [
    (r"\sin 2x", r"2\sin x\cos x"), (r"\cos^2 t", r"1-\sin^2 t"), (r"\ln x^2", r"2\ln x"), (r"\sqrt{x}\sqrt{x}", "x"),
    (r"\sqrt[3]{x}", "x^{1/3}"), (r"\frac{x^2-1}{x-1}", "x+1"), (r"\sqrt{x-10}", r"(x-10)^{1/2}"),
    (r"\sqrt[3]{2+\sqrt5}+\sqrt[3]{2-\sqrt5}", "1"),
    (r"\cos\frac{\pi}{7}\cos\frac{2\pi}{7}\cos\frac{3\pi}{7}", r"\frac18"),
    (r"\arctan x + \arctan\frac1x", r"\frac{\pi}{2}\cdot\frac{|x|}{x}"), (r"\sum_{k=1}^n k", r"\frac{n(n+1)}{2}"),
    (r"\sum_{k=1}^\infty \frac{1}{k^3}", r"\sum_{j=1}^\infty j^{-3}"), (r"\int_0^1 f(x)\,dx", r"\int_0^1 f(t)\,dt"),
    (r"\sin -x", r"-\sin x"),
    (r"e^{2x}", "(e^x)^2"), ("n!", "n(n-1)!"), (r"\binom{n}{2}", r"\frac{n(n-1)}{2}"), ("|x-1|", "|1-x|"),
    (r"\frac{1}{i}", "-i"),
    (r"10^{70}+\sqrt2", r"\sqrt2+10^{70}"), ("P(A|B)", "P(A|B)"),
]  # fmt: skip
DIFFERENT = [
    (r"\sqrt{x^2}", "x"), ("f(2x)", "2f(x)"), ("x", "y"), (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}"),
    (r"10^{70}+\sqrt2", r"10^{70}+\sqrt3"), (r"e^{\pi\sqrt{163}}", "262537412640768744"), ("2^{1000}", "2^{1000}+1"),
    (r"\lfloor\frac{n}{10}\rfloor", r"\lfloor\frac{n}{11}\rfloor"), ("|x-5|", "5-x"), (r"\max(x,10)", "10"),
    (r"\lfloor\frac n2\rfloor", r"\lceil\frac n2\rceil-1"), (r"\sin x", r"\sin(-x)"),
    (r"\sum_{k=1}^n k", r"\frac{n(n-1)}{2}"), ("x^2", "2x"), ("a-b", "b-a"), ("3+4i", "4+3i"),
    (r"\int_0^1 f(x)\,dx", r"\int_0^2 f(x)\,dx"), (r"\sqrt2", "1.41421356237309504880168872420969807856967"),
    ("x_1", "x_2"), ("n!", "(n-1)!"), (r"\vec{a}", "a"), (r"\log_2 x", r"\log_3 x"),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_equal_expressions(a, b):
    assert equal(parse(cleaned(a)), parse(cleaned(b))) is True


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_different_expressions_however_near(a, b):
    assert equal(parse(cleaned(a)), parse(cleaned(b))) is False


def test_equations_are_the_same_up_to_a_factor():
    assert proportional(parse("2x+3y-6"), parse("4x+6y-12"))
    assert not proportional(parse("x^2+121"), parse("x^2+50"))
    assert not proportional(parse("0*x"), parse("x"))
    assert proportional(parse("x-y"), parse("2x-2y"), only_positive=True)
    assert not proportional(parse("x-y"), parse("y-x"), only_positive=True)


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9}}", "2^{(2^{(2^{40})})}", "99999999!", "((9!)!)!", r"\binom{99999999}{4999}", "e^{e^{e^{e^{e}}}}",
        r"\sum_{n=1}^{10^9} n", r"\prod_{k=1}^{99999} k", r"\sin(10^{10000})", "(1.0000001)^{10^9}", "x^{99999}", "1/0",
        "0^{-1}", r"\tan\frac{\pi}{2}", r"\ln 0", "0^0", r"(\sqrt2)^{10^{10}}",
        r"\sqrt[1000]{2}", "((((2^{99})^{99})^{99})^{99})",
    ],
)  # fmt: skip
def test_no_expression_takes_long(text):
    node = parse(text)
    started = time.process_time()
    if node is not None:
        with contextlib.suppress(TooLargeError, UndefinedError):
            evaluate(node, Point(tuple((name, Fraction(12345, 10007)) for name in sorted(variables(node)))))
    assert time.process_time() - started < 0.5 * slowness()


def test_threads_do_not_change_each_others_precision():
    failed = []

    def compare(thread):
        for number in range(40):
            a = parse(rf"{number + 2}\pi\sin({thread}+{number})+\sqrt{{{number}}}")
            same = parse(rf"\sqrt{{{number}}}+\pi\sin({number}+{thread})({number + 2})")
            other = parse(rf"\sqrt{{{number}}}+\pi\sin({number}+{thread})({number + 2})+10^{{-{5 + 7 * number}}}")
            if equal(a, same) is not True or equal(a, other) is not False:
                failed.append((thread, number))

    threads = [threading.Thread(target=compare, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


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
    point = Point((("x", Fraction(7, 5)), ("y", Fraction(11, 3))))
    found = evaluate(parse(text), point).number
    for old, new in ((r"\cdot", "*"), (r"\pi", "pi"), ("^", "**"), (r"\sqrt", "sqrt"), (r"}{", ")/("), (r"\frac", "")):
        text = text.replace(old, new)
    expected = parse_expr(text.replace("{", "(").replace("}", ")"))
    at = {sympy.Symbol("x"): sympy.Rational(7, 5), sympy.Symbol("y"): sympy.Rational(11, 3)}
    assert float(found) == pytest.approx(float(expected.subs(at)), rel=1e-12)
