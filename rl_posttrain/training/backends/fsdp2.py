"""FSDP2: torch's own sharding of parameters, gradients and optimizer state, a layer at a time.

The policy is sharded here, with torch's `fully_shard`, and accelerate is told that nothing is left to wrap: its own
FSDP plugin does nothing on a CPU, puts a whole reference model into one unit, and groups the output layer with hooks
that never fire where log-probabilities are computed from its weight.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rl_posttrain.machine.process import is_main_process
from rl_posttrain.models.shards import Shards, write_shard
from rl_posttrain.optim.swap import running_optimizer
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes

_SCHEDULE = "scheduler.pt"  # as transformers calls it


class FSDP2:
    """fp32 weights in shards, which are their own masters; gathered a layer at a time in the recipe's dtype.

    Under LoRA these are the adapters. The frozen weights are in shards of the recipe's dtype.
    """

    zero_stage = None
    fp32_gradients = True
    keeps_own_state = True

    def __init__(self, recipe: Recipe, sizes: Sizes):
        self.weights_dtype = recipe.model.dtype
        self._offloads = recipe.distributed.offload == "parameters"
        self._model: nn.Module | None = None
        self.precision = "fp32 weights, sharded by FSDP2"
        if self.weights_dtype == "bfloat16":
            frozen = "frozen bf16 weights, sharded, and bf16 adapters" if recipe.model.lora else "bf16 weights"
            self.precision = f"{frozen}, gathered by FSDP2 from fp32 masters"

    def start(self, *, on_cpu: bool) -> None:
        start_fsdp2(on_cpu=on_cpu)

    def trl_fields(self) -> dict[str, Any]:
        return {
            "deepspeed": None,
            # The layers cast their own weights; autocast on top would compute some operations in fp32.
            "bf16": False,
            "model_init_kwargs": {"dtype": self.weights_dtype},
        }

    def place(self, trainer: Any) -> None:
        """Shard the policy, its critic inside, and the reference model."""
        from rl_posttrain.training.adapters import is_adapted

        device = trainer.accelerator.device
        for model in filter(None, (trainer.model, trainer.ref_model)):
            shard(model, dtype=self.weights_dtype, device=device.type, offload=self._offloads)
            model._is_accelerate_prepared = True  # accelerate would put DDP around it
            if is_adapted(model):
                # torch takes the unit that runs first for the outermost one, and peft generates by a unit inside of it.
                with torch.no_grad():
                    model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=device))
        self._model = trainer.model

    def whole_weights(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Each weight is gathered in turn, in the dtype of the forward pass."""
        self._reshard()
        dtype = getattr(torch, self.weights_dtype)
        for name, parameter in parameters:
            yield name, parameter.detach().to(dtype).full_tensor()

    @contextlib.contextmanager
    def gathered(self, model: nn.Module) -> Iterator[None]:
        """Inside, all weights of `model` are whole on every process, so that each may go through it on its own."""
        units = list(_units(model))
        for unit in units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        try:
            yield
        finally:
            for unit in units:
                unit.reshard()
                unit.set_reshard_after_forward(unit is not model, recurse=False)

    def write_state(self, trainer: Any, folder: str) -> None:
        """A file of each process's rows, and transformers' one of the schedule."""
        self._reshard()
        write(trainer.model, running_optimizer(trainer.optimizer), folder)
        if is_main_process():
            torch.save(trainer.lr_scheduler.state_dict(), Path(folder) / _SCHEDULE)

    def read_weights(self, trainer: Any, folder: str) -> None:
        """The masters, from the files of any number of processes."""
        self._reshard()
        read_weights(trainer.model, folder)

    def read_optimizer(self, trainer: Any, folder: str) -> None:
        """The optimizer's state, from the files of any number of processes, and the schedule's."""
        read_optimizer(trainer.model, running_optimizer(trainer.optimizer), folder)
        trainer.lr_scheduler.load_state_dict(torch.load(Path(folder) / _SCHEDULE, weights_only=True))

    def _reshard(self) -> None:
        """The outermost unit stays gathered after a forward pass without a backward one."""
        for unit in _units(self._model):
            unit.reshard()


