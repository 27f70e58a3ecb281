"""What a run needs of its servers, and whether one fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.rollout.server_worker import comparable_config


@dataclass(frozen=True)
class ServedRun:
    """What servers are asked to be good for.

    Attributes:
        run: whose servers they are; a resumed run has the same.
        config: of the policy's text model.
        dtype: ``bfloat16`` or ``float32``.
        max_tokens_per_sequence: longest prompt and completion together.
        folder: where weights that travel as files are put; the servers must see it under the same path.
        timeout_s: without a sign of life from a server, after which it is left out.
        lease_s: for which a server is this run's after it was last heard of.
        weight_transfer: ``files``, ``gloo`` or ``nccl``.
        trainer_address: of this host, where it listens for servers; None: as the way to each server says.
        one_by_one: whether a server draws one completion at a time, so that no other has an influence on it.
    """

    run: str
    config: Any
    dtype: str
    max_tokens_per_sequence: int
    folder: Path
    timeout_s: float
    lease_s: float
    weight_transfer: str = "files"
    trainer_address: str | None = None
    one_by_one: bool = False


def misfit(about: Mapping[str, Any], served: ServedRun) -> str | None:
    """Why a server cannot be used for a run, on one line; None where it can.

    Args:
        about: what the server says of itself, by `ServerWorker.rl_posttrain_describe`.
    """
    own = comparable_config(served.config)
    for name in sorted(own.keys() & about["config"].keys()):
        if own[name] != about["config"][name]:
            return (
                f"it has another model: its {name} is {about['config'][name]}, and the policy's {own[name]}; start "
                "it with the recipe's model"
            )
    if about["dtype"] != served.dtype:
        return f"it computes in {about['dtype']}, and model.dtype={served.dtype}; start it with that DTYPE"
    if (longest := about["max_tokens_per_sequence"]) < served.max_tokens_per_sequence:
        return (
            f"it takes {longest} tokens of prompt and completion, and the recipe needs "
            f"{served.max_tokens_per_sequence}; start it with that MAX_TOKENS"
        )
    if about["logprobs"] != "processed_logprobs" or about["num_replicas"] > 1:
        return (
            f"it has --logprobs-mode {about['logprobs']} and {about['num_replicas']} replicas; start it by "
            "launch/vllm_server.sh with processed_logprobs and one replica"
        )
    if served.one_by_one and about["on_gpu"]:
        return (
            "it computes on a GPU, and run.deterministic=true with servers is for CPUs alone; set rollout.engine=vllm, "
            "or run.deterministic=false"
        )
    return None
