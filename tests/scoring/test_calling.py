"""What rewards may return, async rewards, and rewards that change or end what is around them."""

import fractions
import math
import random

import numpy as np
import pandas as pd
import pytest
import torch
from test_rewards import build, error_of

from rl_posttrain.errors import RewardError
from rl_posttrain.scoring.calling import seed_of
from rl_posttrain.scoring.returned import NotNumbers, numbers_of
from rl_posttrain.scoring.rewards import call_together

BF16 = torch.bfloat16
TAKEN = {
    "a list": [1.0, 0.5],
    "a tuple": (1, 0.5),
    "values of a dict": {1: 1.0, 2: 0.5}.values(),
    "numpy float16": np.array([1, 0.5], np.float16),
    "numpy column": np.array([[1.0], [0.5]]),
    "numpy objects": np.array([1, fractions.Fraction(1, 2)], dtype=object),
    "numpy numbers": [np.float32(1), np.array(0.5)],
    "torch bf16 with gradient": torch.tensor([1, 0.5], dtype=BF16, requires_grad=True),
    "torch column": torch.tensor([[1], [0.5]]),
    "torch numbers": [torch.tensor(1), torch.tensor([0.5], dtype=BF16, requires_grad=True)],
    "a Series": pd.Series([1.0, 0.5], index=["x", "y"]),
    "a Series of Float64": pd.Series([1.0, 0.5], dtype="Float64"),
}
REFUSED = [
    (None, "returned None for 2 completions; return a list with one float or None each"),
    (1.0, "returned a single number for 2 completions"),
    (True, "returned a single number for 2 completions"),
    (np.float32(1), "returned a single number for 2 completions"),
    (torch.tensor(1.0), "returned a single number for 2 completions"),
    ({"a": 1, "b": 2}, "returned a value of the type dict for 2 completions"),
    ({1, 2}, "returned a value of the type set for 2 completions"),
    ("10", "returned a value of the type str for 2 completions"),
    (b"10", "returned a value of the type bytes for 2 completions"),
    (object(), "returned a value of the type object for 2 completions"),
    (np.ones((2, 2)), "returned a ndarray of the shape (2, 2) for 2 completions"),
    (torch.ones(1, 2), "returned a Tensor of the shape (1, 2) for 2 completions"),
    (torch.ones(2).to_sparse(), "returned a Tensor of the shape (2,) for 2 completions"),
    (pd.DataFrame({"a": [1, 2]}), "returned a value of the type DataFrame for 2 completions"),
    ([1.0], "returned 1 values for 2 completions"),
    (np.ones(3), "returned 3 values for 2 completions"),
    ([[1.0], [2.0]], "returned a value that is not a number: [1.0] (list) on row 0 of 2; return floats or None"),
    ([1.0, "1"], "returned a value that is not a number: '1' (str) on row 1 of 2"),
    ([1j, 1], "returned a value that is not a number: 1j (complex) on row 0 of 2"),
    (torch.tensor([1j, 1]), "returned a value that is not a number: 1j (complex) on row 0 of 2"),
    ([1.0, np.ones(2)], "returned a value that is not a number: array([1., 1.]) (ndarray) on row 1 of 2"),
]


@pytest.mark.parametrize("kind", TAKEN)
def test_numbers_of_every_kind_are_taken(kind):
    found = numbers_of(TAKEN[kind], 2)
    assert found == [1.0, 0.5]
    assert set(map(type, found)) == {float}


def test_none_and_booleans_and_generators():
    assert numbers_of([True, None], 2) == [1.0, None]
    assert numbers_of(np.array([True, None], dtype=object), 2) == [1.0, None]
    assert numbers_of((x for x in (1, None)), 2) == [1.0, None]
    with pytest.raises(NotNumbers, match="returned at least 3 values for 2 completions"):
        numbers_of(iter(int, 1), 2)  # without an end


def test_a_number_larger_than_any_float_is_infinite():
    assert numbers_of([10**400, -(10**5000)], 2) == [math.inf, -math.inf]


@pytest.mark.parametrize(("returned", "said"), REFUSED)
def test_what_is_not_allowed_is_named(returned, said):
    with pytest.raises(NotNumbers) as caught:
        numbers_of(returned, 2)
    assert said in str(caught.value)


