"""The recipe: its schema, loading it with `key=value` overrides, and the sizes that follow from it.

Loading one imports no heavy library. Values are checked where they are read: an error names key, value, reason and fix.
Options that belong to a task, a reward or an optimizer are checked against the signature of the code they are for.
"""

import importlib.resources
import os
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rl_posttrain.errors import RecipeError
from rl_posttrain.plugins import did_you_mean
from rl_posttrain.schema import Recipe, Section


class Sizes(Section):
    """What follows from a recipe on a number of processes; computed here and nowhere else."""

    num_processes: int
    completions_per_step: int
    completions_per_process: int
    gradient_accumulation: int
    completions_in_run: int
    max_new_tokens_per_step: int


def derive_sizes(recipe: Recipe, num_processes: int) -> Sizes:
    """The sizes of one step on `num_processes` devices.

    Raises:
        RecipeError: the step's completions cannot be cut into equal micro batches on every process.
    """
    algorithm = recipe.algorithm
    completions = algorithm.prompts_per_step * algorithm.group_size
    per_forward = algorithm.micro_batch_size * num_processes
    if completions % per_forward:
        fits = [
            size
            for size in range(1, completions // num_processes + 1)
            if completions % (size * num_processes) == 0 and size <= 4 * algorithm.micro_batch_size
        ]
        fix = (
            f"set micro_batch_size to one of {fits}" if fits else f"make prompts_per_step a multiple of {num_processes}"
        )
        raise RecipeError(
            f"algorithm.micro_batch_size={algorithm.micro_batch_size}: {algorithm.prompts_per_step} prompts x "
            f"{algorithm.group_size} completions = {completions} a step do not divide into micro batches of "
            f"{algorithm.micro_batch_size} on {num_processes} process{'es' * (num_processes > 1)}; {fix}"
        )
    if algorithm.zero_variance_groups == "resample" and (completions // num_processes) % algorithm.group_size:
        raise RecipeError(
            f"algorithm.prompts_per_step={algorithm.prompts_per_step}: zero_variance_groups=resample needs whole "
            f"groups on each process; set a multiple of {num_processes}"
        )
    return Sizes(
        num_processes=num_processes,
        completions_per_step=completions,
        completions_per_process=completions // num_processes,
        gradient_accumulation=completions // per_forward,
        completions_in_run=completions * algorithm.num_steps,
        max_new_tokens_per_step=completions * recipe.rollout.max_new_tokens,
    )


def bundled_recipes() -> dict[str, Path]:
    """The recipes that come with the package: name to file."""
    folder = importlib.resources.files("rl_posttrain.recipes")
    return {file.stem: file for file in sorted(map(Path, folder.iterdir())) if file.suffix == ".yaml"}


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe given by path, or by bare name when it is bundled."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        if not path.is_file():
            raise RecipeError(f"RECIPE={name}: no such file; `rl-posttrain recipes` lists the bundled ones")
        return path
    bundled = bundled_recipes()
    if str(name) not in bundled:
        raise RecipeError(
            f"RECIPE={name}: no file and no bundled recipe of that name; {did_you_mean(str(name), bundled)}"
        )
    return bundled[str(name)]


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by path or bundled name and apply ``section.key=value`` overrides, whose values are YAML.

    Raises:
        RecipeError: the file, an override or a value cannot be used; one line with key, value, reason and fix.
    """
    path = find_recipe(source)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"RECIPE={path}: cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"RECIPE={path}: a recipe is a mapping of sections ({', '.join(Recipe.model_fields)})")
    for override in overrides:
        apply_override(data, override)
    if isinstance(data.get("run", {}), dict):
        data.setdefault("run", {}).setdefault("name", path.stem)
    return parse_recipe(data)


def parse_recipe(data: dict) -> Recipe:
    """A recipe from plain data, checked.

    Raises:
        RecipeError: a key is unknown, missing or has a value it cannot have.
    """
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(_explain(error.errors()[0], data)) from None
    _cross_check(recipe)
    return recipe


def world_size() -> int:
    """Processes of this job, as torchrun tells; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def apply_override(data: dict, override: str) -> None:
    """Set one ``section.key=value`` in a recipe's plain data; the value is YAML.

    Raises:
        RecipeError: it is not of that form, or leads through a value that has no keys.
    """
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise RecipeError(f"{override}: an override is written section.key=value, such as optimizer.lr=1e-6")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise RecipeError(f"{override}: the value is no YAML; quote it") from None
    *sections, last = key.split(".")
    node: Any = data
    for section in sections:
        node = _step_into(node, section, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    else:
        node[last] = value


def _step_into(node: Any, section: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, section, override)]
    child = node.setdefault(section, {})
    if not isinstance(child, (dict, list)):
        raise RecipeError(f"{override}: {section} is the value {child!r} and has no keys of its own")
    return child


def _index(node: list, text: str, override: str) -> int:
    if not text.isdigit() or int(text) >= len(node):
        raise RecipeError(f"{override}: {text} is no place in a list of {len(node)}; they count from 0")
    return int(text)


def _explain(error: dict, data: dict) -> str:
    """The first error of pydantic in the house's form: key=value: reason; fix."""
    location = error["loc"]
    if location[-1] == "[key]":  # a key of a mapping whose keys are given: the mapping is what is wrong
        location = location[:-2]
    key = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        return (
            f"{key}={_short(error['input'])}: unknown key; {did_you_mean(str(location[-1]), _keys_at(location[:-1]))}"
        )
    if error["type"] == "missing":
        return f"{key}: missing; every recipe says it, see `rl-posttrain recipes` for examples"
    reason = _SHAPES.get(error["type"]) or error["msg"][0].lower() + error["msg"][1:]
    return f"{key}={_short(error['input'])}: {reason.replace('input ', 'it ')}; {_fix(error, location)}"


# In YAML's words where pydantic's are Python's.
_SHAPES = {
    "model_type": "it should be a section of keys and values",
    "dict_type": "it should be a section of keys and values",
    "tuple_type": "it should be a list",
}


def _fix(error: dict, location: tuple) -> str:
    if location == ("algorithm", "group_size"):
        return "set 2 or more: advantages compare the completions of one prompt"
    expected = error.get("ctx", {}).get("expected")
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        return did_you_mean(error["input"], expected.replace("'", "").replace(" or ", ", ").split(", "))
    if error["type"] == "string_pattern_mismatch":
        return "use letters, digits, dot, dash and underscore"
    return "set such a value in the recipe or as section.key=value"


def _keys_at(location: Iterable) -> list[str]:
    node: Any = Recipe
    for part in location:
        if isinstance(part, str):
            annotation = node.model_fields[part].annotation
            kinds = [annotation, *typing.get_args(annotation)]  # of a list of sections, or one that may be missing
            node = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section))
    return list(node.model_fields)


