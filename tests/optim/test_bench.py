"""`rl-posttrain optim`: what it lists, and that it times what it says."""

import json

import pytest
import torch
from conftest import run_command

from rl_posttrain.errors import RecipeError
from rl_posttrain.models import model_without_weights, published_config
from rl_posttrain.optim.bench import Llama, _bytes_moved, bench
from rl_posttrain.shapes import PUBLISHED_SHAPES


def test_shapes_have_the_published_number_of_parameters():
    published = {"smollm2-135m": 134_515_008, "llama-7b": 6_738_415_616, "llama-70b": 68_976_648_192}
    for name, count in published.items():
        with torch.device("meta"):
            model = Llama(PUBLISHED_SHAPES[name])
        assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("name", PUBLISHED_SHAPES)
def test_parameters_are_those_of_transformers(name):
    with torch.device("meta"):
        ours = Llama(PUBLISHED_SHAPES[name])
    theirs = model_without_weights(published_config(name))
    assert sorted(p.shape for p in ours.parameters()) == sorted(p.shape for p in theirs.parameters())


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
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tiny |= {"model_type": "llama", "num_key_value_heads": 1, "vocab_size": 64, "tie_word_embeddings": True}
    monkeypatch.setitem(PUBLISHED_SHAPES, "tiny", tiny)
    result = bench("tiny", ["adams", "scale"], device="cpu", dtype="float32", num_steps=3)
    assert [row["optimizer"] for row in result["steps"]] == ["adamw fused", "adams", "scale"]
    assert result["steps"][0]["ratio"] == 1
    assert all(row["median_ms"] >= row["least_ms"] > 0 for row in result["steps"])
    with pytest.raises(RecipeError, match=r"MODEL=smollm: no shapes .* did you mean 'smollm2"):
        bench("smollm", [], device="cpu", dtype="float32", num_steps=1)
