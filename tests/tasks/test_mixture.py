"""Several tasks as one: their rows, the rewards that judge them, and a run that trains on them."""

from collections import Counter

import pytest
from data_sets import rows_of, write

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.scoring.golds import check_golds
from rl_posttrain.scoring.rewards import build_rewards
from rl_posttrain.tasks.turns import counts, in_turn
from rl_posttrain.training.train import train

SUMS = {"name": "arithmetic", "template": "qa", "weight": 2}
PUZZLES = {"name": "countdown", "template": "qa", "num_numbers": [3]}


def labels(rows):
    return Counter(row["task"] for row in rows)


@pytest.mark.parametrize("weights", [[1], [1, 1], [2, 1], [0.7, 0.2, 0.1], [1, 100], [3, 3, 5]])
def test_every_stretch_from_the_start_has_the_ratio_of_the_weights(weights):
    total = sum(weights)
    for length in (1, 2, 7, 50, 333):
        found = counts(weights, length)
        assert sum(found) == length
        assert all(abs(n - length * weight / total) <= 1 for n, weight in zip(found, weights, strict=True))
    assert in_turn([[place] * n for place, n in enumerate(counts(weights, 60))], weights)[:7] == in_turn(
        [[place] * n for place, n in enumerate(counts(weights, 7))], weights
    )


def test_training_rows_are_in_the_ratio_of_the_weights_and_eval_rows_of_each_part():
    rows = rows_of("mixture", parts=[SUMS, PUZZLES], num_train=30, num_eval=5)
    assert labels(rows.train) == {"arithmetic": 20, "countdown": 10}
    assert labels(rows.train[:6]) == {"arithmetic": 4, "countdown": 2}
    assert [row["task"] for row in rows.eval[:4]] == ["arithmetic", "countdown"] * 2
    assert labels(rows.eval) == {"arithmetic": 5, "countdown": 5}
    assert rows.notes[:2] == (
        "mixture: 30 training rows: arithmetic 20 of 20, countdown 10 of 10",
        "mixture: eval rows: arithmetic 5, countdown 5",
    )
    assert rows.template == "qa"
    for row in rows.train + rows.eval:
        assert set(row) == {"task", "prompt", "question", "answer", "numbers", "target", "num_numbers"}
        assert (row["numbers"] is None) == (row["target"] is None) == (row["task"] == "arithmetic")
    # The rows are those of the parts alone.
    alone = rows_of("countdown", template="qa", num_numbers=[3], num_train=10, num_eval=5)
    own = [row for row in rows.train if row["task"] == "countdown"]
    assert [{name: value for name, value in row.items() if name != "task"} for row in own] == alone.train
    assert rows == rows_of("mixture", parts=[SUMS, PUZZLES], num_train=30, num_eval=5)
    assert rows.eval == rows_of("mixture", parts=[SUMS, PUZZLES], num_train=9, num_eval=5).eval


def test_parts_say_for_themselves_or_take_what_the_mixture_says():
    parts = [
        {"name": "arithmetic", "label": "easy", "digits": 1, "num_eval": 2, "template": "qa"},
        {"name": "arithmetic", "label": "hard", "digits": 3, "operators": ["*"]},
    ]
    rows = rows_of("mixture", parts=parts, num_train=6, num_eval=4, template="r1_zero", system="Be right.")
    assert labels(rows.eval) == {"easy": 2, "hard": 4}
    assert rows.template is None  # two of them
    for row in rows.train:
        assert row["prompt"].startswith("Be right.\n\nQ: " if row["task"] == "easy" else "Be right.\n\nThe assistant")
        assert ("*" in row["question"]) == (row["task"] == "hard")


def test_without_a_number_there_are_as_many_rows_as_the_weights_allow(tmp_path):
    def file(label, number, **keys):
        rows = [{"question": f"{label} {n}?", "answer": n, **keys} for n in range(number)]
        return {"name": "file", "label": label, "path": write(tmp_path / f"{label}.jsonl", rows), "template": "qa"}

    parts = [file("a", 12, level=1), file("b", 4, level="Level 2"), file("c", 9)]
    rows = rows_of("mixture", parts=parts, eval_share=0.25)
    assert labels(rows.eval) == {"a": 3, "b": 1, "c": 2}
    assert labels(rows.train) in ({"a": 4, "b": 3, "c": 4}, {"a": 4, "b": 3, "c": 3}, {"a": 3, "b": 3, "c": 3})
    # A table holds one type a column: the two kinds of level are text now.
    assert {row["task"]: row["level"] for row in rows.train} == {"a": "1", "b": "Level 2", "c": None}
    assert "columns with values of several kinds became text: level" in rows.notes
    rows = rows_of("mixture", parts=parts, num_train=6, num_eval=1, order_by="-level")
    assert [row["task"] for row in rows.train] == ["b", "b", "a", "a", "c", "c"]
    rows = rows_of("mixture", parts=[parts[0] | {"filter": {"difficulty": {"max": 3, "column": "answer"}}}, parts[1]],
                   num_train=8, num_eval=0)  # fmt: skip
    assert 0 < labels(rows.train)["a"] <= 4
    assert any(note.startswith("a: difficulty, answer from any to 3: ") for note in rows.notes)


