"""The seams of TRL, transformers and DeepSpeed that the training loop uses, so that an upgrade fails here, by name.

Nothing is run: these are signatures, fields and attributes, and a few lines of source whose order we rely on.
"""

import dataclasses
import inspect
import re

import pytest
import trl
from accelerate import Accelerator
from transformers import (
    GenerationConfig,
    GenerationMixin,
    PretrainedConfig,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from rl_posttrain.recipe.files import bundled_recipes
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.recipe.sizes import derive_sizes
from rl_posttrain.training.backends.backend import make_backend
from rl_posttrain.training.loop import PolicyTrainer
from rl_posttrain.training.recorder import _FROM_TRL
from rl_posttrain.training.sharded_loop import ShardedTrainer
from rl_posttrain.training.trl_config import _NOT_OURS_TO_PASS, _SAID_BY, _fields_from

CONFIG_FIELDS = {field.name for field in dataclasses.fields(trl.GRPOConfig) if field.init}


TRAINER = inspect.getsource(trl.GRPOTrainer)


def names(function) -> list[str]:
    return list(inspect.signature(function).parameters)


# TRL


OVERRIDDEN = {
    "_generate_and_score_completions": ["self", "inputs"],
    "_compute_loss": ["self", "model", "inputs"],
    "_maybe_log_save_evaluate": ["self", "tr_loss", "grad_norm", "model"],
    "log": ["self", "logs", "start_time"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_get_output_dir": ["self", "trial"],
    "_save": ["self", "output_dir", "state_dict"],
    "create_model_card": ["self", "model_name", "dataset_name", "tags"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_clip_grad_norm": ["self", "model"],
    "_load_optimizer_and_scheduler": ["self", "checkpoint"],
    "_prepare_for_training": ["self", "max_steps", "train_dataloader", "resume_from_checkpoint"],
    "save_model": ["self", "output_dir", "_internal_call"],
    "_save_optimizer_and_scheduler": ["self", "output_dir"],
    "_move_model_to_device": ["self", "model", "device"],
    "create_scheduler": ["self", "num_training_steps", "optimizer"],
}


@pytest.mark.parametrize("method", OVERRIDDEN)
def test_what_we_override_is_there_with_the_arguments_we_take(method):
    assert names(getattr(trl.GRPOTrainer, method))[: len(OVERRIDDEN[method])] == OVERRIDDEN[method]


def test_log_probabilities_are_asked_for_as_we_answer():
    theirs = names(trl.GRPOTrainer._get_per_token_logps_and_entropies)
    assert theirs[:5] == ["self", "model", "input_ids", "attention_mask", "logits_to_keep"]
    assert "batch_size" in theirs
    # Three values: log-probabilities, entropies, and one that only other losses use.
    unpacked = re.findall(r"([^\n=]+)= self\._get_per_token_logps_and_entropies\(", TRAINER)
    assert unpacked
    assert all(call.count(",") == 2 for call in unpacked), unpacked


def test_every_private_override_is_listed_here():
    private = {
        name
        for name, value in [*vars(PolicyTrainer).items(), *vars(ShardedTrainer).items()]
        if hasattr(trl.GRPOTrainer, name) and inspect.isfunction(value)
    }
    assert private - {"__init__"} == {*OVERRIDDEN, "_get_per_token_logps_and_entropies"}


def test_trls_trainer_sets_what_we_read():
    read = [
        "_metrics", "_step", "ref_model", "reward_weights", "reward_func_names", "use_vllm", "beta", "num_iterations",
        "max_completion_length", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "loss_type",
        "eos_token_ids", "_tokenizer", "num_generations", "pad_to_multiple_of", "mask_truncated_completions",
        "aux_loss_enabled", "vllm_importance_sampling_correction",
    ]  # fmt: skip
    assert [name for name in read if not re.search(rf"self\.{name}\b[^\n=]*=(?!=)", TRAINER)] == []


def test_trls_loss_takes_sampled_log_probabilities_under_the_name_we_give():
    assert "sampling_per_token_logps" in TRAINER
    assert "completion_mask" in TRAINER


def test_trls_loss_reads_no_more_than_we_give_it():
    """The inputs that are made here in TRL's place; others belong to images, tools and token types."""
    ours = {
        "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch",
        "old_per_token_logps", "ref_per_token_logps", "sampling_per_token_logps", "importance_sampling_ratio",
    }  # fmt: skip
    source = inspect.getsource(trl.GRPOTrainer._compute_loss)
    read = set(re.findall(r'inputs\[?(?:\.get\()?"(\w+)"', source))
    others = {name for name in read - ours if "image" in name or "pixel" in name or "token_type" in name}
    assert read - ours - others == {"num_tiles", "spatial_shapes", "tool_mask"}


def test_trl_prepares_batches_with_the_method_that_we_replace():
    source = inspect.getsource(trl.GRPOTrainer._prepare_inputs)
    assert source.count("self._generate_and_score_completions(generation_batch)") == 2
    assert "shuffle_sequence_dict" in source


def test_transformers_logs_saves_and_evaluates_by_one_method_after_a_step():
    source = inspect.getsource(Trainer)
    assert "self._maybe_log_save_evaluate(" in source
    assert "self.control.should_log" in inspect.getsource(Trainer._maybe_log_save_evaluate)


def test_trl_opens_the_model_for_generation_as_we_ask():
    from trl.models.utils import disable_gradient_checkpointing, unwrap_model_for_generation

    assert {"gather_deepspeed3_params", "gradient_checkpointing_kwargs"} <= set(names(unwrap_model_for_generation))
    assert names(disable_gradient_checkpointing)[:2] == ["model", "gradient_checkpointing_kwargs"]


def test_trl_logs_the_metrics_that_we_rename():
    assert [metric for metric in _FROM_TRL.values() if f'_metrics[mode]["{metric}"]' not in TRAINER] == []


@pytest.mark.parametrize("recipe", bundled_recipes())
def test_grpo_config_has_every_field_that_we_set_or_refuse(recipe):
    loaded = load_recipe(recipe)
    sizes = derive_sizes(loaded, 1)
    ours = _fields_from(loaded, sizes, make_backend(loaded, sizes), True)
    assert set(ours) <= CONFIG_FIELDS, set(ours) - CONFIG_FIELDS
    for table in (_SAID_BY, _NOT_OURS_TO_PASS):
        assert set(table) <= CONFIG_FIELDS, set(table) - CONFIG_FIELDS


def test_every_loss_of_the_recipe_is_one_of_trls():
    from typing import get_args

    from rl_posttrain.recipe.schema import AlgorithmSection

    losses = get_args(AlgorithmSection.model_fields["loss"].annotation)
    source = inspect.getsource(trl.GRPOTrainer._compute_loss)
    assert [loss for loss in losses if f'"{loss}"' not in source] == []


def test_trl_calls_the_trainers_parts_that_we_call():
    """Of the policy and its arguments, in placed.py and before_update.py."""
    assert "self.model_wrapped" in TRAINER
    fields = {"ds3_gather_for_generation", "generation_kwargs", "gradient_checkpointing_kwargs", "steps_per_generation"}
    assert fields <= CONFIG_FIELDS
    assert callable(Accelerator.unwrap_model)
    assert callable(Accelerator.wait_for_everyone)
    assert names(Accelerator.reduce)[:3] == ["self", "tensor", "reduction"]


# transformers


def test_a_step_is_logged_by_the_method_that_we_call():
    assert names(Trainer.log) == ["self", "logs", "start_time"]
    assert {"global_step", "num_input_tokens_seen"} <= {field.name for field in dataclasses.fields(TrainerState)}
    assert {"on_train_begin", "on_step_end"} <= set(vars(TrainerCallback))
    assert "PrinterCallback" in inspect.getsource(Trainer.__init__)


def test_generate_takes_the_configuration_that_we_give():
    given = {
        "max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "pad_token_id",
        "bos_token_id", "eos_token_id", "disable_compile",
    }  # fmt: skip
    assert given <= set(vars(GenerationConfig()))
    assert "generation_config" in names(GenerationMixin.generate)


def test_variables_of_the_environment_are_read_as_we_set_them():
    from accelerate import state
    from transformers.integrations import integration_utils

    assert 'os.getenv("TENSORBOARD_LOGGING_DIR"' in inspect.getsource(integration_utils)
    assert 'os.environ.get("ACCELERATE_USE_DEEPSPEED"' in inspect.getsource(state)


def test_trackers_that_are_missing_are_found_by_name():
    from transformers.integrations import get_reporting_integration_callbacks

    with pytest.raises(ValueError, match="no-such-tracker is not supported"):
        get_reporting_integration_callbacks(["no-such-tracker"])


def test_the_optimizers_class_is_still_read_when_the_optimizer_is_created():
    source = inspect.getsource(Trainer.create_optimizer)
    assert "self.optimizer_cls_and_kwargs is not None" in source
    assert re.search(r"optimizer_cls, optimizer_kwargs = self\.optimizer_cls_and_kwargs", source)


def test_checkpoints_are_named_and_resumed_as_we_rely_on():
    from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

    assert PREFIX_CHECKPOINT_DIR == "checkpoint"
    assert "resume_from_checkpoint" in names(Trainer.train)
    assert {"save_strategy", "save_steps", "max_steps", "use_cpu", "deepspeed", "warmup_steps"} <= {
        field.name for field in dataclasses.fields(TrainingArguments)
    }


def test_models_tell_their_head_and_their_body():
    from transformers import LlamaForCausalLM, PreTrainedModel

    assert callable(PreTrainedModel.get_output_embeddings)
    assert isinstance(inspect.getattr_static(PreTrainedModel, "base_model"), property)
    assert {"input_ids", "attention_mask", "use_cache"} <= set(names(LlamaForCausalLM.forward))
    assert callable(PretrainedConfig.get_text_config)
    assert GenerationConfig().top_k is None or isinstance(GenerationConfig().top_k, int)


# DeepSpeed


def test_deepspeed_can_be_told_not_to_compile_its_shared_memory_collectives():
    import deepspeed

    assert "deepspeed_shm_comm" in deepspeed.ops.__compatible_ops__
    assert {"dist_backend", "verbose"} <= set(names(deepspeed.init_distributed))
    assert names(deepspeed.zero.GatheredParameters.__init__)[:2] == ["self", "params"]


def test_deepspeed_knows_the_keys_that_we_write():
    from deepspeed.runtime import constants
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    recipe = load_recipe("quickstart", ["algorithm.micro_batch_size=8"])
    written = make_backend(recipe, derive_sizes(recipe, 1)).trl_fields()["deepspeed"]
    known = {field.alias or name for name, field in DeepSpeedZeroConfig.model_fields.items()}
    assert {key.removeprefix("stage3_") for key in written["zero_optimization"]} <= {
        key.removeprefix("stage3_") for key in known
    }
    values = {value for value in vars(constants).values() if isinstance(value, str)}
    assert written["data_types"]["grad_accum_dtype"] == "fp32"
    assert {"data_types", "grad_accum_dtype"} <= values
    untested = {"zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer"}
    assert untested <= written.keys()
    assert untested <= values


def test_accelerate_still_reads_the_key_that_keeps_our_optimizer():
    import accelerate.accelerator

    assert "zero_force_ds_cpu_optimizer" in inspect.getsource(accelerate.accelerator)
