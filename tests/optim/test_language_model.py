"""A short run of experiments/adams/language_model.py: AdamS learns language."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "experiments" / "adams"))
import language_model as benchmark


def test_adams_learns_more_than_how_frequent_each_token_is():
    text = benchmark.encode(benchmark.reference_topics(), held_out_every=5)
    sizes = benchmark.SIZES | {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
    adams = benchmark.CONTENDERS["adams"]
    losses = benchmark.train(text, adams, lr=5e-3, seed=0, num_steps=150, sizes=sizes)
    assert losses["150"] < benchmark.unigram_loss(text) - 0.5
