"""The part of the section `model` about adapters."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from rl_posttrain.recipe.section import Positive, Section

ALL_LINEAR = "all-linear"
_QUANTIZED = ("quantize", "load_in_4bit", "load_in_8bit", "use_qlora")


def _targets(value: Any) -> Any:
    """A list of names, or the one word for all; peft would read another text as a pattern."""
    names = value if isinstance(value, (list, tuple)) else ()
    if value == ALL_LINEAR or (names and all(isinstance(name, str) for name in names)):
        return value if value == ALL_LINEAR else tuple(names)
    raise PydanticCustomError("targets", "Input should be all-linear, or a list of names such as [q_proj, v_proj]")


class LoraSection(Section):
    """Adapters by peft on a frozen model; names and meanings are peft's, `rank` is its `r`."""

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 32.0  # each adapter's product is multiplied by alpha / rank
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Annotated[Any, BeforeValidator(_targets)] = ALL_LINEAR

    @model_validator(mode="before")
    @classmethod
    def _refuse_quantized(cls, data: Any) -> Any:
        if isinstance(data, dict) and (name := next((key for key in _QUANTIZED if data.get(key)), None)):
            raise PydanticCustomError(
                "quantized",
                "Input has {name}: QLoRA is not there, since merging, weight sync and ZeRO know no 4-bit weights here; "
                "leave it out",
                {"name": name},
            )
        return data
