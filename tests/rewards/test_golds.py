from decimal import Decimal
from fractions import Fraction

import numpy
import pandas
import pytest
import torch

from rl_posttrain.rewards import math_accuracy
from rl_posttrain.rewards.golds import gold_of


@pytest.mark.parametrize(
    ("value", "gold"),
    [
        ("18", "18"),
        (" \\frac{1}{2} ", "\\frac{1}{2}"),
        ("18.0", "18.0"),  # a text stays
        ("She sells 9 * 2 = <<9*2=18>>18.\n#### 18", "18"),
        ("#### 5\nno:\n#### 1,018 \n", "1,018"),
        ("So $x = \\boxed{\\frac{1}{\\sqrt{2}}}$.", "\\frac{1}{\\sqrt{2}}"),
        ("First \\boxed{3}, then \\boxed{ 4 }.", "4"),
        ("\\boxed{3}\n#### 4", "4"),  # the last mark counts
        ("#### 3, that is \\boxed{4}", "4"),
        ("#### \\boxed{18}", "18"),
        ("It is $\\fbox{7}$.", "7"),
        ("It is $\\boxed 2$.", "2"),
        ("It is \\boxed x, clearly", "x"),
        ("Price: ####", None),
        ("So \\boxed{", None),
        ("", None),
        (" \n", None),
        (None, None),
        (float("nan"), None),
        (float("inf"), None),
        (numpy.float32("nan"), None),
        (18, "18"),
        (18.0, "18"),
        (-0.5, "-0.5"),
        (0.1, "0.1"),
        (1e22, "10000000000000000000000"),
        (123456789012345678901234567890, "123456789012345678901234567890"),
        (numpy.int64(7), "7"),
        (numpy.float64(2.5), "2.5"),
        (Decimal("2.50"), "2.50"),
        (True, "True"),
        (["$2$"], "$2$"),
        (["1", 2.0], "1, 2"),
        ([], None),
        (["1", None], None),
        (Fraction(1, 2), "1/2"),
        (numpy.array([1, 2]), "1, 2"),
        (numpy.array(["12"]), "12"),
        (numpy.array(7), "7"),
        (torch.tensor(7), "7"),
        (torch.tensor([1.5, 2.0]), "1.5, 2"),
        (pandas.NA, None),
        (pandas.NaT, None),
        ("nan", None),
        ("NaN", None),
        ("<NA>", None),
        ("null", None),
        ("None", "None"),  # a word, such as none of the above
        (b" 18 ", "18"),
        (b"so \\boxed{18}", "18"),
        # Lists as text. Without quotes, it is an interval or a set.
        ("['12', '13']", "12, 13"),
        ("['12']", "12"),
        ("('12', '13')", "12, 13"),
        ("['12' '13']", "12, 13"),
        ("array(['12', '13'], dtype=object)", "12, 13"),
        ('["\\\\frac{1}{2}"]', "\\frac{1}{2}"),
        ("['\\\\frac{1}{2}', '3']", "\\frac{1}{2}, 3"),
        ("['\\frac{1}{2}']", "\\frac{1}{2}"),
        (
            "['\\\\begin{pmatrix} 1 \\\\\\\\ 2 \\\\end{pmatrix}']",
            "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
        ),
        ("['so #### 12']", "12"),
        ("['']", None),
        ("[1, 2]", "[1, 2]"),
        ("(1, 2)", "(1, 2)"),
        ("\\{1, 2\\}", "\\{1, 2\\}"),
        ("{1, 2}", "{1, 2}"),
        ("f'(x) = [a'b']", "f'(x) = [a'b']"),
        # Objects.
        ({"ground_truth": "12", "style": "rule"}, "12"),
        ({"final_answer": 18.0}, "18"),
        ({"answer": ["1", "2"]}, "1, 2"),
        ({"reward": 1, "ground_truth": {"target": 24, "numbers": [1, 2]}}, "24"),
        ('{"ground_truth": "12"}', "12"),
        ('{"ground_truth": "\\\\frac{1}{2}"}', "\\frac{1}{2}"),
        ("{'answer': '12'}", "12"),
        ({"ground_truth": None}, None),
        ({"source": 1}, None),
        ('{"source": "12"}', '{"source": "12"}'),
        ("{'answer': '12'", "{'answer': '12'"),
        (object(), None),
        # Marks as models and people write them.
        ("#### **18**", "18"),
        ("#### Step 1\nAdd.\n#### Answer\n18", "18"),
        ("so \\boxed{18}\n\n#### Explanation\nAdd.", "18"),
    ],
)
def test_the_gold_in_what_data_sets_ship(value, gold):
    assert gold_of(value) == gold


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        ("She sells 9 * 2 = <<9*2=18>>18.\n#### 18", "18"),
        ("So $x = \\boxed{\\frac{1}{2}}$.", "0.5"),
        (18, "18"),
        (18.0, "18"),
        (numpy.int64(18), "18"),
        ("['12', '13']", "13, 12"),
        ({"ground_truth": "18"}, "18"),
        (b"18", "18"),
    ],
)
def test_math_accuracy_reads_a_gold_column_as_it_is(value, answer):
    assert math_accuracy([f"\\boxed{{{answer}}}", "\\boxed{19}"], [value] * 2) == [1.0, 0.0]


def test_what_is_no_gold_is_not_judged():
    values = [None, float("nan"), pandas.NA, "nan", " ", [], "Price: ####", {"source": 1}]
    assert math_accuracy(["\\boxed{nan}"] * len(values), values) == [None] * len(values)


def test_reading_a_gold_again_changes_nothing():
    for text in ["#### **18**", "\\boxed{\\boxed{4}}", "['12', '13']", "{'answer': '#### 12'}", "(1, 2)", "yes"]:
        assert gold_of(gold_of(text)) == gold_of(text)
