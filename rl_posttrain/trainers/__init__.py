"""The training loops, on TRL and DeepSpeed."""
