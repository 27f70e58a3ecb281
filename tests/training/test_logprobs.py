"""Log-probabilities, entropies and their gradients against float64 autograd on the dense softmax."""

import pytest
import torch

from rl_posttrain.training import logprobs
from rl_posttrain.training.logprobs import add_completion_scoring, can_score, linear_logprobs

N, H, V = 11, 16, 37


def dense(hidden, weight, targets, temperature):
    """The definition, with nothing saved: log softmax over the whole vocabulary, and minus the sum of p log p."""
    log_p = torch.log_softmax(hidden @ weight.t() / temperature, dim=-1)
    return log_p.gather(1, targets[:, None]).squeeze(1), -(log_p.exp() * log_p).sum(1)


def inputs(dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(3)
    hidden = (torch.randn(N, H, generator=generator) * scale).to(dtype).requires_grad_()
    weight = torch.randn(V, H, generator=generator).to(dtype).requires_grad_()
    targets = torch.randint(V, (N,), generator=generator)
    targets[0], targets[-1] = 0, V - 1  # both ends of the vocabulary
    return hidden, weight, targets


def in_float64(*tensors):
    return tuple(tensor.detach().double().requires_grad_() for tensor in tensors)


def coefficients():
    """Weights of each output in a scalar, different for every row, so that no two rows' gradients can be swapped."""
    generator = torch.Generator().manual_seed(4)
    return torch.randn(N, generator=generator), torch.randn(N, generator=generator)


# Logits held at a time: less than a row, rows and columns that do not divide N and V, and everything at once.
TILES = [1, 3 * V + 1, 5 * N + 2, 2**22]
USES = {"log-probabilities": (1.0, 0.0), "entropies": (0.0, 1.0), "both": (1.0, 1.0)}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("tile", TILES)
def test_values_and_gradients(tile, temperature, use, monkeypatch):
    monkeypatch.setattr(logprobs, "_TILE_VALUES", tile)
    hidden, weight, targets = inputs()
    hidden64, weight64 = in_float64(hidden, weight)
    ours = linear_logprobs(hidden, weight, targets, temperature)
    theirs = dense(hidden64, weight64, targets, temperature)
    for value, expected in zip(ours, theirs, strict=True):
        assert value.dtype is torch.float32
        torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=2e-5)
    # An output that is not used must reach backward as no gradient at all, and not as a missing one.
    for outputs in (ours, theirs):
        terms = [
            (part * output).sum() for part, output, used in zip(coefficients(), outputs, USES[use], strict=True) if used
        ]
        sum(terms).backward()
    for value, expected in ((hidden.grad, hidden64.grad), (weight.grad, weight64.grad)):
        # At temperature 0.3 logits reach 50: fp32 has them to 5e-6, and probabilities to as much of themselves.
        scale = expected.abs().max()
        torch.testing.assert_close(value.double() / scale, expected / scale, rtol=0, atol=1e-4)


def test_only_what_needs_a_gradient_gets_one():
    hidden, weight, targets = inputs()
    weight.requires_grad_(False)
    hidden64, weight64 = in_float64(hidden, weight)
    linear_logprobs(hidden, weight, targets, 1.0)[0].sum().backward()
    dense(hidden64, weight64, targets, 1.0)[0].sum().backward()
    assert weight.grad is None
    torch.testing.assert_close(hidden.grad.double(), hidden64.grad, rtol=1e-4, atol=2e-5)


def test_several_rows_may_have_the_same_target():
    hidden, weight, _ = inputs()
    targets = torch.full((N,), 5)
    hidden64, weight64 = in_float64(hidden, weight)
    linear_logprobs(hidden, weight, targets, 1.0)[0].sum().backward()
    dense(hidden64, weight64, targets, 1.0)[0].sum().backward()
    torch.testing.assert_close(weight.grad.double(), weight64.grad, rtol=1e-4, atol=2e-5)


