"""Predicted bytes by hand; tests/test_memory.py holds them against what training really keeps."""

import pytest
import torch
from torch import nn

from rl_posttrain.models.shapes import PUBLISHED_SHAPES
from rl_posttrain.optim import JointSpec, resolve_optimizer
from rl_posttrain.optim.bench import Llama
from rl_posttrain.optim.ledger import MemoryLedger, predict_memory

# Four matrices of a quarter each, and each above the size that ZeRO-3 keeps whole.
QUARTER = 200_000
N = 4 * QUARTER


def four_matrices(dtype=torch.bfloat16) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(1000, 200, bias=False) for _ in range(4))).to(dtype)


def predict(name, *, model=None, options=None, zero_stage=2, num_processes=4, **more) -> MemoryLedger:
    spec = resolve_optimizer(name, lr=0.1, options=options or {})
    return predict_memory(model or four_matrices(), spec, zero_stage=zero_stage, num_processes=num_processes, **more)


def parts(ledger) -> tuple:
    return tuple(ledger.components().values())


# Bytes a parameter on each of 4 devices: weights, reduced gradients, fp32 masters, optimizer state of one value.
BY_STAGE = {
    None: (2, 2, 0, 2),
    0: (2, 2, 4, 4),
    1: (2, 0.5, 1, 1),
    2: (2, 0.5, 1, 1),
    3: (0.5, 0.5, 1, 1),
}


@pytest.mark.parametrize("stage", BY_STAGE)
def test_what_each_stage_shards_over_four_devices(stage):
    *others, state = (N * width for width in BY_STAGE[stage])
    # AdamW counts steps in four bytes for each tensor that it is handed: four matrices, or one flat shard.
    counters = 4 * (1 if stage else 4)
    assert parts(predict("adams", zero_stage=stage)) == (*others, state)
    assert parts(predict("sgd", zero_stage=stage)) == (*others, state)
    assert parts(predict("adamw", zero_stage=stage)) == (*others, 2 * state + counters)


@pytest.mark.parametrize(("stage", "masters"), [(None, 0), (0, 0), (1, N), (3, N)])
def test_fp32_has_masters_where_zero_partitions_them(stage, masters):
    ledger = predict("sgd", model=four_matrices(torch.float32), zero_stage=stage)
    assert ledger.masters == masters
    assert ledger.weights == (N if stage == 3 else 4 * N)


@pytest.mark.parametrize(("stage", "num_bytes"), [(2, N), (3, N)])
def test_gradients_that_are_summed_in_fp32(stage, num_bytes):
    assert predict("adams", zero_stage=stage, fp32_gradients=True).gradients == num_bytes


def test_a_parameter_across_the_edge_of_a_shard_is_kept_whole_until_the_step():
    # Three shards of 1 1/3 matrices: the second one has parts of two... and each touches two of them.
    assert predict("adams", num_processes=3).gradients == 2 * 2 * QUARTER
    assert predict("adams", num_processes=3, fp32_gradients=True).gradients == 4 * 266_668


def test_shards_are_padded():
    model = nn.Linear(5, 1, bias=False, device="meta", dtype=torch.bfloat16)
    # 5 values on 4 devices: 2 on each, as ZeRO-1 and -2 pad to 8; ZeRO-3 keeps the small one whole beside its shard.
    assert parts(predict("sgd", model=model, zero_stage=1)) == (16, 10, 8, 8)
    model = nn.Linear(5, 1, bias=False, device="meta", dtype=torch.bfloat16)
    assert parts(predict("sgd", model=model, zero_stage=3)) == (4 + 10, 4, 8, 8)


@pytest.mark.parametrize(("stage", "gradients"), [(1, N), (2, N), (3, 1.5 * N)])
def test_offloading_leaves_the_weights_on_the_device(stage, gradients):
    ledger = predict("adams", zero_stage=stage, offload="optimizer")
    assert parts(ledger)[1:] == (gradients, N, N)
    assert ledger.on_device() == ledger.weights == N * BY_STAGE[stage][0]
    assert ledger.total() == ledger.weights + gradients + 2 * N
    whole = predict("adams", zero_stage=stage, offload="parameters")
    assert (whole.on_device(), whole.total()) == (0, ledger.total())


@pytest.mark.parametrize(("stage", "counters"), [(0, 16), (2, 4)])
def test_options_of_adams_show(stage, counters):
    plain = predict("adams", zero_stage=stage).optimizer_state
    assert predict("adams", zero_stage=stage, options={"state_dtype": "bfloat16"}).optimizer_state == plain / 2
    assert predict("adams", zero_stage=stage, options={"bias_correction": True}).optimizer_state == plain + counters
    assert predict("adams", zero_stage=stage, options={"fused": True}).optimizer_state == plain


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("stage", [None, 0, 2, 3])
def test_scale_keeps_momentum_for_the_head_and_adam_for_vectors(stage, tied):
    shapes = PUBLISHED_SHAPES["llama-60m"] | {"tie_word_embeddings": tied}
    with torch.device("meta"):
        model = Llama(shapes).to(torch.bfloat16)
    vectors = 17 * 512
    by_hand = (2 if stage is None else 4) * (32000 * 512 + 2 * vectors) / (2 if stage else 1)
    got = predict("scale", model=model, zero_stage=stage, num_processes=2).optimizer_state
    assert got == pytest.approx(by_hand, rel=1e-4)


