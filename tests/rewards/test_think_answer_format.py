import time

import pytest
from conftest import slowness

from rl_posttrain.rewards import think_answer_format


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<think>3 and 4</think><answer>7</answer>", 1.0),
        (" \n<think>\n3 and 4\n</think>\n\n<answer> 7 </answer>\n", 1.0),
        ("<think>a < b > c </ think></think> <answer><b>7</b></answer>", 1.0),
        ("<think></think><answer>7</answer>", 0.0),
        ("<think> \n </think><answer>7</answer>", 0.0),
        ("", 0.0),
        ("7", 0.0),
        ("<answer>7</answer>", 0.0),
        ("<think>3 and 4</think>", 0.0),
        ("3 and 4</think><answer>7</answer>", 0.0),
        ("<think>3 and 4</think><answer>7", 0.0),
        ("<think>3 and 4</think><answer> \n</answer>", 0.0),
        ("So: <think>3 and 4</think><answer>7</answer>", 0.0),
        ("<think>3 and 4</think> so <answer>7</answer>", 0.0),
        ("<think>3 and 4</think><answer>7</answer>.", 0.0),
        ("<answer>7</answer><think>3 and 4</think>", 0.0),
        ("<think>3 and 4<answer></think>7</answer>", 0.0),
        ("</think><think><answer>7</answer>", 0.0),
        ("<think>3</think></answer>7<answer>", 0.0),
        ("<think>3<think>4</think><answer>7</answer>", 0.0),
        ("<think>3</think><think>4</think><answer>7</answer>", 0.0),
        ("<think>3 and 4</think><answer>7</answer><answer>7</answer>", 0.0),
        ("<think>is it <answer>6</answer>?</think><answer>7</answer>", 0.0),
        ("<Think>3 and 4</Think><Answer>7</Answer>", 0.0),
    ],
)
def test_reward(completion, reward):
    chat = [{"role": "assistant", "content": completion}]
    assert think_answer_format(completions=[completion, chat], answer=["7", "7"]) == [reward, reward]


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<think></think><answer>7</answer>", 1.0),
        ("<think> \n </think><answer>7</answer>", 1.0),
        ("<think>3 and 4</think><answer>7</answer>", 1.0),
        ("<think></think><answer> </answer>", 0.0),
        ("</think><think><answer>7</answer>", 0.0),
        ("<answer>7</answer>", 0.0),
    ],
)
def test_empty_thinking_may_be_allowed(completion, reward):
    assert think_answer_format([completion], allow_empty_thinking=True) == [reward]


def test_long_completions_take_linear_time():
    hostile = [
        "<think>" * 200_000,
        "<think>" + " <answer" * 200_000,
        "<think></think>" + " " * 2_000_000,
        "<" * 2_000_000,
    ]
    started = time.process_time()
    assert think_answer_format(hostile) == [0.0] * 4
    assert time.process_time() - started < 2 * slowness()
