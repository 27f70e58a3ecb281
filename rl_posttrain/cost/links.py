"""What training sends between devices, and how long it takes: formulas of ring collectives and of ZeRO's stages."""

from dataclasses import dataclass

from rl_posttrain.cost.devices import Speeds


@dataclass(frozen=True)
class Devices:
    """So many devices in so many nodes of one size."""

    num: int
    nodes: int = 1

    @property
    def per_node(self) -> int:
        return self.num // self.nodes


def ring_bytes_per_s(devices: Devices, speeds: Speeds) -> float:
    """What one device gets through in a ring over all `devices`.

    Within a node it is the device's own link. Between nodes every device of a node has a ring of its own (NCCL's
    channels), so all their ports work; the slower of the two decides.
    """
    if devices.nodes == 1:
        return speeds.node_bytes_per_s
    between = devices.per_node * speeds.network_bytes_per_s
    return between if devices.per_node == 1 else min(speeds.node_bytes_per_s, between)


def all_gather_s(size_bytes: float, devices: Devices, speeds: Speeds) -> float:
    """Seconds until each device has the whole of `size_bytes`, of which each had its part.

    In a ring each device receives the n - 1 parts of the others, one after the other: (n - 1) / n of the whole
    (Patarasuk and Yuan, 2009). A reduce-scatter takes the same, an all-reduce is one after the other. Latency is not
    counted.
    """
    return size_bytes * (devices.num - 1) / devices.num / ring_bytes_per_s(devices, speeds)


@dataclass(frozen=True)
class Traffic:
    """How often one update sends the whole model's gradients and weights around the ring."""

    gradients: int
    weights: int


def update_traffic(stage: int | None, *, micro_batches: int) -> Traffic:
    """What an update of `micro_batches` sends, in whole models (arXiv:1910.02054, section 7).

    Args:
        stage: ZeRO's; None is DDP, which reduces once an update; FSDP2 sends what stage 3 does.

    Returns:
        Stages None and 0: an all-reduce of gradients, which is a reduce-scatter and an all-gather. 1: a reduce-scatter
        of gradients and an all-gather of weights, once an update. 2: DeepSpeed reduces after every micro batch. 3: for
        each micro batch weights are gathered for the forward and again for the backward pass.
    """
    if stage is None or stage == 0:
        return Traffic(gradients=2, weights=0)
    if stage == 1:
        return Traffic(gradients=1, weights=1)
    if stage == 2:
        return Traffic(gradients=micro_batches, weights=1)
    return Traffic(gradients=micro_batches, weights=2 * micro_batches)


def update_traffic_s(
    traffic: Traffic, *, weights_bytes: float, gradients_bytes: float, devices: Devices, speeds: Speeds
) -> float:
    """Seconds of an update's collectives, none of them hidden behind arithmetic.

    Args:
        weights_bytes: of the whole model's weights, as they are sent.
        gradients_bytes: of all gradients of the trained parameters.
    """
    if devices.num == 1:
        return 0.0
    gathered = traffic.weights * weights_bytes + traffic.gradients * gradients_bytes
    return all_gather_s(gathered, devices, speeds)
