"""Evaluation: what a model can do on a task's held-out questions, with standard errors; the same in training and alone.

docs/evaluating.md says what each number means.
"""
