"""Which run `--resume` means where nobody names one."""

from collections.abc import Sequence

from rl_posttrain.errors import RlPosttrainError, RunError
from rl_posttrain.recipe.changes import recipe_changes
from rl_posttrain.recipe.load import parse_recipe
from rl_posttrain.recipe.paths import shown
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.directory import RunDirectory


def newest_unfinished(recipe: Recipe, allowed: Sequence[str] = ()) -> Recipe:
    """The recipe under the name of the run to resume: of its unfinished runs, the one that was started last.

    A run is of this recipe if its recipe.yaml lies in a folder of `run.output_dir` and has the same keys and values,
    but for keys that change no step. Where no unfinished one is, the recipe keeps its name: that
    run may be finished, or say what it has otherwise.

    Args:
        allowed: sections and keys that may differ.

    Raises:
        RunError: there is neither; it names the unfinished runs of other recipes.
    """
    runs = [RunDirectory(path.parent) for path in shown(recipe.run.output_dir).glob("*/recipe.yaml")]
    unfinished = [run for run in runs if not (run.path / "summary.json").exists()]
    own = [run for run in unfinished if _is_of(recipe, run, allowed)]
    if own:
        newest = max(own, key=lambda run: ((run.path / "recipe.yaml").stat().st_mtime_ns, run.name))
        return recipe.model_copy(update={"run": recipe.run.model_copy(update={"name": newest.name})})
    if not RunDirectory.is_at(recipe.run_path):
        others = ", ".join(sorted(run.name for run in unfinished)[:5])
        hint = f"name one of {others} with run.name" if others else "leave --resume out to start one"
        raise RunError(f"--resume: {shown(recipe.run.output_dir)} has no unfinished run of this recipe; {hint}")
    return recipe


def _is_of(recipe: Recipe, run: RunDirectory, allowed: Sequence[str]) -> bool:
    try:
        before = parse_recipe(run.recipe())
    except RlPosttrainError:  # damaged, or of another version
        return False
    return all(change.is_taken(recipe, allowed) for change in recipe_changes(before, recipe))
