"""A short run of experiments/adams/language_model.py: AdamS learns language."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "experiments" / "adams"))
import language_model as benchmark


def test_adams_learns_more_than_how_frequent_each_token_is():
    text = benchmark.encode(benchmark.reference_topics()[:120], held_out_every=12)
    sizes = benchmark.SIZES | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    losses = benchmark.train(text, benchmark.CONTENDERS["adams"], lr=1e-2, seed=0, num_steps=80, sizes=sizes)
    assert losses["80"] < benchmark.unigram_loss(text) - 0.3
