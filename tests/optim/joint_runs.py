"""A policy and its critic in one DeepSpeed engine, and in two; test_joint.py starts it.

torchrun --nproc_per_node=2 joint_runs.py FOLDER     writes the weights of every run
"""

import sys
from pathlib import Path

import torch
from joint_models import batches, make_critic, make_policy, weights

from rl_posttrain.optim import JointSpec, OptimizerSpec, resolve_optimizer
from rl_posttrain.optim.swap import check_and_find_shards, running_optimizer
from rl_posttrain.training.backends.deepspeed import start_deepspeed, wrap

NUM_STEPS, SAVED_AT = 6, 3
SETTINGS = {
    "adams": {"lr": 1e-2, "weight_decay": 0.1, "options": {"betas": (0.8, 0.9), "bias_correction": True}},
    "adamw": {"lr": 3e-3, "weight_decay": 0.2, "options": {"betas": (0.9, 0.95)}},
    "scale": {"lr": 1e-2, "options": {"vector_lr": 2e-3}},
    "muon": {"lr": 1e-2},
}
# The optimizers of policy and critic, and ZeRO's stage.
CASES = [
    ("muon", "adams", 0),
    ("adams", "adamw", 1),
    ("scale", "adams", 2),
    ("adams", "scale", 3),
]
SAVED = [case for case in CASES if case[2] in (1, 3)]


def spec_of(name: str) -> OptimizerSpec:
    return resolve_optimizer(name, **SETTINGS[name])


def joint_spec(policy: str, critic: str) -> JointSpec:
    return JointSpec(spec_of(policy), spec_of(critic))


def start(model, spec, stage):
    engine, wrapper = wrap(
        model.bfloat16(),
        spec.build(model),
        {
            "train_micro_batch_size_per_gpu": 1,
            "bf16": {"enabled": True},
            # One engine would clip by the norm of both halves together.
            "gradient_clipping": 0.0,
            "zero_optimization": {
                "stage": stage,
                # Several buckets and sub-groups, and nothing that ZeRO-3 keeps whole.
                "reduce_bucket_size": 3000,
                "sub_group_size": 3000,
                "stage3_param_persistence_threshold": 0,
            },
            "zero_allow_untested_optimizer": True,
        },
    )
    check_and_find_shards(wrapper, *spec.classes)
    return engine


def train(engine, steps):
    for ids in steps:
        engine.backward(engine(ids.chunk(2)[torch.distributed.get_rank()]))
        engine.step()


def finish(engine, prefix=""):
    """The whole weights that the model ends with."""
    import deepspeed

    sharded = engine.zero_optimization_stage() == 3
    with deepspeed.zero.GatheredParameters(list(engine.module.parameters()), enabled=sharded):
        found = weights(engine.module, prefix)
    engine.destroy()
    return found


def alone(model, name, stage, prefix=""):
    engine = start(model, spec_of(name), stage)
    train(engine, batches(NUM_STEPS))
    return finish(engine, prefix)


def together(policy, critic, stage, folder):
    spec = joint_spec(policy, critic)
    engine = start(make_policy(), spec, stage)
    train(engine, batches(NUM_STEPS)[:SAVED_AT])
    if (policy, critic, stage) in SAVED:
        engine.save_checkpoint(folder, tag="saved")
    train(engine, batches(NUM_STEPS)[SAVED_AT:])
    classes = [type(part).__name__ for part in running_optimizer(engine.optimizer).parts.values()]
    found = {"classes": classes, "weights": finish(engine)}
    if (policy, critic, stage) in SAVED:
        engine = start(make_policy(), spec, stage)
        engine.load_checkpoint(folder, tag="saved")
        train(engine, batches(NUM_STEPS)[SAVED_AT:])
        found["resumed"] = finish(engine)
    return found


def main(folder: Path):
    start_deepspeed(on_cpu=True)
    found = {}
    for policy, critic, stage in CASES:
        found[policy, critic, stage] = together(policy, critic, stage, folder / f"{policy}-{critic}-{stage}")
        found["policy", policy, stage] = alone(make_policy(critic=False), policy, stage)
        found["critic", critic, stage] = alone(make_critic(), critic, stage, prefix="critic.")
    if torch.distributed.get_rank() == 0:
        torch.save(found, folder / "found.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
