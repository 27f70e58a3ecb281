"""Several optimizers as one, and the spec of such a pair over a policy and its critic.

One engine (DeepSpeed, DDP, accelerate) takes one module and one optimizer. The module is the policy, whose child
``critic`` is the critic; the optimizer is a `JointOptimizer` of two parts, each of a class and settings of its own.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from rl_posttrain.optim.checks import evaluate
from rl_posttrain.optim.spec import OptimizerSpec


class JointOptimizer(Optimizer):
    """Several optimizers that step together; each keeps its own rule, and its settings are in its groups.

    Its `param_groups` are those of the parts, first to last. A group's ``part`` says whose it is. A step works on the
    groups and the state that the joint optimizer has at that moment, because DeepSpeed's ZeRO puts flat shards into the
    groups, hands over one group at a time, and reads the state.

    Hooks on loading a state are those of the parts.

    Args:
        parts: optimizers by name. They belong to the joint optimizer from then on.

    Raises:
        ValueError: two parts share a parameter.
    """

    def __init__(self, parts: Mapping[str, Optimizer]):
        self.parts = dict(parts)
        for name, part in self.parts.items():
            for group in part.param_groups:
                group["part"] = name
        super().__init__([group for part in self.parts.values() for group in part.param_groups], {})
        for part in self.parts.values():
            self.state.update(part.state)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"parts": self.parts}

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """One update of every parameter that has a gradient; returns the closure's loss.

        A part whose learning rates are all 0 is left as it is, its state too.
        """
        loss = evaluate(closure)
        asked = self._is_asked_for_its_state()
        for name, part in self.parts.items():
            part.param_groups = [group for group in self.param_groups if group["part"] == name]
            part.state = self.state
            # A part whose rates are all 0 waits, as a policy does while its critic warms up: it must neither count
            # updates nor gather gradients that are not its own.
            if asked or any(group["params"] and group["lr"] for group in part.param_groups):
                part.step()
        return loss

    def _is_asked_for_its_state(self) -> bool:
        """torch.distributed.checkpoint makes a first step of zero gradients and rates, to see what the state holds."""
        if self.state or any(group["lr"] for group in self.param_groups):
            return False
        gradients = [parameter.grad for group in self.param_groups for parameter in group["params"]]
        return not any(gradient is not None and gradient.any() for gradient in gradients)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Each part loads its groups and their state, as its class does that.

        Raises:
            ValueError: the groups are not those of these parts.
        """
        saved = state_dict["param_groups"]
        wanted, found = ([group.get("part") for group in groups] for groups in (self.param_groups, saved))
        if found != wanted:
            raise ValueError(
                f"loaded state dict has groups of the parts {found}, and the optimizer has {wanted}: it was saved with "
                "another optimizer, or without a critic"
            )
        state: defaultdict[Any, dict[str, Any]] = defaultdict(dict)
        loaded = {}
        for name, part in self.parts.items():
            groups = [group for group in saved if group["part"] == name]
            places = {place for group in groups for place in group["params"]}
            part.param_groups = [group for group in self.param_groups if group["part"] == name]
            part.load_state_dict(
                {
                    "state": {place: kept for place, kept in state_dict["state"].items() if place in places},
                    "param_groups": groups,
                }
            )
            state.update(part.state)
            loaded[name] = iter(part.param_groups)
        self.state = state
        self.param_groups = [next(loaded[name]) for name in wanted]

    def find_shards(self, wrapper: Any) -> None:
        """Let the parts that need it learn what DeepSpeed's flat shards hold. Call it before the first step.

        Args:
            wrapper: the engine or optimizer that ``deepspeed.initialize`` or accelerate made.
        """
        for part in self.parts.values():
            if hasattr(part, "find_shards"):
                part.find_shards(wrapper)


@dataclass(frozen=True)
class JointSpec:
    """An optimizer for a policy and one for its critic, built as one. It is used as an `OptimizerSpec` is.

    Attributes:
        policy: for the model without its critic.
        critic: for the model's child ``critic``.
    """

    policy: OptimizerSpec
    critic: OptimizerSpec

    @property
    def classes(self) -> tuple[type[Optimizer], ...]:
        """The joint class, and that of each part."""
        return (JointOptimizer, *self.policy.classes, *self.critic.classes)

    @property
    def needs_whole_matrices(self) -> bool:
        """Whether one of the two needs matrices in their own shape."""
        return self.policy.needs_whole_matrices or self.critic.needs_whole_matrices

    def build(self, model: nn.Module) -> JointOptimizer:
        """The optimizer over the trainable parameters of `model`, its child ``critic`` included, in groups by role.

        Raises:
            RecipeError: a class refuses its module, or `lr_by_role` names a role that it does not train.
        """
        critic = self.critic.build(model.critic)
        # A class that walks the model by itself must not find the critic in it.
        with _taken_out(model, "critic"):
            policy = self.policy.build(model)
        return JointOptimizer({"policy": policy, "critic": critic})

    def refuse_shards(self, zero_stage: int | Literal["fsdp2"], *, stage_key: str = "distributed.zero_stage") -> None:
        """Fail where one of the two needs whole matrices, and would be handed shards of them.

        Raises:
            RecipeError: as `OptimizerSpec.refuse_shards`.
        """
        self.policy.refuse_shards(zero_stage, stage_key=stage_key)
        self.critic.refuse_shards(zero_stage, stage_key=stage_key)


def part_of(optimizer: Optimizer, group: dict[str, Any]) -> Optimizer:
    """The optimizer that steps on `group`: a part of a joint one, or `optimizer` itself."""
    return optimizer.parts[group["part"]] if isinstance(optimizer, JointOptimizer) else optimizer


@contextlib.contextmanager
def _taken_out(model: nn.Module, name: str) -> Iterator[None]:
    """`model` without its child `name`, which afterwards is its last child."""
    child = getattr(model, name)
    delattr(model, name)
    try:
        yield
    finally:
        setattr(model, name, child)
