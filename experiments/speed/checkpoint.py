"""Seconds and bytes of a checkpoint, here and in plain TRL, on the quickstart's model.

    python experiments/speed/checkpoint.py [--steps 4]

Plain TRL is trl.GRPOTrainer as in step_time.py, with torch's AdamW. Ours is the quickstart recipe. Both write a
checkpoint after each step; one program runs after the other. "Ours alone" is the part that is not transformers' and
DeepSpeed's own writing: the manifest, `fsync`, the copy of the rows, and the removal of the checkpoint before.
"""

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from step_time import plain_trl, printed_by, quickstart


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--one", choices=["trl", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps({"trl": of_trl, "ours": of_ours}[arguments.one](arguments.steps)))
        return
    measured = {}
    for which in ("trl", "ours"):
        printed = printed_by(__file__, "--one", which, "--steps", str(arguments.steps))
        found = measured[which] = json.loads(printed.splitlines()[-1])
        own = f"   ours alone {found['own_s']:.2f} s" if which == "ours" else ""
        print(f"{which:>4}: {found['bytes'] / 1e6:6.0f} MB   {found['seconds']:.2f} s{own}", flush=True)
    size, seconds = (measured["ours"][name] / measured["trl"][name] for name in ("bytes", "seconds"))
    share = measured["ours"]["own_s"] / measured["ours"]["step_s"]
    print(f"ours / TRL: bytes {size:.2f}, seconds {seconds:.2f}; ours alone, after each step: {share:.1%} of a step")


def of_trl(num_steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        trainer = plain_trl(quickstart(16, num_steps, "unused"), folder, save_strategy="steps", save_steps=1)
        whole = timed(type(trainer), "_save_checkpoint")
        trainer.train()
        newest = Path(folder, f"checkpoint-{num_steps + 1}")
        return {"bytes": size_of(newest), "seconds": statistics.median(whole[1:])}


def of_ours(num_steps: int) -> dict[str, float]:
    from transformers import Trainer

    from rl_posttrain import train
    from rl_posttrain.training.loop import PolicyTrainer

    whole, written = timed(PolicyTrainer, "_save_checkpoint"), timed(Trainer, "_save_checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        run = train(quickstart(16, num_steps, folder, "checkpoint.every_steps=1"))
        rows = run.metrics()
        steps = [sum(row[f"time/{phase}"] for phase in ("rollout", "reward", "update", "sync")) for row in rows[1:]]
        return {
            "bytes": size_of(run.last_checkpoint()),
            "seconds": statistics.median(whole[1:]),
            "own_s": statistics.median(all_of_it - part for all_of_it, part in zip(whole, written, strict=True)),
            "step_s": statistics.median(steps),
        }


def timed(owner: type, name: str) -> list[float]:
    """A list that gets the seconds of each call of a method from now on."""
    seconds: list[float] = []
    function: Callable = getattr(owner, name)

    @functools.wraps(function)
    def measured(*arguments, **options):
        started = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            seconds.append(time.perf_counter() - started)

    setattr(owner, name, measured)
    return seconds


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
