"""The schema of a recipe: its sections, their keys, types and defaults. docs/recipe.md says what each key means."""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rl_posttrain.rewards import REWARDS

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
# As rl_posttrain.optim.roles finds them; that module imports torch, which reading a recipe does not need.
Role = Literal["matrices", "embeddings", "output_layer", "norms", "biases"]


class _Dumper(yaml.SafeDumper):
    """YAML with lists of single values on one line: ``betas: [0.9, 0.95]``."""

    def represent_list(self, data: list) -> yaml.Node:
        single = not any(isinstance(value, (list, dict)) for value in data)
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=single)


_Dumper.add_representer(list, _Dumper.represent_list)


class Section(BaseModel):
    """One block of a recipe: immutable, and it knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class OpenSection(Section):
    """A block whose further keys are arguments of the code it names."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are not the section's own."""
        return dict(self.model_extra or {})


class RunSection(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=,-]*$")]
    seed: NonNegative = 0
    output_dir: str = "runs"


class ModelSection(Section):
    name: str
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = False


class TaskSection(OpenSection):
    name: str
    num_train: Positive | None = None
    num_eval: NonNegative | None = None
    max_unreadable_golds: Annotated[float, Field(ge=0, le=1)] = 0.01


class RewardSection(Section):
    fn: str
    weight: float = 1.0
    args: dict[str, Any] = {}
    on_error: Literal["stop", "zero"] = "stop"
    isolated: bool = False
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    judges: Literal["answer", "form"] | None = None
    range: tuple[float, ...] | None = None  # lowest and highest; recipe/checks.py checks it

    @model_validator(mode="before")
    @classmethod
    def _fill_in_what_it_judges(cls, data: Any) -> Any:
        """Fill in the defaults of `judges` and `range`, so that the resolved recipe has them."""
        if not isinstance(data, dict):
            return data
        own = (built_in for name, built_in in REWARDS.items() if data.get("fn") in (name, built_in.location))
        if built_in := next(own, None):
            data = {"judges": built_in.judges, "range": built_in.range} | data
        unsaid = data.get("judges") is not None and data.get("range") is None
        return data | {"range": (0.0, 1.0)} if unsaid else data

    @property
    def name(self) -> str:
        """The name under which the reward is logged: a built-in's own, or the function's in ``file.py:function``."""
        return self.fn.rpartition(":")[2]


class AlgorithmSection(Section):
    name: str = "grpo"
    num_steps: Positive
    prompts_per_step: Positive
    group_size: Annotated[int, Field(ge=2)]
    micro_batch_size: Positive
    loss: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dr_grpo"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    zero_variance_groups: Literal["keep", "skip", "resample"] = "keep"
    max_resample_rounds: Positive = 3


class OptimizerSection(OpenSection):
    name: str = "adams"
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    no_decay: tuple[Role, ...] = ("norms", "biases")
    lr_by_role: dict[Role, Annotated[float, Field(gt=0)]] = {}
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegative = 0


class RolloutSection(Section):
    engine: Literal["vllm", "transformers"] = "vllm"
    max_new_tokens: Positive
    temperature: Annotated[float, Field(gt=0)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    gpu_memory_share: Annotated[float, Field(gt=0, lt=1)] = 0.3
    max_logprob_difference: Annotated[float, Field(gt=0)] = 0.15


class DistributedSection(Section):
    engine: Literal["deepspeed", "none"] = "deepspeed"
    zero_stage: Literal[0, 1, 2, 3] = 2


class EvalSection(Section):
    every_steps: NonNegative = 0
    num_samples: Positive = 1
    k: tuple[Positive, ...] = (1,)


class CheckpointSection(Section):
    every_steps: NonNegative = 0
    keep: Positive = 1
    final_model: bool = True


class LoggingSection(Section):
    trackers: tuple[str, ...] = ("tensorboard",)
    print_samples: NonNegative = 2


class CompareSection(Section):
    """What `rl-posttrain compare` runs of this recipe; `train` leaves it aside."""

    optimizers: Annotated[tuple[str, ...], Field(min_length=1)] = ("adams", "adamw")
    seeds: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (0, 1, 2)
    # Each entry is one more variant of every optimizer: recipe keys and their values.
    vary: tuple[dict[str, Any], ...] = ()


class Recipe(Section):
    """A whole recipe; see docs/recipe.md for each key."""

    run: RunSection
    model: ModelSection
    task: TaskSection
    rewards: Annotated[tuple[RewardSection, ...], Field(min_length=1)]
    algorithm: AlgorithmSection
    optimizer: OptimizerSection
    rollout: RolloutSection
    distributed: DistributedSection = DistributedSection()
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    logging: LoggingSection = LoggingSection()
    trl: dict[str, Any] = {}
    compare: CompareSection | None = None

    def to_yaml(self) -> str:
        """The resolved recipe: every key with its value, readable by `load_recipe`."""
        data = self.model_dump(mode="json")
        if self.compare is None:
            del data["compare"]
        return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)

    @property
    def run_path(self) -> Path:
        return Path(self.run.output_dir) / self.run.name
