"""A reward of one's own that judges: what it counts for, and what it may pay."""

import pytest
import yaml
from test_rewards import PASSED, build, error_of, recipe_of, specs_of

from rl_posttrain.errors import RewardError
from rl_posttrain.recipe.load import parse_recipe
from rl_posttrain.scoring.judges import judging_rewards
from rl_posttrain.scoring.shares import shares_of_full_credit

FILE = """
def points(completions, most: float = 5.0, **kwargs):
    return [None if text == "?" else min(float(text), most) for text in completions]
"""


@pytest.fixture
def points(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return {"fn": f"{path}:points"}


def with_groups(choice: str, *rewards: dict):
    data = recipe_of(*rewards).model_dump()
    data["algorithm"]["zero_variance_groups"] = choice
    return parse_recipe(data)


def test_full_credit_is_the_top_of_the_range(points):
    (spec,) = specs_of(points | {"judges": "answer", "range": [-1, 5]})
    assert (spec.judges, spec.range) == ("answer", (-1.0, 5.0))
    assert [spec.gives_full_credit(value) for value in (5.0, 4.9, 1.0, -1.0, None)] == [True] + [False] * 4
    assert spec.gives_full_credit(sum([0.1] * 50))  # 4.999999999999998


def test_what_judges_pays_0_to_1_unless_the_recipe_says_it(points):
    assert specs_of(points | {"judges": "form"})[0].range == (0.0, 1.0)
    assert specs_of(points)[0].range is None


def test_a_built_in_says_itself_what_it_judges_and_the_recipe_may_say_otherwise():
    specs = specs_of(
        {"fn": "math_accuracy"},
        {"fn": "rl_posttrain.rewards.countdown:countdown_equation"},
        {"fn": "think_answer_format", "judges": None},
        {"fn": "soft_overlong", "args": {"max_completion_len": 10, "soft_punish_cache": 4}},
        {"fn": "repetition_penalty", "args": {"ngram_size": 2, "max_penalty": -0.5}, "range": [-0.5, 0]},
    )
    assert [(spec.name, spec.judges, spec.range) for spec in specs] == [
        ("math_accuracy", "answer", (0.0, 1.0)),
        ("countdown_equation", "answer", (0.0, 1.0)),
        ("think_answer_format", None, (0.0, 1.0)),
        ("soft_overlong", None, (-1.0, 0.0)),
        ("repetition_penalty", None, (-0.5, 0.0)),
    ]


def test_the_resolved_recipe_says_who_judges_and_reads_back_the_same(points):
    form = {"fn": "think_answer_format", "judges": None}
    recipe = recipe_of({"fn": "math_accuracy"}, form, points | {"judges": "form"})
    told = yaml.safe_load(recipe.to_yaml())
    assert [(reward["judges"], reward["range"]) for reward in told["rewards"]] == [
        ("answer", [0.0, 1.0]),
        (None, [0.0, 1.0]),
        ("form", [0.0, 1.0]),
    ]
    assert parse_recipe(told) == recipe


def test_the_first_of_two_that_judge_the_same_and_gives_a_number_counts(points):
    specs = specs_of({"fn": "think_answer_format"}, points | {"judges": "answer"}, {"fn": "math_accuracy"})
    judge, form = judging_rewards(specs)
    assert [spec.name for spec in judge.specs] == ["points", "math_accuracy"]
    assert [spec.name for spec in form.specs] == ["think_answer_format"]
    cases = [(1.0, 0.0, True), (0.0, 1.0, False), (None, 1.0, True), (None, 0.0, False), (None, None, None)]
    rewards = [{"points": first, "math_accuracy": second} for first, second, _ in cases]
    assert [judge.gives_full_credit(row) for row in rewards] == [right for _, _, right in cases]
    assert shares_of_full_credit(rewards, judge, None) == {"accuracy": 0.5}
    assert judging_rewards(specs_of(points)) == (None, None)


def test_accuracy_goes_by_ones_own_judge(points):
    (reward,) = build(points | {"judges": "answer", "range": [0, 5]})
    judge, form = judging_rewards([reward.spec])
    values = reward(completions=["5", "4", "?", "5"], answer=["a"] * 4, **PASSED)
    assert values == [5.0, 4.0, None, 5.0]
    shares = shares_of_full_credit([{"points": value} for value in values], judge, form)
    assert shares == {"accuracy": pytest.approx(2 / 3)}


@pytest.mark.parametrize("choice", ["skip", "resample"])
def test_groups_may_go_by_ones_own_judge(points, choice):
    with_groups(choice, points | {"judges": "answer"})
    for other in (points, points | {"judges": "form"}, {"fn": "math_accuracy", "judges": None}):
        text = error_of(with_groups, choice, other)
        assert text == (
            f"algorithm.zero_variance_groups={choice}: it needs a reward that judges answers, and the recipe has none; "
            "set judges: answer for your own reward, add math_accuracy or countdown_equation or "
            "reasoning_gym_score, or set keep"
        )


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"judges": "answers"}, "rewards.0.judges=answers: it should be 'answer' or 'form'; did you mean 'answer'?"),
        (
            {"range": [1, 0]},
            "rewards.0.range=[1.0, 0.0]: it is two numbers, the lowest and the highest that the reward",
        ),
        ({"range": [1, 1]}, "rewards.0.range=[1.0, 1.0]: it is two numbers"),
        ({"range": [0]}, "rewards.0.range=[0.0]: it is two numbers"),
        ({"range": [0, 1, 2]}, "rewards.0.range=[0.0, 1.0, 2.0]: it is two numbers"),
        ({"range": 1}, "rewards.0.range=1: it should be a list; "),
        ({"range": [0, float("inf")]}, "rewards.0.range.1=inf: it should be a finite number"),
    ],
)
def test_what_cannot_be_said(points, said, message):
    assert error_of(recipe_of, points | said).startswith(message)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_value_outside_of_the_range_names_reward_row_and_value(points, isolated):
    (reward,) = build(points | {"range": [0, 4], "isolated": isolated})
    assert reward(completions=["0", "4", "?"], answer=["a"] * 3) == [0.0, 4.0, None]
    text = error_of(reward, completions=["4", "4.5", "7"], answer=["a"] * 3, prompts=["p", "q", "r"], kind=RewardError)
    assert text == (
        "rewards.0.fn=points: returned 4.5, outside its range [0.0, 4.0], on row 1 of 3, prompt 'q', completion '4.5'; "
        "fix the reward, or set rewards.0.range"
    )
    assert "returned nan" in error_of(reward, completions=["nan"], answer=["a"], kind=RewardError)


def test_what_a_failed_row_is_paid_need_not_be_in_the_range(points):
    (reward,) = build(points | {"range": [1, 5], "on_error": "zero"})
    assert reward(completions=["5", "words"], answer=["a"] * 2, **PASSED) == [5.0, 0.0]
