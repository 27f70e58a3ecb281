"""Learning rates of a policy and its critic over a run: each by its own section of the recipe."""

from collections.abc import Callable

import torch
from transformers import get_scheduler

from rl_posttrain.recipe.schema import OptimizerArguments, Recipe


def schedule_name(section: OptimizerArguments) -> str:
    """transformers' name of a section's schedule."""
    with_warmup = section.schedule == "constant" and section.warmup_steps
    return "constant_with_warmup" if with_warmup else section.schedule


def joint_schedule(
    recipe: Recipe, updates_per_step: int, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LambdaLR:
    """A schedule for a joint optimizer. The policy's rate is 0 while the critic warms up; then its schedule begins.

    Args:
        updates_per_step: of the optimizer; the recipe counts steps.
        optimizer: its groups are marked with their `part`.
    """
    critic = recipe.critic
    waits = critic.warmup_steps * updates_per_step
    total = recipe.algorithm.num_steps * updates_per_step
    policy = _factor(recipe.optimizer, updates_per_step, total - waits)
    factors = {
        "policy": lambda update: policy(update - waits) if update >= waits else 0.0,
        "critic": _factor(critic.optimizer, updates_per_step, total),
    }
    return torch.optim.lr_scheduler.LambdaLR(optimizer, [factors[group["part"]] for group in optimizer.param_groups])


def critic_rate(optimizer: torch.optim.Optimizer) -> float:
    """The present learning rate of the critic's first group, in a joint optimizer or its wrapper."""
    return next(group["lr"] for group in optimizer.param_groups if group["part"] == "critic")


def _factor(section: OptimizerArguments, updates_per_step: int, total: int) -> Callable[[int], float]:
    """The factor of the learning rate at each update."""
    some = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    name, warmup = schedule_name(section), section.warmup_steps * updates_per_step
    return get_scheduler(name, some, num_warmup_steps=warmup, num_training_steps=total).lr_lambdas[0]
