"""The table of docs/scaling.md: the fastest settings that fit on 1 to 1,024 H100s, as `check` predicts them.

    python experiments/scaling/settings.py [--only 7B]

Batches are those of the recipe gsm8k_qwen2.5_1.5b: 128 prompts x 8 completions, and 1,024 x 16 on 1,024 GPUs; prompts
of 200 tokens, completions of 512 in the mean and 1,024 at most. Nothing of this was run.

For each model and number of GPUs every combination is predicted of ZeRO-2, ZeRO-3 and FSDP2, micro batches of 2 to 16,
gradient checkpointing, two shares of the card for a colocated engine, or servers on half or three quarters of the GPUs.
The one with the shortest step is shown among those that leave 4 GiB of a card to CUDA, NCCL and buckets. Where a
colocated engine fits, servers are shown if with rollouts one step ahead they are faster; where it does not, with and
without. LoRA and an offloaded optimizer are tried where nothing else fits.
"""

import argparse
import functools
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any, NamedTuple

from rl_posttrain import load_recipe
from rl_posttrain.cost.check import check_recipe
from rl_posttrain.cost.placed import Placed, Where
from rl_posttrain.errors import RecipeError
from rl_posttrain.models.find import model_without_weights, published_config
from rl_posttrain.recipe.lora_section import LoraSection
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.recipe.sizes import Sizes, derive_sizes
from rl_posttrain.training.adapters import with_adapters
from rl_posttrain.training.backends.backend import make_backend

MODELS = {
    "0.5B": "Qwen/Qwen2.5-0.5B-Instruct",
    "1.5B": "Qwen/Qwen2.5-1.5B",
    "7B": "Qwen/Qwen2.5-7B",
    "32B": "Qwen/Qwen2.5-32B",
    "70B": "meta-llama/Llama-3.1-70B",
}
# Devices that share a server's weights, so that they fit beside a cache.
OF_A_SERVER = {"32B": 2, "70B": 4}
NUMBERS = (1, 8, 64, 1024)
LEFT_FREE = 4 * 2**30
MICRO_BATCHES = (16, 8, 4, 2)
ENGINES = (
    ("distributed.zero_stage=2",),
    ("distributed.zero_stage=3",),
    ("distributed.engine=fsdp2",),
)
OFFLOADED = (("distributed.zero_stage=2", "distributed.offload=optimizer"),)
CHECKPOINTING = ((), ("model.gradient_checkpointing=true",))
SHARES = (("rollout.gpu_memory_share=0.3",), ("rollout.gpu_memory_share=0.5",))
LORA = ("model.lora={rank: 16}",)


class Plan(NamedTuple):
    """Overrides for so many trainer devices, servers beside them, and what `check` says of it."""

    devices: int
    servers: int
    settings: tuple[str, ...]
    memory: int
    step: dict[str, Any] | None

    @property
    def seconds(self) -> float:
        return self.step["seconds"]["step"] if self.step else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(MODELS))
    arguments = parser.parse_args()
    print(
        "| model | H100s: train + sample | settings | GiB a device | sequences at once "
        "| rollout | update | links | sync | step |"
    )
    print("| --- " * 10 + "|")
    for model in MODELS:
        for number in NUMBERS:
            if arguments.only in (None, model):
                for plan in shown(model, number):
                    print(line(model, plan), flush=True)


def shown(model: str, number: int) -> Iterator[Plan]:
    """The plans for a model on so many GPUs that are worth a row."""
    together = best(colocated(model, number, ENGINES))
    if together is None:
        together = best(colocated(model, number, ENGINES, LORA))
        yield from filter(None, [best(colocated(model, number, OFFLOADED))])
    yield from filter(None, [together])
    for staleness in (0, 1):
        apart = best(served(model, number, staleness)) or best(served(model, number, staleness, LORA))
        if apart and (together is None or (staleness and apart.seconds < 0.99 * together.seconds)):
            yield apart


def best(plans: Iterable[Plan]) -> Plan | None:
    """The fastest; of those that are as fast the one that takes least memory."""
    return min(plans, key=lambda plan: (round(plan.seconds, 1), plan.memory), default=None)


def colocated(
    model: str, number: int, engines: Iterable[tuple[str, ...]], more: tuple[str, ...] = ()
) -> Iterator[Plan]:
    for engine, share, checkpointing in product(engines, SHARES, CHECKPOINTING):
        yield from largest(model, number, 0, (*engine, *share, *checkpointing, *more))


