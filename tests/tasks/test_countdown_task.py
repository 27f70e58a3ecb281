from collections import Counter
from fractions import Fraction
from itertools import combinations

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.countdown import countdown


def can_make(values, target):
    """Whether some expression over all of `values` gives `target`: every pair, every operator, again and again."""
    if len(values) == 1:
        return values[0] == target
    for i, j in combinations(range(len(values)), 2):
        rest = [value for k, value in enumerate(values) if k not in (i, j)]
        a, b = values[i], values[j]
        results = {a + b, a - b, b - a, a * b} | ({a / b} if b else set()) | ({b / a} if a else set())
        if any(can_make([*rest, result], target) for result in results):
            return True
    return False


def identities(rows):
    return [(row["target"], *sorted(row["numbers"])) for row in rows]


def test_every_puzzle_has_a_solution():
    rows = countdown(num_train=60, num_eval=20, seed=5)
    for row in rows.train + rows.eval:
        assert can_make([Fraction(number) for number in row["numbers"]], row["target"])


def test_rows_have_what_the_reward_needs():
    rows = countdown(num_train=100, num_eval=30, seed=0, num_numbers=[2, 5], max_number=20, max_target=30)
    for row in rows.train + rows.eval:
        assert set(row) == {"question", "answer", "numbers", "target"}
        assert all(type(number) is int and 1 <= number <= 20 for number in row["numbers"])
        assert type(row["target"]) is int
        assert 1 <= row["target"] <= 30
        assert row["answer"] == str(row["target"])
        assert f"numbers {', '.join(map(str, row['numbers']))} exactly once" in row["question"]
        assert f"to make {row['target']}." in row["question"]
    assert Counter(len(row["numbers"]) for row in rows.train) == {2: 50, 5: 50}


def test_train_and_eval_share_no_puzzle_in_any_order_of_numbers():
    # So few puzzles that chance alone would share many.
    rows = countdown(num_train=500, num_eval=12, seed=1, num_numbers=[2], max_number=5, max_target=10)
    assert len(set(identities(rows.eval))) == 12
    assert len(rows.train) == 500
    assert not set(identities(rows.train)) & set(identities(rows.eval))


def test_rows_follow_the_seed_and_eval_ignores_num_train():
    assert countdown(num_train=30, num_eval=10, seed=2) == countdown(num_train=30, num_eval=10, seed=2)
    assert countdown(num_train=30, num_eval=10, seed=2).eval == countdown(num_train=90, num_eval=10, seed=2).eval
    assert countdown(num_train=30, num_eval=10, seed=2).eval != countdown(num_train=30, num_eval=10, seed=3).eval


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_numbers": []}, r"task\.num_numbers=\[\]: "),
        ({"num_numbers": [1, 3]}, r"task\.num_numbers=\[1, 3\]: "),
        ({"num_numbers": [7]}, r"task\.num_numbers=\[7\]: "),
        ({"max_number": 0}, r"task\.max_number=0: "),
        ({"max_target": 0}, r"task\.max_target=0: "),
        ({"num_train": 0}, r"task\.num_train=0: "),
        (
            {"num_eval": 3, "num_numbers": [2], "max_number": 1},
            r"task\.max_target=99: no further puzzle.*\(2 are held out",
        ),
        (
            {"num_eval": 2, "num_numbers": [2], "max_number": 1},
            r"task\.max_target=99: no further puzzle",
        ),  # none for train
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        countdown(**{"num_train": 8, "num_eval": 8, "seed": 0, **options})
