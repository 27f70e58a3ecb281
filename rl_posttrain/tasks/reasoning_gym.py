"""Data sets of reasoning-gym (arXiv:2505.24760): procedural puzzles, each data set with a scorer of its own."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import count, cycle, islice
from typing import Any

from rl_posttrain.errors import RecipeError, class_and_message, did_you_mean
from rl_posttrain.rewards.gym_datasets import make_dataset, to_text
from rl_posttrain.tasks.overlap import question_key
from rl_posttrain.tasks.rows import TaskRows, check_at_least
from rl_posttrain.tasks.turns import check_weight, counts, in_turn

# So many draws in a row without a new question: there is none left, or almost none.
MAX_DRAWS = 200
# Items of one seed. Some data sets make all of them at once, and some cannot make many more.
ITEMS_PER_SEED = 500
_KEYS = ("name", "weight", "config")
# Scorers of 0.1.25 that pay wrong answers in full.
WEAK_SCORERS = {
    "coin_flip": "pays the start of the right answer, such as 0 for 0.25",
    "complex_arithmetic": "pays nan",
    "game_of_life_halting": "pays every answer",
    "puzzle24": "does not compare the numbers of an answer with those of the question",
}


def reasoning_gym(
    *,
    num_train: int = 1024,
    num_eval: int = 128,
    seed: int,
    dataset: str | None = None,
    datasets: Sequence[Mapping[str, Any]] | None = None,
    **config: Any,
) -> TaskRows:
    """Questions of one data set of reasoning-gym, or of several.

    Eval questions are all different, and no train row has one of them. Train repeats a question only when new ones have
    run out. Eval rows do not depend on `num_train`, and fewer of them are the first ones of more.

    Args:
        num_train: rows to train on, 1 or more.
        num_eval: rows to evaluate on.
        seed: decides every row.
        dataset: the data set's name; None: `chain_sum`.
        datasets: in place of it several, each a mapping of `name`, `weight` (1 unless said) and `config`. Train and
            eval rows are in the ratio of the weights.
        **config: keys of the data set's config, such as `max_digits`.

    Returns:
        Rows with `question`, `answer` (None where the data set has none and only its scorer judges), `entry` (what the
        reward `reasoning_gym_score` needs, as text), and with `datasets` the data set's name as `subject`.

    Raises:
        RecipeError: there is no such data set or key, or it has fewer questions than the eval rows need; or the package
            is not installed.
    """
    check_at_least("num_train", num_train, 1)
    check_at_least("num_eval", num_eval, 0)
    parts = _parts(dataset, datasets, config)
    weights = [weight for _, weight, _ in parts]
    train, held_out = [], []
    notes = [f"{name}: its scorer {WEAK_SCORERS[name]}" for name, _, _ in parts if name in WEAK_SCORERS]
    for (name, _, options), for_train, for_eval in zip(
        parts, counts(weights, num_train), counts(weights, num_eval), strict=True
    ):
        seen: set[str] = set()
        questions = _questions(name, options, f"eval/{seed}", seen)
        eval_rows = list(islice(questions, for_eval))
        if len(eval_rows) < for_eval:
            raise RecipeError(
                f"task.num_eval={num_eval}: {name} has {len(eval_rows)} different questions, and {for_eval} are to be "
                "held out; lower num_eval, or change the data set's config"
            )
        train_rows = list(islice(_questions(name, options, f"train/{seed}", seen), for_train))
        if for_train and not train_rows:
            raise RecipeError(
                f"task.num_eval={num_eval}: leaves no question of {name} to train on; lower num_eval, or change the "
                "data set's config"
            )
        if len(train_rows) < for_train:
            num = len(train_rows)
            notes.append(f"{num} different questions of {name} for {for_train} training rows: some are there again")
            train_rows = list(islice(cycle(train_rows), for_train))
        named = {"subject": name} if datasets is not None else {}
        train.append([row | named for row in train_rows])
        held_out.append([row | named for row in eval_rows])
    return TaskRows(
        train=in_turn(train, weights),
        eval=in_turn(held_out, weights),
        request="Give the final answer in answer tags: <answer>...</answer>.",
        notes=tuple(notes),
    )


def _parts(
    dataset: str | None, datasets: Sequence[Mapping[str, Any]] | None, config: Mapping[str, Any]
) -> list[tuple[str, float, Mapping[str, Any]]]:
    """Name, weight and config of each data set."""
    if datasets is None:
        return [(dataset or "chain_sum", 1.0, config)]
    if dataset is not None:
        raise RecipeError(f"task.dataset={dataset}: task.datasets lists several already; keep one of the two")
    if config:
        key, value = next(iter(config.items()))
        raise RecipeError(f"task.{key}={value}: with task.datasets, each of them has a config of its own; set it there")
    parts = []
    for place, part in enumerate(datasets):
        key = f"task.datasets.{place}"
        for name, value in part.items():
            if name not in _KEYS:
                raise RecipeError(f"{key}.{name}={value}: unknown key; {did_you_mean(name, _KEYS)}")
        if "name" not in part:
            raise RecipeError(f"{key}.name: missing; name a data set of reasoning-gym, such as chain_sum")
        parts.append((part["name"], check_weight(key, part.get("weight", 1)), part.get("config") or {}))
    names = [name for name, _, _ in parts]
    if not names or len(set(names)) < len(names):
        raise RecipeError(f"task.datasets={names}: names none, or one twice; name each data set once")
    return parts


def _questions(name: str, config: Mapping[str, Any], seed: str, seen: set[str]) -> Iterator[dict[str, Any]]:
    """Rows with new questions, none of them in `seen`, which then has them; ends when `MAX_DRAWS` draws gave none."""
    num_failed, last_error = 0, None
    for part in count():
        dataset = make_dataset(name, config, seed=_seed(f"{seed}/{part}"), size=ITEMS_PER_SEED)
        for index in range(ITEMS_PER_SEED):
            try:
                with redirect_stdout(io.StringIO()):  # some print while they work
                    item = dataset[index]
            except Exception as error:  # of some seeds, some data sets can make no question
                item, last_error = None, error
            if item is not None and (key := question_key(item)) not in seen:
                seen.add(key)
                entry = {"dataset": name, "config": config, **item}
                yield {"question": item["question"], "answer": item["answer"], "entry": to_text(entry)}
                num_failed = 0
                continue
            num_failed += 1
            if num_failed == MAX_DRAWS:
                if last_error is not None and not seen:
                    reason = class_and_message(last_error)
                    raise RecipeError(
                        f"task.dataset={name}: it makes no question ({reason}); change its config"
                    ) from last_error
                return


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(f"reasoning_gym/{text}".encode()).digest()[:4], "big")