def served(model: str, number: int, staleness: int, more: tuple[str, ...] = ()) -> Iterator[Plan]:
    each = OF_A_SERVER.get(model, 1)
    for trainers, engine, checkpointing in product((number // 2, number // 4), ENGINES[:2], CHECKPOINTING):
        servers = (number - trainers) // each
        if trainers and servers:
            ahead = (f"rollout.max_staleness={staleness}",)
            yield from largest(model, trainers, servers, (*engine, *checkpointing, *ahead, *more))


def largest(model: str, devices: int, servers: int, settings: tuple[str, ...]) -> Iterator[Plan]:
    """The plan with the largest micro batch that fits, if one does: it sends least, and is never slower."""
    for micro_batch in MICRO_BATCHES:
        plan = predicted(model, devices, servers, (*settings, f"algorithm.micro_batch_size={micro_batch}"))
        if plan is not None:
            yield plan
            return


def predicted(model: str, devices: int, servers: int, settings: tuple[str, ...]) -> Plan | None:
    """None where it does not fit, or the recipe does not allow it."""
    total = devices + servers * OF_A_SERVER.get(model, 1)
    batch = ["algorithm.prompts_per_step=1024", "algorithm.group_size=16"] if total >= 1024 else []
    addresses = ", ".join(f"http://127.0.0.1:{8000 + number}" for number in range(servers))
    where = Where(
        device="h100",
        nodes=max(1, devices // 8),
        devices_per_server=OF_A_SERVER.get(model, 1) if servers else 1,
        prompt_tokens=200,
        mean_new_tokens=512,
    )
    said = [
        f"model.name={MODELS[model]}",
        "model.gradient_checkpointing=false",
        "algorithm.num_mini_batches=1",
        *batch,
        *(["rollout.engine=vllm_server", f"rollout.servers=[{addresses}]"] if servers else []),
        *settings,
    ]
    try:
        recipe = load_recipe("gsm8k_qwen2.5_1.5b", said)
        sizes = derive_sizes(recipe, devices)
        memory = held(recipe, sizes, where)
    except RecipeError:
        return None
    model, config = without_weights(recipe.model.name, recipe.model.lora)
    placed = Placed(recipe, sizes, make_backend(recipe, sizes), where, model, config, None, [])
    memory = memory | placed.on_top(memory["rollout_weights"])
    memory["total"] = sum(memory.values())
    step = placed.predict_step(memory)
    if memory["total"] > 80 * 10**9 - LEFT_FREE or (step and not memory.get("kv_cache", 1)):
        return None
    return Plan(devices, servers, settings, memory["total"], step)


_LEDGERS: dict[Any, dict[str, int]] = {}


def held(recipe: Recipe, sizes: Sizes, where: Where) -> dict[str, int]:
    """Weights, gradients, masters and state as `check` gives them, asked for once for all recipes that share them."""
    backend = make_backend(recipe, sizes)
    key = (recipe.model.name, str(recipe.model.lora), str(recipe.distributed), sizes.num_processes)
    key += (backend.fp32_gradients, recipe.rollout.engine)
    if key not in _LEDGERS:
        found = check_recipe(recipe, sizes.num_processes, where)["memory_bytes"]
        on_top = ("kv_cache", "activations", "logits", "gathered_weights", "total")
        _LEDGERS[key] = {name: size for name, size in found.items() if name not in on_top}
    return _LEDGERS[key]


@functools.cache
def without_weights(name: str, lora: LoraSection | None) -> tuple[Any, Any]:
    """A model on the meta device, and its config."""
    config = published_config(name)
    model = model_without_weights(config, "bfloat16")
    return (model if lora is None else with_adapters(model, lora, fp32=False)), config


def line(model: str, plan: Plan) -> str:
    settings = [f"`{one}`" for one in plan.settings]
    number = f"{plan.devices:,}"
    if plan.servers:
        each = OF_A_SERVER.get(model, 1)
        number += f" + {plan.servers * each:,}"
        settings.append(f"{plan.servers} server{'s' * (plan.servers > 1)}" + f" of {each}" * (each > 1))
    cells = [model, number, "<br>".join(settings), f"{plan.memory / 2**30:.0f}"]
    if plan.step is None:
        cells += ["not predicted"] + [""] * 5
    else:
        seconds = plan.step["seconds"]
        trains = sum(seconds[phase] for phase in ("logprobs", "update", "optimizer", "other"))
        cells += [f"{plan.step['sequences_at_once']:,}", f"{seconds['rollout']:.1f} s"]
        cells += [f"{value:.1f} s" for value in (trains, seconds["links"], seconds["sync"], seconds["step"])]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
