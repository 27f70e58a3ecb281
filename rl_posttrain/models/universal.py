"""Checkpoints of DeepSpeed: universal ones, also for optimizers with one buffer; the fp32 masters in their shards.

Files are read within `only_weights`: whatever stands in them, no code of theirs runs.
"""

import argparse
import contextlib
import io
import os
import pickle
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from rl_posttrain.errors import EngineError, RunError, class_and_message
from rl_posttrain.machine.process import use_cpu_if_no_gpu

# What torch does with a call that asks for more than weights.
_FORCE, _FORCE_NOT = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextlib.contextmanager
def only_weights(path: str | Path) -> Iterator[None]:
    """Within, `torch.load` takes tensors, plain values and three classes of DeepSpeed, whatever its caller asks for.

    DeepSpeed asks for any Python object, and such a file could run code.

    Args:
        path: what is read, for the error.

    Raises:
        RunError: a file holds something else.
    """
    before = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NOT)}
    os.environ[_FORCE] = "1"
    try:
        with torch.serialization.safe_globals(_classes()):
            yield
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"an object of {found[1]}" if found else "more than numbers"
        raise RunError(
            f"{path}: a file in it holds {what}, and is not read, since that could run code; use a checkpoint of your "
            "own run, or, if an optimizer of yours keeps such objects, torch.serialization.add_safe_globals"
        ) from error
    finally:
        del os.environ[_FORCE]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _classes() -> list[type]:
    """The classes of which DeepSpeed writes objects into its checkpoints."""
    if "deepspeed" not in sys.modules:  # then its checkpoints are not read
        return []
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [LossScaler, ZeroStageEnum, fragment_address]


def convert_to_universal(checkpoint: str | Path, output: str | Path) -> None:
    """Convert a ZeRO checkpoint so that any number of processes can load it.

    Load it with ``"checkpoint": {"load_universal": true}`` in DeepSpeed's configuration. DeepSpeed's own converter
    needs Adam's `exp_avg_sq` from every optimizer, and ZeRO-3's loader also needs `step`. If the optimizer has neither,
    the converter gets zeros that take no space. Afterwards these files are deleted (ZeRO-1 and 2), or written again as
    zeros that take no space (ZeRO-3). DeepSpeed also writes `latest_universal` beside `output`.

    Args:
        checkpoint: folder of the step, such as ``checkpoint-10/global_step10``, written under ZeRO-1, 2 or 3.
        output: folder to write; DeepSpeed's convention is ``global_step10_universal`` beside `checkpoint`.

    Raises:
        EngineError: `checkpoint` has no ZeRO states; its optimizer does not keep `exp_avg` for every parameter, or
            `exp_avg_sq` for some alone; or under ZeRO-3 its groups have different settings.
    """
    from deepspeed.checkpoint import ds_to_universal

    checkpoint, output = Path(checkpoint).resolve(), Path(output).resolve()
    if not any(checkpoint.glob("*zero_pp_rank_*_optim_states.pt")):
        raise EngineError(
            f"checkpoint={checkpoint}: it has no ZeRO states (*_optim_states.pt); name the folder of a step that "
            "ZeRO-1, 2 or 3 wrote"
        )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as staged, only_weights(checkpoint):
        filled = False
        for path in checkpoint.iterdir():
            target = Path(staged, path.name)
            if path.name.endswith("_optim_states.pt"):
                filled |= _fill_states(path, target)
            else:
                target.symlink_to(path)
        ds_to_universal.main(
            argparse.Namespace(
                input_folder=staged,
                output_folder=str(output),
                num_extract_workers=1,
                num_merge_workers=1,
                keep_temp_folder=False,
                strict=True,
                inject_missing_state=True,
            )
        )
        stage = ds_to_universal._get_zero_stage(ds_to_universal._get_optim_files(staged))
    if filled:
        for path in (output / "zero").rglob("exp_avg_sq.pt"):
            if stage == 3:
                torch.save(_zeros(torch.load(path, weights_only=True).numel()), path)
            else:
                path.unlink()


def _fill_states(path: Path, target: Path) -> bool:
    """Copy the file, with zeros in the place of Adam's missing states; returns whether any were missing."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    zero = saved["optimizer_state_dict"]
    optimizer = zero["base_optimizer_state"] if "base_optimizer_state" in zero else zero["optimizer_state_dict"]
    states = optimizer["state"]
    if "optimizer_state_dict" in zero:
        _check_groups(path, optimizer["param_groups"])
    shards = zero.get("single_partition_of_fp32_groups", zero.get("fp32_flat_groups"))
    num_kept = sum("exp_avg" in state for state in states.values())
    if num_kept < len(shards):
        names = sorted({name for state in states.values() for name in state})
        raise EngineError(
            f"checkpoint={path}: its optimizer keeps {names}, and exp_avg for {num_kept} of {len(shards)} shards, but "
            "a universal checkpoint holds that for all; resume with as many processes as wrote it"
        )
    if len({"exp_avg_sq" in state for state in states.values()}) > 1:
        raise EngineError(
            f"checkpoint={path}: its optimizer keeps exp_avg_sq for some of its shards alone, but a universal "
            "checkpoint holds that for all or for none; resume with as many processes as wrote it"
        )
    filled = False
    for state in states.values():
        if "exp_avg_sq" not in state:
            state["exp_avg_sq"] = _zeros(state["exp_avg"].numel())
            if "optimizer_state_dict" in zero:
                state.setdefault("step", torch.zeros(()))
            filled = True
    torch.save(saved, target)
    return filled


def _check_groups(path: Path, groups: list[dict]) -> None:
    """Fail where the settings of one group would be wrong for another."""
    different = [name for name in groups[0] if name != "params" and any(g.get(name) != groups[0][name] for g in groups)]
    if different:
        raise EngineError(
            f"checkpoint={path}: its groups differ in {', '.join(different)}, and ZeRO-3 loads a universal checkpoint "
            "with the settings of the first group for all; resume with as many processes as wrote it"
        )


def _zeros(num_elements: int) -> torch.Tensor:
    """Zeros of shape (num_elements,) that share one element."""
    return torch.zeros(1).expand(num_elements)


def fp32_masters(checkpoint: str | Path) -> dict[str, torch.Tensor]:
    """The whole fp32 masters of the policy, and of its critic, by name, from the shards of a checkpoint.

    All masters are in memory at once, and the shards beside them.

    Args:
        checkpoint: ``checkpoints/checkpoint-N`` of a run under ZeRO-1, 2 or 3.

    Raises:
        RunError: it has no shards, or they cannot be read.
    """
    checkpoint = Path(checkpoint)
    if not any(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt")):
        raise RunError(
            f"--dtype=float32: {checkpoint} has bf16 weights and no fp32 masters; name a checkpoint of ZeRO-1, 2 or 3 "
            "by --step, or leave --dtype out"
        )
    use_cpu_if_no_gpu()
    from deepspeed.utils import zero_to_fp32

    try:
        # It prints what it does, and shows bars.
        quiet = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
        with quiet[0], quiet[1], only_weights(checkpoint):
            return zero_to_fp32.get_fp32_state_dict_from_zero_checkpoint(str(checkpoint))
    except RunError:
        raise
    except Exception as error:  # of torch.load, and of what it finds there
        raise RunError(
            f"{checkpoint}: its shards cannot be read ({class_and_message(error, limit=200)}); they are damaged"
        ) from error
