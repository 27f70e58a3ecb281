"""Weights into vLLM's model, and read back from its modules as its layers use them.

On a CPU vLLM multiplies by packed copies. The product with a one-hot row is a column of the weight, and exact: 1 * w
plus zeros. On a GPU a layer's own tensor is what its kernels read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from rl_posttrain.rollout.engine import Held


def load_weights(runner: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Bring a policy's whole weights, named as in its checkpoint, into the model of vLLM's `runner`.

    What `weights` raises is raised; the model has a part of them then, and the next ones make it whole.
    """
    raised: list[Exception] = []

    def weights_that_came() -> Iterator[tuple[str, torch.Tensor]]:
        # vLLM must end what it has begun. It counts what each layer got, and after an error would go on counting with
        # the next weights: a layer would be done before it had all of them.
        try:
            yield from weights
        except Exception as error:
            raised.append(error)

    # Per-parameter load_weights fails on a CPU, where vLLM has repacked the weights; reloading whole layers works on
    # every device.
    runner.reload_weights(weights_iterator=weights_that_came())
    _repack_tied_head(runner.get_model())
    if raised:
        raise raised[0]


def _repack_tied_head(model: torch.nn.Module) -> None:
    """Bring a tied output layer up to date on a CPU.

    It shares the embedding's weight but multiplies by a packed copy. Reloading finds no weight under the head's own
    name and does not change that copy: without this, every sample would use the head of the first weights.
    """
    head = getattr(model, "lm_head", None)
    if head is not None and hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)


@torch.no_grad()
def read_weights(model: torch.nn.Module, columns: Mapping[str, Sequence[int] | None]) -> Iterator[Held]:
    """As `RolloutEngine.fingerprint`, of vLLM's model.

    Quantized layers, experts, and the shards of tensor parallel layers are left out.
    """
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    modules = dict(model.named_modules())
    config = model.config.get_text_config()
    tied = getattr(config, "tie_word_embeddings", False)
    heads = {place: module for place, module in modules.items() if isinstance(module, ParallelLMHead)}
    for name, wanted in columns.items():
        path, _, attribute = _name_in_engine(model, name).rpartition(".")
        module = modules.get(path)
        if module is None or getattr(module, "tp_size", 1) > 1:
            continue
        is_embedding = isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
        if is_embedding and wanted is not None:
            # The lookup reads the tensor itself. A tied output layer may have a packed copy, also in this very module.
            places = {path: module.weight[: module.org_vocab_size, list(wanted)]}
            for place, head in (heads or {path: module}).items() if tied else ():
                places[place if heads else f"{path} as output layer"] = _used_columns(head, wanted)
        elif wanted is not None:
            places = {path: _used_columns(module, wanted) if attribute == "weight" else None}
        else:
            vector = getattr(module, attribute, None)
            places = {path: vector if isinstance(vector, torch.Tensor) and vector.ndim == 1 else None}
        for place, values in places.items():
            if values is not None:
                yield Held(name, place, values[_rows(model, name, module)])


def _used_columns(layer: torch.nn.Module, columns: Sequence[int]) -> torch.Tensor | None:
    """(outputs, columns) of the matrix that a linear or output layer multiplies by; None where it cannot be read."""
    from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

    method = getattr(layer, "quant_method", None)
    if not isinstance(layer, (LinearBase, VocabParallelEmbedding)):
        return None
    if not isinstance(method, (UnquantizedLinearMethod, UnquantizedEmbeddingMethod)):
        return None
    if hasattr(layer, "cpu_linear"):
        inputs = layer.embedding_dim if isinstance(layer, VocabParallelEmbedding) else layer.input_size
        one_hot = torch.zeros(len(columns), inputs, dtype=layer.params_dtype)
        one_hot[range(len(columns)), list(columns)] = 1
        used = method.apply(layer, one_hot).t()
    else:
        used = layer.weight[:, list(columns)]
    return used[: layer.org_vocab_size] if isinstance(layer, VocabParallelEmbedding) else used


def _name_in_engine(model: torch.nn.Module, name: str) -> str:
    """A weight's name in vLLM's model; of one that is fused with others, that of all of them."""
    parts = name.split(".")
    if (fused := _fused(model, name)) is not None:
        parts[parts.index(fused[1])] = fused[0]
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    return (mapper._map_name(".".join(parts)) or "") if mapper else ".".join(parts)


def _fused(model: torch.nn.Module, name: str) -> tuple[str, str, int] | None:
    """The fused layer that has a weight, such as qkv_proj; the weight's own part, such as k_proj; and its place."""
    for layer, parts in getattr(model, "packed_modules_mapping", {}).items():
        for place, part in enumerate(parts):
            if len(parts) > 1 and part in name.split("."):
                return layer, part, place
    return None


def _rows(model: torch.nn.Module, name: str, layer: torch.nn.Module) -> slice:
    """The rows of a weight in a fused layer; all, where it is not fused."""
    fused = _fused(model, name)
    if fused is None:
        return slice(None)
    start = sum(layer.output_sizes[: fused[2]])
    return slice(start, start + layer.output_sizes[fused[2]])
