"""Algorithms: one short file each, with one main hook from rewards to advantages.

The loop does not know which one runs.

A recipe names one by `algorithm.name`: a name of `ALGORITHMS`, ``package.module:Class`` or ``file.py:Class``.
"""

ALGORITHMS = {"grpo": "rl_posttrain.training.algorithms.grpo:GRPO"}
