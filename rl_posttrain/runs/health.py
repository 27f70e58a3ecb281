"""The part of the table of metrics that says what guards look at, and what they did."""

from rl_posttrain.runs.metric import Metric

HEALTH: tuple[Metric, ...] = (
    Metric(
        "teaching_share", "Share of groups whose completions got different rewards; the others teach nothing.",
        unit="0 to 1", better="higher",
        detail="Where an algorithm compares all completions of a step, 1 if their rewards differ, else 0.",
    ),
    Metric(
        "equal_share", "Share of groups whose completions are all the same.", unit="0 to 1", better="lower",
        detail="Null at `algorithm.group_size: 1`.",
    ),
    Metric(
        "guards/<guard>", "How often a [guard](guards.md) saw what it looks for, in this step.",
        detail="Absent in a step in which it did not.", better="lower", form=".0f",
    ),
    Metric(
        "skipped_updates", "Updates of this step that a guard, or DeepSpeed, left out.", unit="updates",
        detail="Absent in a step without one.", better="lower",
    ),
    Metric(
        "rolled_back_to", "The step whose checkpoint the weights come from after this step, since a guard went back.",
        unit="steps", detail="Absent in a step in which none did.",
    ),
)  # fmt: skip
