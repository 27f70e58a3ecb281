"""Steps a second with rollouts that run ahead of the updates, against those that do not, in one process.

    python experiments/speed/staleness.py [--recipe quickstart] [--steps 4] [--rounds 2] [--json FILE] [KEY=VALUE ...]

Three variants take turns, a short run each, `--rounds` times: staleness 0; staleness 0 with a generator for each
completion (`run.deterministic`, on a CPU the slower sampler, which running ahead needs); staleness 1. The first two
steps of a run do not count: the first compiles, and at staleness 1 it draws for itself. The medians are over all steps
that count. `load` is that of the machine over the last minute, per core: above 1 others compute, too, and only large
ratios mean something.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
from pathlib import Path

from rl_posttrain import load_recipe, train
from rl_posttrain.machine.describe import device_name
from rl_posttrain.runs.metrics import PHASES

VARIANTS = {
    "0": (),
    "0, own generators": ("run.deterministic=true",),
    "1": ("rollout.max_staleness=1",),
}
UNCOUNTED = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    rows: dict[str, list[dict]] = {name: [] for name in VARIANTS}
    loads = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for place, (name, options) in enumerate(VARIANTS.items()):
                rows[name] += run(f"{place}-{number}", folder, [*options, *arguments.overrides], arguments)
                loads.append(os.getloadavg()[0] / len(os.sched_getaffinity(0)))
    seconds = {name: medians(found) for name, found in rows.items()}
    print(f"{device_name()}; load {min(loads):.1f} to {max(loads):.1f}")
    print("staleness          " + "".join(f"{phase:>10s}" for phase in (*PHASES, "draw", "step")) + "   steps/s")
    for name, found in seconds.items():
        numbers = "".join(f"{found.get(phase, float('nan')):10.3f}" for phase in (*PHASES, "draw", "step"))
        print(f"{name:19s}{numbers}{1 / found['step']:10.3f}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": device_name(), "loads": loads, "rows": rows}, indent=2) + "\n")


def run(name: str, folder: str, overrides: list[str], arguments: argparse.Namespace) -> list[dict]:
    """The metrics rows of a short run, but for its first steps."""
    recipe = load_recipe(
        arguments.recipe,
        [
            f"run.output_dir={folder}",
            f"run.name={name}",
            f"algorithm.num_steps={arguments.steps + UNCOUNTED}",
            "checkpoint.every_steps=0",
            "checkpoint.final_model=false",
            "eval={every_steps: 0, at_start: false}",
            "logging.trackers=[]",
            *overrides,
        ],
    )
    rows = train(recipe).metrics()[UNCOUNTED:]
    gc.collect()  # trainer and engine refer to each other, and would stay in memory during the next run
    return rows


def medians(rows: list[dict]) -> dict[str, float]:
    """Median seconds of each phase, of the phases together, and of the draws that ran beside them."""
    found = {phase: statistics.median(row[f"time/{phase}"] for row in rows) for phase in PHASES}
    found["step"] = statistics.median(sum(row[f"time/{phase}"] for phase in PHASES) for row in rows)
    draws = [row["time/draw"] for row in rows if "time/draw" in row]
    return found | ({"draw": statistics.median(draws)} if draws else {})


if __name__ == "__main__":
    main()
