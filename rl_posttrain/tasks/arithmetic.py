"""Arithmetic with two whole numbers: the smallest task on which a pretrained model visibly learns."""

import random
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.rows import TaskRows, check_at_least
from rl_posttrain.tasks.templates import Example

OPERATORS = ("+", "-", "*", "/")
MAX_DIGITS = 9
# Keeps the table of division questions short; with longer divisors almost every quotient would be below ten.
MAX_DIVISOR = 9_999
# Rows to evaluate on where nothing is said, as far as half of the questions allow it.
DEFAULT_NUM_EVAL = 128

# Left operand, operator, right operand, result.
Question = tuple[int, str, int, int]


def arithmetic(
    *,
    num_train: int = 2048,
    num_eval: int | None = None,
    seed: int,
    operators: Sequence[str] = ("+", "-"),
    digits: int = 1,
    num_examples: int = 0,
) -> TaskRows:
    """Questions such as "What is 3 + 4?", balanced over the operators.

    3 + 4 and 4 + 3 are two questions. No two eval rows have the same question, and no train row has an eval question.
    Train repeats a question only after every other one has been used. Eval rows do not depend on `num_train`.

    Args:
        num_train: rows to train on, 1 or more.
        num_eval: rows to evaluate on; at most half of all possible questions. None for 128, or that half.
        seed: decides every row.
        operators: some of + - * /. Quotients are whole; divisors have at most four digits and are never zero.
        digits: operands have 1 to `digits` digits; at most 9. A difference may be negative.
        num_examples: solved questions at the start of every prompt. All prompts have the same ones, and none is an eval
            question.

    Returns:
        Rows with `question` and `answer`.

    Raises:
        RecipeError: an option is out of its range, or `num_eval` takes more than half of the questions.
    """
    check_at_least("num_train", num_train, 1)
    if num_eval is not None:
        check_at_least("num_eval", num_eval, 0)
    check_at_least("num_examples", num_examples, 0)
    if not 1 <= digits <= MAX_DIGITS:
        raise RecipeError(f"task.digits={digits}: operands have 1 to {MAX_DIGITS} digits; set digits within that range")
    spaces = [_Questions(operator, digits) for operator in _checked_operators(operators)]
    eval_random = random.Random(f"arithmetic/eval/{seed}")
    train_random = random.Random(f"arithmetic/train/{seed}")
    example_random = random.Random(f"arithmetic/examples/{seed}")
    max_eval = min(len(space) for space in spaces) // 2 * len(spaces)
    if num_eval is None:
        num_eval = min(DEFAULT_NUM_EVAL, max_eval)
    if num_eval > max_eval:
        raise RecipeError(
            f"task.num_eval={num_eval}: would hold out more than half of the questions with digits={digits} for some "
            f"operator; set num_eval to {max_eval} at most, or raise digits"
        )
    train, held_out, examples = [], [], []
    counts = (_shares(count, len(spaces)) for count in (num_train, num_eval, num_examples))
    for space, train_share, eval_share, example_share in zip(spaces, *counts, strict=True):
        eval_indices = eval_random.sample(range(len(space)), eval_share)
        train_indices = _sample_outside(train_random, len(space), set(eval_indices), train_share)
        held_out += [space[index] for index in eval_indices]
        train += [space[index] for index in train_indices]
        # A random generator of its own: the number of examples changes neither train nor eval rows.
        example_indices = _sample_outside(example_random, len(space), set(eval_indices), example_share)
        examples += [space[index] for index in example_indices]
    eval_random.shuffle(held_out)
    train_random.shuffle(train)
    return TaskRows(
        train=[_row(question) for question in train],
        eval=[_row(question) for question in held_out],
        request="Answer with the final number.",
        examples=[_solved(example) for example in examples],
    )


class _Questions:
    """All questions (a, operator, b, result) with operands of up to `digits` digits, as a sequence that is computed."""

    def __init__(self, operator: str, digits: int):
        self.operator = operator
        self.num_operands = 10**digits
        # For division: the number of questions with a divisor of at most 1, at most 2, ...
        self.up_to_divisor = []
        if operator == "/":
            divisors = range(1, min(self.num_operands - 1, MAX_DIVISOR) + 1)
            self.up_to_divisor = list(accumulate((self.num_operands - 1) // divisor + 1 for divisor in divisors))

    def __len__(self) -> int:
        return self.up_to_divisor[-1] if self.operator == "/" else self.num_operands**2

    def __getitem__(self, index: int) -> Question:
        if self.operator == "/":
            before = bisect_right(self.up_to_divisor, index)
            quotient = index - (self.up_to_divisor[before - 1] if before else 0)
            return quotient * (before + 1), "/", before + 1, quotient
        a, b = divmod(index, self.num_operands)
        return a, self.operator, b, {"+": a + b, "-": a - b, "*": a * b}[self.operator]


def _checked_operators(operators: Sequence[str]) -> Sequence[str]:
    known = " ".join(OPERATORS)
    for operator in operators:
        if operator not in OPERATORS:
            raise RecipeError(f"task.operators={operators}: {operator!r} is no operator; use some of {known}")
    if not operators or len(set(operators)) < len(operators):
        raise RecipeError(f"task.operators={operators}: names none, or one twice; name some of {known}, each once")
    return operators


def _shares(count: int, num_shares: int) -> list[int]:
    return [count // num_shares + (i < count % num_shares) for i in range(num_shares)]


def _sample_outside(rng: random.Random, size: int, held_out: set[int], count: int) -> list[int]:
    """`count` numbers of range(size) that are not in `held_out`; none is drawn again before all others were drawn."""
    indices: list[int] = []
    while len(indices) < count:
        wanted = min(count - len(indices) + len(held_out), size)
        indices += [index for index in rng.sample(range(size), wanted) if index not in held_out]
    return indices[:count]


def _row(question: Question) -> dict[str, Any]:
    return {"question": _ask(question), "answer": str(question[3])}


def _solved(question: Question) -> Example:
    a, operator, b, result = question
    return Example(_ask(question), working=f"{a} {operator} {b} = {result}", answer=str(result))


def _ask(question: Question) -> str:
    a, operator, b, _ = question
    return f"What is {a} {operator} {b}?"
