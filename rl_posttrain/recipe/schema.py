"""The schema of a recipe: its sections, their keys, types and defaults. docs/recipe.md says what each key means."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rl_posttrain.recipe.distributed_section import DistributedSection
from rl_posttrain.recipe.guards_section import GuardsSection
from rl_posttrain.recipe.model_section import ModelSection
from rl_posttrain.recipe.paths import shown
from rl_posttrain.recipe.rollout_section import RolloutSection
from rl_posttrain.recipe.section import Listed, NonNegative, OpenSection, Positive, Section, Seed, Several
from rl_posttrain.recipe.task_section import TaskSection
from rl_posttrain.rewards import REWARDS
from rl_posttrain.runs.goals import default_mode
from rl_posttrain.runs.yaml12 import write_yaml

# As rl_posttrain.optim.roles finds them; that module imports torch, which reading a recipe does not need.
Role = Literal["matrices", "embeddings", "output_layer", "norms", "biases"]


class RunSection(Section):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._=,-]*$")]
    seed: Seed = 0
    deterministic: bool = False
    output_dir: str = "runs"


class RewardSection(Section):
    fn: str
    weight: float = 1.0
    args: dict[str, Any] = Field(default_factory=dict)
    on_error: Literal["stop", "zero"] = "stop"
    isolated: bool = False
    timeout_s: Annotated[float, Field(gt=0)] | None = None
    import_timeout_s: Annotated[float, Field(gt=0)] | None = None
    tasks: Several[str] | None = None  # of a mixture; None: all of its parts
    judges: Literal["answer", "form"] | None = None
    range: Listed[float] | None = None  # lowest and highest; recipe/checks.py checks it

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


# Algorithms that take the KL penalty off the reward unless the recipe says otherwise; the others add it to the loss.
_KL_IN_REWARD = ("ppo", "reinforce_pp", "rloo")
# Keys whose defaults go by the algorithm's name; a recipe that changes the name leaves them out.
BY_ALGORITHM = ("scale_rewards", "kl_in", "kl_estimator")


class AlgorithmSection(Section):
    name: str = "grpo"
    num_steps: Positive
    prompts_per_step: Positive
    group_size: Positive
    micro_batch_size: Positive
    num_mini_batches: Positive = 1
    num_epochs: Positive = 1
    loss: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = "dr_grpo"
    scale_rewards: Literal["group", "batch", "none"] | None = None
    kl_coef: Annotated[float, Field(ge=0)] = 0.0
    kl_in: Literal["reward", "loss"] = "loss"
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    kl_bias_correction: bool = True
    zero_variance_groups: Literal["keep", "skip", "resample"] = "keep"
    max_resample_rounds: Positive = 3
    stop_at: dict[str, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_what_the_algorithm_decides(cls, data: Any) -> Any:
        """Fill in the defaults that go by the algorithm's name, so that the resolved recipe has them."""
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if value is not None or key not in BY_ALGORITHM}
        name = data.get("name", "grpo")
        place = data.get("kl_in", "reward" if name in _KL_IN_REWARD else "loss")
        # The loss of REINFORCE++ with a group baseline has k2 (arXiv:2501.03262).
        in_loss = "k2" if name == "reinforce_pp_baseline" else "k3"
        defaults = {"kl_in": place, "kl_estimator": "k1" if place == "reward" else in_loss}
        return ({"scale_rewards": "group"} if name == "grpo" else {}) | defaults | data


