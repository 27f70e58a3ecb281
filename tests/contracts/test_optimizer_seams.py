"""What `optim`, `models` and `cost` read of other packages without a promise that it stays, on real objects.

DeepSpeed's attributes are looked at on a tiny engine of each ZeRO stage in this process. An upgrade that moves one of
them fails here, by name. `READ` says which file reads what.
"""

import importlib
import inspect
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from accelerate import DeepSpeedPlugin
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.utils import DeepSpeedOptimizerWrapper

from rl_posttrain.optim import AdamS, ledger
from rl_posttrain.optim.swap import running_optimizer
from rl_posttrain.training.backends.deepspeed import start_deepspeed, wrap

ROOT = Path(__file__).resolve().parents[2] / "rl_posttrain"
READ = {
    "optim/scale_shards.py": [
        "round_robin_bit16_groups", "round_robin_bit16_offsets", "real_dp_process_group", "fp16_partitioned_groups",
        "single_partition_of_fp32_groups", "fp32_partitioned_groups_flat", "fp16_groups", "sub_group_process_groups",
        "partition_numel", "ds_numel", "ds_shape", "ds_tensor",
    ],
    "optim/roles.py": ["ds_shape"],
    "optim/swap.py": [
        "deepspeed_plugin", "deepspeed_config", "zero_stage", "optimizer_cls_and_kwargs", "callback_handler.callbacks",
        "create_optimizer_and_scheduler",
    ],
    "optim/trainer_fields.py": ["hp_search_backend", "adam_beta1", "adam_epsilon", "optim_args", "adalomo"],
    "optim/autoswap.py": ["register_optimizer_step_pre_hook", "last_value", "multiprocessing.util._exit_function"],
    "optim/injected/sitecustomize.py": ["transformers.trainer", "exec_module"],
    "optim/scale_kernels.py": ["torch.optim.adam"],
    "optim/adams_kernels.py": ["torch._foreach_addcmul_", "increment_version"],
    "optim/native.py": ["get_cpu_capability"],
    "optim/ledger.py": ["_ALIGNMENT", "PERSISTENT_VALUES"],
    "optim/adam_mini.py": ["world_size", "head_numel"],
    "optim/low_rank.py": ["GaLoreProjector"],
    "cost/measure.py": [
        "single_partition_of_fp32_groups", "fp32_partitioned_groups_flat", "averaged_gradients",
        "grad_partitions_flat_buffer", "ds_tensor",
    ],
    "models/universal.py": [
        "_get_zero_stage", "_get_optim_files", "optimizer_state_dict", "base_optimizer_state",
        "single_partition_of_fp32_groups", "fp32_flat_groups", "exp_avg",
    ],
    "models/find.py": ["hf_quantizer", "is_quantized", "quantization_config"],
}  # fmt: skip


@pytest.mark.parametrize("file", READ)
def test_the_list_says_what_each_file_reads(file):
    source = (ROOT / file).read_text(encoding="utf-8")
    assert [name for name in READ[file] if name not in source] == []


# DeepSpeed


class Layers(torch.nn.Module):
    """Two matrices of 5 x 3 and 3 x 1, and a vector of 3, in bf16."""

    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(5, 3), torch.nn.Linear(3, 1, bias=False)

    def forward(self, x):
        return self.second(self.first(x)).square().mean()


@pytest.fixture(scope="module")
def stages():
    """Engine and wrapped optimizer of each stage, after a backward pass and before the step."""
    start_deepspeed(on_cpu=True)
    made = {}
    for stage in (0, 1, 2, 3):
        torch.manual_seed(0)
        model = Layers()
        groups = [{"params": [model.first.weight, model.second.weight]}, {"params": [model.first.bias]}]
        config = {
            "train_micro_batch_size_per_gpu": 2,
            "bf16": {"enabled": True},
            "zero_optimization": {"stage": stage},
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }
        engine, wrapper = wrap(model, AdamS(groups), config)
        engine.backward(engine(torch.ones(2, 5, dtype=torch.bfloat16)))
        made[stage] = engine, wrapper
    yield made
    for engine, _ in made.values():
        engine.destroy()


