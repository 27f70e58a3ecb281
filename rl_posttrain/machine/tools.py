"""What the project uses on this machine: a cache folder and a C++ compiler."""

import os
import shutil
import sys
from pathlib import Path


def cache_folder() -> Path:
    """$RL_POSTTRAIN_CACHE, else rl_posttrain in the user's cache folder."""
    if "RL_POSTTRAIN_CACHE" in os.environ:
        return Path(os.environ["RL_POSTTRAIN_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rl_posttrain"


def find_compiler() -> str | None:
    """Path of the C++ compiler: $CXX, or else the one that torch.compile looks for; None where there is none."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))
