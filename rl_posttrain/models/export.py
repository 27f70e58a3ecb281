"""A trained model as a plain Hugging Face folder: the run's final model, and an export of any checkpoint.

A checkpoint holds the policy's whole weights in model.safetensors under every engine and every ZeRO stage, so an export
copies them. DeepSpeed's fp32 masters are in its shards; they are read where fp32 is asked for.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from rl_posttrain.errors import RunError, one_line
from rl_posttrain.runs.card import model_card
from rl_posttrain.runs.directory import CRITIC_FILE, RunDirectory, checkpoint_step
from rl_posttrain.runs.files import disk_errors, read_json_object, to_json, write_atomically
from rl_posttrain.runs.manifest import find_damage

DTYPES = {"bfloat16": "BF16", "float32": "F32"}
"""What an export can have, and what safetensors calls it."""
CRITIC_PREFIX = "critic."  # of the critic's weights in the policy's module
_WEIGHTS = "model.safetensors"
# The files that save_pretrained writes for a model and its tokenizer; code, where a model has its own.
_MODEL_FILES = {".safetensors", ".json", ".jinja", ".model", ".txt", ".py"}
# The last two are scripts that DeepSpeed puts into a checkpoint.
_NOT_THE_MODEL = {"trainer_state.json", CRITIC_FILE, "zero_to_fp32.py", "zero_to_torch.py"}


@dataclass(frozen=True)
class Exported:
    """What `export_model` wrote.

    Attributes:
        source: the folder of the run that the weights come from.
        step: after which they were saved.
        dtype: of the weights: ``bfloat16`` or ``float32``.
        masters: whether they are DeepSpeed's fp32 masters, and not the weights of the forward pass.
        num_bytes: of all files.
    """

    folder: Path
    source: Path
    step: int
    dtype: str
    masters: bool
    num_bytes: int


def export_model(
    run: RunDirectory, to: Path, *, step: int | None = None, best: bool = False, dtype: str | None = None
) -> Exported:
    """Write a model of `run` to the folder `to`, which then is whole; on any error it is absent.

    The critic stays behind. The weights are those of the forward pass in the dtype in which they were trained, so that
    logits are the trainer's own. Nothing of a file runs.

    Args:
        step: of a checkpoint. None: the final model, else the newest checkpoint.
        best: the checkpoint that `checkpoint.keep_best` kept.
        dtype: ``float32`` of a run in bf16 gives the fp32 masters, which ZeRO-1, 2 and 3 keep in a checkpoint;
            ``bfloat16`` of a run in fp32 rounds. None: as trained.

    Raises:
        RunError: the run has no such checkpoint, it is damaged, it has no weights of that dtype, or `to` exists and is
            not empty, or cannot be written.
    """
    if dtype is not None and dtype not in DTYPES:
        raise RunError(f"--dtype={dtype}: an export has {' or '.join(DTYPES)}; set one of them, or leave it out")
    source, step = _source(run, step, best)
    check_checkpoint(source, masters=dtype == "float32", fix="export another with --step")
    to = Path(os.path.abspath(to))
    try:
        is_taken = to.exists() and (not to.is_dir() or any(to.iterdir()))
    except OSError as error:  # too long, or not to be read
        raise RunError(f"--to={to}: no possible folder ({one_line(error, limit=60)}); name another") from error
    if is_taken:
        raise RunError(f"--to={to}: it exists and is not an empty folder; name another")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with disk_errors(to.parent), _absent_on_errors(to) as temporary:
            found = check_model(source)
            masters = dtype == "float32" and found == "bfloat16"
            _copy(source, temporary, weights=dtype in (None, found))
            if dtype not in (None, found):
                _write_weights(source, temporary, dtype)
            describe_model(run, temporary, step, name=to.name, masters=masters)
            temporary.rename(to)
    except OSError as error:
        raise RunError(
            f"--to={to}: cannot write it: {error.strerror or one_line(error)}; name another folder"
        ) from error
    num_bytes = sum(file.stat().st_size for file in to.iterdir())
    return Exported(to, source, step, dtype or found, masters, num_bytes)


def write_final_model(run: RunDirectory, saved: Path, step: int) -> None:
    """Make checkpoints/final of a model that was saved after the last step; it is whole or absent at any moment.

    Args:
        saved: a checkpoint, which stays as it is; or the run's `saved_model_path`, which becomes the final model.
    """
    folder = run.saved_model_path
    if saved != folder:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        _copy(saved, folder, weights=True)
    for file in folder.iterdir():
        if not _is_the_models(file.name):
            file.unlink()  # transformers' training_args.bin, which needs this project to be read
    describe_model(run, folder, step, name=run.final_model_path.name)
    shutil.rmtree(run.final_model_path, ignore_errors=True)
    folder.rename(run.final_model_path)


def describe_model(run: RunDirectory, folder: Path, step: int, *, name: str, masters: bool = False) -> None:
    """Make what stands beside the weights in `folder` true: configuration, how to sample, model card, permissions.

    Args:
        step: after which the weights were saved.
        name: of the folder, where the model will be.
    """
    dtype = check_model(folder)
    # The trainer needs no cache of keys and values, and so switches it off; whoever generates needs it.
    _change(folder / "config.json", {"use_cache": True, "dtype": dtype}, drop=("torch_dtype",))
    _change(folder / "tokenizer_config.json", {}, drop=("is_local", "local_files_only"))
    config = _json(folder / "generation_config.json")
    tokens = {key: value for key, value in config.items() if key.endswith("_token_id") and value is not None}
    generation = {**tokens, **_sampling(run.recipe())}
    write_atomically(folder / "generation_config.json", to_json(generation, indent=2) + "\n")
    write_atomically(folder / "README.md", model_card(run, step, folder=name, dtype=dtype, masters=masters))
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~umask)  # safetensors writes weights that their owner alone can read


def check_model(folder: Path) -> str:
    """The dtype of the weights in a folder of transformers: ``bfloat16`` or ``float32``.

    Reads the headers of the weights, not all of their bytes.

    Raises:
        RunError: a file is missing, is not what its name says, or was cut.
    """
    config = _json(folder / "config.json")
    if "model_type" not in config:
        raise RunError(f"{folder / 'config.json'}: it names no model_type; the file is damaged")
    for name in ("tokenizer_config.json", "generation_config.json"):
        _json(folder / name)
    found = set()
    for file in _weight_files(folder):
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
    damage = find_damage(folder, lambda name: masters or _is_the_models(name))
    if damage is not None:
        raise RunError(f"{folder}: {damage}; the checkpoint is damaged, {fix}")


def _source(run: RunDirectory, step: int | None, best: bool) -> tuple[Path, int]:
    """The folder that has the weights, and the step after which they were saved."""
    if best and step is not None:
        raise RunError(f"--step={step}: --best names a step too; leave one of them out")
    if best:
        kept = run.best()
        if kept is None:
            raise RunError(
                f"--best: {run.path} kept no best checkpoint; train with checkpoint.keep_best, or leave --best out"
            )
        step = kept.get("step")
        if not isinstance(step, int):
            raise RunError(f"--best: {run.path / 'checkpoints' / 'best.json'} names no step; the file is damaged")
    checkpoints = {checkpoint_step(folder): folder for folder in run.checkpoints()}
    last = run.last_row()
    final = {last["step"]: run.final_model_path} if last and run.final_model_path.is_dir() else {}
    # Where a step is named, its checkpoint comes before the final model: it has the fp32 masters too.
    found = checkpoints | final if step is None else final | checkpoints
    if not found:
        raise RunError(
            f"RUN={run.path}: it has no final model and no whole checkpoint; train with checkpoint.final_model=true, "
            "or checkpoint.every_steps"
        )
    if step is None:
        step = max(found)
    if step not in found:
        option, steps = "--best" if best else f"--step={step}", ", ".join(map(str, sorted(found)))
        raise RunError(f"{option}: {run.path} has no whole checkpoint of step {step}; it has {steps}")
    return found[step], step


@contextlib.contextmanager
def _absent_on_errors(to: Path) -> Iterator[Path]:
    """A folder beside `to` to write into, which is removed unless it was renamed."""
    temporary = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}."))
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o777 & ~umask)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy(source: Path, folder: Path, *, weights: bool) -> None:
    """Copy a model, its tokenizer, and its weights or not."""
    for file in source.iterdir():
        if file.is_file() and _is_the_models(file.name) and (weights or ".safetensors" not in file.name):
            shutil.copyfile(file, folder / file.name)


def _is_the_models(name: str) -> bool:
    """Whether a file, by its path in a checkpoint, belongs to the model or its tokenizer."""
    return "/" not in name and Path(name).suffix in _MODEL_FILES and name not in _NOT_THE_MODEL


def _weight_files(folder: Path) -> list[Path]:
    """The weights: one file, or those that an index names."""
    index = folder / f"{_WEIGHTS}.index.json"
    if not index.is_file():
        return [folder / _WEIGHTS]
    return [folder / name for name in sorted(set(_json(index).get("weight_map", {}).values()))]


def _write_weights(source: Path, folder: Path, dtype: str) -> None:
    """Write the weights of `source` in another dtype."""
    import torch
    from safetensors.torch import load_file, save_file

    weights: dict[str, torch.Tensor] = {}
    for file in _weight_files(source):
        weights |= load_file(file)
    if dtype == "float32":
        from rl_posttrain.models.universal import fp32_masters

        masters = fp32_masters(source)
        weights = {name: masters[name].reshape(tensor.shape) for name, tensor in weights.items()}
    target = getattr(torch, dtype)
    weights = {name: tensor.to(target).contiguous() for name, tensor in weights.items()}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})


def _sampling(recipe: dict[str, Any]) -> dict[str, Any]:
    """How the run sampled, in the words of generation_config.json.

    The base model may come with settings of its own, such as Qwen's repetition penalty. The policy was not trained with
    them. transformers takes the 50 likeliest tokens where nothing is said, so `top_k` is said.
    """
    rollout, trl = recipe["rollout"], recipe.get("trl") or {}
    sampling = {"temperature": rollout["temperature"], "top_p": rollout["top_p"], "top_k": trl.get("top_k") or 0}
    sampling |= {key: trl[key] for key in ("min_p", "repetition_penalty") if trl.get(key)}
    return {"do_sample": True, **sampling}


def _json(path: Path) -> dict:
    """The JSON object in a file that has to be there."""
    found = read_json_object(path)
    if found is None:
        raise RunError(f"{path}: there is no such file; the folder is damaged")
    return found


def _change(path: Path, values: dict[str, Any], *, drop: tuple[str, ...]) -> None:
    changed = {key: value for key, value in _json(path).items() if key not in drop} | values
    text = json.dumps(changed, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomically(path, text + "\n")
