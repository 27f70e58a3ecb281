"""`check` for devices: what comes on top of the ledger on each, whether it fits, and seconds a step."""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from rl_posttrain.cost.activations import activations, gathered_weights
from rl_posttrain.cost.devices import DEVICES, Speeds, published_speeds
from rl_posttrain.cost.links import Devices
from rl_posttrain.cost.model_shape import shape_of
from rl_posttrain.cost.prediction import Engines, TokenCounts, Trained, seconds_of_step
from rl_posttrain.cost.step import engine_bytes, sequences_that_fit
from rl_posttrain.errors import RecipeError, did_you_mean
from rl_posttrain.models.find import kv_cache_bytes_per_token
from rl_posttrain.optim.ledger import PERSISTENT_VALUES
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes
from rl_posttrain.training.backends.backend import Backend

# Tokens of a prompt where the tokenizer is not here and nobody says: a question of GSM8K in a chat template has 50 to
# 250.
_UNKNOWN_PROMPT = 256

# Of a server's own devices vLLM takes this much for weights and KV cache (gpu_memory_utilization).
_OF_A_SERVER = 0.9


@dataclass(frozen=True)
class Where:
    """What `check` is asked of devices: which, in how many nodes, and how long texts are.

    Without ``device`` it is this machine; ``measures`` takes its speeds, which takes seconds.
    """

    device: str | None = None
    nodes: int = 1
    measures: bool = False
    devices_per_server: int = 1
    prompt_tokens: int | None = None
    mean_new_tokens: float | None = None

    def check(self, recipe: Recipe, num_processes: int) -> None:
        """Raises RecipeError where the options contradict each other or the recipe."""
        if self.device is not None and self.device not in DEVICES:
            raise RecipeError(f"--device={self.device}: no such device; {did_you_mean(self.device, DEVICES)}")
        if self.device is not None and self.measures:
            raise RecipeError(
                f"--measure-speed: it measures this machine, not {self.device}; leave one of the two options out"
            )
        if num_processes % self.nodes:
            raise RecipeError(
                f"--nodes={self.nodes}: {num_processes} processes are no equal shares; set --num-processes to a "
                f"multiple of {self.nodes}"
            )
        if self.measures and torch.cuda.is_available():
            raise RecipeError("--measure-speed: it measures CPUs, and here is a GPU; name it by --device")
        if self.nodes > 1 and self.device is None:
            raise RecipeError(f"--nodes={self.nodes}: this machine is one node; say --device as well")
        longest = recipe.rollout.max_new_tokens
        if self.mean_new_tokens is not None and self.mean_new_tokens > longest:
            raise RecipeError(
                f"--mean-new-tokens={self.mean_new_tokens:g}: completions end at rollout.max_new_tokens={longest}; "
                "set a smaller mean, or a larger limit"
            )


THIS_MACHINE = Where()


