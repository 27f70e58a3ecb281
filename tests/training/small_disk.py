"""Trains on disks of a few megabytes: `small_disk.py FOLDER RESULTS SIZES ARGUMENTS...`, SIZES in bytes.

FOLDER becomes a file system in memory that this process alone sees. RESULTS gets, for each size, the status and the
output of a run with so little room, and of the run that goes on when there is more, and a copy of its folder beside it.
"""

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

_CLONE_NEWNS, _CLONE_NEWUSER, _MS_PRIVATE, _MS_REC = 0x20000, 0x10000000, 1 << 18, 1 << 14
ENOUGH = 2**28
NO_MOUNTS = "this system gives a process no mounts of its own"


def own_mounts() -> None:
    """Leave the mounts of the other processes."""
    libc, (user, group) = ctypes.CDLL(None, use_errno=True), (os.getuid(), os.getgid())
    if libc.unshare(_CLONE_NEWNS):
        if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNS):
            sys.exit(NO_MOUNTS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)


@contextlib.contextmanager
def output_in(file: Path):
    """All that this process and its threads print."""
    kept = os.dup(1), os.dup(2)
    with file.open("w") as opened:
        os.dup2(opened.fileno(), 1), os.dup2(opened.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os.dup2(kept[0], 1), os.dup2(kept[1], 2)


def run(arguments: list[str], output: Path) -> tuple[int, str]:
    from rl_posttrain.cli.main import main

    sys.argv = ["rl-posttrain", "train", *arguments]
    status = 0
    with output_in(output):
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
    return status, output.read_text(errors="replace")


def main(folder: Path, results: Path, sizes: list[int], arguments: list[str]) -> None:
    own_mounts()
    found = {}
    for size in sizes:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        here = [*arguments, f"run.output_dir={folder}", f"run.name=on-{size}"]
        small = run(here, results.with_suffix(".txt"))
        subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", folder], check=True)
        found[size] = (
            small,
            run([*here, *(["--resume"] if (folder / f"on-{size}").exists() else [])], results.with_suffix(".txt")),
        )
        shutil.copytree(folder, results.parent / "runs", dirs_exist_ok=True)
        subprocess.run(["umount", "-l", folder], check=True)
    results.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:])
