"""The process around a run, and the machine's tools: environment variables, world size, cores, compiler, `doctor`.

Nothing here knows of recipes, models or runs.
"""
