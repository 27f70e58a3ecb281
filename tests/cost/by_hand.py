"""A model and a machine small enough to compute with by hand."""

from rl_posttrain.cost.devices import Speeds
from rl_posttrain.cost.model_shape import ModelShape

# Two layers; a layer has q 8x8, k and v 8x4, o 8x8 and three 8x16 of the MLP: 576 values. The head has 80.
SHAPE = ModelShape(
    layers=2, hidden=8, intermediate=16, heads=2, key_value_heads=1, head_size=4, vocabulary=10, tensors=20,
    num_parameters=1300,
)  # fmt: skip
SPEEDS = Speeds(
    product_flops_per_s=1e9,
    decode_flops_per_s=1e6,
    training_flops_per_s=1e5,
    forward_flops_per_s=2e5,
    memory_bytes_per_s=1e4,
    node_bytes_per_s=100.0,
    network_bytes_per_s=10.0,
    host_bytes_per_s=5.0,
)
