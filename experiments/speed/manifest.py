"""What the manifest of a checkpoint costs: its bytes, and seconds to make it, to check it, and to sync the files.

    python experiments/speed/manifest.py runs/quickstart-1/checkpoints/checkpoint-30

The checkpoint is copied beside itself first, so that its bytes are as fresh in memory as those of one just written.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rl_posttrain.runs.manifest import MANIFEST_FILE, find_damage, fsync, write_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    checkpoint = parser.parse_args().checkpoint
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
        copy = Path(folder, checkpoint.name)
        seconds = {"copy the files": timed(lambda: shutil.copytree(checkpoint, copy))}
        files = [path for path in copy.rglob("*") if path.is_file() and path.name != MANIFEST_FILE]
        seconds["bring them to the disk"] = timed(lambda: [fsync(path) for path in files])
        seconds["make the manifest"] = timed(lambda: write_manifest(copy))
        seconds["check it"] = timed(lambda: print(f"damage: {find_damage(copy)}"))
        num_bytes, size = sum(path.stat().st_size for path in files), (copy / MANIFEST_FILE).stat().st_size
    print(f"{num_bytes / 1e6:.0f} MB, manifest {size} bytes, {size / num_bytes:.1e} of it")
    for name, value in seconds.items():
        print(f"{name:<24}{value:6.2f} s {num_bytes / 1e6 / value:8.0f} MB/s")


def timed(do: Callable[[], object]) -> float:
    """Seconds that `do` takes."""
    started = time.perf_counter()
    do()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
