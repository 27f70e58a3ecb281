"""What the sections of a recipe are made of."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[int, Field(ge=0)]
# What numpy takes as a seed, which transformers gives it.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
_Entry = TypeVar("_Entry")
# A list of YAML becomes a tuple, which strictness would refuse. Its entries are as strict as anything else.
Listed = Annotated[tuple[_Entry, ...], Field(strict=False)]
Several = Annotated[tuple[_Entry, ...], Field(strict=False, min_length=1)]


def _refuse_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


# For a choice of numbers: to Python, `true` is 1.
NoBoolean = BeforeValidator(_refuse_boolean)


class Section(BaseModel):
    """One block of a recipe: immutable, and it knows all of its keys.

    Types are strict: `true` is no number, and a text with digits is none either. A whole number may stand for any
    number.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, strict=True, ser_json_inf_nan="constants"
    )


class OpenSection(Section):
    """A block whose further keys are arguments of the code it names."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that are not the section's own."""
        return dict(self.model_extra or {})
