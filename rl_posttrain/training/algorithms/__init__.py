"""Algorithms: one short file each, from completions and rewards to advantages."""
