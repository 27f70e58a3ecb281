"""Losses and their gradients: against autograd of the written formula in float64, and against TRL's own trainer."""

import doctest
import math

import pytest
import torch
import trl

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.schema import AlgorithmSection
from rl_posttrain.training import losses
from rl_posttrain.training.losses import MAX_LOG_RATIO, aggregated, kl_estimate, masked_mean_parts, value_loss

LOSSES = AlgorithmSection.model_fields["loss"].annotation.__args__


def test_the_examples_in_the_docstrings_are_true():
    assert doctest.testmod(losses).failed == 0
    assert doctest.testmod(losses).attempted > 4


def numbers(*shape, seed=0, spread=1.0):
    return spread * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient_of(loss, *tensors):
    """The gradients of a scalar, 0 where it does not depend on a tensor."""
    found = torch.autograd.grad(loss, tensors, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(tensor) if part is None else part for tensor, part in zip(tensors, found, strict=True)]


# The value loss


@pytest.mark.parametrize("clip", [None, 0.3])
def test_the_value_loss_and_its_gradient_are_those_of_the_formula(clip):
    """The larger of (V - R)^2 / 2 and (clip(V, V_old - c, V_old + c) - R)^2 / 2, token by token in Python."""
    values, old, returns = (numbers(40, 5, seed=seed) for seed in range(3))
    values.requires_grad_(True)
    found, is_clipped = value_loss(values, old, returns, clip=clip)
    (gradient,) = gradient_of(found.sum(), values)
    cases = set()
    for place in ((row, t) for row in range(40) for t in range(5)):
        value, before, target = (tensor[place].item() for tensor in (values, old, returns))
        plain = (value - target) ** 2 / 2
        expected, slope, clipped_counts = plain, value - target, False
        if clip is not None:
            kept = min(max(value, before - clip), before + clip)
            clipped = (kept - target) ** 2 / 2
            is_outside = kept != value
            clipped_counts = clipped > plain
            cases.add((is_outside, clipped_counts))
            if clipped_counts:
                expected, slope = clipped, 0.0
        assert found[place].item() == pytest.approx(expected, abs=1e-12)
        assert is_clipped[place].item() == clipped_counts
        if not (clip is not None and kept == value):  # inside, both errors are one and autograd shares the gradient
            assert gradient[place].item() == pytest.approx(slope, abs=1e-12)
        else:
            assert gradient[place].item() == pytest.approx(value - target, abs=1e-12)
    assert clip is None or cases == {(False, False), (True, False), (True, True)}


# The KL divergence


FORMULAS = {
    "k1": lambda p, q: p - q,
    "k2": lambda p, q: (p - q) ** 2 / 2,
    "k3": lambda p, q: torch.exp(q) / torch.exp(p) - 1 + p - q,
}


@pytest.mark.parametrize("estimator", FORMULAS)
def test_kl_estimates_and_gradients_are_those_of_the_formula(estimator):
    policy, reference = numbers(4, 6), numbers(4, 6, seed=1)
    policy.requires_grad_(True), reference.requires_grad_(True)
    found, expected = kl_estimate(policy, reference, estimator), FORMULAS[estimator](policy, reference)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        gradient_of(found.sum(), policy, reference), gradient_of(expected.sum(), policy, reference), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_differences_that_would_overflow_are_finite_and_have_no_gradient(estimator, dtype):
    policy = torch.tensor([-200.0, 0.0, -1.0], dtype=dtype, requires_grad=True)
    found = kl_estimate(policy, torch.tensor([0.0, -200.0, -1.5], dtype=dtype), estimator)
    assert found.isfinite().all()
    (gradient,) = gradient_of(found.sum(), policy)
    assert gradient[:2].tolist() == [0.0, 0.0]
    assert gradient[2] != 0
    limits = {"k1": (-20, 20), "k2": (200, 200), "k3": (math.exp(MAX_LOG_RATIO) - 21, 19)}[estimator]
    assert found[:2].tolist() == pytest.approx(limits, rel=1e-2)


