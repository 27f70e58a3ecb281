"""The role of each parameter of a model, and parameter groups whose weight decay and learning rate go by role."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from rl_posttrain.errors import RecipeError, did_you_mean

ROLES = ("matrices", "embeddings", "output_layer", "norms", "biases")
# As in transformers: vectors have no weight decay.
NO_DECAY = ("norms", "biases")


@dataclass(frozen=True)
class RoledParameter:
    """A trainable parameter, the module that holds it, and its role.

    `shape` is that of the whole parameter, also if DeepSpeed's ZeRO-3 has it in parts. `makes_logits` marks the weight
    of the output layer; if that is tied to the embedding, its role is ``embeddings``.
    """

    name: str
    parameter: nn.Parameter
    module: nn.Module
    role: str
    shape: torch.Size
    makes_logits: bool


def roled_parameters(model: nn.Module) -> list[RoledParameter]:
    """The trainable parameters of `model`, each once, with their roles.

    ============  ======================================================================================
    norms         parameters of modules whose type has Norm in its name, and vectors that are no biases, [n]
    biases        parameters of other modules whose name ends in bias: [n], and of experts [E, out]
    embeddings    weights of nn.Embedding, [V, d], also if tied to the output layer
    output_layer  the weight of what `get_output_embeddings` returns, or of a module called lm_head, [V, d]
    matrices      all others: linear layers [out, in], LoRA, experts [E, out, in], convolutions
    ============  ======================================================================================
    """
    output = _output_weight(model)
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    found: dict[nn.Parameter, RoledParameter] = {}
    for module_name, module in model.named_modules():
        for own_name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in found:
                continue
            name = f"{module_name}.{own_name}"
            shape = getattr(parameter, "ds_shape", parameter.shape)
            if parameter in embeddings:
                role = "embeddings"
            elif parameter is output:
                role = "output_layer"
            elif "Norm" in type(module).__name__:
                role = "norms"
            elif own_name.endswith("bias"):
                role = "biases"
            else:
                role = "norms" if len(shape) < 2 else "matrices"
            found[parameter] = RoledParameter(name, parameter, module, role, shape, parameter is output)
    return list(found.values())


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    no_decay: Collection[str] = NO_DECAY,
    lr_by_role: Mapping[str, float] = MappingProxyType({}),
    key: str = "optimizer",
) -> list[dict[str, Any]]:
    """The trainable parameters of `model` as groups for any optimizer of torch, by role.

        torch.optim.AdamW(parameter_groups(model, lr=1e-5, weight_decay=0.1, lr_by_role={"embeddings": 1e-6}))

    Args:
        lr, weight_decay: of every role that `lr_by_role` and `no_decay` do not name.
        no_decay: roles without weight decay.
        lr_by_role: learning rates of single roles, in place of `lr`.
        key: the recipe's section, for errors.

    Raises:
        RecipeError: there is no such role, or `lr_by_role` names one that no parameter of the model has.
    """
    groups = [{"params": [found.parameter for found in roled_parameters(model)]}]
    return split_groups(
        groups, model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, lr_by_role=lr_by_role, key=key
    )


def split_groups(
    groups: Iterable[dict[str, Any]],
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    no_decay: Collection[str],
    lr_by_role: Mapping[str, float],
    key: str = "optimizer",
) -> list[dict[str, Any]]:
    """`groups` of parameters of `model`, each split where roles differ in learning rate or weight decay.

    `lr` and `weight_decay` are for groups that have none of their own. Parameters keep their order. The part with the
    matrices comes first, because trainers log the learning rate of the first group.

    Raises:
        RecipeError: as `parameter_groups`; or the optimizer's own arguments set a learning rate for a role, and
            `lr_by_role` sets another.
    """
    check_roles(no_decay, lr_by_role, key=key)
    roles = {found.parameter: found.role for found in roled_parameters(model)}
    present = [role for role in ROLES if role in roles.values()]
    for role in lr_by_role:
        if role not in present:
            raise RecipeError(
                f"{key}.lr_by_role.{role}={lr_by_role[role]}: the model trains no parameter of this role, but "
                f"{', '.join(present)} (a tied output layer counts as embeddings); name one of them"
            )
    split = []
    for group in groups:
        parts: dict[tuple[float, float], list[nn.Parameter]] = {}
        own_lr, own_decay = group.get("lr", lr), group.get("weight_decay", weight_decay)
        for role in present:
            members = [parameter for parameter in group["params"] if roles.get(parameter) == role]
            if members and role in lr_by_role and own_lr != lr:
                raise RecipeError(
                    f"{key}.lr_by_role.{role}={lr_by_role[role]}: the optimizer's own arguments set {own_lr} for them; "
                    "keep one of the two"
                )
            if members:
                settings = lr_by_role.get(role, own_lr), 0.0 if role in no_decay else own_decay
                parts.setdefault(settings, []).extend(members)
        place = {parameter: number for number, parameter in enumerate(group["params"])}
        for (part_lr, part_decay), members in parts.items():
            members.sort(key=place.get)
            split.append({**group, "params": members, "lr": part_lr, "weight_decay": part_decay})
    return split


def check_roles(no_decay: Collection[str], lr_by_role: Mapping[str, float], *, key: str = "optimizer") -> None:
    """Fail on a role that does not exist, a learning rate that is no number or negative, and other kinds of values.

    Raises:
        RecipeError: names the key, and the role or the form that was probably meant.
    """
    if isinstance(no_decay, (str, bytes, Mapping)) or not isinstance(no_decay, Collection):
        meant = no_decay if no_decay in ROLES else "norms"
        raise RecipeError(f"{key}.no_decay={no_decay}: it is not a list of roles; write one, such as [{meant}]")
    if not isinstance(lr_by_role, Mapping):
        raise RecipeError(
            f"{key}.lr_by_role={lr_by_role}: it gives no role a learning rate; write a mapping, such as "
            "{embeddings: 1e-6}"
        )
    for name, roles in (("no_decay", no_decay), ("lr_by_role", lr_by_role)):
        for role in roles:
            if role not in ROLES:
                raise RecipeError(f"{key}.{name}={role}: no role of that name; {did_you_mean(str(role), ROLES)}")
    for role, lr in lr_by_role.items():
        if isinstance(lr, bool) or not (isinstance(lr, (int, float)) and 0 <= lr < math.inf):
            raise RecipeError(f"{key}.lr_by_role.{role}={lr}: a learning rate is a number that is not negative")


def describe_groups(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[dict[str, Any]]:
    """What each group of `optimizer` holds of `model`: ``roles``, ``num_parameters``, ``lr`` and ``weight_decay``.

    Of a joint optimizer also the ``part``, which comes first.
    """
    found = {found.parameter: found for found in roled_parameters(model)}
    rows = []
    for group in optimizer.param_groups:
        members = [found[parameter] for parameter in group["params"]]
        present = {member.role for member in members}
        rows.append(
            {
                **({"part": group["part"]} if "part" in group else {}),
                "roles": [role for role in ROLES if role in present],
                "num_parameters": sum(member.shape.numel() for member in members),
                "lr": group["lr"],
                "weight_decay": group.get("weight_decay", 0.0),
            }
        )
    return rows


def _output_weight(model: nn.Module) -> nn.Parameter | None:
    layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if layer is None:
        named = (module for name, module in model.named_modules() if name.rpartition(".")[2] == "lm_head")
        layer = next(named, None)
    return getattr(layer, "weight", None)
