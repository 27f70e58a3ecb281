"""Seconds of a training step, here and in plain TRL, with the same model, prompts, batch, lengths and precision.

    python experiments/speed/step_time.py [--max-new-tokens 16,64] [--steps 4] [--json FILE]

Plain TRL is trl.GRPOTrainer as in its documentation: bf16, generation by transformers, torch's AdamW, no DeepSpeed.
Ours is the quickstart recipe. One runs after the other. The first step of each does not count: it compiles and warms
up. Both sample completions of the full length (min_new_tokens, min_tokens), so that both do the same work.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rl_posttrain import load_recipe
from rl_posttrain.machine import process
from rl_posttrain.machine.describe import device_name
from rl_posttrain.recipe.schema import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-new-tokens", default="16,64")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=["trl", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    lengths = [int(length) for length in arguments.max_new_tokens.split(",")]
    if arguments.one:
        measure = {"trl": measure_trl, "ours": measure_ours}[arguments.one]
        print(f"seconds {measure(lengths[0], arguments.steps)}")
        return
    table = []
    for num_tokens in lengths:
        plain, ours = (in_own_process(which, num_tokens, arguments.steps) for which in ("trl", "ours"))
        table.append({"max_new_tokens": num_tokens, "trl_s": plain, "ours_s": ours, "ratio": ours / plain})
        line = f"{num_tokens:4d} new tokens: TRL {plain:6.2f} s   ours {ours:6.2f} s   ratio {ours / plain:.2f}"
        print(line, flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"device": device_name(), "steps": table}, indent=2) + "\n")


def in_own_process(which: str, num_tokens: int, num_steps: int) -> float:
    """One measurement in a process of its own: engines and accelerate's state must not affect the next one."""
    options = ["--one", which, "--max-new-tokens", str(num_tokens), "--steps", str(num_steps)]
    return float(printed_by(__file__, *options).rpartition("seconds ")[2])


def printed_by(script: str, *options: str) -> str:
    """What a script prints in a process of its own; an error ends this one."""
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def measure_trl(num_tokens: int, num_steps: int) -> float:
    """Median seconds of a step of plain trl.GRPOTrainer."""
    from transformers import TrainerCallback

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = plain_trl(quickstart(num_tokens, num_steps, "unused"), folder, save_strategy="no")
        trainer.add_callback(Clock())
        trainer.train()
    return statistics.median(after - before for before, after in itertools.pairwise(ends))


def plain_trl(recipe: Recipe, folder: str, **options: Any) -> Any:
    """trl.GRPOTrainer as in its documentation, with a recipe's model, prompts, batch and lengths.

    Args:
        folder: for its checkpoints.
        options: further fields of trl.GRPOConfig.
    """
    process.prepare_process(verbose=False)
    import datasets
    import torch
    import trl
    from transformers import AutoTokenizer

    from rl_posttrain.models.find import resolve_model
    from rl_posttrain.recipe.resolve import resolve
    from rl_posttrain.rewards import math_accuracy

    model, algorithm, num_tokens = resolve_model(recipe.model.name), recipe.algorithm, recipe.rollout.max_new_tokens
    return trl.GRPOTrainer(
        model=model,
        reward_funcs=[math_accuracy],
        args=trl.GRPOConfig(
            output_dir=folder,
            max_steps=algorithm.num_steps,
            per_device_train_batch_size=algorithm.micro_batch_size,
            gradient_accumulation_steps=1,
            num_generations=algorithm.group_size,
            max_completion_length=num_tokens,
            loss_type=algorithm.loss,
            beta=0.0,
            learning_rate=recipe.optimizer.lr,
            bf16=True,
            model_init_kwargs={"dtype": torch.float32},
            gradient_checkpointing=False,
            use_cpu=not torch.cuda.is_available(),
            generation_kwargs={"min_new_tokens": num_tokens},
            report_to="none",
            disable_tqdm=True,
            **options,
        ),
        train_dataset=datasets.Dataset.from_list(resolve(recipe).task.make_rows(algorithm.prompts_per_step).train),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )


def measure_ours(num_tokens: int, num_steps: int) -> float:
    """Median seconds of a step of the quickstart recipe."""
    from rl_posttrain import train

    with tempfile.TemporaryDirectory() as folder:
        rows = train(quickstart(num_tokens, num_steps, folder)).metrics()
    assert all(row["completion_length"] == num_tokens for row in rows), "completions must be as long as TRL's"
    seconds = [row["seconds"] for row in rows]
    return statistics.median(after - before for before, after in itertools.pairwise(seconds))


def quickstart(num_tokens: int, num_steps: int, folder: str, *overrides: str) -> Recipe:
    return load_recipe(
        "quickstart",
        [
            f"run.output_dir={folder}",
            f"algorithm.num_steps={num_steps + 1}",
            f"rollout.max_new_tokens={num_tokens}",
            "checkpoint.every_steps=0",
            "checkpoint.final_model=false",
            "eval.at_start=false",
            "logging.trackers=[]",
            f"trl.generation_kwargs={{min_tokens: {num_tokens}}}",
            *overrides,
        ],
    )


if __name__ == "__main__":
    main()
