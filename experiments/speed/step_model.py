"""Seconds and memory of a step, predicted by `check` and measured, on 1, 2 and 4 processes of this machine.

    python experiments/speed/step_model.py [--steps 4] [--cases quickstart:1,quickstart:2,small:4] [--cpu-time]
    python experiments/speed/step_model.py --memory 16,32,64

`quickstart` is the quickstart's model and batch. `small` is a Llama of 19 M parameters with random weights, for four
processes on a machine of 24 GiB. All completions have full length (min_tokens), so that their lengths are known. The
speed of the machine is measured before each case. The first step warms up and does not count. With `--cpu-time` every
process has one thread and its clock is its processor time, so that other work on the machine does not count.

`--memory` is apart, without engines: forward and backward passes of the bundled model in bf16, one process for each
micro batch (sequences of 28 tokens, 16 of them scored). Measured is what the peak of memory grows by after a step of
one sequence, which has made the gradients.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NEW_TOKENS, PROMPT = 16, 12
PHASES = ("rollout", "update", "sync", "step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cases", default="quickstart:1,quickstart:2,small:4")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--memory", metavar="SEQUENCES,...")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(peak_of(arguments.one)))
    elif arguments.memory:
        print("| sequences | predicted | measured | error |\n| --- | --- | --- | --- |")
        for sequences in arguments.memory.split(","):
            predicted, measured = json.loads(run(__file__, "--one", sequences))
            cells = [sequences, f"{predicted / 2**20:,.0f} MiB", f"{measured / 2**20:,.0f} MiB"]
            print(f"| {' | '.join(cells)} | {predicted / measured - 1:+.0%} |", flush=True)
    else:
        compare_all(arguments)


def compare_all(arguments: argparse.Namespace) -> None:
    found = []
    print("| case | processes | | " + " | ".join(PHASES) + " |\n" + "| --- " * (len(PHASES) + 3) + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.cpu_time:
            (Path(folder) / "sitecustomize.py").write_text("import time\ntime.perf_counter = time.process_time\n")
            os.environ |= {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        for case in arguments.cases.split(","):
            name, num_processes = case.split(":")
            result = compare(name, int(num_processes), arguments.steps, Path(folder) / case)
            found.append({"case": name, "num_processes": int(num_processes), **result})
            print(lines(found[-1]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


def compare(name: str, num_processes: int, steps: int, folder: Path) -> dict[str, Any]:
    """Seconds by phase, predicted and measured."""
    folder.mkdir()
    said = overrides(name, num_processes, steps, folder)
    check = ["-m", "rl_posttrain", "check", "quickstart", *said, f"--num-processes={num_processes}"]
    told = json.loads(run(*check, "--measure-speed", "--json"))
    seconds = told["step"]["seconds"]
    predicted = {
        "rollout": seconds["rollout"],
        "update": sum(seconds[phase] for phase in ("logprobs", "update", "links", "optimizer", "other")),
        "sync": seconds["sync"],
        "step": seconds["step"],
    }
    rows = train(said, num_processes, folder)[1:]
    measured = {phase: statistics.median(row[f"time/{phase}"] for row in rows) for phase in PHASES[:3]}
    measured["step"] = sum(measured.values())
    peak = rows[-1]["peak_memory_bytes"]
    return {
        "speeds": told["step"]["speeds"],
        "predicted_s": predicted,
        "measured_s": measured,
        "predicted_total_bytes": told["memory_bytes"]["total"],
        "peak_bytes": peak,
    }


def peak_of(sequences: int) -> tuple[int, int]:
    """Bytes of activations and logits of the bundled model, predicted, and what the peak of this process grows by."""
    import resource

    import torch
    from transformers import AutoModelForCausalLM

    from rl_posttrain.cost.activations import activations
    from rl_posttrain.cost.model_shape import shape_of
    from rl_posttrain.models.find import BUNDLED, resolve_model
    from rl_posttrain.training.logprobs import add_completion_scoring

    model = AutoModelForCausalLM.from_pretrained(resolve_model(BUNDLED), dtype=torch.bfloat16).train()
    add_completion_scoring(model, 1.0)

    def step(count: int) -> None:
        ids = torch.randint(1000, (count, PROMPT + NEW_TOKENS))
        mask = torch.ones_like(ids)
        mask[:, 0] = 0
        model(input_ids=ids, attention_mask=mask, completion_tokens=NEW_TOKENS)[0].sum().backward()

    step(1)  # gradients are there from now on, and libraries have what they need
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(sequences)
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    shape = shape_of(model.config, num_parameters=0, tensors=0)
    few, many = (
        activations(
            shape,
            sequences=count,
            length=PROMPT + NEW_TOKENS,
            scored=NEW_TOKENS,
            precision="bfloat16",
            checkpointing=False,
            on_cpu=True,
        )
        for count in (1, sequences)
    )
    return sum(many) - sum(few), grown


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
    run(
        *(launcher if num_processes > 1 else []),
        "-m",
        "rl_posttrain",
        "train",
        "quickstart",
        *said,
        f"run.output_dir={folder}",
        "run.name=run",
    )
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
    return "\n".join(
        head + name + " | " + " | ".join(cells) + " |"
        for name, cells in (
            ("predicted", [f"{predicted[phase]:.2f} s" for phase in PHASES]),
            ("measured", [f"{measured[phase]:.2f} s" for phase in PHASES]),
            ("error", [f"{predicted[phase] / measured[phase] - 1:+.0%}" for phase in PHASES]),
        )
    )


if __name__ == "__main__":
    main()
