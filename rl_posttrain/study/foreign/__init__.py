"""Runs of other programs, read under our names."""
