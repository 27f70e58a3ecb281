"""torch.distributed.checkpoint's flat form of a state dict, where another optimizer saved it.

torch reads from it what the groups of the optimizer at hand have, and a file of another class ends in a KeyError,
before any method of the optimizer is called. `read_flat_states` lets it hand over what the file has instead, so that
`load_state_dict` takes it over or refuses it, as in the nested form.
"""

import functools
import sys
from typing import Any

from torch.optim.optimizer import Optimizer

_MODULE = "torch.distributed.checkpoint.state_dict"
# What schedules put into groups.
_OF_SCHEDULES = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"}


def read_flat_states() -> None:
    """Mend torch's reading of flat state dicts, once, if the program uses it: the import takes seconds."""
    module = sys.modules.get(_MODULE)
    unflatten = getattr(module, "_unflatten_optim_state_dict", None)
    if unflatten is None or hasattr(unflatten, "__wrapped__"):
        return

    @functools.wraps(unflatten)
    def unflatten_or_nest(optim: Optimizer, state_dict: dict[str, Any], info: Any) -> dict[str, Any]:
        if type(optim).__module__.startswith("rl_posttrain.optim."):
            names = [
                [_name_in(state_dict, info.fqn_param_mapping[parameter]) for parameter in group["params"]]
                for group in optim.param_groups
            ]
            if _is_of_another(optim, names, state_dict):
                return _nested(names, state_dict)
        return unflatten(optim, state_dict, info)

    module._unflatten_optim_state_dict = unflatten_or_nest


def _name_in(flat: dict[str, Any], names: set[str]) -> str:
    """Of the names of a parameter, which has several where it is shared, the one that the file uses."""
    return next((name for name in names if f"param_groups.{name}.lr" in flat), min(names))


def _is_of_another(optim: Optimizer, names: list[list[str]], flat: dict[str, Any]) -> bool:
    """Whether the file has settings for these parameters, and not those of this class."""
    kept = [set(_under(f"param_groups.{group[0]}.", flat)) for group in names]
    lacking = [
        set(group) - _OF_SCHEDULES - {"params"} - has for group, has in zip(optim.param_groups, kept, strict=True)
    ]
    return all(kept) and any(lacking)  # without any it is of another model, which torch's own error tells


def _nested(names: list[list[str]], flat: dict[str, Any]) -> dict[str, Any]:
    groups = [{"params": group, **_under(f"param_groups.{group[0]}.", flat)} for group in names]
    state = {name: _under(f"state.{name}.", flat) for group in names for name in group}
    return {"state": {name: kept for name, kept in state.items() if kept}, "param_groups": groups}


def _under(prefix: str, flat: dict[str, Any]) -> dict[str, Any]:
    """What stands directly under `prefix`: names with a further dot are of another parameter."""
    found = {key.removeprefix(prefix): value for key, value in flat.items() if key.startswith(prefix)}
    return {key: value for key, value in found.items() if "." not in key}
