"""Which parameter of an optimizer a state in another optimizer's file is of: by names, by order and by shapes."""

import dataclasses
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of an optimizer's parameters: group by group as they were built, and all in the order of the model."""

    by_group: list[list[str]]
    in_model: list[str]


def name_parameters(optimizer: Optimizer, model: nn.Module) -> None:
    """Let `optimizer` know what `model` calls its parameters, so that it can tell which state of a file is whose.

    The names are not in the groups: a file would then hold them, which files of earlier versions do not.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_group = [[names[parameter] for parameter in group["params"]] for group in optimizer.param_groups]
    optimizer._names = Names(by_group, list(names.values()))


def match(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[torch.Tensor, Any]:
    """For each parameter of `optimizer` the key of its state in `state_dict`, which another optimizer saved.

    By name where both sides have names; else by order, which shapes must confirm. Where the groups differ, matrices and
    vectors are each taken in the order of the model, as transformers' two groups have them.

    Raises:
        ValueError: a name is missing, the shapes are others, or they leave open which parameter is which.
    """
    groups, saved, name = optimizer.param_groups, state_dict["param_groups"], type(optimizer).__name__
    ours = [parameter for group in groups for parameter in group["params"]]
    theirs = [place for group in saved for place in group["params"]]
    if not state_dict["state"]:
        return dict.fromkeys(ours)
    known = _names_of(optimizer)
    if all("param_names" in group for group in saved):
        by_name = dict(zip([n for group in saved for n in group["param_names"]], theirs, strict=True))
        in_groups = [n for group in groups for n in group.get("param_names", ())]
        missing = next((n for n in in_groups if n not in by_name), None)
        if missing is not None:
            raise ValueError(
                f"{missing}: the loaded state dict is of another optimizer and has no parameter of this name; {name} "
                "goes on from states of the same model alone: give the parameters the same names, or do not load the "
                "state"
            )
        names = in_groups or [n for group in known.by_group for n in group]
        if len(names) == len(ours) and set(names) <= set(by_name):
            return {parameter: by_name[n] for n, parameter in zip(names, ours, strict=True)}
    shapes = {
        place: tuple(state_dict["state"][place]["exp_avg"].shape)
        for place in theirs
        if "exp_avg" in state_dict["state"].get(place, {})
    }
    if [len(group["params"]) for group in groups] == [len(group["params"]) for group in saved]:
        pairs = dict(zip(ours, theirs, strict=True))
        if _fits(pairs, shapes):
            return pairs
    if len(ours) == len(theirs) == len(shapes):
        if known.in_model:
            place = {n: number for number, n in enumerate(known.in_model)}
            named = dict(zip(ours, (n for group in known.by_group for n in group), strict=True))
            ours = sorted(ours, key=lambda parameter: place[named[parameter]])
        by_kind = sorted(ours, key=lambda parameter: parameter.ndim < 2)
        pairs = dict(zip(by_kind, sorted(theirs, key=lambda place: len(shapes[place]) < 2), strict=True))
        if _fits(pairs, shapes):
            own = [[tuple(parameter.shape) for parameter in group["params"]] for group in groups]
            # SCALE's groups are in the order of their first parameters.
            ordered = all("role" in group for group in groups)
            _refuse_undecided([] if known.in_model else own, name, by_first=ordered)
            _refuse_undecided([[shapes[place] for place in group["params"]] for group in saved], name)
            return pairs
    sizes, others = ([len(group["params"]) for group in each] for each in (groups, saved))
    raise ValueError(
        f"loaded state dict is of another optimizer, with groups of {others} parameters, and {name}'s groups of "
        f"{sizes} do not match them in order and shape; build it with the same groups, or do not load the state"
    )


def _names_of(optimizer: Optimizer) -> Names:
    """The names that `name_parameters` gave; empty ones where groups have become others since, as under ZeRO."""
    names = getattr(optimizer, "_names", None)
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    return names if names and [len(group) for group in names.by_group] == sizes else Names([], [])


def _refuse_undecided(groups: list[list[tuple[int, ...]]], name: str, *, by_first: bool = False) -> None:
    """Fail where parameters of one shape are in several groups, which may have put them into another order.

    Args:
        groups: shapes of the parameters, group by group.
        name: of the optimizer, for the error.
        by_first: whether the groups are in the order of their first parameters.

    Raises:
        ValueError: names the shape, and what to do.
    """
    for shape in sorted({shape for group in groups for shape in group}):
        holding = [group for group in groups if shape in group]
        if len(holding) < 2 or (by_first and all(shape not in group[1:] for group in holding[:-1])):
            continue
        raise ValueError(
            f"loaded state dict is of another optimizer, and its groups and {name}'s are not the same: which of "
            f"the parameters of shape {shape} is which cannot be told; build both with the same groups, without "
            "roles, give both the names of the parameters, or start without this state"
        )


def _fits(pairs: dict[torch.Tensor, Any], shapes: dict[Any, tuple[int, ...]]) -> bool:
    """Whether each parameter has the shape of its place, where that is known."""
    return all(tuple(parameter.shape) == shapes.get(place, parameter.shape) for parameter, place in pairs.items())
