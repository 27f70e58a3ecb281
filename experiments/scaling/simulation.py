"""What several servers and staleness bring where completions have a long tail: a simulation of 8 and of 256 GPUs.

    python experiments/scaling/simulation.py [--steps 30] [--seed 0] [--plot FILE.svg]

Qwen2.5-7B's shapes on H100s by the cost model of rl_posttrain/cost, which was not checked on such machines. All
devices in turn (colocated) are set beside splits into trainers and engines at staleness 0, 1, 2 and 4, each at its best
split. Updates are padded to a step's longest completion, as the project's are, or packed without padding.
Prints tables as Markdown.
"""

import argparse
import random
from pathlib import Path

from rl_posttrain.cost.devices import DEVICES, published_speeds
from rl_posttrain.cost.links import Devices, update_traffic, update_traffic_s
from rl_posttrain.cost.model_shape import ModelShape
from rl_posttrain.cost.simulation import Lengths, Plan, Result, simulate
from rl_posttrain.cost.step import optimizer_s, passes_s, token_step_s, training_flops
from rl_posttrain.models.shapes import PUBLISHED_SHAPES
from rl_posttrain.runs.picture import write_figure

_SHAPE = PUBLISHED_SHAPES["Qwen/Qwen2.5-7B"]
MODEL = ModelShape(
    layers=_SHAPE["num_hidden_layers"],
    hidden=_SHAPE["hidden_size"],
    intermediate=_SHAPE["intermediate_size"],
    heads=_SHAPE["num_attention_heads"],
    key_value_heads=_SHAPE["num_key_value_heads"],
    head_size=_SHAPE["hidden_size"] // _SHAPE["num_attention_heads"],
    vocabulary=_SHAPE["vocab_size"],
    tensors=339,
    num_parameters=7_615_616_512,
)
PROMPT, LIMIT = 200, 8192
# Median 500 and 99 % below 5,000 tokens is what a public lesson on long-tail rollouts calls typical of reasoning runs
# (jiahuanglin.xyz/all_lessons/RL, 22b): a lognormal of spread 0.99. The other two have the same median and less tail.
SPREADS = {"no tail": 0.0, "half the tail": 0.5, "long tail": 0.99}
SIZES = {8: 1024, 256: 8192}  # GPUs: completions a step
STALENESS = (0, 1, 2, 4)
MICRO_BATCH = 4
SPEEDS = published_speeds(DEVICES["h100"])
KV_TOKEN_BYTES = 2 * 2 * MODEL.layers * MODEL.key_value_heads * MODEL.head_size  # keys and values in bf16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="a figure of the rows with packed updates")
    arguments = parser.parse_args()
    rows = []
    for gpus, completions in SIZES.items():
        for name, sigma in SPREADS.items():
            lengths = Lengths(median=500, sigma=sigma, most=LIMIT)
            drawn = random.Random(arguments.seed)
            batches = [[lengths.draw(drawn) for _ in range(completions)] for _ in range(arguments.steps)]
            mean = sum(map(sum, batches)) / arguments.steps / completions
            for padded in (True, False):
                update = sum(map(max, batches)) / len(batches) if padded else mean
                rows.append(
                    (gpus, name + (", padded" if padded else ", packed"), mean, best_plans(gpus, batches, update))
                )
                print(line(*rows[-1]), flush=True)
    print(table(rows), end="")
    if arguments.plot:
        draw(rows, arguments.plot)


def best_plans(gpus: int, batches: list[list[int]], trained: float) -> dict[str, tuple[int, Result]]:
    """For each way to work the number of trainer GPUs that makes steps shortest, and what comes out.

    Args:
        trained: tokens of a completion that an update goes through.
    """
    colocated = simulate(plan(gpus, gpus, batches, trained, None), batches, pace)
    found = {"colocated": (gpus, colocated)}
    # At least two GPUs for the weights, masters and state of the trainer.
    shares = sorted({max(2, round(gpus * eighths / 8)) for eighths in (1, 2, 3, 4, 5, 6, 7)})
    for staleness in STALENESS:
        for together in (True, False) if staleness else (True,):
            tried = [
                (
                    trainers,
                    simulate(plan(trainers, gpus - trainers, batches, trained, staleness, together), batches, pace),
                )
                for trainers in shares
            ]
            name = f"staleness {staleness}" + ("" if together else ", engines apart")
            found[name] = min(tried, key=lambda one: one[1].step_s)
    return found


