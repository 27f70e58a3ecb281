"""What follows from a recipe on a number of processes: sizes of one step."""

from rl_posttrain.errors import RecipeError
from rl_posttrain.recipe.schema import Recipe, Section


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
