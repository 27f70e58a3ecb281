"""The recipe's rewards as TRL calls them."""

import contextlib
import dataclasses

import pytest

from rl_posttrain.errors import RecipeError, RewardError
from rl_posttrain.recipe.load import parse_recipe
from rl_posttrain.recipe.resolve import resolve
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.scoring.completions import score
from rl_posttrain.scoring.rewards import Reward, build_rewards

FILE = """
def by_length(completions, limit: int = 10, **kwargs):
    return [float(len(text) <= limit) for text in completions]

def near(completions, target, **kwargs):
    return [None if goal is None else 1.0 for goal in target]

def wants_gold(completions, gold, scale: float, **kwargs):
    return [scale] * len(completions)

def closed(completions, answer):
    return [0.0] * len(completions)

class Callable:
    def __call__(self, completions, power: int = 1, **kwargs):
        return [2.0 ** power] * len(completions)

an_object = Callable()
other_name = by_length
number = 3

def raises(completions, **kwargs):
    raise KeyError("two\\nlines")
def too_few(completions, **kwargs):
    return [1.0]
def one_number(completions, **kwargs):
    return 1.0
def words(completions, **kwargs):
    return ["good"] * len(completions)
"""
# What TRL passes beside the columns.
PASSED = {name: None for name in ("prompts", "completion_ids", "trainer_state", "log_extra", "log_metric")}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def recipe_of(*rewards: dict):
    return parse_recipe(
        {
            "run": {"name": "r"},
            "model": {"name": "m"},
            "task": {"name": "arithmetic", "num_train": 8, "num_eval": 0},
            "rewards": list(rewards),
            "algorithm": {"num_steps": 1, "prompts_per_step": 1, "group_size": 2, "micro_batch_size": 2},
            "optimizer": {"lr": 1e-6},
            "rollout": {"max_new_tokens": 4},
        }
    )


def specs_of(*rewards: dict):
    return resolve(recipe_of(*rewards)).rewards


def build(*rewards: dict, columns=("prompt", "answer")):
    return build_rewards(specs_of(*rewards), columns)


def error_of(function, *arguments, kind=RecipeError, **named) -> str:
    with pytest.raises(kind) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_rewards_score_with_their_arguments(file):
    rewards = build(
        {"fn": "math_accuracy"},
        {"fn": f"{file}:by_length", "args": {"limit": 3}},
        {"fn": f"{file}:an_object", "args": {"power": 3}},
    )
    assert [reward.__name__ for reward in rewards] == ["math_accuracy", "by_length", "an_object"]
    batch = {"completions": ["7", "it is 8"], "answer": ["7", "7"], **PASSED}
    assert [reward(**batch) for reward in rewards] == [[1.0, 0.0], [1.0, 0.0], [8.0, 8.0]]


def test_a_reward_goes_by_the_name_that_the_recipe_gives_it(file):
    # Metrics look rewards up by the recipe's name; the function's own may be another.
    (reward,) = build({"fn": f"{file}:other_name"})
    assert reward.__name__ == reward.spec.name == "other_name"


def test_none_stays_none(file):
    (near,) = build({"fn": f"{file}:near"}, columns=["target"])
    assert near(completions=["a", "b"], target=[None, 3]) == [None, 1.0]


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        (
            "wants_gold",
            {"scale": 1},
            "it needs 'gold', which is neither a column of the task (prompt, answer)",
        ),
        ("near", {}, "it needs 'target', which is neither a column of the task (prompt, answer)"),
        ("closed", {}, "it cannot be called as the trainer does (got an unexpected keyword argument"),
        ("number", {}, "it is of type int; name a function"),
    ],
)
def test_rewards_that_the_trainer_cannot_call(file, name, args, message):
    text = error_of(build, {"fn": f"{file}:{name}", "args": args})
    assert text.startswith(f"rewards.0.fn={file}:{name}: ")
    assert message in text


@pytest.mark.parametrize(
    ("reward", "args", "message"),
    [
        # The function takes **kwargs, for columns: they must not swallow a mistyped argument.
        ("by_length", {"limt": 3}, "rewards.1.args.limt=3: by_length takes no such argument; did you mean 'limit'?"),
        ("by_length", {"limit": "x"}, "rewards.1.args.limit=x: input should be a valid integer"),
        ("raises", {"x": 3}, "rewards.1.args.x=3: raises takes no such argument; it takes none; leave it out"),
    ],
)
def test_arguments_are_the_functions_own(file, reward, args, message):
    sections = {"fn": "math_accuracy"}, {"fn": f"{file}:{reward}", "args": args}
    assert error_of(specs_of, *sections).startswith(message)


def test_resolving_finds_unknown_rewards_and_leaves_columns_to_the_rows(file):
    assert "did you mean 'math_accuracy'" in error_of(specs_of, {"fn": "math_acuracy"})
    assert "no file" in error_of(specs_of, {"fn": "/nowhere/mine.py:x"})
    specs_of({"fn": f"{file}:near"}, {"fn": f"{file}:wants_gold", "args": {"scale": 2.0}})


def test_what_the_trainer_passes_is_no_argument_of_the_recipe(file):
    text = error_of(build, {"fn": f"{file}:closed", "args": {"answer": ["7"]}})
    assert text == "rewards.0.args.answer: the trainer passes 'answer' itself; leave it out"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "raised KeyError: 'two\\nlines' on row 0 of 2, completion 'a'; a reward must accept any text"),
        ("too_few", "returned 1 values for 2 completions; return a list with one float or None each"),
        ("one_number", "returned a single number for 2 completions"),
        ("words", "returned a value that is not a number"),
    ],
)
def test_a_reward_that_fails_is_named(file, name, message):
    (reward,) = build({"fn": f"{file}:{name}"})
    text = error_of(reward, completions=["a", "b"], answer=["7", "7"], kind=RewardError)
    assert text.startswith(f"rewards.0.fn={name}: ")
    assert message in text


class _Hostile(list):
    def __iter__(self):
        raise OSError(28, "No space left on device")


class _Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class _Ends(float):
    def __float__(self):
        raise SystemExit(0)

    def as_integer_ratio(self):
        raise SystemExit(0)


def test_what_a_reward_returns_or_raises_may_run_code_of_its_own():
    def hostile(completions, **_):
        return _Hostile([1.0] * len(completions))

    def silent(completions, **_):
        raise _Silent()

    def ends(completions, **_):
        return [_Ends(1.0)] * len(completions)

    spec = build({"fn": "math_accuracy"})[0].spec
    for function, said in (
        (hostile, "No space left"), (silent, "raised _Silent"), (ends, "which would end the process"),
    ):  # fmt: skip
        with pytest.raises(RewardError, match=said) as caught:
            Reward(dataclasses.replace(spec, name=function.__name__, function=function))(
                prompts=["p"], completions=["c"]
            )
        assert f"fn={function.__name__}" in str(caught.value)


def test_a_weighted_sum_that_no_advantage_can_be_made_of_is_named():
    def million(completions, **_):
        return [1e6] * len(completions)

    spec = dataclasses.replace(build({"fn": "math_accuracy"})[0].spec, range=None, function=million, name="million")
    for weight, is_named in ((1e12, False), (1e13, True), (1e308, True)):
        completions = [Completion([1], [1], "stop", row={"prompt": "p"}, text="c")]
        expected = pytest.raises(RewardError, match=r"^rewards: their weighted sum is .*; lower rewards\.N\.weight$")
        with expected if is_named else contextlib.nullcontext():
            score(completions, [Reward(dataclasses.replace(spec, weight=weight))])
