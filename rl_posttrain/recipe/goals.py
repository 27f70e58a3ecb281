"""Checks of the metrics that a recipe names as goals: `checkpoint.keep_best` and `algorithm.stop_at`."""

from collections.abc import Callable

from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.metrics import METRICS, find_metric

# No goals: a number that only counts, and a text.
_NO_GOALS = {"step", "prompts_sha256"}


def check_goals(recipe: Recipe) -> None:
    """Fail on a metric that this run will not record.

    Raises:
        RecipeError: there is no such metric, or not in a run of this recipe.
    """
    if recipe.checkpoint.keep_best is not None:
        _check(recipe, "checkpoint.keep_best.metric", recipe.checkpoint.keep_best.metric)
    for name, value in (recipe.algorithm.stop_at or {}).items():
        _check(recipe, f"algorithm.stop_at.{name}", name, f"={value:g}")


def _check(recipe: Recipe, key: str, name: str, said: str | None = None) -> None:
    said = key + (f"={name}" if said is None else said)
    rewards = [reward.name for reward in recipe.rewards]
    # What a reward logs itself is not known before it runs.
    if name.partition("/")[0] in rewards and name.partition("/")[2]:
        return
    if name.startswith("eval/") and not recipe.eval.every_steps:
        raise RecipeError(f"{said}: only an evaluation knows it, and eval.every_steps=0; set eval.every_steps")
    known = _known(recipe)
    if name not in known:
        raise RecipeError(f"{said}: no step records such a metric; {did_you_mean(name, known)}")
    # In an evaluation a number needs the same rewards as in a step; these need those of accuracy.
    counted = name.removeprefix("eval/")
    if counted.startswith(("pass@", "maj@", "unreadable")):
        counted = "accuracy"
    for metric in map(find_metric, (name, counted)):
        if metric is not None and metric.absent and _ABSENT[metric.absent](recipe):
            raise RecipeError(f"{said}: this run will not record it; it is absent {metric.absent}")


def _known(recipe: Recipe) -> set[str]:
    """The names of metrics with the rewards and the k of this recipe in the place of angle brackets."""
    fillings = {
        "<name>": [reward.name for reward in recipe.rewards],
        "<reward>": [reward.name for reward in recipe.rewards if reward.on_error == "zero"],
        "<k>": [str(k) for k in recipe.eval.k],
    }
    known = set()
    for metric in METRICS:
        marks = [mark for mark in fillings if mark in metric.name]
        if not metric.is_family and metric.name not in _NO_GOALS:
            known.add(metric.name)
        elif marks and "<metric>" not in metric.name:
            known |= {metric.name.replace(marks[0], filling) for filling in fillings[marks[0]]}
    return known - {"eval/maj@1"}  # one completion has no vote


def _judges(recipe: Recipe, *wanted: str) -> bool:
    return set(wanted) <= {reward.judges for reward in recipe.rewards}


# When a run does not record a metric, by what the table of metrics says of it.
_ABSENT: dict[str, Callable[[Recipe], bool]] = {
    "without a reward that judges answers": lambda recipe: not _judges(recipe, "answer"),
    "without a reward that judges form": lambda recipe: not _judges(recipe, "form"),
    "without a reward for each of the two": lambda recipe: not _judges(recipe, "answer", "form"),
    "without evaluation": lambda recipe: not recipe.eval.is_on,
    "without a critic": lambda recipe: recipe.critic is None,
    "with `grpo` and `rloo`": lambda recipe: recipe.algorithm.name in ("grpo", "rloo"),
    "with other algorithms than `grpo`": lambda recipe: recipe.algorithm.name != "grpo",
    "with the losses `cispo`, `sapo` and `vespo`": lambda recipe: recipe.algorithm.loss in ("cispo", "sapo", "vespo"),
    "at `algorithm.kl_coef: 0`": lambda recipe: recipe.algorithm.kl_coef == 0,
    "without `algorithm.zero_variance_groups: skip`": lambda recipe: recipe.algorithm.zero_variance_groups != "skip",
    "without `algorithm.zero_variance_groups: resample`": lambda recipe: (
        recipe.algorithm.zero_variance_groups != "resample"
    ),
    "with `rollout.engine: transformers`, which has no copy of the weights": lambda recipe: (
        recipe.rollout.engine == "transformers"
    ),
    "without vLLM": lambda recipe: recipe.rollout.engine == "transformers",
    "with other engines than `vllm_server`": lambda recipe: recipe.rollout.engine != "vllm_server",
    "at `rollout.max_staleness: 0`": lambda recipe: recipe.rollout.max_staleness == 0,
    "with `rollout.importance_correction: none`": lambda recipe: recipe.rollout.importance_correction == "none",
}
