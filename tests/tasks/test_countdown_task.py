from collections import Counter
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from data_sets import write

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
        assert set(row) == {"question", "answer", "numbers", "target", "num_numbers"}
        assert row["num_numbers"] == len(row["numbers"])
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


def test_a_published_data_set_in_place_of_puzzles_that_are_made(tmp_path):
    published = [{"nums": [n, n + 1, 2], "target": n + 3} for n in range(1, 21)]
    copies = [{"nums": [2, 2, 1], "target": 4}]  # of the first
    path = write(tmp_path / "countdown.parquet", published + copies)
    rows = countdown(num_train=5, num_eval=4, seed=1, path=path)
    assert (len(rows.train), len(rows.eval)) == (5, 4)
    for row in rows.train + rows.eval:
        assert {"nums": row["numbers"], "target": row["target"]} in published
        assert f"numbers {', '.join(map(str, row['numbers']))} exactly once" in row["question"]
        assert (row["answer"], row["num_numbers"]) == (str(row["target"]), 3)
    assert rows.notes == ("1 of 21 rows repeat a puzzle and are left out",)
    whole = countdown(num_eval=4, seed=1, path=path)
    assert whole.eval == rows.eval
    assert whole.train[:5] == rows.train
    assert len(set(identities(whole.train + whole.eval))) == 20
    assert countdown(num_train=1, num_eval=9, seed=1, path=path).eval[:4] == rows.eval
    assert countdown(num_eval=4, seed=2, path=path).eval != rows.eval


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"numbers": [1, 2], "target": 3}, {}, r"^task\.path=.*: has the columns numbers, target; it needs nums and"),
        ({"nums": "1 2", "target": 3}, {}, r"^task\.path=.*: row 1 has nums='1 2' and target=3; write a list"),
        ({"nums": [1, -2], "target": 3}, {}, r"^task\.path=.*: row 1 has nums=\[1, -2\]"),
        ({"nums": [1, 2], "target": "3"}, {}, r"^task\.path=.*: row 1 has nums=\[1, 2\] and target='3'"),
        ({"nums": [1, 2], "target": 3}, {"max_target": 9}, r"^task\.max_target=9: the puzzles of task\.path are"),
        ({"nums": [1, 2], "target": 3}, {"num_eval": 1}, r"^task\.num_train=null: with num_eval=1 that is 2 puzzles"),
    ],
)
def test_a_published_data_set_that_cannot_be_used_is_one_line(tmp_path, row, options, message):
    path = write(tmp_path / "countdown.jsonl", [row])
    with pytest.raises(RecipeError, match=message):
        countdown(**{"num_eval": 0, "seed": 0, "path": path, **options})


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
