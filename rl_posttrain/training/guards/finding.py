"""What a guard has found, in words."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that a guard looks for.

    Attributes:
        guard: its name, as in the section `guards` of a recipe.
        what: what it saw, as a clause: "the gradient's norm is inf".
        fix: what a user can do, as a clause.
        override: words to add to the command that goes on with a stopped run, so that it does not end the same way.
        since: the first step that belongs to it; None: this one.
        only_warns: whether the guard only warns, whatever its policy says.
    """

    guard: str
    what: str
    fix: str
    override: tuple[str, ...]
    since: int | None = None
    only_warns: bool = False