def _short(value: Any) -> str:
    text = "null" if value is None else " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."


# By both names; a class of one's own is asked when it is loaded, before training.
_NEED_WHOLE_MATRICES = {"torch.optim:Muon", "muon", "adam_mini", "galore", "fira", "apollo"}


def _cross_check(recipe: Recipe) -> None:
    evaluation = recipe.eval
    if evaluation.every_steps and max(evaluation.k) > evaluation.num_samples:
        raise RecipeError(
            f"eval.k={list(evaluation.k)}: pass@{max(evaluation.k)} needs as many samples, but "
            f"eval.num_samples={evaluation.num_samples}; raise num_samples or lower k"
        )
    if evaluation.every_steps and recipe.task.num_eval == 0:
        raise RecipeError(
            f"eval.every_steps={evaluation.every_steps}: task.num_eval=0 leaves nothing to evaluate on; set one of them"
        )
    names = [reward.name for reward in recipe.rewards]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise RecipeError(
            f"rewards={names}: {doubled} stands there twice, but metrics go by name; keep one, with its weight"
        )
    limited = next((i for i, r in enumerate(recipe.rewards) if r.timeout_s is not None and not r.isolated), None)
    if limited is not None:
        raise RecipeError(
            f"rewards.{limited}.timeout_s={recipe.rewards[limited].timeout_s}: only a reward in a process of its own "
            f"can be ended; set rewards.{limited}.isolated=true, or leave the limit out"
        )
    _cross_check_groups(recipe)
    distributed, optimizer = recipe.distributed, recipe.optimizer
    if distributed.engine == "deepspeed" and distributed.zero_stage and optimizer.name in _NEED_WHOLE_MATRICES:
        raise RecipeError(
            f"optimizer.name={optimizer.name} needs whole matrices, but distributed.zero_stage="
            f"{distributed.zero_stage} hands the optimizer flat 1-D shards; set zero_stage: 0 or optimizer.name: adams"
        )
    num_iterations = recipe.trl.get("num_iterations", 1)
    if isinstance(num_iterations, int) and num_iterations > 1 and recipe.checkpoint.every_steps % num_iterations:
        raise RecipeError(
            f"checkpoint.every_steps={recipe.checkpoint.every_steps}: rollouts serve "
            f"trl.num_iterations={num_iterations} steps and are not kept in a checkpoint; "
            f"set a multiple of {num_iterations}"
        )


