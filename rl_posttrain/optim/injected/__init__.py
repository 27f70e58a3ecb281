"""A folder that `rl-posttrain optim run` puts on PYTHONPATH; its sitecustomize.py then runs in every Python process."""
