"""AdamS's state: what is taken of a state dict, and of what DeepSpeed's universal checkpoints bring."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from rl_posttrain.optim.foreign import adopt, tell_replaced

# What a group of an earlier version may hold, before `eps_inside_sqrt` was in every group; schedules add the rest.
_OLD_NAMES = {"params", "param_names", "part", "lr", "betas", "eps", "weight_decay", "foreach", "implementation"}
_OLD_NAMES |= {"maximize", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"}


def to_load(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state dict that AdamS loads for `state_dict`, which it or another optimizer saved.

    Raises:
        ValueError: it cannot be taken over, or `bias_correction` needs steps that were not counted.
    """
    if not _is_own(state_dict):
        state_dict = adopt(optimizer, state_dict, lambda group: ("exp_avg", "step")[: 1 + group["bias_correction"]])
    else:
        tell_replaced(optimizer, state_dict)
    states, groups = state_dict["state"], state_dict["param_groups"]
    for group, saved in zip(optimizer.param_groups, groups, strict=False):  # torch refuses another number of groups
        held = [states[place] for place in saved["params"] if place in states]
        counts = saved.get("bias_correction", False)
        if held and (counts or group["bias_correction"]) and not (counts and all("step" in one for one in held)):
            raise steps_missing(group)
    return state_dict


def restore(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Give what torch has loaded of `state_dict` the dtype and place that AdamS keeps it in."""
    for group, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        for parameter, place in zip(group["params"], saved["params"], strict=True):
            loaded, state = state_dict["state"].get(place, {}), optimizer.state.get(parameter, {})
            if "exp_avg" in loaded:
                dtype = getattr(torch, group["state_dtype"]) if group["state_dtype"] else parameter.dtype
                state["exp_avg"] = loaded["exp_avg"].to(parameter.device, dtype, copy=True)
            if "step" in state:
                step = torch.as_tensor(state["step"], dtype=torch.float32)
                state["step"] = step.to(step_device(group, parameter), copy=True)


def adopt_universal(state: dict[str, Any], dtype: torch.dtype, *, keeps_step: bool) -> None:
    """Turn what a universal checkpoint of DeepSpeed loads (fp32, and under ZeRO-3 all of Adam's) into AdamS's state."""
    state.pop("exp_avg_sq", None)
    step = state.pop("step", None)
    if keeps_step:
        if step is None:
            raise steps_missing({})
        state["step"] = step.clone()  # ZeRO-3 gives all of its sub-groups the same tensor
    state["exp_avg"] = state["exp_avg"].to(dtype)


def step_device(group: dict[str, Any], parameter: torch.Tensor) -> torch.device:
    return parameter.device if group["capturable"] else torch.device("cpu")


def steps_missing(group: Mapping[str, Any]) -> ValueError:
    """The error for `group`, which corrects the bias, with a state that does not say after how many steps."""
    given, other = ("bias_correction: True", "bias_correction=False")
    if group.get("variant") == "authors":
        given, other = "variant: authors", "variant='paper'"
    return ValueError(
        f"Invalid {given}; the state was saved without it and counts no steps, so that the correction is not known: "
        f"go on with {other}, or without this state"
    )


def _is_own(state_dict: dict[str, Any]) -> bool:
    """Whether AdamS saved it, and not another optimizer."""
    groups = state_dict["param_groups"]
    if all("eps_inside_sqrt" in group for group in groups):
        return True
    names = {name for state in state_dict["state"].values() for name in state}
    # Lion of its authors saves groups without eps.
    return names <= {"exp_avg"} and all("eps" in group and set(group) <= _OLD_NAMES for group in groups)
