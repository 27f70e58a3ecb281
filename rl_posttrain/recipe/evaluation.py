"""What an evaluation outside of training needs to know: the sections of a recipe that say it, and their defaults."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.recipe.checks import check_evaluation
from rl_posttrain.recipe.explain import explain
from rl_posttrain.recipe.files import Origins
from rl_posttrain.recipe.load import apply_override
from rl_posttrain.recipe.model_section import ModelSection
from rl_posttrain.recipe.paths import make_paths_whole
from rl_posttrain.recipe.rollout_section import RolloutSection
from rl_posttrain.recipe.schema import EvalSection, RewardSection
from rl_posttrain.recipe.section import Section, Seed, Several
from rl_posttrain.recipe.task_section import TaskSection
from rl_posttrain.tasks import TASKS

DEFAULT_NEW_TOKENS = 1024
# What an evaluation reads of TRL's own fields.
TRL_OPTIONS = ("top_k", "min_p", "repetition_penalty", "generation_kwargs", "chat_template_kwargs")
_DATA_FILES = (".jsonl", ".json", ".parquet", ".csv")


class SeedSection(Section):
    seed: Seed = 0


class Evaluation(Section):
    """The sections of a recipe that an evaluation reads. They mean what they mean there."""

    run: SeedSection = SeedSection()
    model: ModelSection
    task: TaskSection
    rewards: Several[RewardSection]
    rollout: RolloutSection
    eval: EvalSection = EvalSection()
    trl: dict[str, Any] = Field(default_factory=dict)


def evaluation_for(
    model: str,
    *,
    task: str | None,
    options: Mapping[str, Mapping[str, Any]],
    overrides: Sequence[str],
    recipe: Mapping[str, Any] | None,
) -> Evaluation:
    """The evaluation of one model on one task.

    A model that a run trained is evaluated as its recipe says. Another task than the recipe's has its own rewards and
    template. For a model without a run, one sample a question is greedy, and several are drawn at temperature 1.

    Args:
        model: as the user named it.
        task: a built-in's name, a data file, or code; None for the recipe's.
        options: values of the command's own options, by section and key; they go before the recipe.
        overrides: ``section.key=value``; they go before all.
        recipe: of the run that trained the model; None where there is none.

    Raises:
        RecipeError: there is no task, or a key or a value cannot be used.
    """
    recipe = recipe or {}
    data: dict[str, Any] = {name: recipe[name] for name in Evaluation.model_fields if name in recipe}
    data["run"] = {"seed": data.get("run", {}).get("seed", 0)}
    data["model"] = {key: value for key, value in data.get("model", {}).items() if key != "name"} | {"name": model}
    # No trainer needs memory beside the engine.
    data["rollout"] = data.get("rollout", {"max_new_tokens": DEFAULT_NEW_TOKENS}) | {"gpu_memory_share": 0.85}
    if data["rollout"].get("engine") == "vllm_server":
        # The servers are a trainer's, and may be gone: an evaluation draws in its own process.
        data["rollout"] |= {"engine": "vllm", "servers": []}
    data["eval"] = dict(data.get("eval", {}))
    own_task = data.get("task", {}).get("name")
    if task == "" or (task is None and own_task is None):
        raise RecipeError(f"--task: missing; {model} has no recipe that names one; give a name of {', '.join(TASKS)}")
    if task is not None and task != own_task:
        data["task"] = _task_of(task)
        built_in = TASKS.get(data["task"]["name"])
        data["rewards"] = [{"fn": name} for name in (built_in.rewards if built_in else ("math_accuracy",))]
    for section, values in options.items():
        data[section] = data[section] | values
    for override in overrides:
        key = apply_override(data, override)
        if key == "model.name":
            raise RecipeError(f"{override}: the model is the first argument; name it there")
        section, name, *_ = key.split(".")
        if section == "trl" and name not in TRL_OPTIONS:
            raise RecipeError(f"{override}: an evaluation does not read it; {did_you_mean(name, TRL_OPTIONS)}")
    if not recipe and isinstance(data["eval"], dict) and data["eval"].get("temperature") is None:
        data["eval"]["temperature"] = 1.0 if data["eval"].get("num_samples", 1) != 1 else 0.0
    make_paths_whole(data)
    try:
        evaluation = Evaluation.model_validate(data)
    except ValidationError as error:
        raise RecipeError(explain(error.errors()[0], Origins(), Evaluation)) from None
    if evaluation.rollout.engine == "vllm_server":
        raise RecipeError(
            "rollout.engine=vllm_server: an evaluation outside of training draws in its own process; set vllm or "
            "transformers"
        )
    check_evaluation(evaluation.eval, evaluation.rollout)
    return evaluation


def _task_of(text: str) -> dict[str, Any]:
    """The task section of what ``--task`` says: a data file is a task whose every row is a question."""
    if text not in TASKS and ":" not in text and (Path(text).suffix in _DATA_FILES or Path(text).exists()):
        return {"name": "file", "path": text}
    return {"name": text}
