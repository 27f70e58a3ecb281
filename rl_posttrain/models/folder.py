"""A model in a folder, as transformers saves it: which files are its own, whether they are whole, copies of them."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from rl_posttrain.errors import RunError, one_line
from rl_posttrain.runs.directory import CRITIC_FILE
from rl_posttrain.runs.files import read_json_object
from rl_posttrain.runs.manifest import find_damage

DTYPES = {"bfloat16": "BF16", "float32": "F32"}
"""What a model in a folder can have, and what safetensors calls it."""
CRITIC_PREFIX = "critic."  # of the critic's weights in the policy's module
_WEIGHTS = "model.safetensors"
# The files that save_pretrained writes for a model and its tokenizer; code, where a model has its own.
_MODEL_FILES = {".safetensors", ".json", ".jinja", ".model", ".txt", ".py"}
# The last two are scripts that DeepSpeed puts into a checkpoint.
_NOT_THE_MODEL = {"trainer_state.json", CRITIC_FILE, "zero_to_fp32.py", "zero_to_torch.py"}


def check_model(folder: Path) -> str:
    """The dtype of the weights in a folder of transformers: ``bfloat16`` or ``float32``.

    Reads the headers of the weights, not all of their bytes.

    Raises:
        RunError: a file is missing, is not what its name says, or was cut.
    """
    config = required_json(folder / "config.json")
    if "model_type" not in config:
        raise RunError(f"{folder / 'config.json'}: it names no model_type; the file is damaged")
    for name in ("tokenizer_config.json", "generation_config.json"):
        required_json(folder / name)
    found = set()
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="np") as weights:
                found |= {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise RunError(f"{file}: its weights cannot be read ({one_line(error)}); the file is damaged") from error
    # A model may keep a few weights in fp32 beside its bf16 ones.
    names = [name for name, theirs in DTYPES.items() if theirs in found]
    if not names:
        raise RunError(
            f"{folder}: its weights are {', '.join(sorted(found)) or 'none'}, not bf16 or fp32; it is damaged"
        )
    return names[0]


def check_checkpoint(folder: Path, *, masters: bool = False, fix: str) -> None:
    """Compare the model in a checkpoint with the checkpoint's manifest. Any other folder is taken as it is.

    Args:
        masters: compare all files, since the masters are in the shards.
        fix: what the user can do about a damaged one.

    Raises:
        RunError: a file is missing, is not one of the checkpoint's, or was changed.
    """
    if not folder.name.startswith("checkpoint-"):
        return
    damage = find_damage(folder, lambda name: masters or is_the_models(name))
    if damage is not None:
        raise RunError(f"{folder}: {damage}; the checkpoint is damaged, {fix}")


@contextlib.contextmanager
def absent_on_errors(to: Path) -> Iterator[Path]:
    """A folder beside `to` to write into, which is removed unless it was renamed."""
    temporary = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_model(source: Path, folder: Path, *, weights: bool) -> None:
    """Copy a model, its tokenizer, and its weights or not."""
    for file in source.iterdir():
        if file.is_file() and is_the_models(file.name) and (weights or ".safetensors" not in file.name):
            shutil.copyfile(file, folder / file.name)


def is_the_models(name: str) -> bool:
    """Whether a file, by its path in a checkpoint, belongs to the model or its tokenizer."""
    return "/" not in name and Path(name).suffix in _MODEL_FILES and name not in _NOT_THE_MODEL


def weight_files(folder: Path) -> list[Path]:
    """The weights: one file, or those that an index names."""
    index = folder / f"{_WEIGHTS}.index.json"
    if not index.is_file():
        return [folder / _WEIGHTS]
    return [folder / name for name in sorted(set(required_json(index).get("weight_map", {}).values()))]


def write_weights(source: Path, folder: Path, dtype: str) -> None:
    """Write the weights of `source` in another dtype."""
    import torch
    from safetensors.torch import load_file, save_file

    weights: dict[str, torch.Tensor] = {}
    for file in weight_files(source):
        weights |= load_file(file)
    if dtype == "float32":
        from rl_posttrain.models.shards import Shards, has_shards
        from rl_posttrain.models.universal import fp32_masters

        masters = Shards(source).whole_weights() if has_shards(source) else fp32_masters(source)
        weights = {name: masters[name].reshape(tensor.shape) for name, tensor in weights.items()}
    target = getattr(torch, dtype)
    weights = {name: tensor.to(target).contiguous() for name, tensor in weights.items()}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})


def required_json(path: Path) -> dict:
    """The JSON object in a file that has to be there."""
    found = read_json_object(path)
    if found is None:
        raise RunError(f"{path}: there is no such file; the folder is damaged")
    return found
