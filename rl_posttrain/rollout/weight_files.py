"""Weights on their way to servers as files: written by the trainer, read by each server, then removed.

Every file says which weights it holds, so that a file of another step, or of another run, is never taken for them.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

# Weights are written in files of about this size, so that no copy of the whole model stands in memory beside them.
_BYTES_A_FILE = 2**30
_VERSION = "rl_posttrain_version"


def default_folder() -> Path:
    """Memory that all processes of this host share, where there is such; else the folder of temporary files."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


@contextlib.contextmanager
def folder_of_run(parent: Path, run: str) -> Iterator[Path]:
    """A folder for a run's weights, removed at the end; what a killed process of the same run left goes first."""
    folder = parent / f"rl_posttrain-{run}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_files(
    folder: Path, weights: Iterable[tuple[str, torch.Tensor]], version: str, dtype: torch.dtype
) -> list[Path]:
    """Write weights to files, those of floating point in `dtype`; `weights` is walked to its end.

    Returns:
        The files, in order.

    Raises:
        OSError: the folder does not take them.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    paths: list[Path] = []
    held: dict[str, torch.Tensor] = {}

    def write() -> None:
        paths.append(folder / f"{version}-{len(paths):05}.safetensors")
        try:
            save_file(held, paths[-1], metadata={_VERSION: version})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        held.clear()

    size = 0
    for name, tensor in weights:
        # A copy: the trainer may change or free the tensor, and two names may share one.
        wanted = dtype if tensor.is_floating_point() else tensor.dtype
        held[name] = tensor.detach().to("cpu", wanted, copy=True).contiguous()
        size += held[name].nbytes
        if size >= _BYTES_A_FILE:
            write()
            size = 0
    if held:
        write()
    return paths


def read_files(paths: Iterable[str], version: str) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights of files that were written for `version`.

    Raises:
        ValueError: a file holds other weights.
    """
    from safetensors import safe_open

    for path in paths:
        with safe_open(path, framework="pt") as file:
            if (said := (file.metadata() or {}).get(_VERSION)) != version:
                raise ValueError(f"{path} holds the weights of version {said}, not of {version}")
            for name in file.keys():  # noqa: SIM118  no mapping
                yield name, file.get_tensor(name)


def write_word(folder: Path, word: str) -> Path:
    """A small file, by which a server finds out whether it sees this folder."""
    path = folder / "word"
    path.write_text(word)
    return path


def readable(path: str, word: str) -> bool:
    """Whether a file of `write_word` can be read here, and is the one that was written."""
    try:
        return Path(path).read_text() == word
    except OSError:
        return False