# arXiv:2506.16659: memory of SCALE in percent of Adam's, weights and state in bf16.
@pytest.mark.parametrize(("name", "published"), [("60m", 43), ("130m", 40), ("350m", 36), ("1b", 35)])
def test_scale_takes_the_published_part_of_adams_memory(name, published):
    totals = {}
    for optimizer in ("scale", "adamw"):
        with torch.device("meta"):
            model = Llama(PUBLISHED_SHAPES[f"llama-{name}"]).to(torch.bfloat16)
        totals[optimizer] = predict(optimizer, model=model, zero_stage=None).weights_and_state()
    percent = 100 * totals["scale"] / totals["adamw"]
    assert percent == pytest.approx(published, abs=0.6)
    assert 35 <= round(percent) <= 45


def test_seventy_billion_on_64_devices_by_hand():
    with torch.device("meta"):
        model = Llama(PUBLISHED_SHAPES["llama-70b"]).to(torch.bfloat16)
    count, whole = 68_976_648_192, 161 * 8192  # norms stay whole
    ledger = predict("adams", model=model, zero_stage=3, num_processes=64)
    assert parts(ledger) == (2 * (count // 64 + whole), 2 * count // 64, 4 * count // 64, 4 * count // 64)


def test_frozen_parameters_have_weights_and_nothing_else():
    model = four_matrices()
    for layer in model[1:]:
        layer.weight.requires_grad_(False)
    assert parts(predict("adams", model=model, zero_stage=0)) == tuple(QUARTER * width for width in (8, 2, 4, 4))
    model = four_matrices()
    model[0].weight.requires_grad_(False)
    assert predict("adams", model=model, zero_stage=3, num_processes=2).weights == N


# Weights, gradients and masters on each of 2 devices, in values: five quarters are in matrices, 8 in the critic's head.
# A matrix across the edge of a shard keeps its whole gradient (ZeRO-2). ZeRO-3 keeps the head whole beside its shard.
JOINT = {
    0: (5 * QUARTER + 8, 5 * QUARTER + 8, 5 * QUARTER + 8),
    2: (5 * QUARTER + 8, 3 * QUARTER + 8, 2.5 * QUARTER + 4),
    3: (2.5 * QUARTER + 4 + 8, 2.5 * QUARTER + 4, 2.5 * QUARTER + 4),
}


@pytest.mark.parametrize("stage", JOINT)
def test_a_policy_and_its_critic_each_with_the_state_of_its_own_optimizer(stage):
    model = four_matrices()
    with torch.device("meta"):
        model.critic = nn.Sequential(nn.Linear(1000, 200, bias=False), nn.RMSNorm(8)).to(torch.bfloat16)
    spec = JointSpec(resolve_optimizer("adamw", lr=0.1), resolve_optimizer("scale", lr=0.1))
    weights, gradients, masters = JOINT[stage]
    # AdamW has two values and a counter of 4 bytes for each tensor; SCALE has that for the head alone, in both halves.
    state = (8 * N + 4 * 4) + (8 * 8 + 4) if stage == 0 else (8 * N / 2 + 4) + (8 * 8 + 4) / 2
    ledger = predict_memory(model, spec, zero_stage=stage, num_processes=2)
    assert parts(ledger) == (2 * weights, 2 * gradients, 4 * masters, state)


def test_an_optimizer_of_ones_own_is_stepped_and_never_guessed_at(tmp_path):
    assert predict("torch.optim:RMSprop", zero_stage=1).optimizer_state == N + 4
    ledger = predict("torch.optim:Adafactor", zero_stage=0)
    assert (ledger.optimizer_state, ledger.total(), ledger.weights_and_state()) == (None, None, None)
    assert "meta tensors" in ledger.unknown
    assert ledger.weights == 2 * N


def test_fsdp2_shares_out_rows_of_fp32_weights_and_offloads_all_of_them():
    """Five rows on two processes: the fullest has three. bf16 is the dtype of the passes alone."""
    model = torch.nn.Linear(4, 5, device="meta", dtype=torch.bfloat16)  # 20 + 5 values
    rows = 3 * 4 + 3
    ledger = predict("adams", model=model, zero_stage="fsdp2", num_processes=2)
    assert parts(ledger) == (4 * rows, 4 * rows, 0, 4 * rows)
    assert ledger.on_device() == ledger.total() == 3 * 4 * rows
    offloaded = predict("adams", model=model, zero_stage="fsdp2", num_processes=2, offload="parameters")
    assert (offloaded.on_device(), offloaded.total()) == (0, 3 * 4 * rows)
    frozen = torch.nn.Sequential(model, torch.nn.Linear(4, 5, bias=False, device="meta", dtype=torch.bfloat16))
    frozen[1].requires_grad_(False)
    assert predict("adams", model=frozen, zero_stage="fsdp2", num_processes=2).weights == 4 * rows + 2 * 3 * 4
