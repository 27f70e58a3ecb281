from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.countdown import countdown

OPERATORS = {
    "a+b": lambda a, b: a + b, "a-b": lambda a, b: a - b, "b-a": lambda a, b: b - a,
    "a*b": lambda a, b: a * b, "a/b": lambda a, b: a / b, "b/a": lambda a, b: b / a,
}  # fmt: skip


def solvable(puzzles):
    """Which puzzles of equally many numbers have a solution, all of them at once.

    Two values are joined by an operator again and again, in every way, until one is left. That happens in floating
    point; a hit is worked out again in fractions and counts only if it is exact.
    """
    numbers, targets = [row["numbers"] for row in puzzles], np.array([row["target"] for row in puzzles])
    solved = np.zeros(len(puzzles), dtype=bool)

    def join(values, rows, steps):
        if len(values) == 1:
            for row in rows[np.abs(values[0] - targets[rows]) < 1e-6]:
                solved[row] |= replay(numbers[row], steps) == targets[row]
            return
        for i, j in combinations(range(len(values)), 2):
            for name, operate in OPERATORS.items():
                still_open = ~solved[rows]
                rows, values = rows[still_open], [value[still_open] for value in values]
                if not len(rows):
                    return
                rest = [value for place, value in enumerate(values) if place not in (i, j)]
                join([*rest, operate(values[i], values[j])], rows, [*steps, (i, j, name)])

    with np.errstate(divide="ignore", invalid="ignore"):
        join(list(np.array(numbers, dtype=float).T), np.arange(len(puzzles)), [])
    return solved


def replay(numbers, steps):
    values = [Fraction(number) for number in numbers]
    for i, j, name in steps:
        rest = [value for place, value in enumerate(values) if place not in (i, j)]
        values = [*rest, OPERATORS[name](values[i], values[j])]
    return values[0]


def identities(rows):
    return [(row["target"], *sorted(row["numbers"])) for row in rows]


def test_the_solver_of_these_tests_finds_fractions_and_finds_nothing_where_nothing_is():
    puzzles = [([3, 3, 8, 8], 24), ([1, 1, 1, 1], 24), ([1, 3, 4, 6], 24), ([0, 0, 5, 5], 7)]
    found = solvable([{"numbers": numbers, "target": target} for numbers, target in puzzles])
    assert list(found) == [True, False, True, False]


# The solver may need seconds for one puzzle of six numbers, where it has few solutions.
SIX = [(6, 10), pytest.param(6, 300, marks=pytest.mark.long)]


@pytest.mark.parametrize(("count", "num_solved"), [(3, 10_000), (4, 10_000), (5, 10_000), *SIX])
def test_ten_thousand_puzzles_are_all_different_and_have_solutions(count, num_solved):
    rows = countdown(num_train=10_000, num_eval=200, seed=5, num_numbers=[count])
    assert rows.notes == ()
    assert len(set(identities(rows.train + rows.eval))) == 10_200
    assert solvable(rows.train[:num_solved]).all()
    assert solvable(rows.eval[:num_solved]).all()


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
    # All others that there are, equally often.
    others = {
        (target, a, b) for a in range(1, 6) for b in range(a, 6) for target in (a + b, b - a, a * b, b / a)
        if target in range(1, 11)
    } - set(identities(rows.eval))  # fmt: skip
    assert set(identities(rows.train)) == others
    assert rows.notes == (f"{len(others)} different puzzles for 500 training rows: some are there more than once",)
    counts = Counter(identities(rows.train)).values()
    assert max(counts) - min(counts) <= 1


def test_rows_follow_the_seed_and_eval_ignores_num_train():
    assert countdown(num_train=30, num_eval=10, seed=2) == countdown(num_train=30, num_eval=10, seed=2)
    assert countdown(num_train=30, num_eval=10, seed=2).eval == countdown(num_train=90, num_eval=10, seed=2).eval
    assert countdown(num_train=30, num_eval=10, seed=2).eval == countdown(num_train=1, num_eval=25, seed=2).eval[:10]
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
            r"task\.max_target=99: no further puzzle.*\(2 are taken",
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
