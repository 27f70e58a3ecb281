"""vLLM as a rollout engine, against the model that it is to sample from."""

import copy

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_posttrain.rollout import vllm_weights
from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.rollout.vllm import VLLMEngine

SAMPLING = Sampling(max_tokens=8)


def seeds(seed, prompts):
    return [1_000 * seed + place for place in range(len(prompts))]


@pytest.fixture(scope="module")
def engine(tiny_model):
    return VLLMEngine(
        str(tiny_model),
        dtype="bfloat16",
        max_tokens_per_sequence=64,
        max_sequences=32,
        kv_cache_bytes=1,
        gpu_memory_share=0.2,
        seed=0,
    )


@pytest.fixture
def policy(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def prompts(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return [tokenizer(f"Q: What is {n} + 3?\nA:")["input_ids"] for n in range(8) for _ in range(4)]


def weight_used_by(layer: torch.nn.Module, num_inputs: int) -> torch.Tensor:
    """The matrix that a vLLM layer multiplies by, however packed: its product with the identity, exact in bf16."""
    with torch.no_grad():
        unit = torch.eye(num_inputs, dtype=torch.bfloat16, device="cuda" if torch.cuda.is_available() else "cpu")
        return layer.quant_method.apply(layer, unit).t()


def engine_weights(engine: VLLMEngine) -> dict[str, torch.Tensor]:
    """Every weight of the engine's Llama, under its checkpoint name."""
    model = engine.model
    config = model.config
    size = config.hidden_size
    weights = {
        "model.embed_tokens.weight": model.model.embed_tokens.weight,
        "model.norm.weight": model.model.norm.weight,
        "lm_head.weight": weight_used_by(model.lm_head, size)[: config.vocab_size],
    }
    kv_size = config.num_key_value_heads * config.head_dim
    for number, layer in enumerate(model.model.layers):
        prefix = f"model.layers.{number}."
        q, k, v = weight_used_by(layer.self_attn.qkv_proj, size).split([size, kv_size, kv_size])
        gate, up = weight_used_by(layer.mlp.gate_up_proj, size).chunk(2)
        weights |= {
            f"{prefix}self_attn.q_proj.weight": q,
            f"{prefix}self_attn.k_proj.weight": k,
            f"{prefix}self_attn.v_proj.weight": v,
            f"{prefix}self_attn.o_proj.weight": weight_used_by(layer.self_attn.o_proj, size),
            f"{prefix}mlp.gate_proj.weight": gate,
            f"{prefix}mlp.up_proj.weight": up,
            f"{prefix}mlp.down_proj.weight": weight_used_by(layer.mlp.down_proj, config.intermediate_size),
            f"{prefix}input_layernorm.weight": layer.input_layernorm.weight,
            f"{prefix}post_attention_layernorm.weight": layer.post_attention_layernorm.weight,
        }
    return {name: weight.cpu() for name, weight in weights.items()}


def perturb(model: torch.nn.Module, seed: int) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)


def policy_logprobs(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]


def difference(engine, model, prompts, seed=0) -> float:
    """Mean distance of the engine's and the policy's log-probabilities over what the engine draws, in nats."""
    drawn = engine.generate(prompts, seeds(seed, prompts), SAMPLING)
    return torch.cat(
        [
            (policy_logprobs(model, prompt, ids) - torch.tensor(logprobs)).abs()
            for prompt, ids, logprobs in ((c.prompt_ids, c.token_ids, c.logprobs) for c in drawn)
        ]
    ).mean()


def test_after_every_sync_each_weight_of_the_engine_equals_the_policys(engine, policy):
    for seed in range(3):
        perturb(policy, seed)
        engine.load_weights(policy.named_parameters())
        expected = dict(policy.state_dict())
        held = engine_weights(engine)
        assert set(held) == set(expected)
        for name, weight in expected.items():
            assert torch.equal(held[name], weight), f"{name} differs after sync {seed}"


def test_a_tied_head_would_stay_behind_without_its_repacking(engine, policy, monkeypatch):
    """What the repacking is for: without it the layers are new and the head is old."""
    engine.load_weights(policy.named_parameters())
    perturb(policy, 7)
    monkeypatch.setattr(vllm_weights, "_repack_tied_head", lambda model: None)
    engine.load_weights(policy.named_parameters())
    held = engine_weights(engine)
    assert torch.equal(held["model.embed_tokens.weight"], policy.state_dict()["model.embed_tokens.weight"])
    if not torch.cuda.is_available():
        assert not torch.equal(held["lm_head.weight"], policy.state_dict()["lm_head.weight"])


def test_logprobs_are_the_policys_and_tell_stale_weights(engine, policy, prompts):
    engine.load_weights(policy.named_parameters())
    in_sync = difference(engine, policy, prompts)
    perturb(policy, 11)
    stale = difference(engine, policy, prompts)
    assert in_sync < 0.05
    assert stale > 0.15


def test_fp32_weights_are_taken_as_bf16(engine, policy, prompts):
    """Without DeepSpeed the policy is fp32 under autocast; the engine holds what autocast multiplies by."""
    full = copy.deepcopy(policy).float()
    perturb(full, 3)
    engine.load_weights(full.named_parameters())
    held = engine_weights(engine)
    assert all(torch.equal(held[name], weight.bfloat16()) for name, weight in full.state_dict().items())


def test_a_seed_decides_the_completions_and_leaves_torchs_generator_alone(engine, policy, prompts):
    engine.load_weights(policy.named_parameters())
    torch.manual_seed(5)
    first = engine.generate(prompts, seeds(1, prompts), SAMPLING)
    after = torch.rand(1)
    again, other = (
        engine.generate(prompts, seeds(1, prompts), SAMPLING),
        engine.generate(prompts, seeds(2, prompts), SAMPLING),
    )
    assert first == again
    assert [c.token_ids for c in first] != [c.token_ids for c in other]
    assert len({tuple(c.token_ids) for c in first[:4]}) > 1, "completions of one prompt should differ"
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))


