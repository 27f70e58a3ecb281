"""What follows from a recipe on a number of processes: sizes of one step."""

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.section import Section

_MOST_COMPLETIONS = 10_000_000  # of a step; more is a slip of the pen


class Sizes(Section):
    """What follows from a recipe on a number of processes; computed here and nowhere else."""

    num_processes: int
    completions_per_step: int
    completions_per_process: int
    gradient_accumulation: int
    updates_per_step: int
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
    if completions > _MOST_COMPLETIONS:
        raise RecipeError(
            f"algorithm.group_size={algorithm.group_size}: with {algorithm.prompts_per_step} prompts that is "
            f"{completions} completions a step, above {_MOST_COMPLETIONS}; lower group_size or prompts_per_step"
        )
    if completions % (algorithm.num_mini_batches * num_processes):
        fits = [number for number in range(1, completions + 1) if completions % (number * num_processes) == 0]
        raise RecipeError(
            f"algorithm.num_mini_batches={algorithm.num_mini_batches}: {completions} completions a step do not divide "
            f"into {algorithm.num_mini_batches} mini batches on {_processes(num_processes)}; "
            f"set num_mini_batches to one of {fits[:8]}"
            if fits
            else f"algorithm.prompts_per_step={algorithm.prompts_per_step}: {completions} completions a step do not "
            f"divide over {_processes(num_processes)}; make prompts_per_step a multiple of {num_processes}"
        )
    in_mini_batch = completions // algorithm.num_mini_batches
    if in_mini_batch % per_forward:
        fits = [
            size
            for size in range(1, in_mini_batch // num_processes + 1)
            if in_mini_batch % (size * num_processes) == 0 and size <= 4 * algorithm.micro_batch_size
        ]
        share = f", in {algorithm.num_mini_batches} mini batches," if algorithm.num_mini_batches > 1 else ""
        raise RecipeError(
            f"algorithm.micro_batch_size={algorithm.micro_batch_size}: {algorithm.prompts_per_step} prompts x "
            f"{algorithm.group_size} completions = {completions} a step{share} do not divide into micro batches of "
            f"{algorithm.micro_batch_size} on {_processes(num_processes)}; set micro_batch_size to one of {fits}"
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
        gradient_accumulation=in_mini_batch // per_forward,
        updates_per_step=algorithm.num_mini_batches * algorithm.num_epochs,
        completions_in_run=completions * algorithm.num_steps,
        max_new_tokens_per_step=completions * recipe.rollout.max_new_tokens,
    )


def _processes(number: int) -> str:
    return f"{number} process{'es' * (number > 1)}"
