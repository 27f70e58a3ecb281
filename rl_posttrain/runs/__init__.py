"""The run directory: its files, its metrics, reading them back, and the run's own picture.

What compares several runs belongs in `study`; what prints belongs in `views`.
"""
