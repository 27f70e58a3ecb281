"""Right answers and well-formed completions, as shares."""

from collections.abc import Mapping, Sequence

from rl_posttrain.scoring.judges import Judge


def shares_of_full_credit(
    rewards: Sequence[Mapping[str, float | None]], judge: Judge | None, form: Judge | None
) -> dict[str, float | None]:
    """Right answers, completions in the form asked for, and those that are both, each as a share.

    Full credit only: a partial credit shapes the reward and is no right answer. A completion without a reward is left
    out.

    Args:
        rewards: by name, of each completion.
        judge: of answers, for ``accuracy``, or None.
        form: of the form of completions, for ``well_formed``, or None.
    """

    def share(*judges: Judge) -> float | None:
        credits = [[judge.gives_full_credit(row) for judge in judges] for row in rewards]
        full = [all(credit) for credit in credits if None not in credit]
        return sum(full) / len(full) if full else None

    shares = {"accuracy": (judge,), "well_formed": (form,), "right_and_well_formed": (judge, form)}
    return {name: share(*needed) for name, needed in shares.items() if None not in needed}
