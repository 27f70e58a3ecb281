"""What comparing the engine's weights with the policy's costs, as a share of the steps of the quickstart.

    python experiments/speed/weight_check.py --steps 10

Both are timed in the same steps of one run. The first step, which looks at all layers, is told alone.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

from rl_posttrain import load_recipe, train
from rl_posttrain.training.weight_check import WeightCheck


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("overrides", nargs="*", help="such as optimizer.lr=1e-6")
    given = parser.parse_args()
    spent: list[float] = []
    whole = WeightCheck.sync

    def sync(check: WeightCheck, *arguments: object) -> None:
        spent.append(0.0)
        whole(check, *arguments)

    WeightCheck.sync = sync
    WeightCheck._sample = counted(WeightCheck._sample, spent)
    WeightCheck._compare = counted(WeightCheck._compare, spent)
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(
            given.recipe,
            [f"algorithm.num_steps={given.steps}", f"run.output_dir={folder}", "checkpoint.every_steps=0",
             "checkpoint.final_model=false", "eval.every_steps=0", "eval.at_start=false", *given.overrides],
        )  # fmt: skip
        rows = train(recipe).metrics()
    seconds = [row["seconds"] for row in rows]
    steps = [now - before for before, now in zip([0.0, *seconds], seconds, strict=False)]
    shares = [check / step for check, step in zip(spent, steps, strict=True)]
    print(f"first step: {spent[0] * 1000:.0f} ms of {steps[0]:.2f} s, {shares[0]:.2%}")
    print(
        f"the others: {statistics.median(spent[1:]) * 1000:.0f} ms of {statistics.median(steps[1:]):.2f} s in the "
        f"median, {statistics.median(shares[1:]):.2%}; at most {max(shares[1:]):.2%}"
    )


def counted(function: Callable, spent: list[float]) -> Callable:
    """`function`, whose seconds are added to the last of `spent`."""

    def timed(*arguments: object) -> object:
        started = time.perf_counter()
        found = function(*arguments)
        spent[-1] += time.perf_counter() - started
        return found

    return timed


if __name__ == "__main__":
    main()
