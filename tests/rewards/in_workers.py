"""What the workers of test_workers.py run; they import this module by its name."""

import ctypes
import os
import subprocess
import time
from pathlib import Path


def echo(value):
    return [value, os.getpid()]


def meet(folder, pair, own):
    """Returns once the other call of the pair has begun, too."""
    Path(folder, f"{pair}-{own}").touch()
    while not Path(folder, f"{pair}-{1 - own}").exists():
        time.sleep(0.001)
    return os.getpid()


held = []  # what earlier calls of this process left behind


def hold(value, how=""):
    """Leaves something behind, and says what calls before have left."""
    before = list(held)
    held.append(value)
    misbehave(how)
    return before


def misbehave(how, value=None):
    if how == "raise":
        raise KeyError("two\nlines")
    if how == "crash":
        ctypes.string_at(0)
    if how == "exit":
        os._exit(3)
    if how == "spin":  # in C, without an end
        if value:
            Path(value).touch()
        return 9 ** (9 * 9**9)
    if how == "swallow":  # no exception ends it
        while True:
            try:
                time.sleep(60)
            except BaseException:
                continue
    if how == "loop":  # in Python, without an end
        while True:
            pass
    if how == "sleep":
        time.sleep(600)
    if how == "allocate":
        return len(bytearray(2**31))
    if how == "print":
        print("not a reply")
    if how == "child":
        return subprocess.Popen(["sleep", "300"]).pid
    return object() if how == "object" else value
