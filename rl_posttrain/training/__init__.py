"""Training: `train` (read train.py first), the loop on TRL, algorithms, backends and what a step records.

This is the only room that imports trl.
"""