def test_an_eval_question_of_one_part_is_left_out_of_the_training_rows_of_another(tmp_path):
    questions = [{"question": f"What is {n} + 0?", "answer": n} for n in range(8)]
    one = {"name": "file", "label": "one", "path": write(tmp_path / "one.jsonl", questions), "num_eval": 2}
    more = [*questions, {"question": "What is 9 + 9?", "answer": 18}]  # so that other rows are drawn
    two = {"name": "file", "label": "two", "path": write(tmp_path / "two.jsonl", more), "num_eval": 2}
    rows = rows_of("mixture", parts=[one, two], max_overlap=1.0)
    assert not {row["question"] for row in rows.train} & {row["question"] for row in rows.eval}
    with pytest.raises(RecipeError, match=r"^task\.max_overlap=0\.05: \d of 4 questions to evaluate on also stand"):
        rows_of("mixture", parts=[one, two])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"parts": []}, r"^task\.parts=\[\]: a mixture has two parts or more"),
        ({"parts": [SUMS]}, r"^task\.parts=\['arithmetic'\]: a mixture has two parts or more"),
        (
            {"parts": [SUMS, SUMS]},
            r"^task\.parts=\['arithmetic', 'arithmetic'\]: .* give those of the same name a label",
        ),
        ({"parts": [SUMS, {"name": "countdwn"}]}, r"^task\.parts\.1\.name=countdwn: .* did you mean 'countdown'"),
        ({"parts": [SUMS, PUZZLES | {"max_numbr": 3}]}, r"^task\.parts\.1\.max_numbr=3: .* did you mean 'max_number'"),
        ({"parts": [SUMS, PUZZLES | {"max_number": 0}]}, r"^task\.parts\.1\.max_number=0: must be 1 or more"),
        ({"parts": [SUMS, PUZZLES | {"num_train": 3}]}, r"^task\.parts\.1\.num_train=3: task\.num_train=12 and the"),
        ({"parts": [SUMS, {"name": "mixture"}]}, r"^task\.parts\.1\.name=mixture: a part is a task of its own"),
        ({"parts": [SUMS, PUZZLES], "digits": 2}, r"^task\.digits=2: a mixture has no such option; set it in one of"),
        ({"parts": [SUMS, PUZZLES], "num_train": 1}, r"^task\.num_train=1: countdown would give no row by its weight"),
        ({"parts": [SUMS, PUZZLES | {"template": "chat"}]}, r"^task\.parts: some prompts are text and some are chat"),
    ],
)
def test_a_mixture_that_cannot_be_made_is_one_line(keys, message):
    with pytest.raises(RecipeError, match=message):
        rows_of("mixture", **{"num_train": 12, "num_eval": 2, **keys})


def test_keys_of_parts_and_parts_of_a_single_task_are_checked_with_the_recipe(tiny_recipe):
    with pytest.raises(RecipeError, match=r"^task\.name=arithmetic: only a mixture has task\.parts"):
        resolve(load_recipe(tiny_recipe, ["task.parts=[{name: gsm8k}]"]))
    with pytest.raises(RecipeError, match=r"^task\.parts\.0\.weight=0: it should be greater than 0"):
        load_recipe(tiny_recipe, ["task={name: mixture, parts: [{name: gsm8k, weight: 0}]}"])


MIXTURE = "task={name: mixture, template: qa, num_train: 24, num_eval: 4, parts: [{name: arithmetic, weight: 2}, {name: countdown}]}"  # noqa: E501
JUDGES = "rewards=[{fn: math_accuracy, tasks: [arithmetic]}, {fn: countdown_equation, tasks: [countdown]}]"


def built(tiny_recipe, *overrides):
    specs = resolve(load_recipe(tiny_recipe, [MIXTURE, *overrides]))
    rows = specs.task.make_rows(4)
    return rows, build_rewards(specs.rewards, list(rows.train[0]), rows.parts)


