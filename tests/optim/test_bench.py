"""`rl-posttrain optim`: what it lists, and that it times what it says."""

import json

import pytest
import torch
from conftest import run_command

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim.bench import MODELS, Llama, _bytes_moved, bench


def test_shapes_have_the_published_number_of_parameters():
    with torch.device("meta"):
        model = Llama(*MODELS["smollm2-135m"])
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008


@pytest.mark.parametrize(("name", "num_bytes"), [("AdamW", 28), ("SGD", 12)])
def test_bytes_a_parameter(name, num_bytes):
    model = torch.nn.Linear(100, 100, bias=False)
    model.weight.grad = torch.ones(100, 100)
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
    optimizer.step()
    assert _bytes_moved(model, optimizer) // 10_000 == num_bytes


def test_bench_and_list_as_commands(monkeypatch):
    done = run_command("optim", "list", "--json")
    assert {"adams", "adamw", "scale", "sgd"} <= json.loads(done.stdout).keys()
    monkeypatch.setitem(MODELS, "tiny", (64, 16, 32, 2, 8))
    result = bench("tiny", ["adams", "scale"], device="cpu", dtype="float32", num_steps=3)
    assert [row["optimizer"] for row in result["steps"]] == ["adamw fused", "adams", "scale"]
    assert result["steps"][0]["ratio"] == 1
    assert all(row["median_ms"] >= row["least_ms"] > 0 for row in result["steps"])
    with pytest.raises(RecipeError, match=r"MODEL=smollm: no shapes .* did you mean 'smollm2"):
        bench("smollm", [], device="cpu", dtype="float32", num_steps=1)