class OptimizerArguments(OpenSection):
    """What the optimizer of a policy and that of a critic both say; further keys are arguments of its class."""

    name: str | None
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    no_decay: Listed[Role] = ("norms", "biases")
    lr_by_role: dict[Role, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: NonNegative = 0


class OptimizerSection(OptimizerArguments):
    name: str = "adams"
    lr: Annotated[float, Field(gt=0)]
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0


class CriticOptimizerSection(OptimizerArguments):
    name: str | None = None  # None: the policy's, with its further arguments
    lr: Annotated[float, Field(gt=0)] = 1e-5


class CriticSection(Section):
    """What an algorithm with a critic has beside the others, such as ppo."""

    model: str | None = None  # None: the policy's own
    shared_backbone: bool = False
    warmup_steps: NonNegative = 0
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    gae_lambda: Annotated[float, Field(ge=0, le=1)] = 1.0
    value_lambda: Annotated[float, Field(ge=0, le=1)] | None = None  # None: gae_lambda
    length_adaptive_alpha: Annotated[float, Field(gt=0)] | None = None
    bootstrap_truncated: bool = False
    whiten_advantages: bool = True
    value_clip: Annotated[float, Field(gt=0)] | None = 0.2
    value_coef: Annotated[float, Field(gt=0)] = 1.0
    optimizer: CriticOptimizerSection = CriticOptimizerSection()


class EvalSection(Section):
    every_steps: NonNegative = 0
    at_start: bool | None = None  # None: where every_steps is above 0
    num_questions: Positive | None = None  # None: all of them
    num_samples: Positive = 1
    k: Several[Positive] = (1,)
    # None: as the rollouts are drawn.
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_new_tokens: Positive | None = None

    @property
    def starts(self) -> bool:
        """Whether there is an evaluation before the first step."""
        return self.every_steps > 0 if self.at_start is None else self.at_start

    @property
    def is_on(self) -> bool:
        """Whether there are evaluations; then there is one after the last step, too."""
        return self.every_steps > 0 or self.starts


class KeepBestSection(Section):
    metric: str
    mode: Literal["max", "min"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_mode(cls, data: Any) -> Any:
        """Fill in the mode that goes by the metric, so that the resolved recipe has it."""
        if isinstance(data, dict) and isinstance(data.get("metric"), str) and data.get("mode") is None:
            return data | {"mode": default_mode(data["metric"])}
        return data


class CheckpointSection(Section):
    every_steps: NonNegative = 0
    keep: Positive = 1
    keep_best: KeepBestSection | None = None
    on_signal: bool = True
    final_model: bool = True

    @property
    def warning(self) -> str | None:
        """What to know before a run without regular checkpoints starts."""
        if not (keys := self.without_checkpoints):
            return None
        moments = ["after a best step"] * (self.keep_best is not None) + ["at a signal"] * self.on_signal
        if not moments:
            return f"{keys}: no checkpoint is written; a run that is stopped starts again at step 0"
        return (
            f"{keys}: a checkpoint is written {' and '.join(moments)} alone; a run that is killed without one starts "
            "again at step 0"
        )

    @property
    def without_checkpoints(self) -> str:
        """Why there may be no checkpoint to go on from, as keys and values; empty where there are regular ones."""
        if self.every_steps > 0:
            return ""
        return "checkpoint.every_steps=0" + ("" if self.on_signal else ", checkpoint.on_signal=false")


class LoggingSection(Section):
    trackers: Listed[str] = ("tensorboard",)
    print_samples: NonNegative = 2


class CompareSection(Section):
    """What `rl-posttrain compare` runs of this recipe; `train` leaves it aside."""

    optimizers: Several[str] = ("adams", "adamw")
    seeds: Several[Seed] = (0, 1, 2)
    # Each entry is one more variant of every optimizer: recipe keys and their values.
    vary: Listed[dict[str, Any]] = ()


class Recipe(Section):
    """A whole recipe; see docs/recipe.md for each key."""

    run: RunSection
    model: ModelSection
    task: TaskSection
    rewards: Several[RewardSection]
    algorithm: AlgorithmSection
    optimizer: OptimizerSection
    critic: CriticSection | None = None
    rollout: RolloutSection
    distributed: DistributedSection = DistributedSection()
    eval: EvalSection = EvalSection()
    checkpoint: CheckpointSection = CheckpointSection()
    guards: GuardsSection = GuardsSection()
    logging: LoggingSection = LoggingSection()
    trl: dict[str, Any] = Field(default_factory=dict)
    compare: CompareSection | None = None

    @model_validator(mode="before")
    @classmethod
    def _fill_in_the_critic(cls, data: Any) -> Any:
        """`ppo` has a critic also where the recipe says nothing of it."""
        algorithm = data.get("algorithm") if isinstance(data, dict) else None
        if isinstance(algorithm, dict) and algorithm.get("name") == "ppo" and data.get("critic") is None:
            return data | {"critic": {}}
        return data

    def to_yaml(self) -> str:
        """The resolved recipe: every key with its value, readable by `load_recipe`."""
        data = self.model_dump(mode="json")
        for section in ("critic", "compare"):
            if data[section] is None:
                del data[section]
        return write_yaml(data)

    @property
    def max_new_tokens(self) -> dict[str, int]:
        """The most tokens of a completion, by the section that says it."""
        said = {"rollout": self.rollout.max_new_tokens}
        if self.eval.is_on and self.eval.max_new_tokens is not None:
            said["eval"] = self.eval.max_new_tokens
        return said

    @property
    def run_path(self) -> Path:
        """The run directory, from the working directory where it lies below that."""
        return shown(self.run.output_dir) / self.run.name