def test_a_reward_judges_the_rows_of_its_tasks_alone(tiny_recipe, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def length(completions, answer, log_metric=None, log_extra=None, **columns):\n"
        "    assert len(completions) == len(answer) == len(columns['prompts']) == len(columns['task'])\n"
        "    assert columns['trainer_state'] == 'state'\n"
        "    log_metric('rows', len(answer))\n"
        "    log_extra('said', completions)\n"
        "    return [float(len(text)) for text in completions]\n"
    )
    own = f"{{fn: '{tmp_path / 'mine.py'}:length', tasks: [countdown]}}"
    _, rewards = built(tiny_recipe, f"{JUDGES[:-1]}, {own}]")
    columns = {
        "prompts": ["p"] * 3, "completion_ids": [[1]] * 3, "trainer_state": "state",
        "task": ["arithmetic", "countdown", "arithmetic"], "answer": ["7", "9", "8"],
        "numbers": [None, [1, 2, 3], None], "target": [None, 9, None],
    }  # fmt: skip
    completions = ["7", "<answer>(1+2)*3</answer>", "9"]
    logged, extra = {}, {}
    found = [
        reward(completions=completions, **columns, log_metric=logged.__setitem__, log_extra=extra.__setitem__)
        for reward in rewards
    ]
    assert found == [[1.0, None, 0.0], [None, 1.0, None], [None, 24.0, None]]
    assert logged["length/rows"] == 1
    assert extra == {"said": [None, completions[1], None]}
    columns["task"] = ["arithmetic"] * 3
    assert rewards[1](completions=completions, **columns) == [None] * 3


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ("rewards=[{fn: math_accuracy}, {fn: countdown_equation}]",
         r"^rewards\.1\.fn=countdown_equation: it needs 'numbers', which rows of arithmetic do not have; set "
         r"rewards\.1\.tasks to those that have it: \[countdown\]$"),
        ("rewards=[{fn: countdown_equation, tasks: [countdown, arithmetic]}]", r"which rows of arithmetic do not have"),
        ("rewards=[{fn: math_accuracy, tasks: [arithmetc]}]",
         r"^rewards\.0\.tasks=\['arithmetc'\]: there is no part 'arithmetc'; did you mean 'arithmetic'"),
    ],
)  # fmt: skip
def test_a_reward_that_needs_what_a_part_lacks_says_its_tasks(tiny_recipe, rewards, message):
    with pytest.raises(RecipeError, match=message):
        built(tiny_recipe, rewards)


def test_a_task_that_is_no_mixture_has_no_parts_to_choose(tiny_recipe):
    specs = resolve(load_recipe(tiny_recipe, ["rewards=[{fn: math_accuracy, tasks: [arithmetic]}]"]))
    rows = specs.task.make_rows(4)
    with pytest.raises(RecipeError, match=r"there is no part 'arithmetic'; the task is no mixture; leave it out$"):
        build_rewards(specs.rewards, list(rows.train[0]), rows.parts)


def test_golds_are_read_where_they_are_judged(tiny_recipe):
    rows, rewards = built(tiny_recipe, JUDGES)
    broken = [row | ({"answer": r"\frac{"} if row["task"] == "countdown" else {}) for row in rows.train]
    assert check_golds([reward.spec for reward in rewards], broken, 0.0).warning is None


@pytest.mark.parametrize("groups", ["keep", "resample"])
def test_a_mixture_trains_and_each_row_is_judged_by_its_own_reward(tiny_recipe, tmp_path, groups):
    (tmp_path / "mine.py").write_text(
        "def even(completions, **columns):\n"
        "    return [float(len(text) % 2) for text in completions]\n"
        "def odd(completions, numbers, **columns):\n"
        "    assert None not in numbers\n"
        "    return [float(1 - len(text) % 2) for text in completions]\n"
    )
    rewards = ", ".join(
        f"{{fn: '{tmp_path / 'mine.py'}:{name}', judges: answer, tasks: [{task}]}}"
        for name, task in (("even", "arithmetic"), ("odd", "countdown"))
    )
    recipe = load_recipe(
        tiny_recipe,
        [MIXTURE, f"rewards=[{rewards}]", f"run.output_dir={tmp_path}", f"run.name={groups}", "task.order_by=target",
         "rollout.engine=transformers", "distributed.engine=none", "algorithm.num_steps=2", "eval.every_steps=2",
         "rollout.max_new_tokens=4", f"algorithm.zero_variance_groups={groups}", "eval.num_samples=1"],
    )  # fmt: skip
    run = train(recipe)
    for step in (1, 2):
        rollouts, row = run.rollouts(step), run.metrics()[step - 1]
        assert all((rollout["rewards"]["even"] is None) != (rollout["rewards"]["odd"] is None) for rollout in rollouts)
        right = [rollout["reward"] == 1.0 for rollout in rollouts]
        assert row["accuracy"] == pytest.approx(sum(right) / len(right))
    if groups == "keep":  # the first eight rows are the puzzles, by their target, and nothing is shuffled
        rows = resolve(recipe).task.make_rows(4).train
        expected = [row["prompt"] for row in rows[:8]]
        drawn = [rollout["prompt"] for step in (1, 2) for rollout in run.rollouts(step)]
        assert list(dict.fromkeys(drawn)) == expected
        assert {rollout["rewards"]["even"] for rollout in run.rollouts(1)} == {None}
    assert 0 <= run.metrics()[-1]["eval/accuracy"] <= 1
