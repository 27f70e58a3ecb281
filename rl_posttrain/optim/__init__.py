"""Optimizers by name. This package imports torch and nothing else of weight."""

from rl_posttrain.optim.adams import AdamS
from rl_posttrain.optim.muon import Muon
from rl_posttrain.optim.roles import ROLES, parameter_groups
from rl_posttrain.optim.scale import SCALE
from rl_posttrain.optim.swap import use_optimizer
from rl_posttrain.optim.table import OPTIMIZERS, optimizer_class_and_arguments

__all__ = [
    "OPTIMIZERS",
    "ROLES",
    "SCALE",
    "AdamS",
    "Muon",
    "optimizer_class_and_arguments",
    "parameter_groups",
    "use_optimizer",
]
