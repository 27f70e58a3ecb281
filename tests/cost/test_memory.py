"""`rl-posttrain optim memory`: predictions beside live objects of real steps, under every engine."""

import json

import pytest
import torch
from conftest import run_processes
from transformers import LlamaConfig

from rl_posttrain.cost.measure import Setting, measure_memory
from rl_posttrain.cost.memory import memory_of
from rl_posttrain.cost.trained import make_model, optimizer_spec
from rl_posttrain.errors import EngineError, RecipeError
from rl_posttrain.models.find import model_without_weights, published_config
from rl_posttrain.optim import resolve_optimizer
from rl_posttrain.optim.ledger import MemoryLedger, predict_memory
from rl_posttrain.views.memory import plot_memory, print_memory

# Odd sizes, so that shards have edges and padding; an embedding and a head that ZeRO-3 does not keep whole.
CONFIG = LlamaConfig(
    vocab_size=2501,
    hidden_size=42,
    intermediate_size=99,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_key_value_heads=1,
    tie_word_embeddings=False,
)
NUM_TENSORS = 3 * 9 + 3
PLAIN, ZERO_0 = {"zero_stage": None}, {"zero_stage": 0}
SETTINGS = [
    PLAIN,
    ZERO_0,
    *({"zero_stage": stage, "offload": offload} for stage in (1, 2, 3) for offload in ("none", "optimizer")),
    {"zero_stage": 3, "offload": "parameters"},
    *({"zero_stage": stage, "fp32_gradients": True} for stage in (2, 3)),
]


def predict(name, dtype, setting):
    return predict_memory(model_without_weights(CONFIG, dtype), resolve_optimizer(name, lr=0.1), **setting)


def check_agreement(predicted, measured):
    """Within 1 %, component by component."""
    for name, held in measured.components().items():
        assert predicted.components()[name] == pytest.approx(held, rel=0.01), (name, predicted, measured)
    assert predicted.on_host == tuple(measured.on_host)


def check_half(adams, adamw, num_tensors):
    """AdamS holds half of AdamW's two buffers, to the byte; AdamW's counters are 4 bytes a tensor."""
    assert 2 * adams.optimizer_state == adamw.optimizer_state - 4 * num_tensors


