"""What `run.deterministic` costs: seconds of a quickstart step with it and without, in turn.

    python experiments/speed/determinism.py [--steps 5] [--pairs 2]

Each run is a process of its own. The first step of each does not count.
"""

import argparse
import json
import statistics
import tempfile

from step_time import printed_by, quickstart

PHASES = ("rollout", "reward", "update", "sync")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--one", choices=["true", "false"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(steps_of(arguments.one, arguments.steps)))
        return
    found: dict[str, list[dict[str, float]]] = {"false": [], "true": []}
    for _ in range(arguments.pairs):
        for value, steps in found.items():
            printed = printed_by(__file__, "--one", value, "--steps", str(arguments.steps))
            steps += json.loads(printed.splitlines()[-1])
    medians = {
        value: {phase: statistics.median(step[phase] for step in steps) for phase in (*PHASES, "step")}
        for value, steps in found.items()
    }
    for phase in (*PHASES, "step"):
        without, with_it = medians["false"][phase], medians["true"][phase]
        print(f"{phase:>8}: {without:6.2f} s, deterministic {with_it:6.2f} s   ratio {with_it / without:.2f}")


def steps_of(deterministic: str, num_steps: int) -> list[dict[str, float]]:
    """Seconds by phase of each step but the first."""
    from rl_posttrain import train

    with tempfile.TemporaryDirectory() as folder:
        recipe = quickstart(16, num_steps, folder, f"run.deterministic={deterministic}")
        rows = train(recipe).metrics()[1:]
    steps = [{phase: row[f"time/{phase}"] for phase in PHASES} for row in rows]
    return [step | {"step": sum(step.values())} for step in steps]


if __name__ == "__main__":
    main()