def test_in_a_loss_k1_pulls_nowhere_k2_along_the_kl_divergence_and_k3_along_the_other_one():
    """Exact expectations over a softmax of five tokens: no sampling."""
    logits, reference = numbers(5), torch.log_softmax(numbers(5, seed=1), 0)
    logits.requires_grad_(True)
    policy = torch.log_softmax(logits, 0)
    chances = policy.exp().detach()

    def expected_gradient(estimator):
        return gradient_of((chances * kl_estimate(policy, reference, estimator)).sum(), logits)[0]

    (of_kl,) = gradient_of((policy.exp() * (policy - reference)).sum(), logits)
    (of_other,) = gradient_of((reference.exp() * (reference - policy)).sum(), logits)
    assert of_kl.abs().max() > 0.05
    torch.testing.assert_close(expected_gradient("k1"), torch.zeros(5, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(expected_gradient("k2"), of_kl, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(expected_gradient("k3"), of_other, rtol=1e-10, atol=1e-12)
    assert (of_kl - of_other).abs().max() > 0.01
    # Weighted by the ratio to the policy that sampled, k3's gradient is that of the KL divergence (arXiv:2512.02556).
    weighted = (policy - policy.detach()).exp() * kl_estimate(policy, reference, "k3")
    (corrected,) = gradient_of((chances * weighted).sum(), logits)
    torch.testing.assert_close(corrected, of_kl, rtol=1e-10, atol=1e-12)
    for estimator in ("k1", "k3"):  # unbiased
        mean = (chances * kl_estimate(policy, reference, estimator)).sum()
        torch.testing.assert_close(mean, (chances * (policy - reference)).sum(), rtol=1e-10, atol=1e-12)


# How token losses become one number


@pytest.mark.parametrize("loss", LOSSES)
def test_token_losses_become_one_number_as_the_loss_says(loss):
    """Two micro batches of two completions, worked out by hand."""
    token_losses = torch.tensor([[1.0, 2.0, 3.0], [4.0, 99.0, 99.0], [5.0, 6.0, 99.0], [99.0, 99.0, 99.0]])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    # Sums 6, 4, 11, 0 of 3, 1, 2, 0 tokens; at most 8 tokens.
    of_step = {"dr_grpo": (10 / 16 + 11 / 16) / 2, "bnpo": (10 / 4 + 11 / 2) / 2, "luspo": (10 / 2 + 11 / 2) / 2}
    of_step |= dict.fromkeys(("grpo", "sapo"), ((2 + 4) / 2 + 5.5 / 2) / 2)
    of_step |= dict.fromkeys(("dapo", "cispo", "vespo"), 21 / 6)
    found = sum(
        aggregated(token_losses[part], mask[part], loss, max_tokens=8, num_tokens=6, accumulation=2)
        for part in (slice(0, 2), slice(2, 4))
    )
    assert found.item() == pytest.approx(of_step[loss])


def test_sums_and_counts_never_read_what_is_masked():
    values = torch.tensor([[1.0, math.nan], [2.0, 4.0]])
    mask = torch.tensor([[True, False], [True, True]])
    assert masked_mean_parts(values, mask).tolist() == [7.0, 3.0]
    assert masked_mean_parts(values, mask & False).tolist() == [0.0, 0.0]


# The whole loss against TRL's own trainer, on the same model and the same batch

NUM_MICRO_BATCHES, ROWS, PROMPT, TOKENS, MAX_TOKENS, KL_COEF = 2, 4, 5, 6, 8, 0.3


def batch(seed=0):
    """Two micro batches with log-probabilities of another sampler and of a reference model."""
    generator = torch.Generator().manual_seed(seed)
    rows = NUM_MICRO_BATCHES * ROWS
    lengths = torch.tensor([6, 2, 5, 1, 3, 6, 4, 2])
    whole = {
        "prompt_ids": torch.randint(3, 90, (rows, PROMPT), generator=generator),
        "prompt_mask": torch.ones(rows, PROMPT, dtype=torch.long),
        "completion_ids": torch.randint(3, 90, (rows, TOKENS), generator=generator),
        "completion_mask": (torch.arange(TOKENS) < lengths[:, None]).long(),
        "advantages": torch.randn(rows, generator=generator),
        "old_per_token_logps": torch.zeros(rows, TOKENS),
        "ref_per_token_logps": torch.zeros(rows, TOKENS),
    }
    return whole, lengths.sum()


@pytest.fixture(scope="module")
def trainers(tiny_recipe, tiny_model, make_trainer, tmp_path_factory):
    """Ours and TRL's own with a KL term, in fp32 and on the same weights; and a batch."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    plain = ["distributed.engine=none", "rollout.engine=transformers", "model.dtype=float32"]
    ours = make_trainer(
        load_recipe(
            tiny_recipe,
            [*plain, f"algorithm.kl_coef={KL_COEF}", f"rollout.max_new_tokens={MAX_TOKENS}",
             "algorithm.group_size=2", "algorithm.prompts_per_step=4", f"algorithm.micro_batch_size={ROWS}"],
        )
    )  # fmt: skip
    config = trl.GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), use_cpu=True, bf16=False, report_to="none", beta=KL_COEF,
        per_device_train_batch_size=ROWS, gradient_accumulation_steps=NUM_MICRO_BATCHES, num_generations=2,
        max_completion_length=MAX_TOKENS, gradient_checkpointing=False, model_init_kwargs={"dtype": "float32"},
    )  # fmt: skip
    theirs = trl.GRPOTrainer(
        model=str(tiny_model), reward_funcs=lambda completions, **kwargs: [0.0] * len(completions), args=config,
        train_dataset=Dataset.from_list([{"prompt": "1"}] * 8),
        processing_class=AutoTokenizer.from_pretrained(tiny_model, padding_side="left"),
    )  # fmt: skip
    whole, num_tokens = batch()
    with torch.no_grad():
        for trainer in (ours, theirs):
            trainer.model.train()
            trainer.current_gradient_accumulation_steps = NUM_MICRO_BATCHES
        ids = torch.cat([whole["prompt_ids"], whole["completion_ids"]], dim=1)
        mask = torch.cat([whole["prompt_mask"], whole["completion_mask"]], dim=1)
        policy = theirs._get_per_token_logps_and_entropies(theirs.model, ids, mask, TOKENS)[0]
        generator = torch.Generator().manual_seed(1)
        for name, spread in (("old_per_token_logps", 0.3), ("ref_per_token_logps", 0.8)):
            whole[name] = policy + spread * torch.randn(policy.shape, generator=generator)
    return ours, theirs, whole, num_tokens


def losses_and_gradient(trainer, whole, num_tokens, *, without=()):
    """The loss of each micro batch, and the gradient of their sum."""
    trainer.model.zero_grad()
    found = []
    for number in range(NUM_MICRO_BATCHES):
        part = slice(number * ROWS, (number + 1) * ROWS)
        inputs = {name: value[part] for name, value in whole.items() if name not in without}
        loss = trainer._compute_loss(trainer.model, inputs | {"num_items_in_batch": num_tokens})
        loss.backward()
        found.append(loss.item())
    trainer._metrics["train"].clear()
    return found, torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()]).clone()


@pytest.mark.parametrize("is_corrected", [True, False], ids=["bias-corrected", "plain-k3"])
@pytest.mark.parametrize("loss", LOSSES)
def test_policy_loss_with_its_kl_term_is_trls(trainers, loss, is_corrected):
    ours, theirs, whole, num_tokens = trainers
    recipe = ours.objective._recipe
    algorithm = recipe.algorithm.model_copy(update={"loss": loss, "kl_bias_correction": is_corrected})
    ours.objective._recipe = recipe.model_copy(update={"algorithm": algorithm})
    theirs.args.use_bias_correction_kl = is_corrected
    ours.loss_type = theirs.loss_type = loss
    for without in ((), ("old_per_token_logps",)):
        expected, wanted = losses_and_gradient(theirs, whole, num_tokens, without=without)
        found, gradient = losses_and_gradient(ours, whole, num_tokens, without=without)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
        torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-5 * wanted.abs().max().item())
    theirs.beta = 0.0
    try:
        without_kl, _ = losses_and_gradient(theirs, whole, num_tokens)
    finally:
        theirs.beta = KL_COEF
    assert all(abs(a - b) > 1e-3 for a, b in zip(found, without_kl, strict=True)), "the term is part of the loss"


def test_ratios_that_would_overflow_leave_the_loss_and_its_gradient_finite(trainers):
    ours, _, whole, num_tokens = trainers
    far = dict(whole)
    for name, shift in (("old_per_token_logps", -200.0), ("ref_per_token_logps", 200.0)):
        far[name] = whole[name].clone()
        far[name][:, 0] += shift
        far[name][:, 1] -= shift
    found, gradient = losses_and_gradient(ours, far, num_tokens)
    assert all(map(math.isfinite, found))
    assert gradient.isfinite().all()
