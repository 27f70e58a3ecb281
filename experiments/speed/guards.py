"""What guards cost: their seconds in each step of a run, by the seam at which they are asked, as shares of the step.

    python experiments/speed/guards.py [--recipe quickstart] [--steps 4] [KEY=VALUE ...]

Every call is timed inside of the same steps that it is held against, so that a machine's other work counts in both.
The first step does not count: it compiles and warms up. A last line has the check of all weights before a checkpoint.
"""

import argparse
import functools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from rl_posttrain import load_recipe, train
from rl_posttrain.machine.process import prepare_process
from rl_posttrain.runs.series import step_seconds

# Where the trainer asks, and what that is.
SEAMS = {
    "drawn": "completions: shares, reasons",
    "loss": "losses: finite?",
    "_opens": "gradient: finite? far over its history?",
    "finished": "the step's row: weights, entropy, reward",
}
seconds: dict[str, list[float]] = defaultdict(list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    prepare_process(verbose=False)
    from rl_posttrain.training.guards.guards import Guards
    from rl_posttrain.training.updates import UpdateNorm

    for name in (*SEAMS, "before_checkpoint"):
        setattr(Guards, name, timed(name, getattr(Guards, name)))
    # Its square sum is the guards'; the copy of the sample is for `update_norm`, so this is too much.
    UpdateNorm._remember = timed("weight_norm", UpdateNorm._remember)
    with tempfile.TemporaryDirectory() as folder:
        steps = [f"algorithm.num_steps={arguments.steps + 1}", f"checkpoint.every_steps={arguments.steps + 1}"]
        fixed = [f"run.output_dir={folder}", "run.name=timed", "eval.every_steps=0", "eval.at_start=false"]
        recipe = load_recipe(arguments.recipe, [*fixed, *steps, "checkpoint.final_model=false", *arguments.overrides])
        rows = train(recipe).metrics()
    per_step = sum(step_seconds(rows)[1:]) / arguments.steps
    print(f"{arguments.steps} steps of {per_step:.2f} s")
    total = 0.0
    for name, what in (*SEAMS.items(), ("weight_norm", "the norm of the weights, at most")):
        calls = seconds[name]
        num_calls = len(calls) // (arguments.steps + 1)  # in each step
        own = sum(calls[num_calls:]) / arguments.steps
        total += own
        print(f"{what:<42}{1000 * own:9.3f} ms {own / per_step:8.4%}")
    print(f"{'together':<42}{1000 * total:9.3f} ms {total / per_step:8.4%}")
    (check,) = seconds["before_checkpoint"]
    print(f"{'all weights, before a checkpoint':<42}{1000 * check:9.3f} ms")


def timed(name: str, method: Callable) -> Callable:
    """`method`, with its seconds kept under `name`."""

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return method(*arguments, **options)
        finally:
            seconds[name].append(time.perf_counter() - started)

    return call


if __name__ == "__main__":
    main()
