"""Seconds of a step, predicted by `check --measure-speed` and measured on 1, 2 and 4 processes of this machine.

    python experiments/speed/step_model.py [--cases quickstart:1,quickstart:2,small:4] [--steps 4] [--json FILE]

A case is a model, a number of processes, and overrides behind further colons. `quickstart` is the quickstart's model in
fp32, 16 completions a step. `small` is a Llama of 19 M parameters with random weights, for four processes on a machine
of 24 GiB. All completions have full length (min_tokens), so that their lengths are known. The speed of the machine is
measured right before each case. The first two steps warm up and do not count; of the others it is the median.

Measured are the project's own phases (rollout, sync) and the parts of its update: forward passes before it (logprobs),
loss and backward pass (update), the engine's step (optimizer), torch's collectives in these three (links), and what is
left of `time/update` (other). Processes that wait for each other do so in links.

With `--cpu-time` every process has one thread, and its clock is its processor time: other work on the machine then does
not count, nor does waiting.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

NEW_TOKENS, WARM_UP = 16, 2
PHASES = ("rollout", "logprobs", "update", "links", "optimizer", "other", "sync", "step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cases", default="quickstart:1,quickstart:2,small:4")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--train", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train_with_timers(*arguments.train)
    else:
        compare_all(arguments)


def compare_all(arguments: argparse.Namespace) -> None:
    found = []
    print("| case | processes | | " + " | ".join(PHASES) + " |\n" + "| --- " * (len(PHASES) + 3) + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.cpu_time:
            (Path(folder) / "sitecustomize.py").write_text("import time\ntime.perf_counter = time.process_time\n")
            os.environ |= {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        for number, case in enumerate(arguments.cases.split(",")):
            name, num_processes, *more = case.split(":")
            result = compare(name, int(num_processes), more, arguments.steps, Path(folder) / str(number))
            found.append({"case": ":".join([name, *more]), "num_processes": int(num_processes), **result})
            print(lines(found[-1]), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def compare(name: str, num_processes: int, more: list[str], steps: int, folder: Path) -> dict[str, Any]:
    """Seconds by phase, predicted and measured."""
    folder.mkdir()
    said = [*overrides(name, num_processes, steps, folder), *more]
    check = ["-m", "rl_posttrain", "check", "quickstart", *said, f"--num-processes={num_processes}"]
    told = json.loads(run(*check, "--measure-speed", "--json"))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    parts = folder / "parts.json"
    run(*(launcher if num_processes > 1 else []), __file__, "--train", str(parts), *said)
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    inside = json.loads(parts.read_text())
    by_step = [seconds_of(row, timed) for row, timed in zip(rows, inside, strict=True)][WARM_UP:]
    return {
        "speeds": told["step"]["speeds"],
        "predicted_s": told["step"]["seconds"],
        "measured_s": {phase: statistics.median(step[phase] for step in by_step) for phase in PHASES},
        "predicted_total_bytes": told["memory_bytes"]["total"],
        "peak_bytes": rows[-1]["peak_memory_bytes"],
    }


def seconds_of(row: dict[str, Any], timed: dict[str, float]) -> dict[str, float]:
    """A step's seconds by phase, from its row of metrics and the timers inside of its update."""
    found = {phase: row[f"time/{phase}"] for phase in ("rollout", "sync")}
    found |= {phase: timed.get(phase, 0.0) for phase in ("logprobs", "update", "links", "optimizer")}
    found["other"] = row["time/update"] - sum(found[phase] for phase in ("logprobs", "update", "links", "optimizer"))
    return found | {"step": sum(found.values())}