def plan(
    trainers: int, engines: int, batches: list[list[int]], trained: float, staleness: int | None, together: bool = True
) -> Plan:
    """The plan of that split."""
    weights_bytes = 2 * MODEL.num_parameters
    sends_s = 0.0 if staleness is None else weights_bytes / SPEEDS.network_bytes_per_s
    takes_s = 2 * weights_bytes / SPEEDS.memory_bytes_per_s + MODEL.tensors * SPEEDS.tensor_s
    # Beside the trainer an engine has three tenths of the card, on its own nine tenths of it.
    share = 0.3 if staleness is None else 0.9
    kv_bytes = share * DEVICES["h100"].memory_bytes - weights_bytes
    tokens = PROMPT + sum(map(sum, batches)) / sum(map(len, batches))
    return Plan(
        engines=engines,
        at_once=max(1, int(kv_bytes / KV_TOKEN_BYTES / tokens)),
        update_s=update_s(trainers, len(batches[0]), trained),
        sync_s=sends_s + takes_s,
        max_staleness=staleness,
        together=together,
    )


def update_s(trainers: int, completions: int, trained: float) -> float:
    """Seconds of an update on so many GPUs under ZeRO-3 with gradient checkpointing: passes, links, optimizer."""
    mine = completions / trainers
    length = PROMPT + trained
    flops = training_flops(MODEL, tokens=mine * length, context=length, scored=mine * trained, recomputes=True)
    micro_batches = max(1, round(mine / MICRO_BATCH))
    passes = passes_s(
        flops,
        passes=4 * micro_batches,
        layers=MODEL.layers,
        flops_per_s=SPEEDS.training_flops_per_s,
        layer_s=SPEEDS.layer_s,
    )
    size = 2.0 * MODEL.num_parameters
    devices = Devices(trainers, nodes=max(1, trainers // 8))
    traffic = update_traffic(3, micro_batches=micro_batches)
    links = update_traffic_s(traffic, weights_bytes=size, gradients_bytes=size, devices=devices, speeds=SPEEDS)
    values = MODEL.num_parameters / trainers
    steps = optimizer_s(
        values=values, state_bytes=8 * values, weight_width=2, gradient_width=2, bytes_per_s=SPEEDS.memory_bytes_per_s
    )
    return passes + links + steps + SPEEDS.step_s


def pace(sequences: int) -> float:
    """Seconds of a token step of one engine on one GPU; contexts are taken at 700 tokens throughout."""
    return token_step_s(MODEL, sequences, context=700, width=2, kv_token_bytes=KV_TOKEN_BYTES, devices=1, speeds=SPEEDS)


def line(gpus: int, name: str, mean: float, found: dict[str, tuple[int, Result]]) -> str:
    """One row of the table: seconds a step, and the split, for each way."""
    base = found["colocated"][1].step_s
    cells = [f"{gpus}", name, f"{mean:,.0f}"]
    for way, (trainers, result) in found.items():
        split = "" if way == "colocated" else f" ({trainers} train; {base / result.step_s:.2f}x)"
        cells.append(f"{result.step_s:.1f}{split}")
    return "| " + " | ".join(cells) + " |"


def table(rows: list[tuple[int, str, float, dict[str, tuple[int, Result]]]]) -> str:
    ways = list(rows[0][3])
    head = ["GPUs", "lengths", "mean tokens", *ways]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += [line(*row) for row in rows]
    shares = [
        f"| {gpus} | {way} | {trainers} | {result.trainer_busy:.0%} | {result.engines_busy:.0%} "
        f"| {result.staleness:.2f} |"
        for gpus, name, _, found in rows
        if name == "long tail, packed"
        for way, (trainers, result) in found.items()
    ]
    head = (
        "| GPUs | way | trainers | trainer at work | engines at work | updates behind, mean |\n" + "| --- " * 6 + "|\n"
    )
    return "\n".join(lines) + "\n\n" + head + "\n".join(shares) + "\n"


def draw(rows: list[tuple[int, str, float, dict[str, tuple[int, Result]]]], path: Path) -> None:
    """Bars of steps an hour against colocated, for each way and tail, of packed updates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    panels = figure.subplots(1, len(SIZES), sharey=True)
    for axes, gpus in zip(panels, SIZES, strict=True):
        mine = [row for row in rows if row[0] == gpus and row[1].endswith("packed")]
        ways = [way for way in mine[0][3] if way != "colocated"]
        for place, (_, name, _, found) in enumerate(mine):
            ratios = [found["colocated"][1].step_s / found[way][1].step_s for way in ways]
            axes.bar([index + 0.27 * (place - 1) for index in range(len(ways))], ratios, width=0.25, label=name)
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set_xticks(
            range(len(ways)), [way.replace(", ", "\n").replace("staleness ", "n = ") for way in ways], fontsize=7
        )
        axes.set_title(f"{gpus} GPUs, {SIZES[gpus]:,} completions a step", fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("steps an hour / colocated")
    panels[0].legend(frameon=False, fontsize=8)
    write_figure(figure, path)


if __name__ == "__main__":
    main()
