"""Scoring: a recipe's rewards as callable functions, and what they judge.

The reward functions themselves are in `rewards/`.
"""
