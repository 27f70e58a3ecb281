"""R1-Zero style RL post-training from a recipe, with a pluggable optimizer."""

import importlib

__version__ = "0.1.0"

# Loaded on first use: `import rl_posttrain` and `rl-posttrain --help` must not wait for torch.
_PUBLIC = {
    "load_recipe": "rl_posttrain.recipe.load",
    "train": "rl_posttrain.training.train",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
