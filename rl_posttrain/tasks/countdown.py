"""Countdown: make a target from given numbers. TinyZero and the AdamS paper (arXiv:2505.16363) use this task."""

import random
from collections.abc import Sequence
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
    different, and no train row has one of them. Eval rows do not depend on `num_train`. The question itself asks for
    the <answer> tag that the reward reads.

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
    eval_random = random.Random(f"countdown/eval/{seed}")
    train_random = random.Random(f"countdown/train/{seed}")
    held_out: set[tuple[int, ...]] = set()
    train_rows, eval_rows = [], []
    for index in range(num_eval):
        count = num_numbers[index % len(num_numbers)]
        numbers, target = _new_puzzle(eval_random, count, max_number, max_target, held_out)
        held_out.add(_identity(numbers, target))
        eval_rows.append(_row(numbers, target))
    for index in range(num_train):
        count = num_numbers[index % len(num_numbers)]
        numbers, target = _new_puzzle(train_random, count, max_number, max_target, held_out)
        train_rows.append(_row(numbers, target))
    return TaskRows(train=train_rows, eval=eval_rows)


def _identity(numbers: list[int], target: int) -> tuple[int, ...]:
    return (target, *sorted(numbers))


def _new_puzzle(
    rng: random.Random, count: int, max_number: int, max_target: int, held_out: set[tuple[int, ...]]
) -> tuple[list[int], int]:
    for _ in range(MAX_DRAWS):
        numbers = [rng.randint(1, max_number) for _ in range(count)]
        target = _combine(rng, numbers)
        if 1 <= target <= max_target and _identity(numbers, target) not in held_out:
            return numbers, target
    raise RecipeError(
        f"task.max_target={max_target}: no further puzzle of {count} numbers up to max_number={max_number} came up in "
        f"{MAX_DRAWS} draws ({len(held_out)} are held out); raise max_target, change max_number or lower num_eval"
    )


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
