"""Checkpoints of FSDP2: a file for each process, with its rows of every weight and of the optimizer's state.

The files hold tensors and plain values, and are read as such: nothing in them runs.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from rl_posttrain.errors import RunError
from rl_posttrain.models.universal import only_weights

_FOLDER = "shards"


def has_shards(folder: str | Path) -> bool:
    """Whether a checkpoint is one of FSDP2."""
    return Path(folder, _FOLDER).is_dir()


def write_shard(
    folder: str | Path,
    rank: int,
    num_processes: int,
    weights: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.Tensor, str],
) -> None:
    """Write one process's file.

    Args:
        folder: of the checkpoint.
        weights: this process's rows of each weight.
        optimizer: the one that runs; its state is written by name of the parameter.
        names: of its parameters.
    """
    saved = optimizer.state_dict()
    by_place = _names_by_place(optimizer, names)
    split: dict[str, list[str]] = {}
    states: dict[str, dict[str, Any]] = {}
    for place, state in saved["state"].items():
        name = by_place[place]
        split[name] = [key for key, value in state.items() if hasattr(value, "to_local")]
        states[name] = {key: value.to_local() if key in split[name] else value for key, value in state.items()}
    groups = [group | {"params": [by_place[place] for place in group["params"]]} for group in saved["param_groups"]]
    path = Path(folder) / _FOLDER / f"{rank}-of-{num_processes}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"weights": dict(weights), "state": states, "split": split, "param_groups": groups}
    torch.save(content, path)


class Shards:
    """The files of a checkpoint, of which only what is asked for is read.

    Raises:
        RunError: a file is missing, or holds more than numbers.
    """

    def __init__(self, folder: str | Path):
        files = {path.name: path for path in Path(folder, _FOLDER).glob("*-of-*.pt")}
        number = next((int(name.removesuffix(".pt").split("-of-")[1]) for name in files), 0)
        wanted = [f"{rank}-of-{number}.pt" for rank in range(number)]
        if not number or sorted(wanted) != sorted(files):
            raise RunError(f"{folder}: its shards are {sorted(files) or 'missing'}; the checkpoint is not whole")
        with only_weights(folder):
            self._parts = [torch.load(files[name], weights_only=True, mmap=True) for name in wanted]

    def weight(self, name: str, rows: range) -> torch.Tensor:
        """Rows of a weight, in fp32."""
        return self._cut([part["weights"][name] for part in self._parts], rows)

    def whole_weights(self) -> dict[str, torch.Tensor]:
        """All weights, whole, in fp32."""
        return {name: torch.cat([part["weights"][name] for part in self._parts]) for name in self._parts[0]["weights"]}

    def load_optimizer(
        self,
        optimizer: torch.optim.Optimizer,
        names: Mapping[torch.Tensor, str],
        rows_of: Callable[[torch.Tensor], range],
        like: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> None:
        """Give `optimizer` its state.

        Args:
            names: of its parameters.
            rows_of: of a parameter, the rows that this process has.
            like: makes of a parameter, and rows of a state that is split as it is, the state.
        """
        first = self._parts[0]
        states = {}
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for place, parameter in enumerate(parameters):
            name = names[parameter]
            if name not in first["state"]:
                continue
            states[place] = {
                key: like(parameter, self._cut([part["state"][name][key] for part in self._parts], rows_of(parameter)))
                if key in first["split"][name]
                else value
                for key, value in first["state"][name].items()
            }
        places = {names[parameter]: place for place, parameter in enumerate(parameters)}
        groups = [group | {"params": [places[name] for name in group["params"]]} for group in first["param_groups"]]
        optimizer.load_state_dict({"state": states, "param_groups": groups})

    @staticmethod
    def _cut(parts: list[torch.Tensor], rows: range) -> torch.Tensor:
        """`rows` of a tensor whose rows are in `parts`, one after the other; a copy."""
        found, start = [], 0
        for part in parts:
            first, last = max(rows.start, start), min(rows.stop, start + len(part))
            if first < last:
                found.append(part[first - start : last - start])
            start += len(part)
        return torch.cat(found) if found else parts[0][:0].clone()


def _names_by_place(optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str]) -> list[str]:
    return [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
