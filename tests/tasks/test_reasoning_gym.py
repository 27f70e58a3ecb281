from collections import Counter
from datetime import date

import pytest
import reasoning_gym as library

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.rewards import reasoning_gym_score
from rl_posttrain.rewards.gym_datasets import dataset_names, from_text
from rl_posttrain.tasks.reasoning_gym import WEAK_SCORERS, reasoning_gym
from rl_posttrain.training.train import train


def questions(rows):
    return [row["question"] for row in rows]


def test_a_row_has_what_the_scorer_needs():
    rows = reasoning_gym(num_train=6, num_eval=3, seed=1, dataset="chain_sum", max_terms=2, min_digits=2)
    for row in rows.train + rows.eval:
        assert set(row) == {"question", "answer", "entry"}
        entry = from_text(row["entry"])
        assert (entry["dataset"], entry["config"]) == ("chain_sum", {"max_terms": 2, "min_digits": 2})
        assert (entry["question"], entry["answer"]) == (row["question"], row["answer"])
        assert entry["metadata"]["num_terms"] == 2
        # The library's own object judges the entry as the reward does.
        judge = library.create_dataset("chain_sum", size=1, seed=0)
        for answer in (row["answer"], f"about {row['answer']}"):
            assert reasoning_gym_score([answer], [row["entry"]]) == [judge.score_answer(answer, entry)]


def test_rows_follow_the_seed_and_eval_rows_are_those_of_any_other_numbers():
    rows = reasoning_gym(num_train=40, num_eval=10, seed=2, dataset="gcd")
    assert rows == reasoning_gym(num_train=40, num_eval=10, seed=2, dataset="gcd")
    assert rows.eval == reasoning_gym(num_train=1, num_eval=25, seed=2, dataset="gcd").eval[:10]
    assert rows.train == reasoning_gym(num_train=60, num_eval=10, seed=2, dataset="gcd").train[:40]
    assert not set(questions(rows.eval)) & set(questions(reasoning_gym(num_eval=10, seed=3, dataset="gcd").eval))
    assert len(set(questions(rows.train + rows.eval))) == 50


def test_train_repeats_when_questions_run_out_and_never_has_an_eval_question():
    # a + b with digits of 1 to 9, in two forms at most.
    few = {"dataset": "chain_sum", "min_terms": 2, "max_terms": 2, "max_digits": 1}
    rows = reasoning_gym(num_train=400, num_eval=20, seed=0, **few)
    assert len(rows.train) == 400
    assert len(set(questions(rows.eval))) == 20
    assert not set(questions(rows.eval)) & set(questions(rows.train))
    times = Counter(questions(rows.train))
    assert max(times.values()) - min(times.values()) <= 1
    assert rows.notes == (f"{len(times)} different questions of chain_sum for 400 training rows: some are there again",)
    with pytest.raises(RecipeError, match=r"^task\.num_eval=900: chain_sum has \d+ different questions, and 900 are"):
        reasoning_gym(num_eval=900, seed=0, **few)


def test_several_data_sets_by_weight():
    parts = [{"name": "gcd", "weight": 3}, {"name": "bf", "config": {"difficulty": 1}}]
    rows = reasoning_gym(num_train=40, num_eval=8, seed=0, datasets=parts)
    assert Counter(row["subject"] for row in rows.train) == {"gcd": 30, "bf": 10}
    assert Counter(row["subject"] for row in rows.train[:8]) == {"gcd": 6, "bf": 2}  # in turn
    assert Counter(row["subject"] for row in rows.eval) == {"gcd": 6, "bf": 2}
    assert rows.eval == reasoning_gym(num_train=4, num_eval=16, seed=0, datasets=parts).eval[:8]
    assert all(from_text(row["entry"])["dataset"] == row["subject"] for row in rows.train)


def test_a_scorer_that_pays_wrong_answers_is_a_note_and_pays_them():
    wrong = {"coin_flip": "0", "complex_arithmetic": "nan", "game_of_life_halting": "?", "puzzle24": "6 + 6 + 6 + 6"}
    assert set(wrong) == set(WEAK_SCORERS)
    for name, answer in wrong.items():
        rows = reasoning_gym(num_train=10, num_eval=0, seed=1, dataset=name)
        assert rows.notes == (f"{name}: its scorer {WEAK_SCORERS[name]}",)
        paid = reasoning_gym_score([answer] * 10, [row["entry"] for row in rows.train])
        assert [row for row, reward in zip(rows.train, paid, strict=True) if reward == 1 and row["answer"] != answer]


