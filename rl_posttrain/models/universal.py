"""DeepSpeed's universal checkpoints from optimizers that keep one buffer."""

import argparse
import tempfile
from pathlib import Path

import torch

from rl_posttrain.errors import EngineError


def convert_to_universal(checkpoint: str | Path, output: str | Path) -> None:
    """Convert a ZeRO checkpoint so that any number of processes can load it.

    It is loaded with ``"checkpoint": {"load_universal": true}`` in DeepSpeed's configuration. DeepSpeed's own converter
    asks every optimizer for Adam's `exp_avg_sq`, and ZeRO-3's loader also for `step`. Where the optimizer keeps
    neither, the converter is given zeros that take no space, and what it makes of them is taken out again (ZeRO-1 and
    2) or left without space (ZeRO-3). `latest_universal` is written beside `output`.

    Args:
        checkpoint: folder of the step, such as ``checkpoint-10/global_step10``, written under ZeRO-1, 2 or 3.
        output: folder to write; ``global_step10_universal`` beside `checkpoint` is DeepSpeed's habit.

    Raises:
        EngineError: `checkpoint` holds no ZeRO states, or its optimizer does not keep `exp_avg` for every parameter.
    """
    from deepspeed.checkpoint import ds_to_universal

    checkpoint, output = Path(checkpoint).resolve(), Path(output).resolve()
    if not any(checkpoint.glob("*zero_pp_rank_*_optim_states.pt")):
        raise EngineError(
            f"checkpoint={checkpoint}: no ZeRO states in it (*_optim_states.pt); name the folder of a step that "
            "ZeRO-1, 2 or 3 wrote"
        )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output) as staged:
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
                torch.save(_zeros(torch.load(path).numel()), path)
            else:
                path.unlink()


def _fill_states(path: Path, target: Path) -> bool:
    """Write the file again with zeros where the converter looks for Adam's states; whether any were missing."""
    # DeepSpeed's own classes stand in it.
    saved = torch.load(path, map_location="cpu", weights_only=False)
    zero = saved["optimizer_state_dict"]
    states = (zero["base_optimizer_state"] if "base_optimizer_state" in zero else zero["optimizer_state_dict"])["state"]
    shards = zero.get("single_partition_of_fp32_groups", zero.get("fp32_flat_groups"))
    num_kept = sum("exp_avg" in state for state in states.values())
    if num_kept < len(shards):
        names = sorted({name for state in states.values() for name in state})
        raise EngineError(
            f"checkpoint={path}: its optimizer keeps {names}, and exp_avg for {num_kept} of {len(shards)} shards, but "
            "a universal checkpoint holds that for all; resume with as many processes as wrote it"
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


def _zeros(num_elements: int) -> torch.Tensor:
    """One zero, seen that many times."""
    return torch.zeros(1).expand(num_elements)
