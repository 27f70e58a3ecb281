"""`rl-posttrain optim bench`: the shapes that it times, and what it prints."""

import json
import subprocess
import sys

import pytest
import torch
from conftest import clean_environment

from rl_posttrain.errors import RecipeError
from rl_posttrain.models.find import model_without_weights, published_config
from rl_posttrain.models.shapes import PUBLISHED_SHAPES
from rl_posttrain.optim.bench import Llama, _bytes_moved, bench, main


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


def test_every_optimizer_is_timed_beside_fused_adamw(monkeypatch, run_main):
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tiny |= {"model_type": "llama", "num_key_value_heads": 1, "vocab_size": 64, "tie_word_embeddings": True}
    monkeypatch.setitem(PUBLISHED_SHAPES, "tiny", tiny)
    status, printed, _ = run_main("optim", "bench", "tiny", "--steps", "1", "--json")
    assert status == 0
    assert [row["optimizer"] for row in json.loads(printed)["steps"]] == [
        "adamw fused",
        "adams",
        "adamw",
        "scale",
        "sgd",
    ]
    result = bench("tiny", ["adams", "scale"], device="cpu", dtype="float32", num_steps=3)
    assert [row["optimizer"] for row in result["steps"]] == ["adamw fused", "adams", "scale"]
    assert result["steps"][0]["ratio"] == 1
    assert all(row["median_ms"] >= row["least_ms"] > 0 for row in result["steps"])
    result = bench("tiny", ["adams"], device="cpu", dtype="bfloat16", num_steps=1)
    assert [row["optimizer"] for row in result["steps"]] == ["adamw fused", "adams", "adams, fp32 state"]
    result = bench("tiny", ["adams"], device="cpu", dtype="float32", num_steps=1, flat=True)
    assert (result["num_tensors"], result["num_parameters"]) == (1, 5712)
    with pytest.raises(RecipeError, match="--flat: scale needs whole matrices; leave it out"):
        bench("tiny", ["scale"], device="cpu", dtype="float32", num_steps=1, flat=True)
    with pytest.raises(RecipeError, match=r"--dtype=float8: no such value; set one of float32, bfloat16"):
        bench("tiny", [], device="cpu", dtype="float8", num_steps=1)
    with pytest.raises(RecipeError, match=r"MODEL=smollm: no shapes .* did you mean 'smollm2"):
        bench("smollm", [], device="cpu", dtype="float32", num_steps=1)


BARE = """
import sys
for name in ("typer", "pydantic", "yaml", "rich", "transformers", "numpy", "accelerate"):
    sys.modules[name] = None
from rl_posttrain.models import shapes
shapes.PUBLISHED_SHAPES["tiny"] = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 64,
    "model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True,
}
from rl_posttrain.optim import bench
sys.argv = ["bench", "tiny", "--steps", "2"]
bench.main()
"""


def test_bench_where_there_is_torch_and_nothing_else():
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr
    assert "scale" in done.stdout


def test_bench_without_typer_refuses_in_one_line_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--device", "tpu"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert "--device=tpu: no such value; set one of cpu, cuda" in capsys.readouterr().err