def _cross_check_groups(recipe: Recipe) -> None:
    algorithm, trl = recipe.algorithm, recipe.trl
    if algorithm.zero_variance_groups != "skip":
        return
    # With these a completion has a gradient, or a part in others', also where its advantage is zero.
    needs_all = {
        "algorithm.kl_coef": algorithm.kl_coef > 0,
        "trl.entropy_coef": bool(trl.get("entropy_coef")),
        "trl.use_adaptive_entropy": bool(trl.get("use_adaptive_entropy")),
        "trl.top_entropy_quantile": trl.get("top_entropy_quantile", 1.0) != 1.0,
        "trl.multi_objective_aggregation": trl.get("multi_objective_aggregation") == "normalize_then_sum",
    }
    if reason := next((key for key, is_set in needs_all.items() if is_set), None):
        raise RecipeError(
            f"algorithm.zero_variance_groups=skip: with {reason} every completion has a part in the gradient; set keep"
        )


def recipe_change(old: Recipe, new: Recipe) -> str | None:
    """The first key in which two recipes differ, as ``key=new (was old)``; None where they are the same.

    Where the run directory lies does not count: it may have been moved, or be named by another path.
    """
    where = {"run": {"output_dir"}}
    return _first_difference(old.model_dump(exclude=where), new.model_dump(exclude=where))


def _first_difference(old: dict, new: dict, prefix: str = "") -> str | None:
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            nested = _first_difference(before, after, f"{prefix}{key}.")
            if nested:
                return nested
        elif before != after:
            return f"{prefix}{key}={after} (was {before})"
    return None


def precision(recipe: Recipe) -> str:
    """In what precision the weights are kept and updated, in words; bf16 weights always have fp32 masters."""
    if recipe.model.dtype == "float32":
        return "fp32 weights"
    if recipe.distributed.engine == "deepspeed":
        return f"bf16 weights, fp32 masters under DeepSpeed ZeRO-{recipe.distributed.zero_stage}"
    return "fp32 weights, which are their own masters, under bf16 autocast"


def sums_gradients_in_fp32(recipe: Recipe, sizes: Sizes) -> bool:
    """Whether micro batches' bf16 gradients are summed in fp32; DeepSpeed can at stages 2 and 3."""
    half = recipe.model.dtype == "bfloat16" and recipe.distributed.engine == "deepspeed"
    return half and recipe.distributed.zero_stage >= 2 and sizes.gradient_accumulation > 1


def headline(path: Path) -> str:
    """The first comment line of a recipe file: what it shows."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""
