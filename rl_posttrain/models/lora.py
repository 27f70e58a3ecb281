"""What adapters make of a model's weights: the arithmetic, and whole models from folders of adapters.

LoRA (arXiv:2106.09685): a frozen weight W (out, in) acts as W + alpha / rank * B A, where A is (rank, in) and B is
(out, rank).
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl_posttrain.errors import RunError
from rl_posttrain.models.find import local_folder, model_without_weights, resolve_model, whole_model
from rl_posttrain.models.folder import absent_on_errors, is_the_models, required_json
from rl_posttrain.models.quantized import FourBits, layers_in_4_bits, rounded_to_4_bits
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.files import disk_errors, write_atomically
from rl_posttrain.runs.inputs import describe_files, read_inputs

if TYPE_CHECKING:
    import torch

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_FOLDER = "adapter"  # of a final model, which is whole, beside what it was merged from
_PREFIX = "base_model.model."  # of the names that peft writes


def merged_weight(
    weight: "torch.Tensor",
    lora_a: "torch.Tensor",
    lora_b: "torch.Tensor",
    scaling: float,
    *,
    transposed: bool = False,
    dtype: "torch.dtype | None" = None,
) -> "torch.Tensor":
    """W + scaling * B A, computed in fp32 and rounded once; a new tensor.

    It starts from the frozen weight each time, so that errors of rounding never add up.

    Args:
        weight: (out, in), or (in, out) if `transposed`, as GPT-2's layers have it.
        lora_a: (rank, in).
        lora_b: (out, rank).
        dtype: of the result; None: that of `weight`.
    """
    change = lora_b.detach().float() @ lora_a.detach().float()
    change = change.t() if transposed else change
    return weight.detach().float().add(change, alpha=scaling).to(dtype or weight.dtype)


def adapter_of(folder: Path) -> Path | None:
    """The folder that has the adapters of a checkpoint or a final model; None where the whole model was trained."""
    return next((place for place in (folder, folder / _FOLDER) if (place / _CONFIG).is_file()), None)


def whole_folder(run: RunDirectory, folder: Path) -> Path:
    """A folder with the whole model of `folder`: itself, or one in it that is merged from its adapters, and kept.

    Raises:
        RunError: as `write_merged`.
    """
    merged = folder / ".merged"  # a checkpoint's manifest takes no notice of what begins with a dot
    if adapter_of(folder) != folder:
        return folder
    if not merged.is_dir():
        with disk_errors(folder), absent_on_errors(merged) as temporary:
            write_merged(run, folder, temporary, run.recipe()["model"]["dtype"])
            temporary.rename(merged)
    return merged


def make_whole(run: RunDirectory, folder: Path) -> None:
    """Write the merged model beside the adapters in `folder`; those go into a folder of their own."""
    (folder / _FOLDER).mkdir(exist_ok=True)
    for name in (_WEIGHTS, _CONFIG):
        (folder / name).rename(folder / _FOLDER / name)
    write_merged(run, folder, folder, run.recipe()["model"]["dtype"])


def write_merged(run: RunDirectory, source: Path, folder: Path, dtype: str) -> None:
    """Write the base model of `run` with the adapters of `source` merged in, and the tokenizer of `source`.

    The weights are those that the rollout engine got: of the base model in the dtype in which it was trained.

    Args:
        source: a checkpoint or a final model.
        folder: another one, or `source` itself.
        dtype: ``bfloat16`` or ``float32``, to which each weight is rounded once.

    Raises:
        RunError: the base model was changed since the run began, or the adapters do not fit it.
        RecipeError: it is not there any more.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    model, adapter = run.recipe()["model"], adapter_of(source)
    location = resolve_model(model["name"])
    _check_base(run, model["name"], location)
    # A run under ZeRO-3 has let transformers shard every model that loads; this one is whole, on one process.
    unset_hf_deepspeed_config()
    with whole_model(model["name"]):
        base = AutoModelForCausalLM.from_pretrained(
            location, dtype=getattr(torch, model["dtype"]), trust_remote_code=model["trust_remote_code"]
        )
    if (how := FourBits.of_recipe(model["lora"])) is not None:
        _round_to_4_bits(run, base, how, trust_remote_code=model["trust_remote_code"])
    config, tensors, target = required_json(adapter / _CONFIG), load_file(adapter / _WEIGHTS), getattr(torch, dtype)
    form = {"transposed": config["fan_in_fan_out"], "dtype": target}
    for name, parameter in base.named_parameters():
        prefix = f"{_PREFIX}{name.removesuffix('weight')}lora_"
        lora_a, lora_b = (tensors.pop(f"{prefix}{part}.weight", None) for part in "AB")
        if lora_a is not None:
            parameter.data = merged_weight(parameter, lora_a, lora_b, config["lora_alpha"] / config["r"], **form)
        elif dtype != model["dtype"]:  # else it stays: a model may keep a few weights in fp32
            parameter.data = parameter.data.to(target)
    if tensors:
        raise RunError(f"{adapter}: its {next(iter(tensors))} fits no weight of {model['name']}; it is damaged")
    base.save_pretrained(folder)
    for file in source.iterdir():
        if is_the_models(file.name) and file.name not in (_WEIGHTS, _CONFIG) and not (folder / file.name).exists():
            shutil.copyfile(file, folder / file.name)


def write_adapter(run: RunDirectory, source: Path, folder: Path) -> None:
    """Copy the adapters of `source`, so that peft finds their base model under the name that the run's recipe has."""
    adapter = adapter_of(source)
    name = run.environment().get("base_model") or run.recipe()["model"]["name"]
    config = required_json(adapter / _CONFIG) | {"base_model_name_or_path": name}
    write_atomically(folder / _CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
    shutil.copyfile(adapter / _WEIGHTS, folder / _WEIGHTS)


def _round_to_4_bits(run: RunDirectory, base: "torch.nn.Module", how: FourBits, *, trust_remote_code: bool) -> None:
    """Give `base` the weights that the run has trained its adapters on.

    Raises:
        RunError: what comes out here is something else.
    """
    from rl_posttrain.models.digest import weights_digest

    plain = model_without_weights(base.config, trust_remote_code=trust_remote_code)
    rounded_to_4_bits(base, layers_in_4_bits(plain, how), how)
    began_with = run.environment().get("initial_weights_sha256")
    if began_with not in (None, weights_digest(base.named_parameters())):
        raise RunError(
            f"{run.path}: in 4 bits its base model has other weights here than in the run, where adapters were trained "
            "on those; do it on the machine of the run, with its version of bitsandbytes"
        )


def _check_base(run: RunDirectory, name: str, location: str) -> None:
    """Compare the base model with what the run began with, where that was recorded.

    Raises:
        RunError: a file of it is missing or was changed.
    """
    before: dict[str, Any] = (read_inputs(run.path) or {}).get("files", {}).get("model", {})
    place = local_folder(location)
    if not before or place is None:
        return
    there = {file: place / file for file in before if (place / file).is_file()}
    now = describe_files({"model": there}).get("model", {})
    changed = next((file for file in before if now.get(file) != before[file]), None)
    if changed:
        raise RunError(
            f"model.name={name}: its {changed} was changed since {run.path} began, whose adapters are of the model as "
            "it was; restore it"
        )
