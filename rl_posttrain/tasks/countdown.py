"""Countdown: make a target from given numbers. TinyZero and the AdamS paper (arXiv:2505.16363) use this task."""

import random
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.rows import TaskRows, check_at_least

MAX_NUMBERS = 6
# A draw is a random expression of random numbers; by default one in five to eight has a value within the limits.
MAX_DRAWS = 20_000


def countdown(
    *,
    num_train: int = 16_384,
    num_eval: int = 256,
    seed: int,
    num_numbers: Sequence[int] = (3, 4),
    max_number: int = 99,
    max_target: int = 99,
) -> TaskRows:
    """Puzzles that have a solution, which uses every number once, with + - * / and parentheses.

    Two puzzles are the same if they have the same target and the same numbers in any order. Eval puzzles are all
    different, and no train row has one of them. Train repeats a puzzle only when new ones have run out. Eval rows do
    not depend on `num_train`, and fewer of them are the first ones of more. The question itself asks for the <answer>
    tag that the reward reads.

    Args:
        num_train: rows to train on, 1 or more.
        num_eval: rows to evaluate on.
        seed: decides every row.
        num_numbers: numbers of a puzzle; each of these counts, 2 to 6, is used equally often.
        max_number: largest number; the smallest is 1.
        max_target: largest target; the smallest is 1.

    Returns:
        Rows with `question`, `answer` (the target as text), `numbers` (list of int) and `target` (int).

    Raises:
        RecipeError: an option is out of its range, or leaves fewer puzzles than the rows need.
    """
    check_at_least("num_train", num_train, 1)
    check_at_least("num_eval", num_eval, 0)
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


def _puzzles(
    rng: random.Random, count: int, seen: set[tuple[int, ...]], *, repeats: bool, max_number: int, max_target: int
) -> Iterator[tuple[list[int], int]]:
    """Numbers and target of one puzzle after another, none of them in `seen`, which then has it.

    When `MAX_DRAWS` draws give no new one, they come again from the first on if `repeats`.

    Raises:
        RecipeError: no new one came up, and there is none to repeat.
    """
    drawn: list[tuple[list[int], int]] = []
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
    return {"question": question, "answer": str(target), "numbers": numbers, "target": target}
