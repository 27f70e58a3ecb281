from decimal import Decimal

import numpy
import pytest

from rl_posttrain.tasks.gold import gold_of


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
        ({"gold": 1}, None),
    ],
)
def test_the_gold_in_what_data_sets_ship(value, gold):
    assert gold_of(value) == gold
