"""What `rl-posttrain check` prints: the recipe as YAML, then tables."""

from typing import Any

# What the lines of memory and seconds are, where the name does not say it.
_MEMORY = {
    "masters": "fp32 weights that the optimizer updates",
    "reference_model": "for the KL penalty",
    "rollout_weights": "the rollout engine's copy",
    "kv_cache": "of the rollout engine",
    "gathered_weights": "whole layers, put together from all devices",
    "activations": "of one micro batch, for its backward pass",
    "logits": "what the output layer holds at that moment",
}
_SECONDS = {
    "rollout": "completions are sampled",
    "logprobs": "forward passes before the first update",
    "update": "forward and backward passes",
    "links": "gradients and weights sent between devices",
    "optimizer": "its own step",
    "sync": "new weights for the rollout engine",
    "other": "all that does not depend on sizes",
    "step": "the whole step; rewards, evaluation and checkpoints come on top",
}


def print_check(result: dict[str, Any]) -> None:
    """Print the recipe as YAML, then tables, then notes.

    Args:
        result: as `rl_posttrain.cost.check.check_recipe` gives it.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print("# the whole recipe", style="bold")
    console.print(result["recipe"], markup=False)
    if result["task"] is not None:
        _print_task(console, result["task"])
    sizes = Table(title="derived sizes", title_justify="left", box=None, show_header=False)
    for name, value in result["sizes"].items():
        sizes.add_row(name.replace("_", " "), f"{value:,}")
    console.print(sizes)
    console.print()
    if result["optimizer_groups"] is not None:
        groups = Table(title="optimizer groups", title_justify="left", box=None)
        for name in ("roles", "parameters", "lr", "weight decay"):
            groups.add_column(name, justify="left" if name == "roles" else "right")
        for group in result["optimizer_groups"]:
            roles, count = ", ".join(group["roles"]), f"{group['num_parameters']:,}"
            whose = f"{group['part']}: " if "part" in group else ""
            groups.add_row(whose + roles, count, f"{group['lr']:g}", f"{group['weight_decay']:g}")
        console.print(groups)
        console.print()
    if result["memory_bytes"] is not None:
        memory = Table(title="predicted memory on each device", title_justify="left", box=None, show_header=False)
        for name, value in result["memory_bytes"].items():
            shown = "unknown" if value is None else f"{value / 2**30:8.2f} GiB"
            memory.add_row(name.replace("_", " "), shown, _MEMORY.get(name.removeprefix("critic_"), ""))
        console.print(memory)
        console.print()
    if result["step"] is not None:
        _print_step(console, result["step"], result["memory_bytes"]["total"])
    for note in result["notes"]:
        console.print(f"- {note}", markup=False)


def _print_task(console: Any, task: dict[str, Any]) -> None:
    """How many rows there are, and one prompt with its gold."""
    from rl_posttrain.views.text import printable

    template = f", template {task['template']}" if task["template"] else ""
    rows = f"{task['num_train']:,} rows to train on, {task['num_eval']:,} to evaluate on"
    console.print(f"task {task['name']}{template}: {rows}", markup=False)
    if task["golds"]:
        console.print(f"golds by kind: {', '.join(map(_counted, task['golds']))}", markup=False)
    for note in task["notes"]:
        console.print(f"- {note}", markup=False)
    prompt, tokens = task["prompt"], ""
    if not isinstance(prompt, str):
        prompt = "\n".join(f"{message['role']}: {message['content']}" for message in prompt)
    if task["prompt_tokens"] is not None:
        tokens = f", as the model gets it ({task['prompt_tokens']} tokens)"
    console.print(f"\nits first prompt{tokens}")
    for line in prompt.split("\n"):
        console.print(f"  | {printable(line)}", markup=False)
    console.print(f"its gold: {printable(str(task['answer']))}\n", markup=False)


def _print_step(console: Any, step: dict[str, Any], total: int | None) -> None:
    """Whether it fits, how many sequences are sampled at once, and seconds by phase."""
    from rich.table import Table

    tokens = step["tokens"]
    where = step["device"]
    if step["memory_bytes"] is not None:  # a named device
        where += f", {step['nodes']} node{'s' * (step['nodes'] > 1)}"
    console.print(f"predicted seconds of a step on {where}", style="italic")
    seconds = Table(box=None, show_header=False)
    for name, value in step["seconds"].items():
        seconds.add_row(name, f"{value:10.2f} s", _SECONDS[name])
    console.print(seconds)
    lengths = f"{tokens['mean_new']:g} in the mean and {tokens['longest_new']} at most"
    if tokens["mean_new"] == tokens["longest_new"]:
        lengths = f"{tokens['longest_new']} each, as no --mean-new-tokens is given"
    console.print(
        f"- taken: prompts of {tokens['prompt']} tokens, completions of {lengths}; each rollout engine has "
        f"{step['sequences_at_once']:,} completions in work at once",
        markup=False,
    )
    if step["memory_bytes"] is not None and total is not None:
        fits = "fits into" if total <= step["memory_bytes"] else "does NOT fit into"
        console.print(
            f"- {total / 2**30:.1f} GiB of predicted memory {fits} the {step['memory_bytes'] / 2**30:.1f} GiB of one "
            "device; CUDA, NCCL and DeepSpeed's buckets take 2 to 4 GiB more",
            markup=False,
        )


def _counted(kind: dict[str, Any]) -> str:
    """One kind of golds and its rows, such as "word 12 (3 not paid)"."""
    failing = [
        f"{kind[name]:,} {said}" for name, said in (("num_unread", "unread"), ("num_unpaid", "not paid")) if kind[name]
    ]
    return f"{kind['kind']} {kind['num_golds']:,}" + (f" ({', '.join(failing)})" if failing else "")