class Placed:
    """A recipe on devices, as `check_recipe` knows them.

    Args:
        model: on the meta device, with all that is trained and frozen; adapters' own activations are not counted.
        config: of the model.
        longest_prompt: tokens; None where they were not counted.
        notes: gets a sentence on each thing that had to be assumed.
    """

    def __init__(
        self,
        recipe: Recipe,
        sizes: Sizes,
        backend: Backend,
        where: Where,
        model: Any,
        config: Any,
        longest_prompt: int | None,
        notes: list[str],
    ):
        self._recipe, self._sizes, self._backend, self._where, self._notes = recipe, sizes, backend, where, notes
        parameters = list(model.parameters())
        count = sum(parameter.numel() for parameter in parameters)
        self._trained_values = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        self._sharded_values = sum(p.numel() for p in parameters if p.numel() > PERSISTENT_VALUES)
        self._config = config
        self._shape = shape_of(config, num_parameters=count, tensors=len(parameters))
        self._device = None if where.device is None else DEVICES[where.device]
        self._on_cpu = self._device is None and not torch.cuda.is_available()
        prompt = where.prompt_tokens or longest_prompt
        if prompt is None:
            prompt = _UNKNOWN_PROMPT
            notes.append(f"prompts are taken to have {prompt} tokens, as none is known here; say --prompt-tokens")
        longest = recipe.rollout.max_new_tokens
        self._tokens = TokenCounts(prompt=prompt, mean_new=where.mean_new_tokens or longest, longest_new=longest)
        self._kv_token_bytes = kv_cache_bytes_per_token(config, recipe.model.dtype)

    def on_top(self, rollout_weights: int) -> dict[str, int]:
        """Bytes on each device beside the ledger: ``kv_cache``, and ``activations`` and ``logits`` of a micro batch.

        ``gathered_weights`` where an engine shards them.

        A colocated vLLM on a GPU takes its share of the card's memory, whatever it needs of it. Elsewhere the cache is
        as large as all completions at their longest; those of one prompt share it.

        Args:
            rollout_weights: bytes of the colocated engine's weights.
        """
        recipe, tokens, sizes = self._recipe, self._tokens, self._sizes
        held = {}
        if recipe.rollout.engine == "vllm":
            prompts = -(-sizes.completions_per_process // recipe.algorithm.group_size)
            most = tokens.prompt * prompts + tokens.longest_new * sizes.completions_per_process
            held["kv_cache"] = self._kv_token_bytes * most
            if self._device is not None:
                share = int(recipe.rollout.gpu_memory_share * self._device.memory_bytes)
                held["kv_cache"] = max(0, share - rollout_weights)
                if held["kv_cache"] < self._kv_token_bytes * tokens.length:
                    self._notes.append(
                        f"rollout.gpu_memory_share={recipe.rollout.gpu_memory_share:g} of {self._device.title} holds "
                        "less than the engine's weights and one sequence; raise it"
                    )
        if self._shape is None:
            self._notes.append(
                "activations, logits and seconds are not predicted: the model is no decoder of known form"
            )
            return held
        distributed, width = recipe.distributed, 2 if recipe.model.dtype == "bfloat16" else 4
        if distributed.engine == "fsdp2":
            held["gathered_weights"] = gathered_weights(
                self._shape, "fsdp2", sharded_values=self._shape.num_parameters, width=width
            )
        elif self._backend.zero_stage == 3 and (sizes.num_processes > 1 or distributed.offload == "parameters"):
            held["gathered_weights"] = gathered_weights(
                self._shape, "zero3", sharded_values=self._sharded_values, width=width
            )
        autocasts = recipe.model.dtype == "bfloat16" and self._backend.weights_dtype == "float32"
        common = {
            "sequences": recipe.algorithm.micro_batch_size,
            "length": tokens.length,
            "precision": "autocast" if autocasts else self._backend.weights_dtype,
            "checkpointing": recipe.model.gradient_checkpointing,
            "on_cpu": self._on_cpu,
        }
        whole = self._trained_values == self._shape.num_parameters
        found = activations(self._shape, scored=tokens.longest_new, trained=whole, **common)
        held |= {"activations": found.layers, "logits": found.logits}
        if recipe.critic is not None and not recipe.critic.shared_backbone:
            held["critic_activations"] = found.layers
        return held

    def predict_step(self, memory: dict[str, int | None]) -> dict[str, Any] | None:
        """Seconds of a step, where a device is named or this machine is measured.

        Args:
            memory: bytes by component, `on_top` included.

        Returns:
            ``device``, ``memory_bytes`` of it (None on a CPU), ``nodes``, ``speeds``, ``tokens`` that were taken,
            ``sequences_at_once`` of each engine, and ``seconds`` by phase; None where nothing is asked for or known.
        """
        where, sizes = self._where, self._sizes
        state = [value for name, value in memory.items() if name.endswith(("masters", "optimizer_state"))]
        if (self._device is None and not where.measures) or self._shape is None or None in state:
            return None
        if self._recipe.distributed.offload != "none":
            self._notes.append(
                "seconds are not predicted with distributed.offload: the way to main memory is not known"
            )
            return None
        engines = self._engines(memory)
        speeds = self._speeds(engines.at_once)
        width = 4 if self._backend.weights_dtype == "float32" else 2
        stage, fsdp2 = self._backend.zero_stage, self._recipe.distributed.engine == "fsdp2"
        own_masters = not any(held for name, held in memory.items() if name.endswith("masters"))
        masters = own_masters * 4 * self._trained_values // (sizes.num_processes if fsdp2 else 1)
        seconds = seconds_of_step(
            self._recipe,
            sizes,
            self._shape,
            self._tokens,
            Trained(
                stage=3 if fsdp2 else stage,
                values=self._trained_values,
                frozen=self._trained_values < self._shape.num_parameters,
                state_bytes=sum(state) + masters,
                weight_width=width,
                gradient_width=4 if fsdp2 else width,  # FSDP2 adds them up in fp32
                own_masters=own_masters,
                around_step=engine_bytes(deepspeed=stage is not None, gradient_width=4 if fsdp2 else width),
                after_backward=4 * width if stage else 0,  # into a bucket, and divided by the number of processes
            ),
            engines,
            Devices(sizes.num_processes, where.nodes),
            speeds,
            # On devices of their own engines sample while others update; on shared ones nothing is won.
            self._recipe.rollout.max_staleness if engines.apart else 0,
        )
        return {
            "device": self._device.title if self._device else "this machine",
            "memory_bytes": self._device.memory_bytes if self._device else None,
            "nodes": where.nodes,
            "speeds": asdict(speeds),
            "tokens": asdict(self._tokens),
            "sequences_at_once": engines.at_once,
            "seconds": seconds,
        }

    def _engines(self, memory: dict[str, int | None]) -> Engines:
        """The engines that sample, and how many sequences each holds at once."""
        sizes, width = self._sizes, 2 if self._recipe.model.dtype == "bfloat16" else 4
        num, each, apart = sizes.num_processes, 1, False
        kv_bytes = memory.get("kv_cache") if self._device is not None else None
        if self._recipe.rollout.engine == "vllm_server":
            num, each, apart = len(self._recipe.rollout.servers), self._where.devices_per_server, True
            if self._device is not None:
                kv_bytes = _OF_A_SERVER * each * self._device.memory_bytes - width * self._shape.num_parameters
        at_once = -(-sizes.completions_per_step // num)
        if kv_bytes is not None:
            tokens = self._tokens.prompt + self._tokens.mean_new
            fit = sequences_that_fit(kv_bytes, kv_token_bytes=self._kv_token_bytes, tokens=tokens)
            at_once = min(at_once, fit)
        return Engines(num, each, at_once, width, self._kv_token_bytes, apart)

    def _speeds(self, at_once: int) -> Speeds:
        if self._device is not None:
            return published_speeds(self._device)
        from rl_posttrain.cost.speed import Work, measure_speed

        recipe, dtype = self._recipe, self._backend.weights_dtype
        work = Work(
            sequences=recipe.algorithm.micro_batch_size,
            length=self._tokens.length,
            scored=self._tokens.longest_new,
            at_once=at_once,
            weights_dtype=dtype,
            autocasts=recipe.model.dtype == "bfloat16" and dtype == "float32",
        )
        return measure_speed(self._config, work, self._sizes.num_processes)
