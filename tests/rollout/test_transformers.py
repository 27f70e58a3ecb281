"""transformers as a rollout engine: the same protocol as vLLM's, from the trainer's own weights."""

import contextlib

import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.rollout.seeds import derive_seed
from rl_posttrain.rollout.transformers import DrawFromSeeds, TransformersEngine


def seeds(seed, prompts):
    return [1_000 * seed + place for place in range(len(prompts))]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def policy(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture
def engine(policy, tokenizer):
    return TransformersEngine(lambda: contextlib.nullcontext(policy), tokenizer, [tokenizer.eos_token_id])


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Of unequal lengths, so that padding matters."""
    return [tokenizer(f"Q: What is {number} + 3?\nA:")["input_ids"] for number in (1, 10, 100, 1000) for _ in range(8)]


def test_a_seed_decides_the_completions_and_leaves_torchs_generator_alone(engine, prompts):
    torch.manual_seed(5)
    first, after = engine.generate(prompts, seeds(1, prompts), Sampling(max_tokens=8)), torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert engine.generate(prompts, seeds(1, prompts), Sampling(max_tokens=8)) == first
    assert engine.generate(prompts, seeds(2, prompts), Sampling(max_tokens=8)) != first
    assert len({tuple(completion.token_ids) for completion in first[:8]}) > 1


def test_a_completion_follows_from_its_own_seed_wherever_it_stands(engine, prompts):
    """In fp32 on this small model kernels change no token; a generator for the whole batch would change all."""
    own = seeds(1, prompts)
    whole = engine.generate(prompts, own, Sampling(max_tokens=8, top_p=0.9, temperature=0.8))
    backwards = engine.generate(prompts[::-1], own[::-1], Sampling(max_tokens=8, top_p=0.9, temperature=0.8))
    halves = [
        completion
        for part in (slice(0, 20), slice(20, None))
        for completion in engine.generate(prompts[part], own[part], Sampling(max_tokens=8, top_p=0.9, temperature=0.8))
    ]
    assert backwards[::-1] == whole
    assert halves == whole


def test_tokens_are_drawn_with_the_probabilities_that_they_have():
    """Against the exact multinomial: a chi-squared test of 20,000 draws, and tokens that must never be drawn."""
    scores = torch.tensor([-torch.inf, 0.3, -2.0, -torch.inf, 1.0, 0.0, -torch.inf]).repeat(20_000, 1)
    drawn = DrawFromSeeds([derive_seed(3, place) for place in range(20_000)])(torch.empty(20_000, 0), scores)
    assert ((drawn == 0).sum(dim=1) == 1).all()
    assert (drawn.isneginf().sum(dim=1) == 6).all()
    counts = (drawn == 0).sum(dim=0)
    possible = scores[0].isfinite()
    assert counts[~possible].sum() == 0
    expected = scores[0].double().softmax(0) * 20_000
    assert chisquare(counts[possible].numpy(), expected[possible].numpy()).pvalue > 0.01


def test_completions_end_at_the_end_token_or_the_limit_and_hold_no_padding(engine, prompts, tokenizer):
    drawn = engine.generate(prompts * 2, seeds(3, prompts * 2), Sampling(max_tokens=16))
    assert {completion.finish_reason for completion in drawn} == {"stop", "length"}
    for prompt, completion in zip(prompts * 2, drawn, strict=True):
        assert completion.prompt_ids == prompt
        assert completion.logprobs is None
        ids = completion.token_ids
        assert (ids[-1] == tokenizer.eos_token_id) == (completion.finish_reason == "stop")
        assert len(ids) == 16 or completion.finish_reason == "stop"
        assert tokenizer.eos_token_id not in ids[:-1]


def test_a_prompt_is_continued_as_without_its_padding(engine, policy, prompts):
    """At a temperature near 0 sampling is greedy, and greedy tokens can be worked out one by one."""
    drawn = engine.generate(
        [prompts[0], prompts[-1]], seeds(1, [prompts[0], prompts[-1]]), Sampling(max_tokens=4, temperature=1e-4)
    )
    for completion in drawn:
        ids = list(completion.prompt_ids)
        for token in completion.token_ids:
            with torch.no_grad():
                assert policy(torch.tensor([ids])).logits[0, -1].argmax() == token
            ids.append(token)


def test_what_else_generate_takes_is_handed_on(engine, prompts, tokenizer):
    forced = engine.generate(
        prompts[:2], seeds(1, prompts[:2]), Sampling(max_tokens=3, other={"forced_eos_token_id": [7]})
    )
    assert [completion.token_ids[-1] for completion in forced] == [7, 7]
