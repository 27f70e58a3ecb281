"""Command lines that start or go on with runs, ready to be pasted into a shell."""

import os
import shlex

from rl_posttrain.runs.directory import RunDirectory


def launcher(num_processes: int) -> list[str]:
    """The words before `train` for so many processes on this machine."""
    if num_processes == 1:
        return ["rl-posttrain"]
    return ["torchrun", "--standalone", f"--nproc_per_node={num_processes}", "-m", "rl_posttrain"]


def is_on_several_machines(num_processes: int) -> bool:
    """Whether the job runs on several machines. The arguments of torchrun are then unknown."""
    return num_processes > int(os.environ.get("LOCAL_WORLD_SIZE", num_processes))


def resume_command(run: RunDirectory, *more: str) -> str:
    """The command that goes on with a run. It reads the run's own recipe.yaml.

    Args:
        more: further words: overrides and options.
    """
    number = run.environment().get("num_processes", 1)
    several = is_on_several_machines(number)
    start = ["rl-posttrain"] if several else launcher(number)
    command = shlex.join([*start, "train", str(run.path / "recipe.yaml"), "--resume", *more])
    return f"{command} (on {number} processes, with torchrun as this run was started)" if several else command