def start_fsdp2(*, on_cpu: bool) -> None:
    """Join the process group, with gloo for what is in main memory and NCCL for what is on a GPU."""
    from rl_posttrain.training.backends.plain import forget_deepspeed

    forget_deepspeed()
    if not on_cpu:
        import os

        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo" if on_cpu else "cpu:gloo,cuda:nccl")


def shard(model: nn.Module, *, dtype: str, device: str, offload: bool = False) -> None:
    """Shard `model` in place over all processes, each layer a unit that is gathered on its own.

    Trained weights become fp32. They are gathered in `dtype`, and their gradients are added up in fp32. Frozen weights
    keep their dtype.

    Args:
        model: of transformers, which names its layers' classes; where it names none it is one unit.
        dtype: of the forward and backward pass.
        device: type of the device that the passes run on.
        offload: keep shards, gradients and optimizer state in main memory.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard

    options: dict[str, Any] = {"mesh": init_device_mesh(device, (torch.distributed.get_world_size(),))}
    if dtype != "float32":
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=getattr(torch, dtype), reduce_dtype=torch.float32)
    if offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=device != "cpu")
    for unit in [*units_of(model), model]:
        for parameter in unit.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        fully_shard(unit, reshard_after_forward=unit is not model, **options)


def write(model: nn.Module, optimizer: torch.optim.Optimizer, folder: str | Path) -> None:
    """Write this process's rows of trained weights and optimizer state into a checkpoint. Every process calls it."""
    names = {parameter: name for name, parameter in _trained(model)}
    weights = {name: parameter.detach().to_local() for parameter, name in names.items()}
    write_shard(folder, torch.distributed.get_rank(), torch.distributed.get_world_size(), weights, optimizer, names)


@torch.no_grad()
def read_weights(model: nn.Module, folder: str | Path) -> None:
    """Give a sharded model the weights of a checkpoint, of any number of processes."""
    shards = Shards(folder)
    for name, parameter in _trained(model):
        parameter.to_local().copy_(shards.weight(name, _rows(parameter)))


def read_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, folder: str | Path) -> None:
    """Give the optimizer of a sharded model the state of a checkpoint, of any number of processes."""
    names = {parameter: name for name, parameter in _trained(model)}
    Shards(folder).load_optimizer(optimizer, names, _rows, _like)


def _trained(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and parameter of what is trained: what LoRA has frozen is in no checkpoint."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def units_of(model: nn.Module) -> list[nn.Module]:
    """What is gathered on its own inside of `model`: each layer, and each embedding that is not the output layer too.

    The output layer and what is left are the model's own: log-probabilities are computed from its weight.
    """
    names = set(getattr(model, "_no_split_modules", None) or ())
    found = [module for module in model.modules() if type(module).__name__ in names]
    inner = {id(child) for module in found for child in module.modules() if child is not module}
    head = model.get_output_embeddings()
    tied = head.weight if head is not None else None
    embeddings = [
        module for module in model.modules() if isinstance(module, nn.Embedding) and module.weight is not tied
    ]
    return [module for module in [*found, *embeddings] if id(module) not in inner]


def _units(model: nn.Module) -> Iterator[Any]:
    from torch.distributed.fsdp import FSDPModule

    return (module for module in model.modules() if isinstance(module, FSDPModule))


def _rows(parameter: torch.Tensor) -> range:
    """The rows of `parameter` that this process has: those of its part along the first dimension."""
    number = parameter.shape[0]
    size = -(-number // torch.distributed.get_world_size())
    first = min(number, size * torch.distributed.get_rank())
    return range(first, min(number, first + size))


def _like(parameter: Any, local: torch.Tensor) -> torch.Tensor:
    """`local`, as this process's part of a tensor that is sharded as `parameter` is."""
    from torch.distributed.tensor import DTensor

    whole = parameter.detach()
    return DTensor.from_local(
        local, whole.device_mesh, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )
