"""Runs rl-posttrain and kills this process at a chosen place, as a machine does that loses its power.

    python killed.py AIM ARGUMENTS...

AIM is JSON: a point of `POINTS`, after how many calls of it, and how many seconds into that call; on which rank. With
``{"measure": FILE}`` nothing is killed: FILE gets the number of calls of each point and their mean seconds.
"""

import functools
import importlib
import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

# Where a process can be in a run: which function is going on. `everyone`: every process calls it.
POINTS = {
    "load": ("rl_posttrain.training.train:build_trainer", "everyone"),
    "rewind": ("rl_posttrain.training.train:rewind", "main"),
    "rollout": ("rl_posttrain.rollout.transformers:TransformersEngine.generate", "everyone"),
    "reward": ("rl_posttrain.training.rollouts:score", "everyone"),
    "backward": ("accelerate.accelerator:Accelerator.backward", "everyone"),
    "optimizer step": ("rl_posttrain.optim.adams:AdamS.step", "everyone"),
    "rollouts on disk": ("rl_posttrain.runs.directory:RunDirectory.write_rollouts", "main"),
    "row of metrics": ("rl_posttrain.runs.directory:RunDirectory.append_metrics", "main"),
    "checkpoint": ("transformers.trainer:Trainer._save_checkpoint", "everyone"),
    "manifest": ("rl_posttrain.training.checkpoints:write_manifest", "main"),
    "rotation": ("rl_posttrain.training.loop:finish_checkpoint", "main"),
    "removal of a folder": ("shutil:rmtree", "main"),
    "final model": ("rl_posttrain.models.export:write_final_model", "main"),
    "summary": ("rl_posttrain.runs.directory:RunDirectory.write_summary", "main"),
}


def main(aim: dict) -> None:
    took = defaultdict(list)
    for point, (location, _) in POINTS.items():
        _around(location, functools.partial(_aimed, point, aim, took))
    from rl_posttrain.cli.main import main

    try:
        main()
    finally:
        if "measure" in aim and os.environ.get("RANK", "0") == "0":
            found = {point: [len(seconds), sum(seconds) / len(seconds)] for point, seconds in took.items()}
            Path(aim["measure"]).write_text(json.dumps(found))


def _around(location: str, wrap) -> None:
    """Put `wrap(function)` in the place of a module's function or a class's method."""
    module, _, name = location.partition(":")
    owner = importlib.import_module(module)
    *classes, name = name.split(".")
    for part in classes:
        owner = getattr(owner, part)
    setattr(owner, name, wrap(getattr(owner, name)))


def _aimed(point: str, aim: dict, took: dict, function):
    @functools.wraps(function)
    def called(*arguments, **options):
        started = time.perf_counter()
        if (
            point == aim.get("point")
            and len(took[point]) == aim["calls"]
            and os.environ.get("RANK", "0") == aim["rank"]
        ):
            _kill_in(aim["seconds"])
        try:
            return function(*arguments, **options)
        finally:
            took[point].append(time.perf_counter() - started)

    return called


def _kill_in(seconds: float) -> None:
    """SIGKILL from another process, so that nothing here can put it off."""
    victim = os.getpid()
    if seconds == 0:
        os.kill(victim, signal.SIGKILL)
    if os.fork() == 0:
        time.sleep(seconds)
        if os.getppid() == victim:
            os.kill(victim, signal.SIGKILL)
        os._exit(0)


if __name__ == "__main__":
    aim = json.loads(sys.argv.pop(1))
    sys.argv[0] = "rl-posttrain"
    main(aim)
