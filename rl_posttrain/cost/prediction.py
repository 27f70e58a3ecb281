"""Seconds of a recipe's step by phase, from its sizes, its model's shape and the speeds of devices."""

from dataclasses import dataclass

from rl_posttrain.cost import step
from rl_posttrain.cost.devices import Speeds
from rl_posttrain.cost.links import Devices, all_gather_s, update_traffic, update_traffic_s
from rl_posttrain.cost.model_shape import ModelShape
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes
from rl_posttrain.training.weight_check import NUM_PARTS


@dataclass(frozen=True)
class TokenCounts:
    """Tokens of prompts and completions, of which training pads all to the longest."""

    prompt: int
    mean_new: float
    longest_new: int

    @property
    def length(self) -> int:
        return self.prompt + self.longest_new


@dataclass(frozen=True)
class Trained:
    """What the trainer of each device holds and sends.

    ``stage`` is as for `update_traffic`; ``values`` are trained parameters of the whole model, ``frozen`` whether those
    are adapters beside frozen weights; ``state_bytes`` is this device's optimizer state and fp32 masters, which may be
    the weights themselves: ``own_masters``. Widths are bytes of a weight that runs forward, and of a gradient.
    ``around_step`` is of `step.engine_bytes`; ``after_backward`` bytes that an engine reads and writes of each gradient
    after every backward pass, before it is sent.
    """

    stage: int | None
    values: int
    frozen: bool
    state_bytes: int
    weight_width: int
    gradient_width: int
    own_masters: bool = False
    around_step: int = 0
    after_backward: int = 0


@dataclass(frozen=True)
class Engines:
    """Who samples: ``num`` engines, each on so many devices with ``at_once`` places; ``apart`` from the trainer."""

    num: int
    devices_each: int
    at_once: int
    width: int
    kv_token_bytes: int
    apart: bool = False


def seconds_of_step(
    recipe: Recipe,
    sizes: Sizes,
    shape: ModelShape,
    tokens: TokenCounts,
    trained: Trained,
    engines: Engines,
    devices: Devices,
    speeds: Speeds,
    max_staleness: int = 0,
) -> dict[str, float]:
    """Seconds by phase; ``step`` is the whole. Rewards, evaluation and checkpoints are not in it.

    ``logprobs`` are forward passes of the step's policy, its reference model and its critic before the first update;
    ``update`` is forward and backward passes; ``links`` what updates send; ``sync`` the way of the weights to the
    engines.

    Args:
        devices: of the trainer.
    """
    mine = sizes.completions_per_process
    batch = {"tokens": mine * tokens.length, "context": tokens.length, "scored": mine * tokens.longest_new}
    micro_batches = mine // recipe.algorithm.micro_batch_size
    passes = _passes_before(recipe, sizes)
    before = step.passes_s(
        passes * step.forward_flops(shape, **batch),
        passes=passes * micro_batches,
        layers=shape.layers,
        flops_per_s=speeds.forward_flops_per_s,
        layer_s=speeds.layer_s,
    )
    recomputes, epochs = recipe.model.gradient_checkpointing, recipe.algorithm.num_epochs
    policies = 2 if recipe.critic is not None and not recipe.critic.shared_backbone else 1
    update = (
        epochs
        * policies
        * step.passes_s(
            step.training_flops(shape, **batch, recomputes=recomputes, frozen=trained.frozen),
            passes=(3 + recomputes) * micro_batches,
            layers=shape.layers,
            flops_per_s=speeds.training_flops_per_s,
            layer_s=speeds.layer_s,
        )
    )
    buckets = epochs * micro_batches * trained.values * trained.after_backward / speeds.memory_bytes_per_s
    of_update = update_traffic(trained.stage, micro_batches=sizes.gradient_accumulation)
    weights_bytes = shape.num_parameters * trained.weight_width
    links = sizes.updates_per_step * update_traffic_s(
        of_update,
        weights_bytes=weights_bytes if trained.stage == 3 else trained.values * trained.weight_width,
        gradients_bytes=trained.values * trained.gradient_width,
        devices=devices,
        speeds=speeds,
    )
    if trained.stage == 3:  # forward passes before the update gather the weights, too
        links += passes * micro_batches * all_gather_s(weights_bytes, devices, speeds)
    optimizer = sizes.updates_per_step * step.optimizer_s(
        values=trained.values / devices.num if trained.stage else trained.values,
        state_bytes=trained.state_bytes,
        weight_width=0 if trained.own_masters else trained.weight_width,
        gradient_width=trained.gradient_width,
        bytes_per_s=speeds.memory_bytes_per_s,
        around=trained.around_step,
    )
    completions = -(-sizes.completions_per_step // engines.num)
    rollout = step.Rollout(
        completions=completions,
        distinct_prompts=-(-completions // recipe.algorithm.group_size),
        prompt_tokens=tokens.prompt,
        mean_new_tokens=tokens.mean_new,
        longest_new_tokens=tokens.longest_new,
        devices=engines.devices_each,
    )
    sampled = step.rollout_s(
        shape,
        rollout,
        at_once=min(engines.at_once, completions),
        width=engines.width,
        kv_token_bytes=engines.kv_token_bytes,
        speeds=speeds,
    )
    sync = _sync_s(shape, trained, engines, devices, speeds)
    update += buckets
    trains = before + update + links + optimizer + speeds.step_s
    return {
        "rollout": sampled,
        "logprobs": before,
        "update": update,
        "links": links,
        "optimizer": optimizer,
        "sync": sync,
        "other": speeds.step_s,
        "step": step.step_s(rollout=sampled, update=trains, sync=sync, max_staleness=max_staleness),
    }


def _passes_before(recipe: Recipe, sizes: Sizes) -> int:
    """Forward passes of all completions before the first update, as training/before_update.py needs them."""
    algorithm = recipe.algorithm
    penalty_in_reward = algorithm.kl_coef > 0 and algorithm.kl_in == "reward"
    corrects = recipe.rollout.importance_correction != "none"
    needs_old = sizes.updates_per_step > 1 or penalty_in_reward or corrects
    return int(needs_old) + (algorithm.kl_coef > 0) + (recipe.critic is not None)


def _sync_s(shape: ModelShape, trained: Trained, engines: Engines, devices: Devices, speeds: Speeds) -> float:
    """Seconds to hand the weights to the engines: whole on each trainer, then read and written by each engine.

    To servers they go by files in the host's memory, out of one device and into others, and where trainers are in
    several nodes over the network, from a folder that all see and that gives each server its port's speed.
    """
    size = shape.num_parameters * trained.weight_width
    # A tied output layer is packed by itself. Embedding and output layer are compared each time, layers in turn.
    head, rest = (engines.width * values for values in (shape.head_parameters, shape.num_parameters))
    packs_s = speeds.packed_byte_s * (rest + head * shape.tied) / engines.devices_each
    compares_s = speeds.compared_byte_s * (head + (0 if shape.tied else head) + (rest - head) / NUM_PARTS)
    gathered = all_gather_s(size, devices, speeds) if trained.stage == 3 else 0.0
    taken = 2 * shape.num_parameters * engines.width / engines.devices_each / speeds.memory_bytes_per_s
    sent = 0.0
    if engines.apart:
        file_bytes = shape.num_parameters * engines.width
        sent = 2 * file_bytes / speeds.host_bytes_per_s
        sent += file_bytes / speeds.network_bytes_per_s if devices.nodes > 1 else 0.0
    return gathered + sent + taken + packs_s + compares_s + shape.tensors * speeds.tensor_s
