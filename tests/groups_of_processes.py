"""Ends a server as the system ends one that has no memory left, but for what removes its shared memory."""

import contextlib
import os
import signal
from pathlib import Path


def kill_group(group: int) -> None:
    """SIGKILL to all processes of a group. Python's resource trackers end by themselves, and clean up behind them."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            in_group = os.getpgid(int(folder.name)) == group
            if in_group and b"resource_tracker" not in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)
