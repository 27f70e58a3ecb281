"""Backends: how a policy is placed, updated and read back; DeepSpeed, FSDP2 and plain PyTorch."""

BACKENDS = {
    "deepspeed": "rl_posttrain.training.backends.deepspeed:DeepSpeed",
    "fsdp2": "rl_posttrain.training.backends.fsdp2:FSDP2",
    "none": "rl_posttrain.training.backends.plain:PlainPyTorch",
}
