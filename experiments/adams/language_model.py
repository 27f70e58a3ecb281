"""A small Llama trained from scratch on real text: the validation loss of each optimizer, over seeds.

    python experiments/adams/language_model.py --json FILE [--optimizers adams,adamw] [--seeds 0,1,2] [--num-steps 500]
                                        [--batch-size 8] [--plot FILE.png]

The text comes with CPython: the topics of its reference (`pydoc_data.topics`) and the docstrings of its standard
library. Each paragraph is used once, and every fortieth document is held out for validation. A seed decides the initial
weights and the order of batches, the same for every optimizer. With the first seed each optimizer runs at four learning
rates, each twice the one before; with the other seeds it runs at the best of them. AdamS also runs at AdamW's best, as
its paper advises. A run that is in FILE is not made again.
"""

import argparse
import ast
import hashlib
import math
import platform
import statistics
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from kept_runs import KeptRuns

from rl_posttrain.optim import build_optimizer

NUM_TOKENS = 1024
WINDOW = 64
"""Tokens that are predicted in one sequence."""
WARMUP_SHARE = 0.1
MAX_GRAD_NORM = 1.0
NUM_LOSSES = 5
"""How often the validation loss is measured in a run."""
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}


class Contender(NamedTuple):
    """An optimizer's name in the project's table, its options, and the learning rates that are tried."""

    name: str
    options: dict[str, Any]
    grid: tuple[float, ...]


# Four rates for each, around the best of short runs with another seed.
CONTENDERS = {
    "adams": Contender("adams", {"betas": (0.9, 0.95)}, (2.5e-4, 5e-4, 1e-3, 2e-3)),
    "adamw": Contender("adamw", {"betas": (0.9, 0.95)}, (5e-4, 1e-3, 2e-3, 4e-3)),
    "adamw-999": Contender("adamw", {"betas": (0.9, 0.999)}, (5e-4, 1e-3, 2e-3, 4e-3)),
    "scale": Contender("scale", {}, (2.5e-4, 5e-4, 1e-3, 2e-3)),
    "muon": Contender("muon", {}, (1e-3, 2e-3, 4e-3, 8e-3)),
    "sgd": Contender("sgd", {}, (0.025, 0.05, 0.1, 0.2)),
    "powerstep": Contender("powerstep", {}, (2.5e-4, 5e-4, 1e-3, 2e-3)),
}


