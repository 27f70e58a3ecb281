"""Right answers and well-formed completions, as shares."""

from collections.abc import Mapping, Sequence

from rl_posttrain.recipe.reward_spec import RewardSpec


def shares_of_full_credit(
    rewards: Sequence[Mapping[str, float | None]], judge: RewardSpec | None, form: RewardSpec | None
) -> dict[str, float | None]:
    """Right answers, completions in the form asked for, and those that are both, each as a share.

    Full credit only: a partial credit shapes the reward and is no right answer. A completion without a reward is left
    out.

    Args:
        rewards: by name, of each completion.
        judge: the reward that says which answers are right, for ``accuracy``, or None.
        form: the reward that says which completions have the right form, for ``well_formed``, or None.
    """

    def share(*specs: RewardSpec) -> float | None:
        known = [row for row in rewards if all(row[spec.name] is not None for spec in specs)]
        full = [all(spec.gives_full_credit(row[spec.name]) for spec in specs) for row in known]
        return sum(full) / len(full) if full else None

    shares = {"accuracy": (judge,), "well_formed": (form,), "right_and_well_formed": (judge, form)}
    return {name: share(*needed) for name, needed in shares.items() if None not in needed}
