"""What weights in 4 bits stand on in bitsandbytes, transformers and TRL."""

import inspect

import pytest
import trl
from transformers.integrations import bitsandbytes as in_transformers
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer

bitsandbytes = pytest.importorskip("bitsandbytes")


def test_transformers_marks_the_layers_with_what_they_were():
    source = inspect.getsource(in_transformers.replace_with_bnb_linear)
    assert "new_module.source_cls = type(module)" in source
    assert "model.set_submodule(module_name, new_module)" in source
    assert "value = value.T" in inspect.getsource(in_transformers.Bnb4bitQuantize.convert), "of a Conv1D"
    assert "device_map" in inspect.signature(Bnb4BitHfQuantizer._process_model_before_weight_loading).parameters
    assert {"model", "kwargs"} <= set(inspect.signature(Bnb4BitHfQuantizer.preprocess_model).parameters)


def test_bitsandbytes_packs_weights_for_a_cpu_only_where_the_layer_says_so():
    source = inspect.getsource(bitsandbytes.nn.Linear4bit.forward)
    assert "and self.support_avx512bf16_for_cpu" in source
    assert source.count("_convert_weight_packed_for_cpu") == 1


def test_trl_makes_adapters_on_such_a_model_bf16_and_no_other_of_its_weights():
    source = inspect.getsource(trl.GRPOTrainer.__init__)
    assert "quantization_config" in inspect.signature(trl.GRPOTrainer.__init__).parameters
    cast = source[source.index("if _is_quantized_model:") :][:400]
    assert "if param.requires_grad" in cast
    assert "param.data = param.data.to(torch.bfloat16)" in cast
