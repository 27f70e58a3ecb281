"""What a vLLM server's workers can do for a trainer: vLLM loads this by ``--worker-extension-cls``.

A trainer calls it by ``/collective_rpc``, whose arguments and results are JSON. A server that restarts has no version
and no lease, whatever weights it loaded, so no trainer samples from it before it has given it its own.
"""

import base64
import json
import socket
import time
from typing import Any

import torch

from rl_posttrain.errors import one_line
from rl_posttrain.rollout.engine import Held
from rl_posttrain.rollout.vllm_weights import load_weights, read_weights
from rl_posttrain.rollout.weight_files import read_files, readable
from rl_posttrain.rollout.weight_group import Backend, Group, join, receive

# Configurations of one model differ in these where they come from different files or programs.
_NOT_OF_THE_MODEL = ("transformers_version", "dtype", "torch_dtype", "architectures", "use_cache")


class ServerWorker:
    """Added to vLLM's class of workers; `rl_posttrain_` in front of each name keeps them apart from vLLM's own."""

    _rl_posttrain_version: str | None = None
    _rl_posttrain_lease: tuple[str, str, float] = ("", "", 0.0)
    _rl_posttrain_group: Group | None = None

    def rl_posttrain_describe(self) -> dict[str, Any]:
        """What a trainer compares with its policy and its recipe."""
        from vllm.entrypoints.openai.completion.protocol import CompletionRequest

        model = self.vllm_config.model_config
        return {
            "identity": f"{socket.gethostname()} {self.vllm_config.instance_id}",
            "config": comparable_config(model.hf_text_config),
            "dtype": str(model.dtype).removeprefix("torch."),
            "max_tokens_per_sequence": model.max_model_len,
            "logprobs": str(model.logprobs_mode),
            "on_gpu": torch.cuda.is_available(),
            "num_workers": self.vllm_config.parallel_config.world_size,
            "num_replicas": self.vllm_config.parallel_config.data_parallel_size,
            "parameters": sorted(CompletionRequest.model_fields),
        }

    def rl_posttrain_claim(self, run: str, session: str, seconds: float) -> dict[str, Any]:
        """Take or keep the server for a run; a later process of the same run takes it over from the earlier one.

        Args:
            run: that trains.
            session: of the process that asks; of two of one run the later one is the greater.
            seconds: for which nobody else gets it; 0 or less gives it back.

        Returns:
            Whether it is the run's now; who has it if not, and for how many seconds unless it is heard of again.
        """
        holder, held_session, until = self._rl_posttrain_lease
        now = time.monotonic()
        if until > now and (run != holder or session < held_session):
            return {"granted": False, "run": holder, "seconds": round(until - now, 1)}
        if session != held_session:
            self._rl_posttrain_version = None
        if session != held_session or seconds <= 0:
            self._rl_posttrain_leave()
        self._rl_posttrain_lease = (run, session, now + seconds)
        return {"granted": True, "run": run, "seconds": seconds}

    def rl_posttrain_state(self, session: str, seconds: float) -> dict[str, Any]:
        """The version of the weights, None where they are nobody's; the lease of `session` is kept on."""
        run, held_session, until = self._rl_posttrain_lease
        if held_session == session and until > 0:
            self._rl_posttrain_lease = (run, session, time.monotonic() + seconds)
        return {"version": self._rl_posttrain_version, "run": run, "is_held": held_session == session}

    def rl_posttrain_can_read(self, path: str, word: str) -> dict[str, bool]:
        """Whether a file that the trainer wrote can be read here, and is that file."""
        return {"same": readable(path, word)}

    def rl_posttrain_join(
        self, session: str, backend: Backend, address: str, port: int, size: int, limit_s: float
    ) -> dict[str, str | None]:
        """Join the group of a trainer that listens at an address; the problem, where there is one."""
        if self._rl_posttrain_lease[1] != session:
            return {"problem": f"the run {self._rl_posttrain_lease[0]} took it meanwhile"}
        self._rl_posttrain_leave()
        try:
            self._rl_posttrain_group = join(backend, address, port, 1 + self.rank, size, limit_s)
        except (OSError, RuntimeError) as error:
            return {"problem": f"it does not reach this command at {address} ({one_line(error, limit=120)})"}
        return {"problem": None}

    def rl_posttrain_load(self, session: str, version: str, seconds: float, paths: list[str] | None) -> dict[str, Any]:
        """Take the weights of `version`, and keep the lease on.

        Args:
            paths: of files that were written for it; None: they come from the trainer's group.
        """
        run, held_session, _ = self._rl_posttrain_lease
        if held_session != session:
            return {"version": self._rl_posttrain_version, "run": run}
        self._rl_posttrain_version = None  # until they are whole
        if paths is not None:
            load_weights(self.model_runner, read_files(paths, version))
        elif self._rl_posttrain_group is None:
            raise ValueError("it has no connection for weights")
        else:
            try:
                load_weights(self.model_runner, receive(self._rl_posttrain_group, version))
            except Exception:
                self._rl_posttrain_leave()  # nobody knows where in the stream it stands
                raise
        self._rl_posttrain_version = version
        self._rl_posttrain_lease = (run, session, time.monotonic() + seconds)
        return {"version": version, "run": run}

    def _rl_posttrain_leave(self) -> None:
        if self._rl_posttrain_group is not None:
            self._rl_posttrain_group.close()
            self._rl_posttrain_group = None

    def rl_posttrain_read(self, columns: str) -> list[dict[str, Any]]:
        """Values of weights as `RolloutEngine.fingerprint`, packed by `pack`.

        Args:
            columns: of that function, as JSON.
        """
        return [pack(held) for held in read_weights(self.model_runner.get_model(), json.loads(columns))]


def comparable_config(config: Any) -> dict[str, Any]:
    """What of a model's configuration must be the same in server and trainer, as JSON has it."""
    found = json.loads(json.dumps(config.to_dict(), default=str))
    return {name: value for name, value in found.items() if name[0] != "_" and name not in _NOT_OF_THE_MODEL}


def pack(held: Held) -> dict[str, Any]:
    """Values as JSON can carry them, bit for bit."""
    values = held.values.detach().cpu().contiguous()
    return {
        "name": held.name,
        "place": held.place,
        "dtype": str(values.dtype).removeprefix("torch."),
        "shape": list(values.shape),
        "values": base64.b64encode(values.view(torch.uint8).numpy().tobytes()).decode(),
    }


def unpack(packed: dict[str, Any], place: str) -> Held:
    """What `pack` packed, as standing at `place`."""
    flat = torch.frombuffer(bytearray(base64.b64decode(packed["values"])), dtype=getattr(torch, packed["dtype"]))
    return Held(packed["name"], place, flat.view(packed["shape"]))