SIZES = [[15, 3], [3]]
"""Elements of the parameters in each group: both matrices, and the vector."""


@pytest.fixture(scope="module")
def stepped(stages):
    """The same, after the step. Shards are looked at before it."""
    for engine, _ in stages.values():
        engine.step()
    return stages


def held(wrapper) -> list[list[torch.Tensor]]:
    """What the optimizer itself has in its groups."""
    return [group["params"] for group in running_optimizer(wrapper).param_groups]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_the_optimizer_is_inside_its_wrapper(stage, stages):
    _, wrapper = stages[stage]
    assert type(wrapper.optimizer) is AdamS
    assert running_optimizer(wrapper) is wrapper.optimizer


def test_without_zero_the_optimizer_has_whole_fp32_masters(stages):
    engine, wrapper = stages[0]
    assert [[master.numel() for master in group] for group in held(wrapper)] == SIZES
    assert all(master.dtype is torch.float32 for group in held(wrapper) for master in group)
    assert {parameter.dtype for parameter in engine.module.parameters()} == {torch.bfloat16}
    assert not hasattr(wrapper, "round_robin_bit16_groups")
    assert not hasattr(wrapper, "fp16_partitioned_groups")


@pytest.mark.parametrize("stage", [1, 2])
def test_zero_1_and_2_say_what_their_flat_shards_hold(stage, stages):
    engine, wrapper = stages[stage]
    shards = wrapper.single_partition_of_fp32_groups
    assert [[shard is own for own in group] for shard, group in zip(shards, held(wrapper), strict=True)] == [[True]] * 2
    # Padded to a multiple of the alignment: 15 + 3, and 3.
    assert wrapper.nccl_start_alignment_factor == ledger._ALIGNMENT == 2
    assert [(shard.dtype, tuple(shard.shape)) for shard in shards] == [(torch.float32, (18,)), (torch.float32, (4,))]
    module = engine.module
    parameters = [[module.first.weight, module.second.weight], [module.first.bias]]
    for number, expected in enumerate(parameters):
        found, offsets = wrapper.round_robin_bit16_groups[number], wrapper.round_robin_bit16_offsets[number]
        assert {id(parameter) for parameter in found} == {id(parameter) for parameter in expected}
        flat = shards[number]
        for parameter, offset in zip(found, offsets, strict=True):
            part = flat[offset : offset + parameter.numel()].view(parameter.shape)
            assert torch.equal(part.to(torch.bfloat16), parameter)
        assert dist.get_rank(wrapper.real_dp_process_group[number]) == 0
        gradients = wrapper.averaged_gradients[number]
        assert sum(gradient.numel() for gradient in gradients) == flat.numel()
    assert set(wrapper.averaged_gradients) == {0, 1}


def test_zero_3_says_what_its_flat_shards_hold(stages):
    engine, wrapper = stages[3]
    assert len(wrapper.fp16_partitioned_groups) == 2
    shards = wrapper.fp32_partitioned_groups_flat
    assert [(shard.dtype, tuple(shard.shape)) for shard in shards] == [(torch.float32, (18,)), (torch.float32, (3,))]
    for number, sizes in enumerate(SIZES):
        parameters = wrapper.fp16_groups[number]
        assert [parameter.ds_numel for parameter in parameters] == sizes
        assert [parameter.partition_numel() for parameter in parameters] == sizes  # of one process: all
        assert dist.get_rank(wrapper.sub_group_process_groups[number]) == 0
    module = engine.module
    assert (tuple(module.first.weight.ds_shape), tuple(module.first.bias.ds_shape)) == ((3, 5), (3,))
    assert module.first.weight.ds_tensor.dtype is torch.bfloat16
    assert module.first.weight.ds_tensor.numel() == 15
    assert wrapper.grad_partitions_flat_buffer.numel() >= 21


