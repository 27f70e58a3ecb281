"""How two recipes differ, and which differences a run can be resumed with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rl_posttrain.recipe.schema import Recipe

# They decide what is kept and shown, and no number of a step; guards also whether a step counts.
_HARMLESS = (
    "checkpoint.keep", "checkpoint.every_steps", "checkpoint.on_signal", "checkpoint.final_model", "guards", "logging",
    "compare", "rollout.servers", "rollout.weights_folder", "rollout.server_timeout_s", "rollout.server_lease_s",
)  # fmt: skip
_STATE = "the optimizer's state and arguments come from the checkpoint"
_PLACED = "the checkpoint's files were written for it"
# What nobody can allow, and why not. A key counts with all keys below it.
_FIXED = {
    "model.dtype": _PLACED,
    "distributed": _PLACED,
    "algorithm.num_mini_batches": "steps are counted by its updates",
    "algorithm.num_epochs": "steps are counted by its updates",
    "critic.shared_backbone": _PLACED,
    "optimizer": _STATE,
    "critic.optimizer": _STATE,
}
_NOT_STATE = ("lr", "max_grad_norm", "schedule", "warmup_steps")


@dataclass(frozen=True)
class KeyChange:
    """A key whose values differ between two recipes; `old` and `new` are plain data."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}={self.new} (was {self.old})"

    @property
    def fixed_because(self) -> str | None:
        """Why a run cannot be resumed with it; None if it can."""
        if self.key == "critic":  # one of the two has none
            return _PLACED
        section, _, name = self.key.rpartition(".")
        if section in ("optimizer", "critic.optimizer") and name in _NOT_STATE:
            return None
        return next((reason for key, reason in _FIXED.items() if is_within(self.key, key)), None)

    def is_harmless(self, recipe: Recipe) -> bool:
        """Whether a run resumed with it makes the same steps.

        Args:
            recipe: the new one. More steps are the same steps and further ones where no rate depends on their number.
        """
        if self.key == "algorithm.num_steps":
            optimizers = (recipe.optimizer, *([recipe.critic.optimizer] if recipe.critic else []))
            if recipe.rollout.max_staleness > 0:  # the steps after a run's end were not drawn ahead
                return False
            return self.new > self.old and all(optimizer.schedule == "constant" for optimizer in optimizers)
        return any(is_within(self.key, key) for key in _HARMLESS)

    def is_taken(self, recipe: Recipe, allowed: Sequence[str]) -> bool:
        """Whether a run may be resumed with it.

        Args:
            recipe: the new one.
            allowed: sections and keys that may differ.
        """
        return self.fixed_because is None and (
            self.is_harmless(recipe) or any(is_within(self.key, name) for name in allowed)
        )


def is_within(key: str, section: str) -> bool:
    """Whether `key` is `section`, or a key of it."""
    return key == section or key.startswith(f"{section}.")


def recipe_changes(old: Recipe, new: Recipe) -> list[KeyChange]:
    """The keys in which two recipes differ. Place and name of the run directory do not count: it can be moved."""
    where = {"run": {"output_dir", "name"}}
    plain = (recipe.model_dump(mode="json", exclude=where) for recipe in (old, new))
    return list(_differences(*plain))


def _differences(old: Any, new: Any, key: str = "") -> Iterator[KeyChange]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = ({str(place): value for place, value in enumerate(values)} for values in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield KeyChange(key, old, new)
