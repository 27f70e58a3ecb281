"""What of a recipe training would refuse, found before the first of many runs starts."""

import contextlib
import warnings

from rl_posttrain.errors import HubError
from rl_posttrain.models.vocabulary import check_same_vocabulary
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import derive_sizes
from rl_posttrain.training.algorithms.algorithm import make_algorithm
from rl_posttrain.training.backends.backend import make_backend


def check_training(recipe: Recipe, num_processes: int) -> None:
    """Check what `plan_runs` cannot: the algorithm, the critic's model, and what the recipe says to TRL.

    TRL is imported only where the recipe has a `trl` section, because it takes seconds and loads vLLM. A model that the
    hub does not give now is left to the run.

    Raises:
        RecipeError: the algorithm, its critic or a field of TRL cannot be used.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is allowed and doubtful: the run itself will say so
        make_algorithm(recipe)
    if recipe.critic is not None and recipe.critic.model is not None:
        with contextlib.suppress(HubError):
            check_same_vocabulary(recipe.model.name, recipe.critic.model, key="critic.model")
    if recipe.trl:
        from rl_posttrain.training.trl_config import check_trl

        sizes = derive_sizes(recipe, num_processes)
        check_trl(recipe, sizes, make_backend(recipe, sizes))
