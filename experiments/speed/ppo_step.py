"""Seconds of a step of PPO and of GRPO by phase, at equal completions and equal tokens, in one process.

    python experiments/speed/ppo_step.py [--recipe quickstart_ppo] [--steps 4] [--rounds 2] [--full-length]
        [--json FILE] [KEY=VALUE ...]

Both run the recipe given, which is one of PPO; only `algorithm.name` and the critic differ. They take turns, a short
run each, `--rounds` times. The first step of a run does not count: it compiles and warms up. Both start from the same
weights with the same prompts and seeds, so their completions are about equally long; with `--full-length` all have the
full length (min_tokens). The medians are over all steps that count.
"""

import argparse
import gc
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
    parser.add_argument("--full-length", action="store_true")
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
    for name, found in rows.items():
        length = statistics.mean(row["completion_length"] for row in found)
        print(f"{name}: {len(found)} steps, {length:.1f} tokens per completion")
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
    overrides = list(arguments.overrides)
    if arguments.full_length:
        limit = load_recipe(arguments.recipe, overrides).rollout.max_new_tokens
        overrides.append(f"trl.generation_kwargs={{min_tokens: {limit}}}")
    recipe = load_recipe(
        arguments.recipe,
        [
            f"run.output_dir={folder}",
            f"run.name={run_name}",
            f"algorithm.name={name}",
            *(["critic=null"] if name == "grpo" else []),
            f"algorithm.num_steps={arguments.steps + 1}",
            "checkpoint.every_steps=0",
            "checkpoint.final_model=false",
            "logging.trackers=[]",
            *overrides,
        ],
    )
    rows = train(recipe).metrics()[1:]
    gc.collect()  # trainer and engine refer to each other, and would stay in memory during the next run
    return rows


def medians(rows: list[dict]) -> dict[str, float]:
    """Median seconds of each phase, and of the phases together."""
    found = {phase: statistics.median(row[f"time/{phase}"] for row in rows) for phase in PHASES}
    return found | {"step": statistics.median(sum(row[f"time/{phase}"] for phase in PHASES) for row in rows)}


if __name__ == "__main__":
    main()