def test_seeds_for_each_request_do_as_well_where_nothing_can_be_compiled(engine, policy, prompts, monkeypatch):
    engine.load_weights(policy.named_parameters())
    monkeypatch.setattr(engine, "_seeds_requests", True)
    first, again = (
        engine.generate(prompts, seeds(1, prompts), SAMPLING),
        engine.generate(prompts, seeds(1, prompts), SAMPLING),
    )
    assert first == again
    assert len({tuple(c.token_ids) for c in first[:4]}) > 1


def test_completions_end_at_the_end_token_or_the_limit(engine, policy, prompts):
    engine.load_weights(policy.named_parameters())
    drawn = engine.generate(prompts * 4, seeds(3, prompts * 4), Sampling(max_tokens=16))
    end = policy.generation_config.eos_token_id
    assert {completion.finish_reason for completion in drawn} == {"stop", "length"}
    for completion in drawn:
        ids = completion.token_ids
        assert len(ids) == len(completion.logprobs)
        assert (ids[-1] == end) == (completion.finish_reason == "stop")
        assert ids[-1] == end or len(ids) == 16
        assert end not in ids[:-1]


def test_where_each_request_has_a_generator_torchs_own_is_left_alone(tiny_model, policy, prompts):
    """So that a thread may sample while another one draws from it."""
    engine = VLLMEngine(
        str(tiny_model), dtype="bfloat16", max_tokens_per_sequence=64, max_sequences=32, kv_cache_bytes=1,
        gpu_memory_share=0.2, seed=0, seed_each=True,
    )  # fmt: skip
    engine.load_weights(policy.named_parameters())
    drawn = []
    for start in (1, 2):
        torch.manual_seed(start)
        before = torch.get_rng_state()
        drawn.append([completion.token_ids for completion in engine.generate(prompts, seeds(1, prompts), SAMPLING)])
        assert torch.equal(torch.get_rng_state(), before)
    assert drawn[0] == drawn[1]
    engine.close()
