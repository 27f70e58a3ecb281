"""The table of docs/scaling.md: settings for 1 to 1,024 H100s with memory and seconds a step, as `check` predicts them.

    python experiments/scaling/settings.py [--only 7B]

Batches are those of the recipe gsm8k_qwen2.5_1.5b: 128 prompts x 8 completions, and 1,024 x 16 on 1,024 GPUs;
prompts of 200 tokens, completions of 512 in the mean and 1,024 at most. Nothing of this was run.
"""

import argparse
from typing import NamedTuple

from rl_posttrain import load_recipe
from rl_posttrain.errors import RecipeError

MODELS = {
    "0.5B": "Qwen/Qwen2.5-0.5B-Instruct",
    "1.5B": "Qwen/Qwen2.5-1.5B",
    "7B": "Qwen/Qwen2.5-7B",
    "32B": "Qwen/Qwen2.5-32B",
    "70B": "meta-llama/Llama-3.1-70B",
}


class Setting(NamedTuple):
    """Overrides for so many trainer devices, and servers on so many devices each."""

    model: str
    devices: int
    settings: tuple[str, ...]
    servers: int = 0
    devices_per_server: int = 1


def colocated(model: str, devices: int, stage: int, micro_batch: int, share: float, *more: str) -> Setting:
    return Setting(
        model,
        devices,
        (
            f"distributed.zero_stage={stage}",
            f"algorithm.micro_batch_size={micro_batch}",
            f"rollout.gpu_memory_share={share}",
            *more,
        ),
    )


def served(model: str, devices: int, servers: int, devices_per_server: int, micro_batch: int, *more: str) -> Setting:
    settings = ("distributed.zero_stage=3", f"algorithm.micro_batch_size={micro_batch}", CHECKPOINTING, *more)
    return Setting(model, devices, settings, servers, devices_per_server)


CHECKPOINTING = "model.gradient_checkpointing=true"
SETTINGS = [
    colocated("0.5B", 1, 2, 8, 0.3),
    colocated("0.5B", 8, 2, 16, 0.3),
    colocated("0.5B", 64, 2, 16, 0.3),
    colocated("0.5B", 1024, 2, 16, 0.3),
    colocated("1.5B", 1, 2, 16, 0.3, CHECKPOINTING),
    colocated("1.5B", 8, 2, 8, 0.4),
    colocated("1.5B", 64, 2, 8, 0.4),
    colocated("1.5B", 1024, 2, 8, 0.4),
    colocated("7B", 1, 2, 4, 0.4, CHECKPOINTING, "model.lora={rank: 16}"),
    colocated("7B", 8, 3, 16, 0.45, CHECKPOINTING),
    colocated("7B", 64, 3, 16, 0.45, CHECKPOINTING),
    colocated("7B", 1024, 3, 16, 0.45, CHECKPOINTING),
    served("32B", 4, 2, 2, 4, "model.lora={rank: 16}"),
    served("32B", 8, 4, 2, 4),
    served("32B", 32, 16, 2, 8),
    served("32B", 512, 256, 2, 8),
    served("70B", 32, 8, 4, 4),
    served("70B", 512, 128, 4, 4),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(MODELS))
    arguments = parser.parse_args()
    print(
        "| model | H100s: train + sample | settings | GiB a device | sequences at once "
        "| rollout | update | links | sync | step |"
    )
    print("| --- " * 10 + "|")
    for setting in SETTINGS:
        if arguments.only in (None, setting.model):
            print(line(setting), flush=True)


def line(setting: Setting) -> str:
    from rl_posttrain.cost.check import check_recipe
    from rl_posttrain.cost.placed import Where

    devices = setting.devices
    batch = ["algorithm.prompts_per_step=1024", "algorithm.group_size=16"] if devices >= 512 else []
    addresses = ", ".join(f"http://127.0.0.1:{8000 + number}" for number in range(setting.servers))
    servers = ["rollout.engine=vllm_server", f"rollout.servers=[{addresses}]"] if setting.servers else []
    said = [
        f"model.name={MODELS[setting.model]}",
        "model.gradient_checkpointing=false",
        "algorithm.num_mini_batches=1",
        *batch,
        *servers,
        *setting.settings,
    ]
    nodes = max(1, devices // 8)
    where = Where(
        device="h100",
        nodes=nodes,
        devices_per_server=setting.devices_per_server,
        prompt_tokens=200,
        mean_new_tokens=512,
    )
    shown = [f"`{one}`" for one in setting.settings]
    number = f"{devices:,}"
    if setting.servers:
        number += f" + {setting.servers * setting.devices_per_server:,}"
        shown.append(f"`rollout.engine=vllm_server`, {setting.servers} servers of {setting.devices_per_server}")
    head = f"| {setting.model} | {number} | {'<br>'.join(shown)} | "
    try:
        result = check_recipe(load_recipe("gsm8k_qwen2.5_1.5b", said), devices, where)
    except RecipeError as error:
        return head + f"{error} |"
    step, total = result["step"], result["memory_bytes"]["total"]
    seconds = step["seconds"]
    fits = "" if total <= step["memory_bytes"] else ", does NOT fit"
    trains = sum(seconds[phase] for phase in ("logprobs", "update", "optimizer", "other"))
    cells = [f"{total / 2**30:.0f}{fits}", f"{step['sequences_at_once']:,}", f"{seconds['rollout']:.1f} s"]
    cells += [f"{value:.1f} s" for value in (trains, seconds["links"], seconds["sync"], seconds["step"])]
    return head + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
