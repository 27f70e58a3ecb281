"""Backends: how a policy is placed, updated and read back; DeepSpeed and plain PyTorch."""

BACKENDS = {
    "deepspeed": "rl_posttrain.training.backends.deepspeed:DeepSpeed",
    "none": "rl_posttrain.training.backends.plain:PlainPyTorch",
}
