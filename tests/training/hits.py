"""A run that is hit by a signal, or an error, when it calls a function for the nth time; and what such runs leave."""

from pathlib import Path

# Sends this process a signal when a function is called for the nth time, and goes on with the function; at number 0 the
# function fails. With several processes only that of HIT_RANK is hit.
HIT = """
import os, signal, sys
module, names, nth, number = sys.argv[1], sys.argv[2].split("."), int(sys.argv[3]), int(sys.argv[4])
sys.argv = ["rl-posttrain", *sys.argv[5:]]
import importlib
owner = importlib.import_module(module)
for name in names[:-1]:
    owner = getattr(owner, name)
original, calls = getattr(owner, names[-1]), []
def hit(*arguments, **options):
    calls.append(None)
    if len(calls) == nth and os.environ.get("HIT_RANK", "0") == os.environ.get("RANK", "0"):
        if number == 0:
            raise RuntimeError("hit")
        os.kill(os.getpid(), number)
    return original(*arguments, **options)
setattr(owner, names[-1], hit)
from rl_posttrain.cli.main import main
main()
"""


def runs_folder(recipe: Path) -> Path:
    return recipe.parent / "runs"


def without_costs(rows: list[dict]) -> list[dict]:
    """Rows without what the machine and not the run decides: seconds and peak memory."""
    costs = ("seconds", "time/", "peak_memory_bytes")
    return [{key: row[key] for key in row if not key.startswith(costs)} for row in rows]


def state_files(checkpoint: Path) -> dict[str, bytes]:
    """What training goes on from: weights, optimizer, schedule, random state."""
    found = {str(file.relative_to(checkpoint)): file for file in checkpoint.rglob("*") if file.is_file()}
    # The rest holds seconds, and how often this run was told to write checkpoints.
    left_out = ("complete", "metrics.jsonl", "rows.jsonl", "trainer_state.json", "training_args.bin")
    return {name: file.read_bytes() for name, file in found.items() if Path(name).name not in left_out}
