"""Countdown: make a target from given numbers. TinyZero and the AdamS paper (arXiv:2505.16363) use this task."""

import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.rows import TaskRows, check_at_least
from rl_posttrain.tasks.sources import first_split, load_splits

MAX_NUMBERS = 6
# A draw is a random expression of random numbers; by default one in five to eight has a value within the limits.
MAX_DRAWS = 20_000

# Numbers and target.
Puzzle = tuple[list[int], int]


def countdown(
    *,
    num_train: int | None = None,
    num_eval: int = 256,
    seed: int,
    num_numbers: Sequence[int] | None = None,
    max_number: int | None = None,
    max_target: int | None = None,
    path: str | None = None,
) -> TaskRows:
    """Puzzles that have a solution, which uses every number once, with + - * / and parentheses.

    Two puzzles are the same if they have the same target and the same numbers in any order. Eval puzzles are all
    different, and no train row has one of them. Train repeats a puzzle only when new ones have run out. Eval rows do
    not depend on `num_train`, and fewer of them are the first ones of more. The question itself asks for the <answer>
    tag that the reward reads.

    Args:
        num_train: rows to train on, 1 or more; None: 16,384, or all that `path` has left.
        num_eval: rows to evaluate on.
        seed: decides every row.
        num_numbers: numbers of a puzzle; each of these counts, 2 to 6, is used equally often. None: 3 and 4.
        max_number: largest number; the smallest is 1. None: 99.
        max_target: largest target; the smallest is 1. None: 99.
        path: a published data set in place of puzzles that are made: `Jiayi-Pan/Countdown-Tasks-3to4` on the hub
            (TinyZero's), or a file or folder with its columns `nums` and `target`.

    Returns:
        Rows with `question`, `answer` (the target as text), `numbers` (list of int), `target` (int) and
        `num_numbers` (int), by which `eval` breaks results down.

    Raises:
        RecipeError: an option is out of its range; there are too few puzzles; or the data set cannot be read.
        HubError: the hub does not give it.
    """
    if num_train is not None:
        check_at_least("num_train", num_train, 1)
    check_at_least("num_eval", num_eval, 0)
    if path is not None:
        given = {"num_numbers": num_numbers, "max_number": max_number, "max_target": max_target}
        if unused := next((name for name, value in given.items() if value is not None), None):
            raise RecipeError(
                f"task.{unused}={given[unused]}: the puzzles of task.path are what they are; leave it out"
            )
        return _published(path, num_train, num_eval, seed)
    num_train = 16_384 if num_train is None else num_train
    num_numbers = (3, 4) if num_numbers is None else num_numbers
    max_number, max_target = (99 if limit is None else limit for limit in (max_number, max_target))
    check_at_least("max_number", max_number, 1)
    check_at_least("max_target", max_target, 1)
    if not num_numbers or not all(2 <= count <= MAX_NUMBERS for count in num_numbers):
        raise RecipeError(f"task.num_numbers={num_numbers}: a puzzle has 2 to {MAX_NUMBERS} numbers; list such counts")
    limits = {"max_number": max_number, "max_target": max_target}
    seen: set[tuple[int, ...]] = set()
    eval_random = random.Random(f"countdown/eval/{seed}")
    held_out = {count: _puzzles(eval_random, count, seen, repeats=False, **limits) for count in num_numbers}
    eval_puzzles = [next(held_out[count]) for count in islice(cycle(num_numbers), num_eval)]
    train_random = random.Random(f"countdown/train/{seed}")
    to_train_on = {count: _puzzles(train_random, count, seen, repeats=True, **limits) for count in num_numbers}
    train_puzzles = [next(to_train_on[count]) for count in islice(cycle(num_numbers), num_train)]
    num_different = len(seen) - num_eval
    notes = [f"{num_different} different puzzles for {num_train} training rows: some are there more than once"]
    return TaskRows(
        train=[_row(*puzzle) for puzzle in train_puzzles],
        eval=[_row(*puzzle) for puzzle in eval_puzzles],
        notes=tuple(notes) if num_different < num_train else (),
    )


