"""Seconds of a step of PPO and of GRPO by phase, at equal completions and equal tokens, in one process.

    python experiments/speed/ppo_step.py [--recipe quickstart_ppo] [--max-new-tokens 16] [--steps 4] [--rounds 2]
        [--json FILE] [KEY=VALUE ...]

Both run the recipe given, which is one of PPO; only `algorithm.name` and the critic differ. They take turns, a short
run each, `--rounds` times. The first step of a run does not count: it compiles and warms up. Every completion has the
full length (min_tokens), so that both do the same work. The medians are over all steps that count.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from rl_posttrain import load_recipe, train
from rl_posttrain.machine.describe import device_name
from rl_posttrain.runs.metrics import PHASES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart_ppo")
    parser.add_argument("--max-new-tokens", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args()
    rows: dict[str, list[dict]] = {"grpo": [], "ppo": []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.rounds):
            for name, found in rows.items():
                found += run(name, f"{name}-{number}", folder, arguments)
    seconds = {name: medians(found) for name, found in rows.items()}
    for phase in (*PHASES, "step"):
        grpo, ppo = (seconds[name][phase] for name in ("grpo", "ppo"))
        ratio = f"{ppo / grpo:.2f}" if grpo > 1e-3 else "-"
        print(f"{phase:8s} GRPO {grpo:7.3f} s   PPO {ppo:7.3f} s   ratio {ratio}")
    if arguments.json:
        result = {
            "device": device_name(),
            "seconds": seconds,
            "ratio": seconds["ppo"]["step"] / seconds["grpo"]["step"],
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def run(name: str, run_name: str, folder: str, arguments: argparse.Namespace) -> list[dict]:
    """The metrics rows of a short run, but for its first step."""
    num_tokens = arguments.max_new_tokens
    recipe = load_recipe(
        arguments.recipe,
        [
            f"run.output_dir={folder}",
            f"run.name={run_name}",
            f"algorithm.name={name}",
            *(["critic=null"] if name == "grpo" else []),
            f"algorithm.num_steps={arguments.steps + 1}",
            f"rollout.max_new_tokens={num_tokens}",
            "checkpoint.every_steps=0",
            "checkpoint.final_model=false",
            "logging.trackers=[]",
            f"trl.generation_kwargs={{min_tokens: {num_tokens}}}",
            *arguments.overrides,
        ],
    )
    rows = train(recipe).metrics()[1:]
    assert all(row["completion_length"] == num_tokens for row in rows), "completions must be equally long"
    return rows


def medians(rows: list[dict]) -> dict[str, float]:
    """Median seconds of each phase, and of the phases together."""
    found = {phase: statistics.median(row[f"time/{phase}"] for row in rows) for phase in PHASES}
    return found | {"step": statistics.median(sum(row[f"time/{phase}"] for phase in PHASES) for row in rows)}


if __name__ == "__main__":
    main()
