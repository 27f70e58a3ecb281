"""Algorithms: one short file each, with one main hook from rewards, masks and values to advantages.

The loop does not know which one runs.

A recipe names one by `algorithm.name`: a name of `ALGORITHMS`, ``package.module:Class`` or ``file.py:Class``.
"""

ALGORITHMS = {
    "grpo": "rl_posttrain.training.algorithms.grpo:GRPO",
    "rloo": "rl_posttrain.training.algorithms.rloo:RLOO",
    "reinforce_pp": "rl_posttrain.training.algorithms.reinforce_pp:ReinforcePP",
    "reinforce_pp_baseline": "rl_posttrain.training.algorithms.reinforce_pp:ReinforcePPBaseline",
    "ppo": "rl_posttrain.training.algorithms.ppo:PPO",
}
