"""Seconds and memory of a step, predicted by `check` and measured, on 1, 2 and 4 processes of this machine.

    python experiments/speed/step_model.py [--steps 4] [--cases quickstart:1,quickstart:2,small:4] [--json FILE]

`quickstart` is the quickstart's model and batch. `small` is a Llama of 19 M parameters with random weights, for four
processes on a machine of 24 GiB. All completions have full length (min_tokens), so that their lengths are known. The
speed of the machine is measured once before each case. The first step warms up and does not count.

Memory is compared by what changes with the micro batch, as a process also holds programs and engines that nobody
predicts: peak memory at the whole micro batch less that at a quarter of it, beside the same difference predicted.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NEW_TOKENS = 16
PHASES = ("rollout", "update", "sync", "step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cases", default="quickstart:1,quickstart:2,small:4")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = []
    print("| case | processes | | " + " | ".join(PHASES) + " | memory of three quarters of the micro batch |")
    print("| --- | --- | --- | " + "--- | " * (len(PHASES) + 1))
    for case in arguments.cases.split(","):
        name, num_processes = case.split(":")
        with tempfile.TemporaryDirectory() as folder:
            result = compare(name, int(num_processes), arguments.steps, Path(folder))
        found.append({"case": name, "num_processes": int(num_processes), **result})
        print(lines(found[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def compare(name: str, num_processes: int, steps: int, folder: Path) -> dict[str, Any]:
    """Seconds by phase and bytes, predicted and measured."""
    said = overrides(name, num_processes, steps, folder)
    told = json.loads(
        run(
            "-m",
            "rl_posttrain",
            "check",
            "quickstart",
            *said,
            "--measure-speed",
            f"--num-processes={num_processes}",
            "--json",
        )
    )
    seconds, memory = told["step"]["seconds"], told["memory_bytes"]
    predicted = {
        "rollout": seconds["rollout"],
        "update": sum(seconds[phase] for phase in ("logprobs", "update", "links", "optimizer", "other")),
        "sync": seconds["sync"],
        "step": seconds["step"],
    }
    rows = train(said, num_processes, folder / "whole")
    quarter = [*said, f"algorithm.micro_batch_size={64 // num_processes // 4}", "algorithm.num_steps=2"]
    less = train(quarter, num_processes, folder / "quarter")
    smaller = json.loads(
        run("-m", "rl_posttrain", "check", "quickstart", *quarter, f"--num-processes={num_processes}", "--json")
    )
    on_top = [one["memory_bytes"] for one in (told, smaller)]
    measured = {
        phase: statistics.median(row[f"time/{phase}"] for row in rows[1:]) for phase in ("rollout", "update", "sync")
    }
    measured["step"] = sum(measured.values())
    return {
        "speeds": told["step"]["speeds"],
        "predicted_s": predicted,
        "measured_s": measured,
        # Several micro batches have their gradients summed in fp32, one has not.
        "predicted_difference_bytes": sum(
            on_top[0][name] - on_top[1][name] for name in ("activations", "logits", "gradients")
        ),
        "measured_difference_bytes": rows[1]["peak_memory_bytes"] - less[1]["peak_memory_bytes"],
        "predicted_total_bytes": memory["total"],
        "peak_bytes": rows[-1]["peak_memory_bytes"],
    }


def overrides(name: str, num_processes: int, steps: int, folder: Path) -> list[str]:
    changes = [
        f"run.output_dir={folder}",
        f"algorithm.num_steps={steps + 1}",
        f"algorithm.micro_batch_size={64 // num_processes}",
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


def train(said: list[str], num_processes: int, folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics of a run with these overrides."""
    launcher = (
        []
        if num_processes == 1
        else ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
    )
    run(*launcher, "-m", "rl_posttrain", "train", "quickstart", *said, f"run.output_dir={folder}", "run.name=run")
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def run(*arguments: str) -> str:
    """What a Python process prints; an error ends this one."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def lines(found: dict[str, Any]) -> str:
    head = f"| {found['case']} | {found['num_processes']} | "
    predicted, measured = found["predicted_s"], found["measured_s"]
    cells = [
        head + "predicted | " + " | ".join(f"{predicted[phase]:.2f} s" for phase in PHASES),
        head + "measured | " + " | ".join(f"{measured[phase]:.2f} s" for phase in PHASES),
        head + "error | " + " | ".join(f"{predicted[phase] / measured[phase] - 1:+.0%}" for phase in PHASES),
    ]
    sizes = [found["predicted_difference_bytes"], found["measured_difference_bytes"]]
    shown = [f"{size / 2**20:,.0f} MiB" for size in sizes] + [f"{sizes[0] / sizes[1] - 1:+.0%}"]
    return "\n".join(f"{cell} | {size} |" for cell, size in zip(cells, shown, strict=True))


if __name__ == "__main__":
    main()
