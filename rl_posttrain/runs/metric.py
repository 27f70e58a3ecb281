"""What is known about one metric. The metrics themselves are in metrics.py."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Plot = Literal["page", "rewards", "training", "memory", "phases", "curve:top", "curve:left", "curve:right"]
"""Where a metric is drawn: a chart of the report page; a panel of the report's rewards.png or training.png; a bar of
its cost.png (memory, or a phase of a step); the top panel of a run's curve.png, or the left or right axis below it."""


@dataclass(frozen=True)
class Metric:
    """One metric, or a family of metrics.

    Attributes:
        name: its key in metrics.jsonl. A part in angle brackets stands for any text: the name is a family's.
        meaning: one sentence for people, without the unit.
        unit: empty for a number that has none, and for rewards, whose unit is the reward functions' own.
        detail: what the documentation adds, in whole sentences, such as how it is counted.
        absent: which runs do not record it, after the word "absent"; empty for a metric of every run.
        better: which direction is progress; a neutral metric only describes the run.
        trl, verl, openrlhf: its name in these programs' logs; a part in angle brackets as in `name`.
        spellings: further names of it in files of other programs.
        words: its name in words, for legends and headings; made from the name where not given.
        plots: the plots that show it.
        x_label: label of the axis where it is what other metrics are drawn against; empty where it never is.
        label: a shorter name for the terminal, where a line has many metrics.
        form: how the live view formats it.
        live_line: the line of the live view that it stands on; empty where it is on none.
        column: its format, of fixed width, in the line that a run prints for each step; empty where it is not there.
        must_be_finite: whether a step that recorded null in its place counts as a step that went wrong.
    """

    name: str
    meaning: str
    unit: str = ""
    detail: str = ""
    absent: str = ""
    better: Literal["higher", "lower", "neutral"] = "neutral"
    trl: str = ""
    verl: str = ""
    openrlhf: str = ""
    spellings: tuple[str, ...] = ()
    words: str = ""
    plots: tuple[Plot, ...] = ()
    x_label: str = ""
    label: str = ""
    form: str = ".3f"
    live_line: str = ""
    column: str = ""
    must_be_finite: bool = False

    def __post_init__(self):
        object.__setattr__(self, "words", self.words or self.name.replace("_", " "))
        object.__setattr__(self, "label", self.label or self.words)

    @property
    def is_family(self) -> bool:
        return "<" in self.name

    @property
    def heading(self) -> str:
        """What stands above its chart: ``Completion length``."""
        return self.words[0].upper() + self.words[1:]

    @property
    def y_label(self) -> str:
        """Label of the axis that shows its values: ``completion length (tokens)``."""
        return f"{self.words} ({self.unit})" if self.unit else self.words

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the names that it stands for."""
        return name_pattern(self.name)


def name_pattern(name: str) -> re.Pattern[str]:
    """Matches `name`, with any text where it has a part in angle brackets; that text is the match's first group."""
    return re.compile("(.+)".join(map(re.escape, re.split(r"<\w+>", name))))
