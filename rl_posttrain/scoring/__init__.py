"""Scoring: a recipe's rewards as callable functions, what they judge, and the evaluation of a policy.

The reward functions themselves are in `rewards/`.
"""
