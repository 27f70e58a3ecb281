"""The part of the section `model` about adapters."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from rl_posttrain.recipe.section import Positive, Section

ALL_LINEAR = "all-linear"
# What others call 4 or 8 bits, in TRL's ModelConfig, in transformers, in peft's examples.
_NAMES_ELSEWHERE = ("load_in_4bit", "load_in_8bit", "use_qlora", "bnb_4bit_quant_type")


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
    quantize: Literal["nf4", "fp4"] | None = None  # keep the frozen weights in 4 bits, as QLoRA does
    double_quant: bool = False  # and the magnitudes of their blocks in 8 bits

    @model_validator(mode="before")
    @classmethod
    def _name_quantize(cls, data: Any) -> Any:
        if isinstance(data, dict) and (name := next((key for key in _NAMES_ELSEWHERE if key in data), None)):
            raise PydanticCustomError(
                "quantized", "Input has {name}: frozen weights are in 4 bits by quantize: nf4; set that", {"name": name}
            )
        return data