def _published(path: str, num_train: int | None, num_eval: int, seed: int) -> TaskRows:
    """Rows of a data set of `nums` and `target`, in an order that the seed decides; eval rows are the first."""
    key = f"task.path={path}"
    puzzles: dict[tuple[int, ...], Puzzle] = {}
    num_read = 0
    for num_read, record in enumerate(first_split(load_splits(path), "train"), 1):
        if not {"nums", "target"} <= record.keys():
            raise RecipeError(
                f"{key}: has the columns {', '.join(record)}; it needs nums and target, as TinyZero's has"
            )
        numbers, target = record["nums"], record["target"]
        if type(target) is not int or type(numbers) is not list or not all(type(n) is int and n >= 0 for n in numbers):
            raise RecipeError(
                f"{key}: row {num_read} has nums={numbers!r:.60} and target={target!r:.60}; write a list of whole "
                "numbers without signs, and a whole number"
            )
        puzzles.setdefault((target, *sorted(numbers)), (numbers, target))
    needed = num_eval + (1 if num_train is None else num_train)
    if needed > len(puzzles):
        raise RecipeError(
            f"task.num_train={num_train or 'null'}: with num_eval={num_eval} that is {needed} puzzles, and {path} has "
            f"{len(puzzles)} different ones; ask for fewer"
        )
    rows = [
        _row(*puzzle) for puzzle in random.Random(f"countdown/path/{seed}").sample(list(puzzles.values()), len(puzzles))
    ]
    num_repeated = num_read - len(puzzles)
    note = f"{num_repeated:,} of {num_read:,} rows repeat a puzzle and are left out"
    end = None if num_train is None else needed
    return TaskRows(rows[num_eval:end], rows[:num_eval], notes=(note,) if num_repeated else ())


def _puzzles(
    rng: random.Random, count: int, seen: set[tuple[int, ...]], *, repeats: bool, max_number: int, max_target: int
) -> Iterator[Puzzle]:
    """Numbers and target of one puzzle after another, none of them in `seen`, which then has it.

    When `MAX_DRAWS` draws give no new one, they come again from the first on if `repeats`.

    Raises:
        RecipeError: no new one came up, and there is none to repeat.
    """
    drawn: list[Puzzle] = []
    num_failed = 0
    while num_failed < MAX_DRAWS:
        numbers = [rng.randint(1, max_number) for _ in range(count)]
        target = _combine(rng, numbers)
        identity = (target, *sorted(numbers))
        if 1 <= target <= max_target and identity not in seen:
            seen.add(identity)
            drawn.append((numbers, target))
            yield numbers, target
            num_failed = 0
        num_failed += 1
    if not (drawn and repeats):
        raise RecipeError(
            f"task.max_target={max_target}: no further puzzle of {count} numbers up to max_number={max_number} came up "
            f"in {MAX_DRAWS} draws ({len(seen)} are taken); raise max_target, change max_number or lower num_eval"
        )
    yield from cycle(drawn)


def _combine(rng: random.Random, numbers: list[int]) -> int:
    """The value of a random expression of all `numbers`. Every step is a whole number: no solution needs fractions."""
    values = numbers.copy()
    while len(values) > 1:
        a = values.pop(rng.randrange(len(values)))
        b = values.pop(rng.randrange(len(values)))
        results = [a + b, a - b, a * b]
        if b != 0 and a % b == 0:
            results.append(a // b)
        values.append(rng.choice(results))
    return values[0]


def _row(numbers: list[int], target: int) -> dict[str, Any]:
    question = (
        f"Use each of the numbers {', '.join(map(str, numbers))} exactly once, with + - * / and parentheses, "
        f"to make {target}. Give the expression in answer tags, like <answer>(1 + 2) / 3</answer>."
    )
    return {
        "question": question,
        "answer": str(target),
        "numbers": numbers,
        "target": target,
        "num_numbers": len(numbers),
    }
