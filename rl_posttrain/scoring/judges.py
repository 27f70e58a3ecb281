"""Which rewards say that an answer is right, or that a completion has the form asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rl_posttrain.recipe.reward_spec import RewardSpec


@dataclass(frozen=True)
class Judge:
    """The rewards that judge the same thing, answers or form: the first one that judges a completion decides.

    Attributes:
        specs: in the recipe's order, one or more. One that is for other tasks, or cannot read the gold, gives None.
    """

    specs: tuple[RewardSpec, ...]

    def of(self, rewards: Mapping[str, float | None]) -> RewardSpec | None:
        """The reward that decides, given the rewards of a completion by name; None where none judges it."""
        return next((spec for spec in self.specs if rewards[spec.name] is not None), None)

    def gives_full_credit(self, rewards: Mapping[str, float | None]) -> bool | None:
        """Whether the completion gets full credit, given its rewards by name; None where none judges it."""
        spec = self.of(rewards)
        return None if spec is None else spec.gives_full_credit(rewards[spec.name])


def judging_rewards(specs: Sequence[RewardSpec]) -> tuple[Judge | None, Judge | None]:
    """Who judges answers, and who judges form; None where no reward does."""

    def all_that(judged: str) -> Judge | None:
        found = tuple(spec for spec in specs if spec.judges == judged)
        return Judge(found) if found else None

    return all_that("answer"), all_that("form")