def test_values_of_a_recipe_reach_the_config_in_its_own_kinds():
    rows = reasoning_gym(num_train=1, num_eval=0, seed=0, dataset="time_intervals", min_date=date(1999, 1, 1))
    assert from_text(rows.train[0]["entry"])["config"] == {"min_date": "1999-01-01"}
    reasoning_gym(num_train=1, num_eval=0, seed=0, dataset="time_intervals", min_date="1999-01-01")
    rows = reasoning_gym(num_train=1, num_eval=0, seed=0, dataset="word_sorting", transformation="uppercase")
    assert rows.train[0]["answer"].isupper()
    options = {"board_format_opts": {"alphabet": ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]}}
    rows = reasoning_gym(num_train=1, num_eval=0, seed=0, dataset="rearc", **options)
    assert reasoning_gym_score([f"<answer>{rows.train[0]['answer']}</answer>"], [rows.train[0]["entry"]]) == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "gcd", "datasets": []}, r"^task\.dataset=gcd: task\.datasets lists several"),
        (
            {"dataset": "chainsum"},
            r"^task\.dataset=chainsum: reasoning-gym has none of that name; did you",
        ),
        ({"dataset": "composite"}, r"^task\.dataset=composite: reasoning-gym has none of that name"),
        (
            {"dataset": "gcd", "max_numbrs": 3},
            r"^task\.max_numbrs=3: gcd takes no such key; did you mean 'max_nu",
        ),
        ({"dataset": "gcd", "size": 3}, r"^task\.size=3: run\.seed and task\.num_train decide it"),
        ({"dataset": "gcd", "min_numbers": 0}, r"^task\.dataset=gcd: it refuses \{'min_numbers': 0\} \(AssertionError"),
        ({"dataset": "gcd", "min_numbers": "x"}, r"^task\.dataset=gcd: it refuses \{'min_numbers': 'x'\} \(TypeError"),
        ({"dataset": "gcd", "num_train": 0}, r"^task\.num_train=0: "),
        ({"datasets": []}, r"^task\.datasets=\[\]: names none"),
        ({"datasets": [{"name": "gcd"}, {"name": "gcd"}]}, r"^task\.datasets=\['gcd', 'gcd'\]: .* or one twice"),
        ({"datasets": [{"weight": 1}]}, r"^task\.datasets\.0\.name: missing"),
        ({"datasets": [{"name": "gcd", "wait": 1}]}, r"^task\.datasets\.0\.wait=1: unknown key; did you mean 'weight'"),
        ({"datasets": [{"name": "gcd", "weight": 0}]}, r"^task\.datasets\.0\.weight=0: must be above 0"),
        ({"datasets": [{"name": "gcd"}], "max_numbers": 3}, r"^task\.max_numbers=3: with task\.datasets, each"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(options, message):
    with pytest.raises(RecipeError, match=message) as caught:
        reasoning_gym(**{"num_train": 4, "num_eval": 2, "seed": 0, **options})
    assert "\n" not in str(caught.value)


def test_a_data_set_trains(tiny_recipe):
    recipe = load_recipe(
        tiny_recipe,
        ["task={name: reasoning_gym, dataset: spell_backward, max_word_len: 4, num_train: 8, num_eval: 4}",
         "task.template=qa", "rewards=[{fn: reasoning_gym_score}]", "rollout.engine=transformers", "run.name=gym",
         "distributed.engine=none", "algorithm.num_steps=2", "eval.every_steps=2"],
    )  # fmt: skip
    assert resolve(recipe).rewards[0].judges == "answer"
    run = train(recipe)
    for row in run.metrics():
        assert 0 <= row["accuracy"] <= row["rewards/reasoning_gym_score"] <= 1
        assert sum(row[f"reasoning_gym_score/{way}"] for way in ("scored", "failed", "timeout", "missing")) == 1
    assert "eval/accuracy" in run.metrics()[-1]
    assert all(rollout["prompt"].startswith("Q: Spell this word backward") for rollout in run.rollouts(1))


# Data sets without an answer of their own; and those of which some own answers hold an integral that is not worked out.
ONLY_SCORERS = {"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"}
SOME_NOT_PAID = {"intermediate_integration"}


@pytest.mark.long
def test_every_data_set_makes_rows_and_pays_its_own_answers_in_full():
    without_answer, not_paid = set(), set()
    for name in dataset_names():
        rows = reasoning_gym(num_train=2 if name == "knight_swap" else 20, num_eval=2, seed=1, dataset=name)
        entries = [row["entry"] for row in (*rows.train, *rows.eval)]
        answers = [row["answer"] for row in (*rows.train, *rows.eval)]
        without_answer |= {name} if None in answers else set()
        paid = reasoning_gym_score([f"<think>?</think> <answer>{answer}</answer>" for answer in answers], entries)
        not_paid |= {name} if set(paid) != {1.0} else set()
        assert max(reasoning_gym_score(["", "<think>"], entries[:2])) == 0
    assert without_answer == ONLY_SCORERS
    assert not_paid == ONLY_SCORERS | SOME_NOT_PAID
