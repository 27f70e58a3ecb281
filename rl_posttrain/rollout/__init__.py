"""Completions from the current policy: the vLLM engine, its weight sync and its seeds."""
