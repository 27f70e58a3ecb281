"""Rollouts: the engine protocol, its vLLM and transformers implementations, and one record per completion.

This is the only room that imports vllm. Rewards and advantages are computed elsewhere and written into the record.
"""
