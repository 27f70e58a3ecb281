"""Loading a state dict that another optimizer saved, such as torch.optim.AdamW's `optimizer.pt`.

What has the same meaning is kept: ``exp_avg`` is a momentum, m <- beta1 * m + (1 - beta1) * g. Settings stay those that
the optimizer was built with; torch's own rule, that the settings of the file count, is for files of the same class.
"""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.optim.optimizer import Optimizer

from rl_posttrain.optim.checks import check_shapes
from rl_posttrain.optim.flat_states import read_flat_states
from rl_posttrain.optim.matching import match

# Of Adam and its kin, Lion included. A momentum of SGD or Muon is a sum, of another size.
_ADAMS_STATE = {"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"}


@contextlib.contextmanager
def loading(
    optimizer: Optimizer, before: Callable[[dict[str, Any]], dict[str, Any]], after: Callable[[dict[str, Any]], None]
) -> Iterator[None]:
    """Hooks around the loading of a state inside.

    Args:
        before: is given the state dict as it is after the user's own hooks, and returns the one to load.
        after: is given that one, before the user's own hooks on what was loaded.
    """
    taken: dict[str, Any] = {}
    optimizer._adopted = False

    def take(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        taken.update(before(state_dict))
        check_shapes(optimizer, taken)
        return taken

    handles = [
        optimizer.register_load_state_dict_pre_hook(take),
        optimizer.register_load_state_dict_post_hook(lambda _: after(taken), prepend=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def adopt(optimizer: Optimizer, state_dict: dict[str, Any], keeps: Callable[[dict[str, Any]], tuple[str, ...]]):
    """The state dict of another optimizer of Adam's kind as one of `optimizer`; one warning says what became of it.

    Parameters are matched by their names where both sides have some (``param_names``), else by their order and shapes.
    Where the groups differ, matrices and vectors are each taken in order, as transformers' two groups, with and without
    weight decay, have them.

    Args:
        keeps: for a group of `optimizer`, the names of the state that it takes over.

    Raises:
        ValueError: the state is of no such optimizer, or parameters cannot be matched.
    """
    own, name = optimizer.param_groups, type(optimizer).__name__
    found = sorted({key for state in state_dict["state"].values() for key in state})
    if not set(found) <= _ADAMS_STATE:
        raise nothing_to_adopt(optimizer, state_dict)
    for state in state_dict["state"].values():
        if "exp_avg" in state and not state["exp_avg"].is_floating_point():
            raise ValueError(
                f"loaded state dict has exp_avg in {state['exp_avg'].dtype}, which is no momentum as it stands; "
                f"{name} cannot go on from it; start anew, without this state"
            )
    places = match(optimizer, state_dict)
    numbers = iter(range(len(places)))
    groups, state, num_kept = [], {}, 0
    for group in own:
        settings = {key: value for key, value in group.items() if key != "params"}
        groups.append(settings | {"params": [next(numbers) for _ in group["params"]]})
        for parameter, number in zip(group["params"], groups[-1]["params"], strict=True):
            theirs = state_dict["state"].get(places[parameter], {})
            taken = {key: theirs[key] for key in keeps(group) if key in theirs}
            if taken:
                state[number] = taken
                num_kept += 1
        _keep_place_of_schedule(groups[-1], state_dict["param_groups"], places, group["params"])
    optimizer._adopted = True
    brought = {key: value for key, value in state_dict["param_groups"][0].items() if key in ("lr", "betas")}
    settings = {key: own[0][key] for key in ("lr", "betas", "eps", "weight_decay")}
    others = ", the others start at 0" if num_kept < len(places) else ""
    decay = _coupled_decay(state_dict["param_groups"])
    mixed = f"; the file's momentum has Adam's L2 weight decay ({decay}) in it, for its first steps" if decay else ""
    warnings.warn(
        f"{name} takes over the state of another optimizer ({', '.join(found) or 'empty'}): the momentum of {num_kept} "
        f"of {len(places)} parameters is kept{others}; the settings are {name}'s own ({_shown(settings)}), not the "
        f"file's ({_shown(brought)}){mixed}; outside of a Trainer make the schedule anew, do not load its file",
        stacklevel=_level_of_caller(),
    )
    return {"state": state, "param_groups": groups}


def tell_replaced(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Warn, in one line, of settings that a file of the same class replaces, as is torch's rule.

    Rates and what schedules cycle are left out, for a schedule has its own file.
    """
    replaced = {}
    for group, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=False):
        cycled = {"betas", "momentum"} if "max_momentum" in saved else set()
        for name in optimizer.defaults.keys() & saved.keys() - {"lr", "rounding_step"} - cycled:
            asked, found = (tuple(value) if isinstance(value, list) else value for value in (group[name], saved[name]))
            if str(asked) != str(found):
                replaced.setdefault(name, f"{name}={asked} becomes {found}")
    if replaced:
        warnings.warn(
            f"{type(optimizer).__name__} goes on with the settings of the loaded state, not with those asked for: "
            f"{'; '.join(replaced[name] for name in sorted(replaced))}; set them in param_groups after the load to "
            "change them",
            stacklevel=_level_of_caller(),
        )


def _level_of_caller() -> int:
    """For a warning from the function that calls this: the level of the code that loads, outside of torch and here."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(("torch.", "rl_posttrain.", "contextlib")):
        frame, level = frame.f_back, level + 1
    return level


def _coupled_decay(groups: list[dict[str, Any]]) -> float:
    """The weight decay that torch.optim.Adam adds to its gradients, and so to its momentum; 0 of decoupled ones."""
    return max((group["weight_decay"] for group in groups if group.get("decoupled_weight_decay") is False), default=0)


def nothing_to_adopt(optimizer: Optimizer, state_dict: dict[str, Any]) -> ValueError:
    """The error for a state of another optimizer, of which `optimizer` can use nothing."""
    found = sorted({key for state in state_dict["state"].values() for key in state})
    return ValueError(
        f"loaded state dict is of another optimizer (its state: {', '.join(found) or 'empty'}), which "
        f"{type(optimizer).__name__} cannot go on from; start anew, without this state (a trainer's is optimizer.pt)"
    )


def refuse_adamws(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    """Fail on a state of torch.optim.AdamW or Adam, which `optimizer` cannot go on from.

    Raises:
        ValueError: it is one; in one line, in the place of what torch or the step would fail with.
    """
    groups = state_dict["param_groups"]
    marks = ("amsgrad", "capturable")
    if groups and all(name in groups[0] and name not in optimizer.param_groups[0] for name in marks):
        raise nothing_to_adopt(optimizer, state_dict)


def keep_rates(optimizer: Optimizer, find_schedule: Callable[[], Any]) -> None:
    """Where `optimizer` takes over the state of another one, its schedule goes on at that place, with its own rates.

    A trainer of transformers loads its schedule from a file of its own after the optimizer. That file has the other
    optimizer's rates, one for each of the other's groups.

    Args:
        find_schedule: returns the scheduler of torch, which is made after the optimizer.
    """

    def after(loaded: Optimizer) -> None:
        if getattr(loaded, "_adopted", False):
            schedule = find_schedule()
            if schedule is None:
                return  # it is made after the load, and starts with the own rates
            kind = type(schedule)

            def load(self: Any, state: dict[str, Any]) -> None:
                self.__class__ = kind
                self.load_state_dict(state | _rates(self, loaded, state))

            # A class, because a scheduler's file holds all attributes of the object.
            schedule.__class__ = type(kind.__name__, (kind,), {"load_state_dict": load})

    optimizer.register_load_state_dict_post_hook(after)


def _rates(schedule: Any, optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """What `schedule` keeps for each group, under the names by which `state` has them."""
    own = {
        "base_lrs": getattr(schedule, "base_lrs", None),
        "min_lrs": getattr(schedule, "min_lrs", None),
        "lr_lambdas": [None] * len(optimizer.param_groups),  # functions of the step, which a file cannot hold
        "_last_lr": [float(group["lr"]) for group in optimizer.param_groups],
    }
    return {name: value for name, value in own.items() if name in state}


def _shown(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def _keep_place_of_schedule(
    group: dict[str, Any], saved: list[dict[str, Any]], places: dict[torch.Tensor, Any], params: list[torch.Tensor]
) -> None:
    """Where both sides have a schedule, its factor is the file's: the trainer goes on at that step of it."""
    theirs = next((other for other in saved if params and places[params[0]] in other["params"]), {})
    if group.get("initial_lr") and theirs.get("initial_lr") and not isinstance(group["lr"], torch.Tensor):
        group["lr"] = group["initial_lr"] * float(theirs["lr"]) / float(theirs["initial_lr"])


class ReadsFlatStates:
    """A base, before torch's `Optimizer`, of classes that see AdamW's state also in its flat form."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        read_flat_states()  # when the optimizer is made
        super().add_param_group(param_group)


class RefusesAdamW(ReadsFlatStates):
    """A base, before torch's `Optimizer`, of classes that cannot go on from AdamW's state."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's.

        Raises:
            ValueError: torch.optim.AdamW or Adam saved the state.
        """
        refuse_adamws(self, state_dict)
        super().load_state_dict(state_dict)
