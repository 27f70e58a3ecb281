"""Backends: how a policy is placed, updated and read back; DeepSpeed and plain PyTorch."""
