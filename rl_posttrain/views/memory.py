"""The memory of a model under several optimizers: a table for people, and bars as a PNG."""

from pathlib import Path
from typing import Any

from rl_posttrain.cost.memory import gib
from rl_posttrain.runs.picture import COLOURS, write_figure


def print_memory(result: dict[str, Any]) -> None:
    """Print a table in GiB per device, with each total divided by adamw's.

    Args:
        result: as `rl_posttrain.cost.memory.memory_of` gives it.
    """
    from rich.console import Console
    from rich.table import Table

    engine = _engine(result["zero_stage"]) + _offload(result)
    devices = f"{result['num_processes']} device{'s' * (result['num_processes'] > 1)}"
    has_critic = "num_critic_parameters" in result
    added = f" and {result['num_critic_parameters']:,} of a critic" if has_critic else ""
    if "num_adapter_parameters" in result:
        added += f" and {result['num_adapter_parameters']:,} of adapters, rank {result['lora_rank']}"
        added += f", the rest in 4 bits ({result['quantize']})" if result["quantize"] else ""
    title = f"{result['model']}: {result['num_parameters']:,} parameters{added}, {result['dtype']}, {engine}, {devices}"
    table = Table(title=title, title_justify="left", box=None, caption_justify="left")
    table.caption = "GiB on each device" + _where(result)
    table.caption += "; w+s: weights and state alone"
    table.caption += "; critic: what it adds" if has_critic else ""
    table.add_column("optimizer", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in ("weights", "gradients", "masters", "state", "total", "/ adamw", "w+s / adamw"):
        table.add_column(name, justify="right", no_wrap=True)
    sizes = ("weights", "gradients", "masters", "optimizer_state", "total")
    notes = []
    for row in result["rows"]:
        for kind in ("predicted", "measured"):
            ledger = row[kind]
            if ledger is not None:
                cells = [gib(ledger[name]) for name in sizes]
                ratios = [ledger["ratio"], ledger["ratio_of_weights_and_state"]]
                table.add_row(row["optimizer"], kind, *cells, *("" if r is None else f"{r:.3f}" for r in ratios))
                for part, held in ledger.get("parts", {}).items():
                    table.add_row(f"  {part}", "", *(gib(held[name]) for name in sizes))
        if row["difference"] is not None:
            notes.append(f"{row['optimizer']}: measured and predicted differ by {abs(row['difference']):.2%}")
        elif row["predicted"]["unknown"]:
            reason = row["predicted"]["unknown"]
            notes.append(f"{row['optimizer']}: its state cannot be predicted ({reason}); --measure counts it")
    # In a narrow terminal lines wrap; a table that is cut off would lose numbers that programs read.
    console = Console(highlight=False, width=max(Console().width, 110))
    console.print(table)
    for note in notes:
        console.print(f"- {note}", markup=False, soft_wrap=True)


def plot_memory(result: dict, path: Path) -> None:
    """A bar for each optimizer: weights, gradients, master weights and optimizer state, in GiB per device.

    Measured bars are hatched, below the predicted ones. What is not known is left out.

    Args:
        result: as `rl_posttrain.cost.memory.memory_of` gives it.
        path: the PNG. At any moment it has its old content or all of the new one.
    """
    from matplotlib.figure import Figure

    bars = [
        (f"{row['optimizer']}, {kind}" if row["measured"] else row["optimizer"], kind, row[kind])
        for row in result["rows"]
        for kind in ("predicted", "measured")
        if row[kind]
    ]
    figure = Figure(figsize=(6.4, 1.2 + 0.34 * len(bars)), layout="constrained")
    axes = figure.subplots()
    for place, (_, kind, ledger) in enumerate(bars):
        left = 0.0
        for colour, name in zip(COLOURS, ("weights", "gradients", "masters", "optimizer_state"), strict=False):
            width = (ledger[name] or 0) / 2**30
            axes.barh(
                place,
                width,
                left=left,
                color=tuple(part / 255 for part in colour),
                edgecolor="white",
                hatch="//" if kind == "measured" else None,
                label=name.replace("_", " ") if place == 0 else None,
            )
            left += width
        if ledger["total"] is not None:
            axes.text(left, place, f" {left:.3g} GiB, {ledger['ratio']:.3f} of adamw", va="center", fontsize=8)
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars])
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_xlabel("GiB on each device" + ("" if result["offload"] == "none" else " and its host"))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8)
    devices = f"{result['num_processes']} device{'s' * (result['num_processes'] > 1)}"
    stage = _engine(result["zero_stage"])
    added = " with a critic" if "num_critic_parameters" in result else ""
    if result.get("lora_rank"):
        added = f", LoRA of rank {result['lora_rank']}" + (f" on {result['quantize']}" if result["quantize"] else "")
    figure.suptitle(f"{result['model']}{added}, {result['dtype']}, {stage}{_offload(result)}, {devices}")
    write_figure(figure, path)


def _engine(zero_stage: int | str | None) -> str:
    return {None: "plain PyTorch", "fsdp2": "FSDP2"}.get(zero_stage, f"ZeRO-{zero_stage}")


def _where(result: dict[str, Any]) -> str:
    where = {"none": "", "optimizer": ", weights there and the rest on its host", "parameters": ", all on its host"}
    return where[result["offload"]]


def _offload(result: dict[str, Any]) -> str:
    return "" if result["offload"] == "none" else f" with offload of {result['offload']}"