def train_with_timers(parts: str, *said: str) -> None:
    """`rl-posttrain train quickstart` in this process; seconds of the parts of each update go into the file `parts`."""
    from rl_posttrain.machine.process import prepare_process, use_cpu_if_no_gpu

    prepare_process(verbose=False)
    use_cpu_if_no_gpu()
    import deepspeed
    import torch

    from rl_posttrain import load_recipe
    from rl_posttrain.machine.process import is_main_process
    from rl_posttrain.training.loop import PolicyTrainer
    from rl_posttrain.training.train import train

    seconds: dict[str, float] = defaultdict(float)
    by_step, running = [], []

    def timed(owner: Any, name: str, phase: str, when: Any = lambda: True) -> None:
        """Count the seconds of `owner.name` as `phase`, and not as that of a timer around it."""
        original = getattr(owner, name)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            if not when():
                return original(*arguments, **options)
            started = time.perf_counter()
            running.append(0.0)
            try:
                return original(*arguments, **options)
            finally:
                spent = time.perf_counter() - started
                seconds[phase] += spent - running.pop()
                if running:
                    running[-1] += spent

        setattr(owner, name, wrapper)

    timed(PolicyTrainer, "_get_per_token_logps_and_entropies", "logprobs", lambda: not torch.is_grad_enabled())
    timed(PolicyTrainer, "_compute_loss", "update")
    timed(deepspeed.DeepSpeedEngine, "backward", "update")
    timed(torch.Tensor, "backward", "update", lambda: not running)  # without DeepSpeed
    timed(deepspeed.DeepSpeedEngine, "step", "optimizer")
    for name in ("all_reduce", "reduce", "broadcast", "all_gather_into_tensor", "reduce_scatter_tensor", "all_gather"):
        timed(torch.distributed, name, "links", lambda: bool(running))
    log = PolicyTrainer.log

    def ends_step(self: PolicyTrainer, logs: dict[str, float], *rest: Any) -> None:
        if "loss" in logs:
            by_step.append(dict(seconds))
            seconds.clear()
        log(self, logs, *rest)

    PolicyTrainer.log = ends_step
    train(load_recipe("quickstart", said))
    if is_main_process():
        Path(parts).write_text(json.dumps(by_step))


def overrides(name: str, num_processes: int, steps: int, folder: Path) -> list[str]:
    changes = [
        f"run.output_dir={folder}",
        "run.name=run",
        "model.dtype=float32",
        f"algorithm.num_steps={steps + WARM_UP}",
        "algorithm.prompts_per_step=4",
        "algorithm.group_size=4",
        f"algorithm.micro_batch_size={16 // num_processes}",
        f"rollout.max_new_tokens={NEW_TOKENS}",
        f"trl.generation_kwargs={{min_tokens: {NEW_TOKENS}}}",
        "checkpoint.every_steps=0",
        "checkpoint.final_model=false",
        "eval.at_start=false",
        "logging.trackers=[]",
        "logging.print_samples=0",
    ]
    if name == "small":
        changes.append(f"model.name={small_model(folder / 'small')}")
    elif name != "quickstart":
        sys.exit(f"--cases={name}: no such case; name quickstart or small")
    return changes


def small_model(folder: Path) -> Path:
    """A Llama of 19 M parameters with random weights and the bundled model's tokenizer."""
    if not folder.exists():
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        from rl_posttrain.models.find import BUNDLED, resolve_model

        bundled = resolve_model(BUNDLED)
        config = AutoConfig.from_pretrained(bundled)
        config.hidden_size, config.num_hidden_layers, config.intermediate_size = 288, 6, 768
        config.num_attention_heads, config.num_key_value_heads, config.head_dim = 9, 3, 32
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        AutoTokenizer.from_pretrained(bundled).save_pretrained(folder)
    return folder


def run(*arguments: str) -> str:
    """What a Python process prints; an error ends this one."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def lines(found: dict[str, Any]) -> str:
    head = f"| {found['case']} | {found['num_processes']} | "
    predicted, measured = found["predicted_s"], found["measured_s"]
    return "\n".join(
        head + name + " | " + " | ".join(cells) + " |"
        for name, cells in (
            ("predicted", [f"{predicted[phase]:.2f} s" for phase in PHASES]),
            ("measured", [f"{measured[phase]:.2f} s" for phase in PHASES]),
            ("error", [error(predicted[phase], measured[phase]) for phase in PHASES]),
        )
    )


def error(predicted: float, measured: float) -> str:
    return f"{predicted / measured - 1:+.0%}" if measured > 0.005 else ""


if __name__ == "__main__":
    main()
