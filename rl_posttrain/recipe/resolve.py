"""From a recipe to specs: the code that it names is loaded, and its arguments are checked, once.

Training, `check` and comparisons all start from `resolve`, so a mistake gives the same error everywhere. It loads no
model and no engine, and makes no rows.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rl_posttrain.errors import RecipeError
from rl_posttrain.models.quantized import check_bitsandbytes
from rl_posttrain.plugins import check_arguments, load_object, signature_of
from rl_posttrain.recipe.mixture import MIXTURE, resolve_mixture
from rl_posttrain.recipe.reward_spec import RewardSpec, resolve_reward
from rl_posttrain.recipe.schema import CriticOptimizerSection, OptimizerSection, Recipe
from rl_posttrain.recipe.task_section import FilterSection, OneTaskSection, TaskSection
from rl_posttrain.tasks import TASKS
from rl_posttrain.tasks.filters import CountTokens, Difficulty, Filters
from rl_posttrain.tasks.prepare import check_returned, render_rows
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.selection import Selection, in_brackets
from rl_posttrain.users_code import call_users

if TYPE_CHECKING:
    from rl_posttrain.optim import OptimizerSpec
    from rl_posttrain.optim.joint import JointSpec

_LOCATIONS = {name: built_in.location for name, built_in in TASKS.items()}


@dataclass(frozen=True)
class TaskSpec:
    """A task: the function that makes its rows, the arguments of the call, and what makes prompts of the questions.

    Attributes:
        name: as in the recipe.
        version: of a built-in, its `BuiltInTask.version`; of your own function, its attribute `version`, else
            ``unversioned``.
        function: takes `arguments`, and `trained_on` where it names that; returns `TaskRows`. A mixture also takes
            `count_tokens`.
        arguments: by name, converted to the types that the function declares; with the seed, where it names that.
        selection: which of its rows a run uses.
        filters: which of these are left out, and in which order they come.
        template: the recipe's, or the built-in's own; None: neither says one.
        system: the system message; None: the template's own, if it has one.
    """

    name: str
    version: str
    function: Callable[..., TaskRows]
    arguments: dict[str, Any]
    selection: Selection
    filters: Filters
    template: str | None
    system: str | None

    def make_rows(self, prompts_per_step: int = 0, count_tokens: CountTokens | None = None) -> TaskRows:
        """The rows to train and to evaluate on, with their prompts.

        Args:
            prompts_per_step: the smallest allowed number of training rows: a step uses no row twice. 0 where nothing is
                trained.
            count_tokens: of prompts, by the model's tokenizer; needed where `task.filter.max_prompt_tokens` is set.

        Raises:
            RecipeError: the task refuses an option, or has too few training rows; too many of its eval rows are among
                them; the template does not suit it; or a filter leaves no row.
            HubError: its data are on the hub, which did not give them.
        """
        trained_on = prompts_per_step > 0
        asked_for = signature_of(self.function, "task.name").parameters
        known = {"trained_on": trained_on, "count_tokens": count_tokens}
        arguments = self.arguments | {name: known[name] for name in known if name in asked_for}
        if self.name in TASKS or self.name == MIXTURE:
            made = self.function(**arguments)
        else:
            where, fix = f"task.name={self.name}", "correct the function"
            function = functools.partial(self.function, **arguments)
            made = call_users(function, where=where, fix=fix, kind=RecipeError)
        check_returned(made, self.name)
        if trained_on and made.eval and not made.train:
            raise RecipeError(f"task.name={self.name}: it has rows to evaluate on only; train on another task")
        rows = self.selection.of(made, trained_on=trained_on)
        rows = render_rows(rows, template=self.template, system=self.system)
        rows = self.filters.of(rows, count_tokens=count_tokens, trained_on=trained_on)
        if prompts_per_step > len(rows.train):
            raise RecipeError(
                f"algorithm.prompts_per_step={prompts_per_step}: the task has {len(rows.train)} training "
                f"rows{in_brackets(rows.notes)}; raise task.num_train or lower prompts_per_step"
            )
        return rows


@dataclass(frozen=True)
class Specs:
    """The code that a recipe names, loaded, with checked arguments.

    Attributes:
        rewards: in the recipe's order.
        optimizer: of the policy; with a critic, of both.
    """

    task: TaskSpec
    rewards: tuple[RewardSpec, ...]
    optimizer: "OptimizerSpec | JointSpec"


def resolve(recipe: Recipe) -> Specs:
    """Load the code that a recipe names, and check its arguments.

    Raises:
        RecipeError: there is no such code; it has no such argument; or the optimizer needs whole matrices, but
            DeepSpeed would pass it shards; or a package is missing.
    """
    if recipe.model.lora is not None and recipe.model.lora.quantize is not None:
        check_bitsandbytes(recipe.model.lora.quantize)
    return Specs(
        task=resolve_task(recipe.task, recipe.run.seed),
        rewards=tuple(resolve_reward(section, f"rewards.{place}") for place, section in enumerate(recipe.rewards)),
        optimizer=_resolve_optimizer(recipe),
    )


def check_rows_to_evaluate(recipe: Recipe, rows: TaskRows) -> None:
    """Fail where a recipe evaluates and its task has no rows for that.

    Raises:
        RecipeError: so it is.
    """
    if recipe.eval.is_on and not rows.eval:
        raise RecipeError(
            f"task.name={recipe.task.name}: it gives no rows to evaluate on, and the recipe evaluates; hold some out "
            "by task.num_eval or task.eval_share, or leave eval.every_steps and eval.at_start out"
        )


def resolve_task(section: TaskSection, seed: int) -> TaskSpec:
    """Load the task that a recipe's section names, or the parts of a mixture, and check the options.

    Args:
        seed: `run.seed`. A function that names `seed` gets it; every row depends on it alone.

    Raises:
        RecipeError: there is no such task, or it has no such option.
    """
    filters = replace(_filters(section.filter), order_by=section.order_by)
    if section.name != MIXTURE:
        if section.parts:
            raise RecipeError(f"task.name={section.name}: only a mixture has task.parts; set task.name=mixture")
        return replace(_resolve_one(section, seed), filters=filters)
    mixture = resolve_mixture(section, lambda part: _resolve_one(part, seed))
    return TaskSpec(
        name=MIXTURE,
        version=",".join(f"{spec.name}@{spec.version}" for spec in mixture.specs),
        function=mixture,
        arguments={},
        selection=Selection(
            name=MIXTURE,
            seed=seed,
            num_train=section.num_train,
            num_eval=None,
            eval_share=None,
            max_overlap=section.max_overlap,
            taken=frozenset(("num_train", "num_eval")),
        ),
        filters=filters,
        # Each part has made its prompts.
        template=None,
        system=None,
    )


def _filters(section: FilterSection | None) -> Filters:
    if section is None:
        return Filters()
    found = section.difficulty
    difficulty = None if found is None else Difficulty(found.min, found.max, found.column, found.results)
    return Filters(section.max_prompt_tokens, difficulty)


def _resolve_one(section: OneTaskSection, seed: int) -> TaskSpec:
    """A task that is no mixture."""
    function = load_object(section.name, table=_LOCATIONS, key="task.name")
    built_in = TASKS.get(section.name)
    named = signature_of(function, "task.name").parameters
    numbers = {"num_train": section.num_train, "num_eval": section.num_eval}
    # A function that does not name these gives all of its rows, and the selection draws from them.
    taken = frozenset(numbers) & frozenset(named)
    given = {name: numbers[name] for name in taken} | section.options
    given = {name: value for name, value in given.items() if value is not None}
    arguments = check_arguments(function, given, key="task", supplied=("seed", "trained_on"))
    if "seed" in named:
        arguments["seed"] = seed
    return TaskSpec(
        name=section.name,
        version=built_in.version if built_in else str(getattr(function, "version", "unversioned")),
        function=function,
        arguments=arguments,
        selection=Selection(
            name=getattr(function, "__name__", section.name),
            seed=seed,
            **numbers,
            eval_share=section.eval_share,
            max_overlap=section.max_overlap,
            taken=taken,
        ),
        filters=_filters(section.filter),
        template=section.template or (built_in.template if built_in else None),
        system=section.system,
    )


def _resolve_optimizer(recipe: Recipe) -> "OptimizerSpec | JointSpec":
    # Imported here: optimizers need torch, and reading a recipe does not.
    from rl_posttrain.optim import resolve_optimizer
    from rl_posttrain.optim.joint import JointSpec

    def spec_of(section: OptimizerSection | CriticOptimizerSection, name: str, options: dict[str, Any], key: str):
        return resolve_optimizer(
            name,
            lr=section.lr,
            weight_decay=section.weight_decay,
            options=options,
            no_decay=section.no_decay,
            lr_by_role=section.lr_by_role,
            key=key,
        )

    section, distributed = recipe.optimizer, recipe.distributed
    spec = spec_of(section, section.name, section.options, "optimizer")
    if recipe.critic is not None:
        own = recipe.critic.optimizer
        options = own.options if own.name else section.options | own.options
        spec = JointSpec(spec, spec_of(own, own.name or section.name, options, "critic.optimizer"))
    if distributed.engine == "deepspeed":
        spec.refuse_shards(distributed.zero_stage)
    elif distributed.engine == "fsdp2":
        spec.refuse_shards("fsdp2", stage_key="distributed.engine")
    return spec
