"""The section `model` of a recipe: what is trained, and how it is kept in memory."""

from typing import Literal

from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.recipe.section import Section


class ModelSection(Section):
    name: str
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = False
    trust_remote_code: bool = False
    lora: LoraSection | None = None  # None: the whole model is trained

    @property
    def four_bits(self) -> str:
        """What a line that tells the weights' dtypes says more: which of them are in 4 bits; empty where none are."""
        return f"; frozen layers in 4 bits ({self.lora.quantize})" if self.lora and self.lora.quantize else ""
