"""The cost of a report about many long runs: seconds, peak memory, size of the page.

    python experiments/speed/report_size.py [--runs 60] [--steps 2000]

It writes that many run directories with made-up metrics into a temporary folder (30 values a step, 64 completions at
the first and the last step). Then it runs `rl-posttrain report` on them, in a process of its own.
"""

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rl_posttrain import load_recipe
from rl_posttrain.runs.columns import columns_of
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.files import to_json
from rl_posttrain.runs.series import summarize

_NUM_SEEDS = 5
_MORE_VALUES = 16  # beside those that the page draws


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--steps", type=int, default=2000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(arguments.runs):
            make_run(Path(folder) / "runs", index, arguments.steps)
        size = sum(file.stat().st_size for file in Path(folder).rglob("metrics.jsonl"))
        started = time.perf_counter()
        out = Path(folder) / "report"
        command = [sys.executable, "-m", "rl_posttrain", "report", f"{folder}/runs", "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        if done.returncode:
            sys.exit(done.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        page = (out / "index.html").stat().st_size
    print(
        f"{arguments.runs} runs of {arguments.steps} steps, {size / 1e6:.0f} MB of metrics: {seconds:.1f} s, "
        f"at most {peak / 2**20:.0f} MiB of memory, page {page / 1e6:.1f} MB"
    )


def make_run(folder: Path, index: int, num_steps: int) -> None:
    """One finished run directory: variant `index // _NUM_SEEDS` (a learning rate), seed `index % _NUM_SEEDS`."""
    variant, seed = divmod(index, _NUM_SEEDS)
    overrides = [
        f"run.seed={seed}",
        f"optimizer.lr={1e-6 * (variant + 1)}",
        f"algorithm.num_steps={num_steps}",
    ]
    recipe = load_recipe("quickstart", overrides)
    run = RunDirectory.create(folder / f"v{variant}-seed{seed}", recipe_yaml=recipe.to_yaml())
    random.seed(index)
    rows = []
    for step in range(1, num_steps + 1):
        reward = min(1.0, max(0.0, step / num_steps + random.gauss(0, 0.05)))
        rows.append(
            {
                "step": step,
                "reward": reward,
                "rewards/math_accuracy": reward,
                "accuracy": reward,
                "loss": random.random(),
            }
            | {
                "completion_length": 10 + random.random(),
                "truncated_share": random.random(),
                "entropy": random.random(),
            }
            | {"grad_norm": random.random(), "update_norm": random.random(), "lr": 1e-5, "frac_zero_variance": 0.0}
            | {"sampling_logprob_difference": random.random(), "tokens": 1000 * step, "seconds": 5.0 * step}
            | {f"time/{phase}": random.random() for phase in ("rollout", "reward", "update", "sync")}
            | {"optimizer_state_bytes": 538060032, "peak_memory_bytes": 7447998464, "prompts_sha256": f"{step:016x}"}
            | {f"other/{number}": random.random() for number in range(_MORE_VALUES)}
        )
    run.metrics_path.write_text("".join(to_json(row) + "\n" for row in rows))
    for step in (1, num_steps):
        rollout = {"prompt": "Q: What is 3 + 4?\nA:", "completion": "7" * 60, "answer": "7", "reward": 1.0}
        run.write_rollouts(step, [{"step": step, **rollout} for _ in range(64)])
    run.write_environment({"initial_weights_sha256": "0" * 64, "device": "made up"})
    run.write_summary(summarize(columns_of(rows)))


if __name__ == "__main__":
    main()