@pytest.mark.parametrize(
    ("stage", "shards"),
    [
        (1, "single_partition_of_fp32_groups"),
        (2, "single_partition_of_fp32_groups"),
        (3, "fp32_partitioned_groups_flat"),
    ],
)
def test_the_optimizer_is_handed_these_very_shards(stage, shards, stepped):
    _, wrapper = stepped[stage]
    assert {id(tensor) for tensor in wrapper.optimizer.state} == {id(shard) for shard in getattr(wrapper, shards)}


def test_zero_3_keeps_whole_what_the_ledger_takes_for_whole():
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    assert DeepSpeedZeroConfig(stage=3).param_persistence_threshold == ledger.PERSISTENT_VALUES


@pytest.mark.parametrize(
    ("stage", "states", "shards"),
    [
        (1, "base_optimizer_state", "single_partition_of_fp32_groups"),
        (2, "base_optimizer_state", "single_partition_of_fp32_groups"),
        (3, "optimizer_state_dict", "fp32_flat_groups"),
    ],
)
def test_a_checkpoint_holds_the_states_where_the_converter_looks(stage, states, shards, stepped, tmp_path):
    from deepspeed.checkpoint import ds_to_universal

    engine, _ = stepped[stage]
    engine.save_checkpoint(tmp_path, tag="saved")
    files = ds_to_universal._get_optim_files(str(tmp_path / "saved"))
    assert [Path(file).name.endswith("zero_pp_rank_0_mp_rank_00_optim_states.pt") for file in files] == [True]
    assert ds_to_universal._get_zero_stage(files) == stage
    saved = torch.load(files[0], weights_only=False)["optimizer_state_dict"]
    assert ("base_optimizer_state" in saved) is (stage < 3)
    found = saved[states]["state"]
    assert [list(state) for state in found.values()] == [["exp_avg"]] * 2
    assert [shard.numel() for shard in saved[shards]] == [18, 3]


def test_the_converter_takes_the_arguments_that_we_give():
    from deepspeed.checkpoint import ds_to_universal

    source = inspect.getsource(ds_to_universal)
    for name in (
        "input_folder", "output_folder", "num_extract_workers", "num_merge_workers", "keep_temp_folder", "strict",
        "inject_missing_state",
    ):  # fmt: skip
        assert f"args.{name}" in source, name


# accelerate and transformers


def test_accelerates_wrappers_hold_the_optimizer_by_that_name():
    from accelerate import Accelerator

    optimizer = AdamS([torch.nn.Parameter(torch.zeros(2))])
    wrapped = Accelerator(cpu=True).prepare_optimizer(optimizer)
    assert type(wrapped) is AcceleratedOptimizer
    assert wrapped.optimizer is optimizer
    assert DeepSpeedOptimizerWrapper(optimizer).optimizer is optimizer


