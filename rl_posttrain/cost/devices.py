"""Published speeds of devices and their links, and the share of them that training is taken to reach."""

from dataclasses import dataclass

_GB = 10**9


@dataclass(frozen=True)
class Device:
    """What a maker publishes of one device. Links are of one device in one direction.

    ``flops_per_s`` is of dense bf16 products with sums in fp32. A card's GB are taken as 10^9 bytes; drivers show a few
    percent more. ``network_bytes_per_s`` is what one device has to other nodes, in the maker's own eight-device server
    or, for single cards, one 100 Gb/s port for a node of eight.
    """

    title: str
    flops_per_s: float
    memory_bytes: int
    memory_bytes_per_s: float
    node_bytes_per_s: float
    network_bytes_per_s: float
    host_bytes_per_s: float
    source: str


# Makers give links as the sum of both directions, so half of that stands here: NVLink 900 GB/s is 450 each way.
DEVICES = {
    "h100": Device(
        "NVIDIA H100 SXM", 989.4e12, 80 * _GB, 3.35e12, 450e9, 50e9, 64e9,
        "H100 datasheet (1,979 TFLOP/s is with sparsity); DGX H100: NVLink 900 GB/s, one 400 Gb/s port a GPU, PCIe 5",
    ),
    "h200": Device(
        "NVIDIA H200 SXM", 989.4e12, 141 * _GB, 4.8e12, 450e9, 50e9, 64e9,
        "H200 datasheet; DGX H200: links as DGX H100",
    ),
    "a100": Device(
        "NVIDIA A100 SXM 80 GB", 312e12, 80 * _GB, 2.039e12, 300e9, 25e9, 32e9,
        "A100 datasheet; DGX A100: NVLink 600 GB/s, one 200 Gb/s port a GPU, PCIe 4",
    ),
    "l40s": Device(
        "NVIDIA L40S", 362e12, 48 * _GB, 864e9, 32e9, 12.5e9 / 8, 32e9,
        "L40S datasheet (733 TFLOP/s is with sparsity); no NVLink, PCIe 4",
    ),
    "l4": Device(
        "NVIDIA L4", 121e12, 24 * _GB, 300e9, 32e9, 12.5e9 / 8, 32e9,
        "L4 datasheet (242 TFLOP/s is with sparsity); no NVLink, PCIe 4",
    ),
    "rtx_4090": Device(
        "NVIDIA GeForce RTX 4090", 165.2e12, 24 * _GB, 1.008e12, 32e9, 12.5e9 / 8, 32e9,
        "Ada GPU architecture whitepaper (with fp32 sums, dense); no NVLink, PCIe 4",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Speeds:
    """What a device and its links reach, which is what times are computed from.

    ``product_flops_per_s`` is of large matrix products, ``training_flops_per_s`` of forward and backward passes
    together, ``forward_flops_per_s`` of forward passes alone, ``decode_flops_per_s`` of sequences that get one more
    token each. The next four are seconds that do not depend on sizes: a token step of the sampler, a tensor handed to
    it, a layer's kernels started for one forward pass, and all that a step does besides. The last two are seconds for a
    byte of weights, beyond reading and writing it: a CPU's sampler packs them, and a sync compares some.
    """

    product_flops_per_s: float
    training_flops_per_s: float
    forward_flops_per_s: float
    decode_flops_per_s: float
    memory_bytes_per_s: float
    node_bytes_per_s: float
    network_bytes_per_s: float
    host_bytes_per_s: float
    token_step_s: float = 0.0
    tensor_s: float = 0.0
    layer_s: float = 0.0
    step_s: float = 0.0
    packed_byte_s: float = 0.0
    compared_byte_s: float = 0.0


# Shares of published rates that real programs reach. Of arithmetic: Llama 3 trained at 38 to 43 % (arXiv:2407.21783,
# table 4). Of memory and links there is no one source: decoding that reads each byte once, and collectives of large
# messages, usually reach 60 to 80 %.
OF_ARITHMETIC, OF_PRODUCTS, OF_MEMORY, OF_LINKS = 0.4, 0.7, 0.6, 0.7
# Measured on one H100 with the bundled model, where arithmetic takes milliseconds (docs/results/gpu.md): 0.12 s for 16
# token steps, 0.12 s to hand over 273 tensors, and 0.28 s for all of an update. The kernels of a layer: about 40 of 7
# microseconds.
_TOKEN_STEP_S, _TENSOR_S, _LAYER_S, _STEP_S = 0.12 / 16, 0.12 / 273, 3e-4, 0.25


def published_speeds(device: Device) -> Speeds:
    """What training on `device` is taken to reach: its published rates times the shares above."""
    return Speeds(
        product_flops_per_s=OF_PRODUCTS * device.flops_per_s,
        training_flops_per_s=OF_ARITHMETIC * device.flops_per_s,
        forward_flops_per_s=OF_ARITHMETIC * device.flops_per_s,
        decode_flops_per_s=OF_PRODUCTS * device.flops_per_s,
        memory_bytes_per_s=OF_MEMORY * device.memory_bytes_per_s,
        node_bytes_per_s=OF_LINKS * device.node_bytes_per_s,
        network_bytes_per_s=OF_LINKS * device.network_bytes_per_s,
        host_bytes_per_s=OF_LINKS * device.host_bytes_per_s,
        token_step_s=_TOKEN_STEP_S,
        tensor_s=_TENSOR_S,
        layer_s=_LAYER_S,
        step_s=_STEP_S,
    )