@pytest.mark.parametrize(
    ("setting", "dtype"),
    [
        *((setting, "bfloat16") for setting in SETTINGS),
        # fp32 weights are their own masters.
        *(({"zero_stage": stage}, "float32") for stage in (None, 0, 2, 3)),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_one_process_holds_what_was_predicted(setting, dtype):
    names = ["adams", "adamw"]
    if setting.get("offload", "none") == "none" and setting["zero_stage"] != 1:
        names += ["scale"]  # its momentum is the head's alone, and that is found in shards
    if setting in (PLAIN, ZERO_0):
        names += ["sgd"]
    measured = dict(zip(names, measure_memory(CONFIG, names, Setting(dtype=dtype, **setting)), strict=True))
    for name in names:
        check_agreement(predict(name, dtype, setting), measured[name])
    check_half(measured["adams"], measured["adamw"], 1 if setting["zero_stage"] else NUM_TENSORS)


@pytest.mark.parametrize(
    ("setting", "quantize"),
    [
        *((setting, None) for setting in (PLAIN, ZERO_0, *({"zero_stage": stage} for stage in (1, 2, 3, "fsdp2")))),
        pytest.param({"zero_stage": 3, "num_processes": 2}, None),
        pytest.param({"zero_stage": "fsdp2", "num_processes": 2}, None, marks=pytest.mark.long),
        (PLAIN, "nf4"),
        ({"zero_stage": 2}, "nf4"),
        pytest.param({"zero_stage": 3, "num_processes": 2}, "nf4", marks=pytest.mark.long),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_adapters_hold_what_was_predicted(setting, quantize):
    """Gradients, masters and state are those of the adapters alone."""
    if quantize:
        pytest.importorskip("bitsandbytes")
    names, form = ["adams", "adamw"], {"lora_rank": 4, "quantize": quantize}
    measured = measure_memory(CONFIG, names, Setting(dtype="bfloat16", **form, **setting))
    for name, held in zip(names, measured, strict=True):
        with torch.device("meta"):
            model = make_model(CONFIG, "bfloat16", critic=False, **form, zero_stage=setting["zero_stage"])
        check_agreement(predict_memory(model, optimizer_spec(name, critic=False), **setting), held)
    assert 2 * measured[0].gradients < measured[0].weights


@pytest.mark.parametrize("stage", [2, 3])
def test_two_processes_hold_what_was_predicted(stage, tmp_path):
    setting = {"zero_stage": stage, "num_processes": 2}
    names = ["adams", "adamw", "scale"]
    CONFIG.save_pretrained(tmp_path)
    task = {"folder": str(tmp_path), "optimizers": names, "setting": vars(Setting(dtype="bfloat16", **setting))}
    run_processes("-m", "rl_posttrain.cost.measure", json.dumps(task), processes=2)
    measured = [MemoryLedger(**ledger) for ledger in json.loads((tmp_path / "ledgers.json").read_text())]
    for name, ledger in zip(names, measured, strict=True):
        check_agreement(predict(name, "bfloat16", setting), ledger)
    check_half(*measured[:2], 1)


@pytest.mark.long
def test_several_processes_are_really_started():
    setting = {"zero_stage": 3, "num_processes": 2}
    (measured,) = measure_memory(CONFIG, ["adams"], Setting(dtype="bfloat16", **setting))
    check_agreement(predict("adams", "bfloat16", setting), measured)


def test_scale_at_60m_really_takes_the_published_part_of_adams_memory():
    config = published_config("llama-60m")
    scale, adamw = measure_memory(config, ["scale", "adamw"], Setting(dtype="bfloat16", zero_stage=None))
    ratio = scale.weights_and_state() / adamw.weights_and_state()
    assert ratio == pytest.approx(0.43, abs=0.005)


@pytest.mark.parametrize(("stage", "rank"), [(None, None), (2, None), (3, None), (None, 4), (2, 4)])
def test_a_policy_and_its_critic_hold_what_was_predicted(stage, rank):
    setting, names = {"zero_stage": stage}, ["adams", "scale"]
    measured = measure_memory(CONFIG, names, Setting(dtype="bfloat16", **setting, critic=True, lora_rank=rank))
    for name, ledger in zip(names, measured, strict=True):
        with torch.device("meta"):
            model = make_model(CONFIG, "bfloat16", critic=True, lora_rank=rank, zero_stage=stage)
        check_agreement(predict_memory(model, optimizer_spec(name, critic=True), **setting), ledger)


ARGUMENTS = {
    "zero_stage": "2",
    "num_processes": 1,
    "dtype": "bfloat16",
    "offload": "none",
    "measure": False,
    "critic": False,
}


def test_measured_and_predicted_stand_side_by_side(tiny_model, tmp_path, capsys):
    result = memory_of(str(tiny_model), ["adams", "torch.optim:Adafactor"], **ARGUMENTS | {"measure": True})
    assert [row["optimizer"] for row in result["rows"]] == ["adams", "torch.optim:Adafactor", "adamw"]
    adams, adafactor, adamw = result["rows"]
    assert abs(adams["difference"]) < 0.01
    assert abs(adamw["difference"]) < 0.01
    assert adamw["measured"]["ratio"] == 1
    assert adams["measured"]["total"] == adams["measured"]["on_device"] > 0
    # What no step without values can tell is counted all the same.
    assert adafactor["predicted"]["total"] is adafactor["difference"] is None
    assert adafactor["measured"]["optimizer_state"] > 0
    print_memory(result)
    text = " ".join(capsys.readouterr().out.split())  # lines are cut where the screen ends
    assert "82,240 parameters, bfloat16, ZeRO-2, 1 device " in text
    assert "adams: measured and predicted differ by" in text
    assert "unknown" in text
    picture = tmp_path / "memory.png"
    plot_memory(result, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_critics_part_is_told_beside_the_policys(tiny_model, capsys):
    result = memory_of(str(tiny_model), ["adams"], **ARGUMENTS | {"critic": True, "measure": True})
    # Its embedding, of 128 x 64, is tied: the critic has all of the policy's weights, and a head of 64.
    assert result["num_critic_parameters"] == result["num_parameters"] + 64
    for row in result["rows"]:
        assert abs(row["difference"]) < 0.01
        for kind in ("predicted", "measured"):
            policy, critic = (row[kind]["parts"][part] for part in ("policy", "critic"))
            assert critic["total"] == pytest.approx(policy["total"], rel=0.01)
            assert all(policy[name] + critic[name] == row[kind][name] for name in policy)
    alone = memory_of(str(tiny_model), ["adams"], **ARGUMENTS)
    totals = [row["predicted"]["total"] for row in alone["rows"]]
    assert totals == [row["predicted"]["parts"]["policy"]["total"] for row in result["rows"]]
    assert "num_critic_parameters" not in alone
    print_memory(result)
    text = capsys.readouterr().out
    assert "82,240 parameters and 82,304 of a critic, bfloat16, ZeRO-2, 1 device " in " ".join(text.split())
    assert text.count("  critic ") == 4


def test_the_command_sizes_a_model_far_past_this_machine(tmp_path, run_main):
    options = ["--zero-stage", "3", "--num-processes", "64", "--json", "--plot", str(tmp_path / "70b.png")]
    status, printed, _ = run_main("optim", "memory", "llama-70b", "--optimizers", "adams,scale", *options)
    assert status == 0
    result = json.loads(printed)
    assert result["num_parameters"] == 68_976_648_192
    adams = result["rows"][0]["predicted"]
    assert adams["total"] / 2**30 == pytest.approx(12 * 68.98e9 / 64 / 2**30, rel=0.001)
    assert (tmp_path / "70b.png").is_file()


@pytest.mark.parametrize(
    ("model", "optimizers", "changed", "message"),
    [
        ("llama-7", ["adams"], {}, r"MODEL=llama-7: .*did you mean 'llama-7b'\?"),
        ("/no/such/folder", ["adams"], {}, "MODEL=/no/such/folder: .*no such folder"),
        ("llama-60m", ["adms"], {}, "--optimizers=adms: .* did you mean 'adams'"),
        ("llama-60m", ["adams"], {"zero_stage": "4"}, "--zero-stage=4: "),
        ("llama-60m", ["adams"], {"dtype": "float16"}, "--dtype=float16: "),
        ("llama-60m", ["adams"], {"zero_stage": "none", "offload": "optimizer"}, "--offload=optimizer: "),
        ("llama-60m", ["adams"], {"zero_stage": "2", "offload": "parameters"}, "--offload=parameters: "),
        ("llama-60m", ["adams"], {"offload": "all"}, "--offload=all: no such value"),
        ("llama-70b", ["adams"], {"measure": True}, "--measure: it needs .* GiB before activations, and .* are free"),
    ],
)
def test_what_cannot_be_sized_is_one_line(model, optimizers, changed, message, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RecipeError, match=message) as caught:
        memory_of(model, optimizers, **ARGUMENTS | changed)
    assert "\n" not in str(caught.value)


@pytest.mark.long
def test_a_process_that_fails_says_why():
    setting = Setting(dtype="bfloat16", zero_stage=None, num_processes=2)
    with pytest.raises(EngineError, match="--num-processes=2: a process failed"):
        measure_memory(CONFIG, ["torch.optim:LBFGS"], setting)
