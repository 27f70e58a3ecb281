"""The whole loop in one file: its mathematics by hand, and that a policy learns by it."""

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).resolve().parents[2] / "examples" / "one_file_grpo.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("one_file_grpo", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_advantages_by_hand(example):
    rewards = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0])
    expected = torch.tensor([1.5, -0.5, -0.5, -0.5, 0.0, 0.0, 0.0, 0.0])
    torch.testing.assert_close(example.group_advantages(rewards, 4), expected, rtol=0, atol=5e-4)


def test_loss_by_hand(example):
    """Two completions of two tokens and of one: (1 * 3 + -2 * 4) / (2 * 2), with the sign turned."""
    logprobs = torch.tensor([[-1.0, -2.0], [-4.0, -9.0]])
    mask = torch.tensor([[1, 1], [1, 0]])
    loss = example.dr_grpo_loss(logprobs, torch.tensor([1.0, -2.0]), mask)
    assert loss.item() == pytest.approx((1 * 3 - 2 * 4) / 4)


def test_logprobs_are_those_of_the_model_without_padding(example, tiny_model):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, padding_side="left")
    torch.manual_seed(0)
    prompts = ["1 + 2 = ", "What is 3 + 4? "]
    ids, attention_mask, completion_mask = example.sample(model, tokenizer, prompts, max_new_tokens=40)
    num_tokens = completion_mask.size(1)
    with torch.no_grad():
        found = example.completion_logprobs(model, ids, attention_mask, num_tokens)
        for row, prompt in enumerate(prompts):
            length = int(completion_mask[row].sum())
            prompt_ids = tokenizer(prompt)["input_ids"]
            alone = torch.tensor([[*prompt_ids, *ids[row, -num_tokens:][:length].tolist()]])
            logprobs = model(alone).logits.log_softmax(-1)[0]
            places = range(len(prompt_ids), alone.size(1))
            expected = torch.stack([logprobs[place - 1, alone[0, place]] for place in places])
            torch.testing.assert_close(found[row, :length], expected, rtol=1e-4, atol=1e-4)
            ended = ids[row, -num_tokens:] == tokenizer.eos_token_id
            assert length == (int(ended.nonzero()[0]) + 1 if ended.any() else num_tokens)


def test_a_policy_learns_by_it(example, tiny_model):
    """The tiny model cannot add; it can learn to write digits."""

    def digit_share(completions, **columns):
        return [sum(character.isdigit() for character in text) / max(1, len(text)) for text in completions]

    rewards = example.train(
        str(tiny_model), steps=12, prompts_per_step=4, max_new_tokens=6, lr=5e-3, reward=digit_share
    )
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2


def test_its_command(tiny_model, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(FILE), "--model", str(tiny_model), "--steps", "2"])
    runpy.run_path(str(FILE), run_name="__main__")
    assert [line[:18] for line in capsys.readouterr().out.splitlines()] == ["step  1/2  reward ", "step  2/2  reward "]
