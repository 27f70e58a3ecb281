"""Keys of what is older than the policy, and of how that is corrected: `rollout.max_staleness`, `importance_...`."""

from collections.abc import Mapping
from typing import Any

from rl_posttrain.errors import RecipeError

# The lower and the upper limit where the recipe says none; None: there is none. Those of tis and mis are their authors'
# own, icepop's are the paper's, and sequence_mask has OpenRLHF's.
LIMITS: dict[str, tuple[float | None, float | None]] = {
    "none": (None, None),
    "tis": (None, 2.0),
    "mis": (None, 2.0),
    "icepop": (0.5, 5.0),
    "sequence_mask": (0.5, 5.0),
}


def with_importance(data: Any) -> Any:
    """A `rollout` section's plain data with the correction's defaults, so that the resolved recipe has them."""
    if not isinstance(data, dict):
        return data
    said = {name: value for name, value in data.items() if value is not None or not name.startswith("importance_")}
    staleness = said.get("max_staleness")
    said.setdefault("importance_correction", "tis" if isinstance(staleness, int) and staleness > 0 else "none")
    name = said["importance_correction"]
    low, high = LIMITS.get(name, (None, None)) if isinstance(name, str) else (None, None)
    return {"importance_min": low, "importance_max": high} | said


def without_defaults(rollout: Mapping[str, Any]) -> dict[str, Any]:
    """A `rollout` section's plain data without what `with_importance` fills in, so that another staleness may."""
    others = {name: value for name, value in rollout.items() if not name.startswith("importance_")}
    filled = with_importance(others)
    return others | {name: value for name, value in rollout.items() if filled.get(name) != value}


def check_importance(rollout: Any) -> None:
    """Fail on staleness or a correction that the engine cannot have, and on limits that a correction has not.

    Args:
        rollout: the recipe's section.

    Raises:
        RecipeError: names the key, its value and what it contradicts.
    """
    if rollout.max_staleness > 0 and rollout.engine == "transformers":
        raise RecipeError(
            f"rollout.max_staleness={rollout.max_staleness}: rollout.engine=transformers samples from the policy's own "
            "tensors, which the update changes meanwhile; set rollout.engine=vllm, or max_staleness=0"
        )
    name, low, high = rollout.importance_correction, rollout.importance_min, rollout.importance_max
    for key, value in (("importance_min", low), ("importance_max", high)):
        if name == "none" and value is not None:
            raise RecipeError(
                f"rollout.{key}={value}: rollout.importance_correction=none has no limits; leave {key} out, or set "
                "rollout.importance_correction=tis"
            )
    if name == "mis" and low is not None:
        raise RecipeError(
            f"rollout.importance_min={low}: mis has no lower limit; leave it out, or set "
            "rollout.importance_correction=icepop"
        )
    if low is not None and high is not None and low >= high:
        raise RecipeError(
            f"rollout.importance_min={low}: it is not below rollout.importance_max={high}; a ratio of 1 is no "
            "difference, so set one below 1 and one above"
        )
    if name != "none" and rollout.engine == "transformers":
        raise RecipeError(
            f"rollout.importance_correction={name}: rollout.engine=transformers gives no log-probabilities of what it "
            "sampled; set rollout.engine=vllm, or importance_correction=none"
        )
