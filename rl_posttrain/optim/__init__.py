"""Optimizers, one a file; their names; groups of parameters by role. Of heavy packages this room imports torch alone.

What counts a model's memory on real objects belongs in `cost`.
"""

from rl_posttrain.optim.adams import AdamS
from rl_posttrain.optim.joint import JointOptimizer, JointSpec
from rl_posttrain.optim.muon import Muon
from rl_posttrain.optim.roles import ROLES, parameter_groups
from rl_posttrain.optim.scale import SCALE
from rl_posttrain.optim.spec import OptimizerSpec, build_optimizer, resolve_optimizer
from rl_posttrain.optim.swap import use_optimizer
from rl_posttrain.optim.table import OPTIMIZERS

__all__ = [
    "OPTIMIZERS",
    "ROLES",
    "SCALE",
    "AdamS",
    "JointOptimizer",
    "JointSpec",
    "Muon",
    "OptimizerSpec",
    "build_optimizer",
    "parameter_groups",
    "resolve_optimizer",
    "use_optimizer",
]
