import random

import pytest

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.overlap import first_of_each, question_key, without
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.selection import Selection


def rows_of(*questions):
    return [{"question": str(question), "answer": "1"} for question in questions]


def select(train, eval_rows=(), *, trained_on=True, notes=(), **keys):
    defaults = {
        "num_train": None, "num_eval": None, "eval_share": None, "max_overlap": 0.05, "taken": frozenset()
    }  # fmt: skip
    selection = Selection(name="mine", seed=3, **{**defaults, **keys})
    return selection.of(TaskRows(list(train), list(eval_rows), notes=notes), trained_on=trained_on)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "  what is\n3 +\t4? "),
        ("It costs $1,000.", "It costs 1000."),
        ("It costs \\$1{,}000.", "it costs $1000$."),
        ("1,234,567 sheep", "1234567 sheep"),
        ("2.50 m or 3.0 m", "2.5 m or 3 m"),
        ("100.0%", "100%"),
    ],
)
def test_questions_are_the_same_however_they_are_written(one, other):
    assert question_key({"question": one}) == question_key({"question": other})
    assert without(rows_of(one, other), rows_of(other)) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 + 4", "4 + 3"),
        ("of 1, 234", "of 1234"),
        ("1,23", "123"),
        ("10", "1"),
        ("1.05", "1.5"),
        ("version 1.0.0", "version 1.0"),
        ("1.20 and 3", "1.02 and 3"),
        ("x = 100.", "x = 1."),
    ],
)
def test_other_questions_stay_apart(one, other):
    assert question_key({"question": one}) != question_key({"question": other})


def test_a_question_in_a_ready_prompt_is_found():
    chat = [{"role": "system", "content": "Think."}, {"role": "user", "content": "It costs $1,000"}]
    again = [{"role": "system", "content": "THINK."}, {"role": "user", "content": "It costs 1000"}]
    assert question_key({"prompt": chat}) == question_key({"prompt": again})
    assert question_key({"prompt": "Q: Why?"}) == "q: why?"
    assert without([{"prompt": chat}], [{"prompt": again}]) == []


def test_repeated_questions_keep_their_first_row():
    rows = [{"question": "A", "n": 1}, {"question": "b", "n": 2}, {"question": " a", "n": 3}]
    assert first_of_each(rows) == rows[:2]


def test_a_few_eval_questions_in_train_are_counted_and_left_out_of_training():
    train = rows_of(*range(30), "It costs $1,000", "it costs 1000")
    held_out = rows_of(*range(100, 119), "It  costs 1000")
    rows = select(train, held_out, notes=("read",))
    assert rows.eval == held_out
    assert sorted(row["question"] for row in rows.train) == sorted(map(str, range(30)))
    assert rows.notes == (
        "read", "1 of 20 questions to evaluate on also stand in the training rows; 2 training rows are left out"
    )  # fmt: skip


def test_more_of_them_are_refused_unless_the_recipe_allows_it():
    train, held_out = rows_of(*range(30)), rows_of(*range(28, 40))
    with pytest.raises(RecipeError) as caught:
        select(train, held_out)
    assert str(caught.value) == (
        "task.max_overlap=0.05: 2 of 12 questions to evaluate on also stand in the training rows, such as '28'; "
        "evaluate on other rows, or raise max_overlap, which leaves them out of training"
    )
    assert len(select(train, held_out, max_overlap=0.2).train) == 28
    assert len(select(train, held_out, trained_on=False).eval) == 12  # an evaluation alone trains on nothing


def test_held_out_rows_are_drawn_from_train_and_their_copies_left_out():
    train = rows_of(*range(40), *range(40))
    rows = select(train, num_eval=10)
    questions = {row["question"] for row in rows.eval}
    assert len(rows.eval) == 10
    assert not questions & {row["question"] for row in rows.train}
    assert len(rows.train) == 80 - 2 * len(questions)
    copies = 80 - len(rows.train) - 10
    assert rows.notes == (f"{copies} training rows repeat questions that are held out; they are left out",)
    assert rows.eval == random.Random("mine/eval/3").sample(train, 10)
    assert select(train, eval_share=0.125).eval == rows.eval
    assert (
        select(train, num_eval=10, num_train=5).eval == select(train, num_eval=10, trained_on=False).eval == rows.eval
    )


def test_numbers_of_rows_are_drawn_by_the_seed():
    train, held_out = rows_of(*range(20)), rows_of(*range(50, 60))
    rows = select(train, held_out, num_train=5, num_eval=4)
    assert rows.train == random.Random("mine/train/3").sample(train, 5)
    assert rows.eval == random.Random("mine/eval/3").sample(held_out, 4)
    assert select(train, held_out).eval == held_out  # in the order of the data
    taken = select(train, held_out, num_train=5, num_eval=4, taken=frozenset({"num_train", "num_eval"}))
    assert (taken.train, taken.eval) == (train, held_out)


def test_without_rows_to_evaluate_on_there_is_a_note():
    train = rows_of(*range(20))
    assert select(train).notes == (
        "no rows are held out to evaluate on; task.num_eval or task.eval_share would hold some out",
    )
    assert select(train, num_eval=0).notes == ()
    alone = select(train, trained_on=False)
    assert (alone.eval, alone.notes) == (train, ("no rows are held out: the evaluation is on all of them",))


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"num_train": 21}, "task.num_train=21: the task has 20 rows for it; ask for fewer, or give more rows"),
        ({"num_eval": 11}, "task.num_eval=11: the task has 10 rows for it; ask for fewer, or give more rows"),
        ({"eval_share": 0.1}, "task.eval_share=0.1: the task has rows of its own to evaluate on; "),
        ({"eval_share": 0.1, "num_eval": 2}, "task.eval_share=0.1: task.num_eval=2 says it, too; keep one of them"),
    ],
)
def test_numbers_that_the_rows_do_not_give_are_refused(keys, reason):
    with pytest.raises(RecipeError) as caught:
        select(rows_of(*range(20)), rows_of(*range(50, 60)), **keys)
    assert str(caught.value).startswith(reason)
