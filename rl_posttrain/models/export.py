"""A trained model as a plain Hugging Face folder: the run's final model, and an export of any checkpoint.

A checkpoint holds the policy's whole weights in model.safetensors under every engine and every ZeRO stage, so an export
copies them. The fp32 masters are in shards of DeepSpeed or FSDP2; they are read where fp32 is asked for. With LoRA a
checkpoint holds adapters, which are merged into the base model here.
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.errors import RunError, one_line
from rl_posttrain.models.folder import (
    DTYPES,
    absent_on_errors,
    check_checkpoint,
    check_model,
    copy_model,
    is_the_models,
    required_json,
    write_weights,
)
from rl_posttrain.models.lora import adapter_of, make_whole, write_adapter, write_merged
from rl_posttrain.runs.card import model_card
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.runs.files import disk_errors, to_json, write_atomically


@dataclass(frozen=True)
class Exported:
    """What `export_model` wrote.

    Attributes:
        source: the folder of the run that the weights come from.
        step: after which they were saved.
        dtype: of the weights: ``bfloat16`` or ``float32``.
        masters: whether they are the fp32 masters of DeepSpeed or FSDP2, and not the weights of the forward pass.
        num_bytes: of all files.
    """

    folder: Path
    source: Path
    step: int
    dtype: str
    masters: bool
    num_bytes: int


def export_model(
    run: RunDirectory,
    to: Path,
    *,
    step: int | None = None,
    best: bool = False,
    dtype: str | None = None,
    adapter: bool = False,
) -> Exported:
    """Write a model of `run` to the folder `to`, which then is whole; on any error it is absent.

    The critic stays behind. The weights are those of the forward pass in the dtype in which they were trained, so that
    logits are the trainer's own. Nothing of a file runs.

    Args:
        step: of a checkpoint. None: the final model, else the newest checkpoint.
        best: the checkpoint that `checkpoint.keep_best` kept.
        dtype: ``float32`` of a run in bf16 gives the fp32 masters, which checkpoints of ZeRO-1 to 3 and FSDP2 have;
            ``bfloat16`` of a run in fp32 rounds. None: as trained. Of a run with LoRA ``float32`` is the sum of base
            model and adapters before it is rounded.
        adapter: of a run with LoRA, the adapters alone, as peft and vLLM load them.

    Raises:
        RunError: the run has no such checkpoint, it is damaged, it has no weights of that dtype or no adapters, or `to`
            exists and is not empty, or cannot be written.
    """
    if dtype is not None and dtype not in DTYPES:
        raise RunError(f"--dtype={dtype}: an export has {' or '.join(DTYPES)}; set one of them, or leave it out")
    source, step = _source(run, step, best)
    has_adapters = adapter_of(source) is not None
    if adapter and not has_adapters:
        raise RunError(f"--adapter: {run.path} trained the whole model and has no adapters; leave it out")
    if adapter and dtype is not None:
        raise RunError(f"--dtype={dtype}: adapters are exported as they were trained; leave one of the two out")
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
        with disk_errors(to.parent), absent_on_errors(to) as temporary:
            masters = False
            if adapter:
                found = run.recipe()["model"]["dtype"]
                write_adapter(run, source, temporary)
                write_card(run, temporary, step, name=to.name, dtype=found, adapter=True)
            elif has_adapters:
                found = run.recipe()["model"]["dtype"]
                write_merged(run, source, temporary, dtype or found)
                describe_model(run, temporary, step, name=to.name)
            else:
                found = check_model(source)
                masters = dtype == "float32" and found == "bfloat16"
                copy_model(source, temporary, weights=dtype in (None, found))
                if dtype not in (None, found):
                    write_weights(source, temporary, dtype)
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
        copy_model(saved, folder, weights=True)
    if adapter_of(folder) is not None:
        make_whole(run, folder)
    for file in folder.iterdir():
        if file.is_file() and not is_the_models(file.name):
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
    config = required_json(folder / "generation_config.json")
    tokens = {key: value for key, value in config.items() if key.endswith("_token_id") and value is not None}
    generation = {**tokens, **_sampling(run.recipe())}
    write_atomically(folder / "generation_config.json", to_json(generation, indent=2) + "\n")
    write_card(run, folder, step, name=name, dtype=dtype, masters=masters)


def write_card(run: RunDirectory, folder: Path, step: int, *, name: str, dtype: str, **form: bool) -> None:
    """Write the model card, and let everybody read what the process's umask lets them read."""
    write_atomically(folder / "README.md", model_card(run, step, folder=name, dtype=dtype, **form))
    umask = os.umask(0)
    os.umask(umask)
    for file in (path for path in folder.rglob("*") if path.is_file()):
        file.chmod(0o666 & ~umask)  # safetensors writes weights that their owner alone can read


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


def _sampling(recipe: dict[str, Any]) -> dict[str, Any]:
    """How the run sampled, in the words of generation_config.json.

    The base model may come with settings of its own, such as Qwen's repetition penalty. The policy was not trained with
    them. transformers takes the 50 likeliest tokens where nothing is said, so `top_k` is said.
    """
    rollout, trl = recipe["rollout"], recipe.get("trl") or {}
    sampling = {"temperature": rollout["temperature"], "top_p": rollout["top_p"], "top_k": trl.get("top_k") or 0}
    sampling |= {key: trl[key] for key in ("min_p", "repetition_penalty") if trl.get(key)}
    return {"do_sample": True, **sampling}


def _change(path: Path, values: dict[str, Any], *, drop: tuple[str, ...]) -> None:
    changed = {key: value for key, value in required_json(path).items() if key not in drop} | values
    text = json.dumps(changed, indent=2, sort_keys=True, ensure_ascii=False)
    write_atomically(path, text + "\n")