FILE = """
import asyncio, os, random, sys

def generator(completions, **kwargs):
    for text in completions:
        yield 1 / len(text)
def arrays(completions, **kwargs):
    import numpy
    return numpy.array([len(text) for text in completions])
def tensors(completions, **kwargs):
    import torch
    return torch.tensor([len(text) for text in completions], dtype=torch.bfloat16, requires_grad=True)
def a_dict(completions, **kwargs):
    return {text: 1.0 for text in completions}
def leaves(completions, **kwargs):
    if "leave" in completions:
        sys.exit(0)
    return [1.0] * len(completions)
def leaves_at_once(completions, **kwargs):
    if "leave" in completions:
        os._exit(0)
    return [1.0] * len(completions)
def changes(completions, answer, numbers, trainer_state=None, **kwargs):
    completions.reverse()
    answer.clear()
    numbers[0].append(9)
    if trainer_state is not None:
        trainer_state.global_step = 99
    return [0.0, 0.0]
def draws(completions, **kwargs):
    return [random.random() for _ in completions]

async def waits(completions, log_metric=None, **kwargs):
    global event
    event = asyncio.Event()
    if log_metric:
        log_metric("seen", len(completions))
    await asyncio.wait_for(event.wait(), 60)
    return [float(len(text)) for text in completions]
class Sets:
    async def __call__(self, completions, **kwargs):
        await asyncio.sleep(0)
        event.set()
        return (2.0 for _ in completions)
sets = Sets()
async def fails(completions, **kwargs):
    await asyncio.sleep(0)
    return [1 / len(text) for text in completions]
async def leaves_later(completions, **kwargs):
    async def leave(text):
        await asyncio.sleep(0)
        return 1.0 if text != "leave" else sys.exit(0)
    return await asyncio.gather(*map(leave, completions))
async def yields(completions, **kwargs):
    for _ in completions:
        yield 1.0
loops = set()
async def same_loop(completions, **kwargs):
    loops.add(id(asyncio.get_running_loop()))
    return [float(len(loops))] * len(completions)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    return path


def two(reward, *texts):
    return reward(completions=list(texts), answer=["1"] * len(texts))


def test_arrays_and_generators_are_taken_in_a_batch_and_row_by_row(file):
    for name in ("arrays", "tensors"):
        (reward,) = build({"fn": f"{file}:{name}"})
        assert two(reward, "a", "bcd") == [1.0, 3.0]
    (reward,) = build({"fn": f"{file}:generator", "on_error": "zero"})
    assert two(reward, "a", "bcde") == [1.0, 0.25]
    assert two(reward, "a", "", "bcde") == [1.0, 0.0, 0.25]
    (reward,) = build({"fn": f"{file}:a_dict"})
    assert error_of(two, reward, "a", "b", kind=RewardError) == (
        "rewards.0.fn=a_dict: returned a value of the type dict for 2 completions; return a list with one float or "
        "None each"
    )


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize(
    ("name", "did"),
    [
        ("leaves", "raised SystemExit(0), which would end the process"),
        ("leaves_at_once", "called os._exit(0), which would end the process"),
        ("leaves_later", "raised SystemExit(0), which would end the process"),
    ],
)
def test_a_reward_that_ends_the_process_is_named_with_its_row(file, name, did, isolated):
    (reward,) = build({"fn": f"{file}:{name}", "isolated": isolated})
    assert error_of(two, reward, "a", "leave", kind=RewardError).startswith(
        f"rewards.0.fn={name}: {did} on row 1 of 2, completion 'leave'; "
    )
    (reward,) = build({"fn": f"{file}:{name}", "isolated": isolated, "on_error": "zero"})
    assert two(reward, "leave", "a") == [0.0, 1.0]


def test_isolated_rewards_return_what_others_do_and_may_be_async(file):
    for name, expected in (("arrays", [1.0, 3.0]), ("generator", [1.0, 1 / 3])):
        (reward,) = build({"fn": f"{file}:{name}", "isolated": True})
        assert two(reward, "a", "bcd") == expected
    (reward,) = build({"fn": f"{file}:fails", "isolated": True, "on_error": "zero"})
    assert two(reward, "ab", "", "a") == [0.5, 0.0, 1.0]
    (reward,) = build({"fn": f"{file}:a_dict", "isolated": True, "on_error": "zero"})
    assert error_of(two, reward, "a", "b", kind=RewardError) == (
        "rewards.0.fn=a_dict: on row 0 of 2 alone it returned a value of the type dict for 1 completions; return a "
        "list with one float or None each"
    )


def test_async_rewards_run_together_in_one_loop(file):
    """The first waits for what the second does. One after the other, the first would wait without an end."""
    rewards = build({"fn": f"{file}:waits"}, {"fn": f"{file}:sets"}, {"fn": f"{file}:arrays"})
    metrics = {}
    passed = {"completions": ["a", "bcd"], "answer": ["1", "1"], "log_metric": metrics.__setitem__}
    assert call_together(rewards, **passed) == [[1.0, 3.0], [2.0, 2.0], [1.0, 3.0]]
    assert metrics == {"waits/seen": 2}
    (reward,) = build({"fn": f"{file}:same_loop"})
    assert two(reward, "a") == two(reward, "a") == [1.0]  # clients of servers belong to a loop
    (reward,) = build({"fn": f"{file}:fails"})
    text = error_of(two, reward, "a", "", "b", kind=RewardError)
    assert "raised ZeroDivisionError: division by zero on row 1 of 3, completion ''; " in text
    (reward,) = build({"fn": f"{file}:yields"})
    assert "returned a value of the type async_generator for 2" in error_of(two, reward, "a", "b", kind=RewardError)


def test_a_reward_changes_neither_the_columns_of_others_nor_the_runs_chance(file):
    from transformers import TrainerState

    state = TrainerState(global_step=1)
    rewards = build(
        {"fn": f"{file}:changes"}, {"fn": f"{file}:arrays"}, {"fn": f"{file}:draws"}, columns=("answer", "numbers")
    )
    columns = {"completions": ["a", "bcd"], "answer": ["1", "2"], "numbers": [[1], [2]]}
    random.seed(5)
    expected = random.random()
    random.seed(5)
    first = call_together(rewards, **columns, trainer_state=state)
    assert first[1] == [1.0, 3.0]
    assert columns == {"completions": ["a", "bcd"], "answer": ["1", "2"], "numbers": [[1], [2]]}
    assert state.global_step == 1
    assert random.random() == expected
    assert call_together(rewards, **columns)[2] == first[2], "what a reward draws follows from its completions"
    assert seed_of(["a"]) != seed_of(["b"])
