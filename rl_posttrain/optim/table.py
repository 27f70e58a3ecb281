"""The table of optimizers: the class that a name means, what it is, and the package it needs."""

import importlib.util
from typing import Any

OPTIMIZERS = {
    "adams": "rl_posttrain.optim.adams:AdamS",
    "adamw": "torch.optim:AdamW",
    "adamw_8bit": "rl_posttrain.optim.adamw_8bit:AdamW8bit",
    "scale": "rl_posttrain.optim.scale:SCALE",
    "sgd": "torch.optim:SGD",
    "stateless_adam": "rl_posttrain.optim.stateless_adam:StatelessAdam",
    "powerstep": "rl_posttrain.optim.powerstep:PowerStep",
    "muon": "rl_posttrain.optim.muon:Muon",
    "lion": "rl_posttrain.optim.signs:Lion",
    "sign_sgd": "rl_posttrain.optim.signs:SignSGD",
    "adam_mini": "rl_posttrain.optim.adam_mini:AdamMini",
    "galore": "rl_posttrain.optim.low_rank:GaLore",
    "fira": "rl_posttrain.optim.low_rank:Fira",
    "apollo": "rl_posttrain.optim.apollo:APOLLO",
}
# What each is, and where it does not run; `rl-posttrain optim list` shows it.
ABOUT = {
    "adams": "Adam with the momentum in place of the second moment: one state value per parameter",
    "adamw": "Adam with decoupled weight decay: two state values per parameter",
    "adamw_8bit": "AdamW with both state values in 8 bits; not under ZeRO-1 to 3",
    "scale": "SGD on gradients that are normalized per output, with momentum in the output layer only",
    "sgd": "SGD with momentum 0.9, or 0 for no state; weight decay is added to the gradient",
    "stateless_adam": "Adam with betas (0, 0), that is g / (|g| + eps): no state",
    "powerstep": "a power of the momentum, near its sign: one state value per parameter",
    "muon": "orthogonalized momentum for hidden matrices, AdamW for all else; not under ZeRO-1 to 3",
    "lion": "the sign of the momentum: one state value per parameter",
    "sign_sgd": "the sign of the gradient: no state; with a momentum, Signum",
    "adam_mini": "AdamW with one second moment per head or row; not under ZeRO-1 to 3, with LoRA or with fused experts",
    "galore": "AdamW on the gradient projected to its largest singular vectors; not under ZeRO-1 to 3",
    "fira": "GaLore plus the rest of the gradient, scaled; not under ZeRO-1 to 3",
    "apollo": "AdamW's step sizes, computed from a random projection of the gradient; not under ZeRO-1 to 3",
}
# Names that need a package of an extra, and the module of that package.
PACKAGES = {
    "adamw_8bit": "torchao",
    "lion": "pytorch_optimizer",
    "sign_sgd": "pytorch_optimizer",
    "adam_mini": "adam_mini",
    "galore": "pytorch_optimizer",
    "fira": "pytorch_optimizer",
}
# The extra of such a package, where it is not `optimizers`.
EXTRAS = {"torchao": "eightbit"}
# Arguments of a name that differ from the defaults of its class.
DEFAULTS = {"sgd": {"momentum": 0.9}, "sign_sgd": {"momentum": 0.0}}


def describe_optimizers() -> dict[str, dict[str, Any]]:
    """For each name: ``class``, ``package``, whether that is ``installed``, and a line ``about`` the optimizer."""
    rows = {}
    for name, location in OPTIMIZERS.items():
        package = PACKAGES.get(name, location.partition(".")[0])
        rows[name] = {"class": location, "package": package, "installed": is_installed(package), "about": ABOUT[name]}
    return rows


def is_installed(package: str) -> bool:
    """Whether the module `package` can be imported here; it is not imported."""
    return importlib.util.find_spec(package) is not None