def test_a_certain_token_has_no_entropy_and_nothing_is_nan():
    hidden, weight, targets = inputs(scale=200.0)  # logits in the thousands
    values, entropies = linear_logprobs(hidden, weight, targets, 0.1)
    (values.sum() + entropies.sum()).backward()
    assert (entropies.abs() < 1e-2).all()
    for tensor in (values, entropies, hidden.grad, weight.grad):
        assert tensor.isfinite().all()


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_bf16_is_as_good_as_its_logits(temperature):
    hidden, weight, targets = inputs(torch.bfloat16)
    hidden64, weight64 = in_float64(hidden, weight)
    values, entropies = linear_logprobs(hidden, weight, targets, temperature)
    expected, expected_entropies = dense(hidden64, weight64, targets, temperature)
    # The one rounding: logits leave the product in bf16, half of 2**-7 of themselves off at most. The target's logit
    # and the normalizer move by that at most. An entropy moves by its gradient p |log p + H| times that.
    error = (hidden64 @ weight64.t()).detach().abs().amax(1) / temperature * 2**-8
    assert ((values - expected).abs() <= 2 * error + 1e-5).all()
    assert ((entropies - expected_entropies).abs() <= 4 * error + 1e-5).all()
    assert (values - expected).abs().max() > 1e-5, "computed in more than bf16: the bound shows nothing"
    one, other = coefficients()
    (one * values + other * entropies).sum().backward()
    (one * expected + other * expected_entropies).sum().backward()
    for value, reference in ((hidden.grad, hidden64.grad), (weight.grad, weight64.grad)):
        assert value.dtype is torch.bfloat16
        # Probabilities are off by 2 * error, relatively; gradients add bf16 roundings of their own.
        assert (value.double() - reference).norm() <= (2 * error.max() + 3 * 2**-8) * reference.norm()


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def tiny(request):
    """A 2-layer Llama in fp32 with a batch of two rows, the first padded on its left."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V, hidden_size=H, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=request.param, initializer_range=0.3,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    input_ids = torch.randint(V, (2, 9))
    attention_mask = torch.ones_like(input_ids)
    attention_mask[0, :3] = 0
    return model, input_ids, attention_mask


def grads(model) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    return found


def test_a_model_scores_its_completions_as_its_own_logits_do(tiny):
    model, input_ids, attention_mask = tiny
    assert can_score(model)
    logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, -5:-1]
    log_p = torch.log_softmax(logits.double() / 0.8, dim=-1)
    expected = log_p.gather(2, input_ids[:, -4:, None]).squeeze(2)
    expected_entropies = -(log_p.exp() * log_p).sum(2)
    (expected.sum() + 0.1 * expected_entropies.sum()).backward()
    reference = grads(model)

    add_completion_scoring(model, 0.8)
    values, entropies = model(input_ids=input_ids, attention_mask=attention_mask, completion_tokens=4)
    assert values.shape == entropies.shape == (2, 4)
    torch.testing.assert_close(values.double(), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(entropies.double(), expected_entropies, rtol=0, atol=1e-4)
    (values.sum() + 0.1 * entropies.sum()).backward()
    for name, value in grads(model).items():
        torch.testing.assert_close(
            value, reference[name], rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )


def test_padding_on_the_left_does_not_count(tiny):
    model, input_ids, attention_mask = tiny
    add_completion_scoring(model, 1.0)
    padded, _ = model(input_ids=input_ids, attention_mask=attention_mask, completion_tokens=4)
    position_ids = torch.arange(3, 9)[None]  # where the tokens stood: rotary positions are relative, but for rounding
    alone, _ = model(
        input_ids=input_ids[:1, 3:],
        attention_mask=attention_mask[:1, 3:],
        position_ids=position_ids,
        completion_tokens=4,
    )
    torch.testing.assert_close(padded[:1], alone, rtol=0, atol=1e-4)


def test_without_completion_tokens_the_model_is_as_it_was(tiny):
    model, input_ids, attention_mask = tiny
    before = model(input_ids=input_ids, attention_mask=attention_mask).logits
    add_completion_scoring(model, 1.0)
    assert torch.equal(model(input_ids=input_ids, attention_mask=attention_mask).logits, before)


def test_under_autocast_the_products_are_bf16_and_the_results_fp32(tiny):
    model, input_ids, attention_mask = tiny
    add_completion_scoring(model, 1.0)
    exact, _ = model(input_ids=input_ids, attention_mask=attention_mask, completion_tokens=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = model(input_ids=input_ids, attention_mask=attention_mask, completion_tokens=4)
    assert rounded.dtype is torch.float32
    difference = (rounded - exact).abs().max().item()
    assert 1e-4 < difference < 0.3
    rounded.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("change", ["soft cap", "logit scale", "bias", "other head"])
def test_a_head_that_does_more_than_a_product_is_left_to_the_model(tiny, change):
    model, *_ = tiny
    if change == "soft cap":
        model.config.final_logit_softcapping = 30.0
    elif change == "logit scale":
        model.config.logit_scale = 0.5
    elif change == "bias":
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(V))
    else:
        model.lm_head = torch.nn.Sequential(model.lm_head)
    assert not can_score(model)
