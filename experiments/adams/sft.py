"""Supervised fine-tuning of the bundled model: the held-out loss of each optimizer at several learning rates.

    python experiments/adams/sft.py --json FILE [--optimizers adamw,adams,scale] [--seeds 0,1,2] [--num-steps 20]
                                    [--batch-size 4]

A row is a question, "Q: What does heapq.heappush do?", and its answer, the first paragraph of that docstring of
CPython's standard library. The loss is that of the answer. Every tenth module is held out, and no answer is in both
parts. TRL's SFTTrainer trains all weights in fp32, with arithmetic in bf16; `use_optimizer` puts the optimizer in. A
seed decides the order of rows, the same for every optimizer. With the first seed each optimizer runs at three rates, a
factor of about 3 apart, and at further ones while the best is at the edge; with the other seeds it runs at the best. A
run that is in FILE is not made again.
"""

import argparse
import ast
import math
import platform
import random
import statistics
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl
from kept_runs import KeptRuns

from rl_posttrain.models.find import BUNDLED, resolve_model
from rl_posttrain.optim import use_optimizer

# The rates to begin with.
STARTS = {
    "adamw": (1e-4, 3e-4, 1e-3),
    "adams": (3e-5, 1e-4, 3e-4),
    "scale": (1e-5, 3e-5, 1e-4),
    "sgd": (3e-3, 1e-2, 3e-2),
    "powerstep": (3e-6, 1e-5, 3e-5),
    "lion": (3e-6, 1e-5, 3e-5),
}
MOST_RATES = 6
OPTIONS = {"adamw": {"fused": True}}
DEFAULT = "adamw,adams,scale"
LONGEST_ANSWER = 240
"""Characters: longer paragraphs are left out."""
NUM_HELD_OUT = 64
NOT_INSTALLED_EVERYWHERE = {"test", "tests", "idlelib", "lib2to3", "distutils", "ensurepip", "turtledemo"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", default=DEFAULT, help=f"some of {', '.join(STARTS)} (default: %(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas (default: %(default)s)")
    parser.add_argument("--num-steps", type=int, default=20, help="steps of each run (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=4, help="rows per step (default: %(default)s)")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="results; finished runs are kept")
    arguments = parser.parse_args()
    chosen = arguments.optimizers.split(",")
    if unknown := set(chosen) - set(STARTS):
        parser.error(f"--optimizers={','.join(sorted(unknown))}: no rates for it; name some of {', '.join(STARTS)}")
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    training, held_out = rows()
    versions = {module.__name__: module.__version__ for module in (torch, transformers, trl)}
    settings = {
        "num_steps": arguments.num_steps,
        "batch": arguments.batch_size,
        "rows": [len(training), len(held_out)],
        "python": platform.python_version(),
        **versions,
    }
    kept = KeptRuns(arguments.json, settings, parser)

    def run(optimizer: str, lr: float, seed: int) -> dict[str, Any]:
        given = (training, held_out, optimizer, lr, seed, arguments.num_steps, arguments.batch_size)
        return kept.run(optimizer, lr, seed, lambda: {"loss": train(*given)})

    print(f"{len(training)} rows to train on, {len(held_out)} held out", flush=True)
    print("| optimizer | lr: held-out loss at the first seed | best | loss at each seed | mean |")
    print("| --- | --- | --- | --- | --- |")
    for optimizer in chosen:
        searched = search(lambda lr, optimizer=optimizer: run(optimizer, lr, seeds[0]), STARTS[optimizer])
        best = min(searched, key=final)["lr"]
        losses = [final(run(optimizer, best, seed)) for seed in seeds]
        tried = ", ".join(f"{done['lr']:g}: {final(done):.3f}" for done in searched)
        each = ", ".join(f"{loss:.3f}" for loss in losses)
        print(f"| {optimizer} | {tried} | {best:g} | {each} | {statistics.mean(losses):.3f} |", flush=True)


def search(run: Callable[[float], dict[str, Any]], rates: tuple[float, ...]) -> list[dict[str, Any]]:
    """The runs at `rates`, and at rates beyond them while the best is at an edge; in order of the rates."""
    done = [run(lr) for lr in rates]
    while len(done) < MOST_RATES:
        best = min(done, key=final)
        if best is done[0]:
            done.insert(0, run(beyond(best["lr"], -1)))
        elif best is done[-1]:
            done.append(run(beyond(best["lr"], 1)))
        else:
            break
    return done


def beyond(lr: float, places: int) -> float:
    """The rate so many places away in 1, 3, 10, 30, ... times a power of ten."""
    place = round(2 * math.log10(lr)) + places
    return float(f"{(1, 3)[place % 2]}e{place // 2}")


def final(run: dict[str, Any]) -> float:
    """The held-out loss at the end; infinite where it was no finite number."""
    return math.inf if run["loss"] is None else run["loss"]


def rows() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows to train on and rows held out, each with the texts `prompt` and `completion`."""
    parts: tuple[list, list] = ([], [])
    seen = set()
    for number, (module, names) in enumerate(documented()):
        for name, text in names:
            if len(text) <= LONGEST_ANSWER and text not in seen:
                seen.add(text)
                row = {"prompt": f"Q: What does {module}.{name} do?\nA:", "completion": f" {text}"}
                parts[number % 10 == 9].append(row)
    training, held_out = parts
    return training, random.Random(0).sample(held_out, NUM_HELD_OUT)


def documented() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """For each module of the standard library: its public functions and classes, with the first paragraph of each."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] not in sys.stdlib_module_names or NOT_INSTALLED_EVERYWHERE.intersection(parts):
            continue
        found = []
        for node in ast.parse(path.read_bytes()).body:
            kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            public = isinstance(node, kinds) and not node.name.startswith("_")
            if public and (text := (ast.get_docstring(node) or "").split("\n\n")[0].strip()):
                found.append((node.name, text))
        yield ".".join(part for part in parts if part != "__init__"), found


def train(
    training: list[dict[str, str]],
    held_out: list[dict[str, str]],
    optimizer: str,
    lr: float,
    seed: int,
    num_steps: int,
    batch_size: int,
    model: str = BUNDLED,
) -> float | None:
    """Train once: warm-up over a tenth of the steps, then cosine to 0, gradients clipped at 1, no weight decay.

    Returns:
        The held-out loss in nats per token of an answer; None where it is no finite number. Without steps it is that
        of the model as it was.
    """
    transformers.logging.set_verbosity_error()
    folder = resolve_model(model)
    with tempfile.TemporaryDirectory() as output:
        trainer = trl.SFTTrainer(
            transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            args=trl.SFTConfig(
                output_dir=output,
                max_steps=num_steps,
                per_device_train_batch_size=batch_size,
                per_device_eval_batch_size=batch_size,
                learning_rate=lr,
                lr_scheduler_type="cosine",
                warmup_steps=num_steps // 10,
                max_grad_norm=1.0,
                seed=seed,
                bf16=True,
                use_cpu=not torch.cuda.is_available(),
                gradient_checkpointing=False,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=datasets.Dataset.from_list(training),
            eval_dataset=datasets.Dataset.from_list(held_out),
            processing_class=transformers.AutoTokenizer.from_pretrained(folder),
        )
        use_optimizer(trainer, optimizer, **OPTIONS.get(optimizer, {}))
        if num_steps:
            trainer.train()
        loss = held_out_loss(trainer)
        return loss if math.isfinite(loss) else None


@torch.no_grad()
def held_out_loss(trainer: transformers.Trainer) -> float:
    """Mean nats per token of the held-out answers; a token counts as much as any other."""
    trainer.model.eval()
    total, count = 0.0, 0
    for batch in trainer.get_eval_dataloader():
        batch = {name: value.to(trainer.model.device) for name, value in batch.items()}
        num_tokens = (batch["labels"][:, 1:] != -100).sum().item()
        with torch.autocast(trainer.model.device.type, torch.bfloat16):
            total += trainer.model(**batch).loss.item() * num_tokens
        count += num_tokens
    return total / count


if __name__ == "__main__":
    main()
