"""Completions as tensors, by hand."""

import math

import torch

from rl_posttrain.rollout.completion import Completion
from rl_posttrain.training.batch import loss_inputs, reward_matrix, set_advantages

SHORT = Completion([5, 6], [7], "stop", [-0.5])
LONG = Completion([8], [9, 10, 11], "length", [-1.0, None, -2.0])


def inputs(**options):
    return loss_inputs([SHORT, LONG], pad_token_id=1, device=torch.device("cpu"), **options)


def test_prompts_are_padded_on_the_left_and_completions_on_the_right():
    found = {name: value.tolist() for name, value in inputs().items() if name != "sampling_per_token_logps"}
    assert found == {
        "prompt_ids": [[5, 6], [1, 8]],
        "prompt_mask": [[1, 1], [0, 1]],
        "completion_ids": [[7, 1, 1], [9, 10, 11]],
        "completion_mask": [[1, 0, 0], [1, 1, 1]],
    }


def test_a_log_probability_that_the_engine_could_not_give_is_nan():
    first, second = inputs()["sampling_per_token_logps"].tolist()
    assert first == [-0.5, 0.0, 0.0]
    assert (second[0], second[2]) == (-1.0, -2.0)
    assert math.isnan(second[1])


def test_truncated_completions_can_be_left_out_of_the_loss():
    assert inputs(mask_truncated=True)["completion_mask"].tolist() == [[1, 0, 0], [0, 0, 0]]


def test_lengths_are_rounded_up_to_a_multiple():
    found = inputs(multiple_of=4)
    assert found["prompt_ids"].tolist() == [[1, 1, 5, 6], [1, 1, 1, 8]]
    assert found["completion_mask"].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]


def test_an_engine_without_log_probabilities_gives_none():
    plain = Completion([5], [7], "stop")
    assert "sampling_per_token_logps" not in loss_inputs([plain], pad_token_id=1, device=torch.device("cpu"))


def test_rewards_stand_in_the_order_of_their_names():
    completions = [Completion([1], [2], "stop", rewards={"a": 1.0, "b": None}), Completion([1], [2], "stop")]
    completions[1].rewards = {"b": 0.25, "a": 0.0}
    found = reward_matrix(completions, ["b", "a"]).tolist()
    assert math.isnan(found[0][0])
    assert [found[0][1], *found[1]] == [1.0, 0.25, 0.0]


def test_the_record_holds_one_advantage_also_where_tokens_have_their_own():
    completions, mask = [Completion([5], [7, 7], "stop"), Completion([5], [7], "stop")], torch.tensor([[1, 1], [1, 0]])
    set_advantages(completions, torch.tensor([0.5, -0.5]), mask)
    assert [completion.advantage for completion in completions] == [0.5, -0.5]
    set_advantages(completions, torch.tensor([[1.0, 2.0], [3.0, 9.0]]), mask)
    assert [completion.advantage for completion in completions] == [1.5, 3.0]