class Text(NamedTuple):
    """Token ids, (N,) int64 each, and the length of a token."""

    training: torch.Tensor
    validation: torch.Tensor
    bytes_per_token: float
    fingerprint: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optimizers", default=",".join(CONTENDERS), help="separated by commas (default: %(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="separated by commas (default: %(default)s)")
    parser.add_argument("--num-steps", type=int, default=500, help="steps of each run (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=8, help="sequences per step (default: %(default)s)")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="results; finished runs are kept")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw validation loss against steps")
    arguments = parser.parse_args()
    chosen = arguments.optimizers.split(",")
    if unknown := set(chosen) - set(CONTENDERS):
        parser.error(
            f"--optimizers={','.join(sorted(unknown))}: no such optimizer; name some of {', '.join(CONTENDERS)}"
        )
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    text = encode([*reference_topics(), *library_docstrings()])
    settings = {
        "num_steps": arguments.num_steps,
        "batch": arguments.batch_size,
        "window": WINDOW,
        "model": SIZES,
        "text": text.fingerprint,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    kept = KeptRuns(arguments.json, settings, parser)

    def run(optimizer: str, lr: float, seed: int) -> dict[str, Any]:
        given = (text, CONTENDERS[optimizer], lr, seed, arguments.num_steps, arguments.batch_size)
        return kept.run(optimizer, lr, seed, lambda: {"losses": train(*given)}, show)

    table = {}
    for optimizer in chosen:
        searched = [run(optimizer, lr, seeds[0]) for lr in CONTENDERS[optimizer].grid]
        best = min(searched, key=final)["lr"]
        table[optimizer] = [run(optimizer, best, seed) for seed in seeds]
    if {"adams", "adamw"} <= set(chosen):
        table["adams at adamw's lr"] = [run("adams", done["lr"], done["seed"]) for done in table["adamw"]]
    print_table(table, text)
    if arguments.plot:
        plot(table, arguments.plot)


def reference_topics() -> list[str]:
    """The topics of CPython's language reference, as `help()` shows them."""
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def library_docstrings() -> Iterator[str]:
    """The docstrings of the standard library, one document per module."""
    root = Path(sysconfig.get_path("stdlib"))
    # Tests, and what some installations leave out: the text must be the same with every CPython of one version.
    left_out = {"test", "tests", "idlelib", "lib2to3", "distutils", "ensurepip", "turtledemo", "pydoc_data"}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] in sys.stdlib_module_names and not left_out.intersection(parts):
            nodes = ast.walk(ast.parse(path.read_bytes()))
            kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
            yield "\n\n".join(ast.get_docstring(node) or "" for node in nodes if isinstance(node, kinds))


def encode(documents: list[str], held_out_every: int = 40) -> Text:
    """Split documents into training and validation text, and both into tokens of a BPE learned on the training text.

    A paragraph that came before is left out: the reference repeats itself, and the validation text must be new.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    seen = set()
    parts = {"training": [], "validation": []}
    for number, document in enumerate(documents):
        paragraphs = [part.strip("\n") for part in document.split("\n\n")]
        fresh = [part for part in dict.fromkeys(paragraphs) if part.strip() and part not in seen]
        seen.update(fresh)
        parts["validation" if number % held_out_every == held_out_every - 1 else "training"] += fresh
    texts = {name: "\n\n".join(part) for name, part in parts.items()}
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learned = trainers.BpeTrainer(vocab_size=NUM_TOKENS, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([texts["training"]], learned)
    ids = {name: torch.tensor(tokenizer.encode(part).ids) for name, part in texts.items()}
    return Text(
        **ids,
        bytes_per_token=len(texts["validation"].encode()) / len(ids["validation"]),
        fingerprint=hashlib.sha256(torch.cat([*ids.values()]).numpy().tobytes()).hexdigest()[:16],
    )


def unigram_loss(text: Text) -> float:
    """Validation loss, nats per token, if each token is predicted by its frequency in the training text alone."""
    counts = torch.bincount(text.training, minlength=NUM_TOKENS) + 1.0
    return -(counts / counts.sum()).log()[text.validation].mean().item()


def train(
    text: Text,
    contender: Contender,
    lr: float,
    seed: int,
    num_steps: int,
    batch_size: int = 8,
    sizes: dict[str, int] = SIZES,
) -> dict[str, float | None]:
    """Train a new model: linear warm-up, cosine to a tenth of `lr`, no weight decay.

    Weight decay would not be the same for all: torch's SGD adds it to the gradient, the others shrink the weights.

    Returns:
        Validation loss, nats per token, by step; None where it is no finite number.
    """
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(vocab_size=NUM_TOKENS, tie_word_embeddings=False, **sizes)
    model = transformers.LlamaForCausalLM(config)
    optimizer = build_optimizer(model, contender.name, lr=lr, **contender.options)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(step, num_steps))
    order = torch.Generator().manual_seed(seed)
    losses = {}
    for step in range(1, num_steps + 1):
        starts = torch.randint(len(text.training) - WINDOW, (batch_size, 1), generator=order)
        batch = text.training[starts + torch.arange(WINDOW + 1)]
        model(input_ids=batch, labels=batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % max(1, num_steps // NUM_LOSSES) == 0 or step == num_steps:
            loss = validation_loss(model, text.validation)
            losses[str(step)] = loss if math.isfinite(loss) else None
    return losses


def lr_factor(step: int, num_steps: int) -> float:
    num_warmup = WARMUP_SHARE * num_steps
    if step < num_warmup:
        return (step + 1) / num_warmup
    return 0.55 + 0.45 * math.cos(math.pi * (step - num_warmup) / (num_steps - num_warmup))


@torch.no_grad()
def validation_loss(model: torch.nn.Module, ids: torch.Tensor) -> float:
    """Mean nats per token of `ids`, (N,), in adjacent windows, so that each token but the first is predicted once."""
    windows = ids.unfold(0, WINDOW + 1, WINDOW)
    return sum(model(input_ids=part, labels=part).loss.item() * len(part) for part in windows.split(16)) / len(windows)


def final(run: dict[str, Any]) -> float:
    """The loss after the last step; infinite if it was no finite number."""
    return curve(run)[-1]


def curve(run: dict[str, Any]) -> list[float]:
    return [math.inf if loss is None else loss for loss in run["losses"].values()]


def show(losses: dict[str, float | None]) -> str:
    return "  ".join("not finite" if loss is None else f"{loss:.4f}" for loss in losses.values())


def print_table(table: dict[str, list[dict[str, Any]]], text: Text) -> None:
    num_training, num_held_out = len(text.training), len(text.validation)
    print(f"\n{num_training} training tokens, {num_held_out} validation tokens, {text.bytes_per_token:.2f} bytes each")
    print(f"predicted by token frequency alone: {unigram_loss(text):.4f} nats per token")
    print(f"{'':20s}{'lr':>9s}{'mean':>9s}{'std':>8s}{'bits/byte':>11s}   each seed; minus AdamW's")
    for name, runs in table.items():
        losses = [final(run) for run in runs]
        mean = statistics.mean(losses)
        spread = statistics.stdev(losses) if len(losses) > 1 and mean < math.inf else math.nan
        bits_per_byte = mean / math.log(2) / text.bytes_per_token
        line = f"{name:20s}{runs[0]['lr']:9.3g}{mean:9.4f}{spread:8.4f}{bits_per_byte:11.4f}   "
        line += " ".join(f"{loss:.4f}" for loss in losses)
        if "adamw" in table:
            beside = zip(losses, map(final, table["adamw"]), strict=True)
            line += "; " + " ".join(f"{loss - other:+.4f}" for loss, other in beside)
        print(line)


def plot(table: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Validation loss against steps: the mean of the seeds, and a band from the lowest to the highest."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for name, runs in table.items():
        steps = [int(step) for step in runs[0]["losses"]]
        losses = list(zip(*map(curve, runs), strict=True))
        axes.plot(steps, list(map(statistics.mean, losses)), label=f"{name} ({runs[0]['lr']:g})")
        axes.fill_between(steps, list(map(min, losses)), list(map(max, losses)), alpha=0.2)
    axes.set(xlabel="step", ylabel="validation loss, nats per token")
    figure.legend(title="optimizer (lr)", loc="outside right upper")
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
