"""Models as files: finding one, its shapes, the bundled one, digests, universal checkpoints.

What trains a model belongs in `training`.
"""
