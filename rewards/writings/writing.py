"""One way to write an answer, and where it stands in a completion."""

from collections.abc import Iterator
from typing import Literal, NamedTuple

Place = Literal["box", "tag", "gsm8k", "sentence", "fbox", "display", "long"]
# What rules give: the rule's name and a text for a box or a tag.
Texts = Iterator[tuple[str, str]]

_COMPLETIONS = {
    "box": "So the answer is $\\boxed{%s}$.",
    "display": "Then\n\\[ \\boxed {%s} \\]",
    "long": "First I got \\boxed{0}. That was wrong. In the end:\n\n$$\\boxed{%s}$$\n\nThis is what we wanted.",
    "tag": "<think>Let us see.</think>\n<answer>%s</answer>",
    "gsm8k": "Let us see.\n#### %s",
    "sentence": "%s",
    "fbox": "So the answer is \\fbox{$%s$}.",
}


class Writing(NamedTuple):
    """One way to write an answer: the rule that made it, its text, and the place of the text in a completion."""

    rule: str
    text: str
    place: Place = "box"

    @property
    def completion(self) -> str:
        """A completion that ends in this answer."""
        return _COMPLETIONS[self.place].replace("%s", self.text)