def test_accelerates_state_has_deepspeeds_plugin_with_stage_and_configuration():
    assert isinstance(inspect.getattr_static(AcceleratorState, "deepspeed_plugin"), property)
    config = {"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 2}}
    plugin = DeepSpeedPlugin(hf_ds_config=config)
    assert plugin.zero_stage == 2
    assert plugin.deepspeed_config["zero_optimization"]["stage"] == 2


def test_transformers_calls_what_is_no_class_for_the_optimizer_and_hands_it_to_callbacks():
    from transformers import Trainer
    from transformers.trainer_callback import CallbackHandler
    from transformers.trainer_optimizer import is_optimizer_factory

    assert is_optimizer_factory(lambda: None)
    assert not is_optimizer_factory(AdamS)
    assert "optimizer_cls()(opt_model, **optimizer_kwargs)" in inspect.getsource(Trainer.create_optimizer)
    assert "optimizer=self.optimizer" in inspect.getsource(CallbackHandler.call_event)


def test_a_search_sets_the_fields_that_a_swapped_optimizer_reads_before_it_is_made():
    from transformers import Trainer, TrainingArguments

    fields = {"learning_rate", "weight_decay", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon"}
    assert fields <= set(TrainingArguments.__dataclass_fields__)
    source = inspect.getsource(Trainer.train)
    assert source.index("_hp_search_setup(trial)") < source.index("inner_training_loop(")
    assert "setattr(self.args, key, value)" in inspect.getsource(Trainer._hp_search_setup)
    assert "self.hp_search_backend = backend" in inspect.getsource(Trainer.hyperparameter_search)
    assert "self.hp_search_backend = None" in inspect.getsource(Trainer.__init__)


def test_transformers_training_step_asks_for_optim_where_it_is_lomo_or_adalomo_and_nowhere_else():
    from transformers import Trainer
    from transformers.training_args import OptimizerNames

    assert {OptimizerNames.LOMO.value, OptimizerNames.ADALOMO.value} == {"lomo", "adalomo"}
    asked = "self.args.optim in [OptimizerNames.LOMO, OptimizerNames.ADALOMO]"
    assert asked in inspect.getsource(Trainer.training_step)
    assert inspect.getsource(Trainer.training_step).count("args.optim") == 1


def test_multiprocessing_ends_children_once():
    from multiprocessing.util import _exit_function

    assert "if not _exiting" in inspect.getsource(_exit_function)


def test_transformers_has_no_door_for_names_of_others(tmp_path):
    """When this fails, `TrainingArguments(optim="adams")` is possible: docs/transformers_proposal.md."""
    from transformers import TrainingArguments, trainer_optimizer

    assert not [name for name in dir(trainer_optimizer) if "register" in name]
    with pytest.raises(ValueError, match="adams is not a valid OptimizerNames"):
        TrainingArguments(str(tmp_path), optim="adams")


def test_transformers_keeps_the_marks_of_a_quantized_file_under_the_names_that_are_taken_off():
    from transformers import PreTrainedModel

    source = inspect.getsource(PreTrainedModel.save_pretrained)
    assert "hf_quantizer" in source
    assert "is_quantized" in inspect.getsource(importlib.import_module("transformers.quantizers.base"))
    assert "quantization_config" in inspect.getsource(importlib.import_module("transformers.modeling_utils"))


# torch and the packages of single optimizers


def test_torchs_functional_adam_takes_what_we_give():
    from torch.optim.adam import adam

    parameters = list(inspect.signature(adam).parameters)
    assert parameters[:6] == ["params", "grads", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs", "state_steps"]
    assert {"fused", "amsgrad", "beta1", "beta2", "lr", "weight_decay", "eps", "maximize"} <= set(parameters)


@pytest.mark.parametrize("name", ["mul", "mul_", "addcmul_", "add_", "sqrt_", "div", "sub_"])
def test_torch_has_its_multi_tensor_operations(name):
    assert callable(getattr(torch, f"_foreach_{name}"))


def test_torch_says_what_the_processor_can_do_and_lets_versions_be_counted():
    assert torch.backends.cpu.get_cpu_capability() in {"DEFAULT", "AVX2", "AVX512", "AVX512_AMX", "NEON", "SVE256"}
    tensor = torch.zeros(2)
    before = tensor._version
    torch.autograd.graph.increment_version([tensor])
    assert tensor._version == before + 1


def test_adam_mini_and_galore_keep_what_we_set_under_those_names():
    adam_mini = pytest.importorskip("adam_mini")
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    optimizer = adam_mini.Adam_mini([("q_proj.weight", parameter)], lr=0.1, dim=4, n_heads=2, verbose=False)
    assert isinstance(optimizer.world_size, int)
    assert optimizer.head_numel == 4 * 4 // 2
    galore = pytest.importorskip("pytorch_optimizer.optimizer.utils.galore")
    assert inspect.isclass(galore.GaLoreProjector)


def test_torch_can_be_told_to_load_weights_alone_whatever_a_caller_asks_for():
    import torch

    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" in inspect.getsource(torch.load)
    assert callable(torch.serialization.safe_globals)


def test_torchs_store_is_made_by_the_function_that_we_replace():
    import importlib

    rendezvous = importlib.import_module("torch.distributed.rendezvous")
    taken = list(inspect.signature(rendezvous._create_c10d_store).parameters)
    assert taken == ["hostname", "port", "rank", "world_size", "timeout", "use_libuv"]
    assert "_create_c10d_store(" in inspect.getsource(rendezvous._env_rendezvous_handler)
    assert callable(rendezvous._torchelastic_use_agent_store)
