"""One optimizer over a policy and its critic: to the bit what two optimizers do, under every engine."""

import copy
import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
import transformers
from conftest import run_processes
from joint_models import Critic, batches, make_critic, make_policy, same, weights
from joint_runs import CASES, SAVED, joint_spec
from test_names import OPTIONS
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from rl_posttrain.errors import EngineError, RecipeError
from rl_posttrain.models.universal import convert_to_universal
from rl_posttrain.optim import OPTIMIZERS, JointOptimizer, JointSpec, OptimizerSpec, resolve_optimizer
from rl_posttrain.optim.roles import describe_groups
from rl_posttrain.optim.swap import check_optimizer, put_in
from rl_posttrain.optim.table import PACKAGES, is_installed

NUM_STEPS, SAVED_AT = 6, 3
# As policy's and as critic's, every name once; the low-rank ones have a projection of rank 16.
NAMES = [name for name in OPTIMIZERS if is_installed(PACKAGES.get(name, "torch"))]
PAIRS = list(zip(NAMES, [*NAMES[1:], "adams"], strict=True))
MARKED = {"adams": {"bias_correction": True, "state_dtype": "bfloat16"}, "scale": {"vector_lr": 1e-3}}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Products this small take longer on several threads, and far longer where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def spec_of(name: str, lr: float, weight_decay: float) -> OptimizerSpec:
    options = {key: value for key, value in {**OPTIONS.get(name, {}), **MARKED.get(name, {})}.items() if key != "lr"}
    return resolve_optimizer(name, lr=lr, weight_decay=weight_decay, options=options)


def spec(policy: str, critic: str) -> JointSpec:
    return JointSpec(spec_of(policy, 3e-3, 0.1), spec_of(critic, 1e-2, 0.01))


def learn(model, optimizers, schedules, steps):
    for ids in steps:
        model(ids).backward()
        for part in (*optimizers, *schedules):
            part.step()
        for optimizer in optimizers:
            optimizer.zero_grad()


def linear(optimizer):
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / NUM_STEPS)


@pytest.mark.parametrize(("policy", "critic"), PAIRS)
def test_two_classes_step_as_two_optimizers_do_and_continue_from_a_state(policy, critic):
    joint, apart = make_policy(), make_policy()
    asked = spec(policy, critic)
    optimizer = asked.build(joint)
    assert list(dict(joint.named_children())) == ["model", "lm_head", "critic"]
    halves = [make_policy(critic=False), make_critic()]
    others = [asked.policy.build(halves[0]), asked.critic.build(halves[1])]
    schedule, schedules = linear(optimizer), [linear(other) for other in others]
    learn(joint, [optimizer], [schedule], batches(NUM_STEPS)[:SAVED_AT])
    saved = io.BytesIO()
    torch.save((joint.state_dict(), optimizer.state_dict(), schedule.state_dict()), saved)
    learn(joint, [optimizer], [schedule], batches(NUM_STEPS)[SAVED_AT:])
    for half, other, other_schedule in zip(halves, others, schedules, strict=True):
        learn(half, [other], [other_schedule], batches(NUM_STEPS))
    assert same(weights(joint), weights(halves[0]) | weights(halves[1], "critic."))
    # As transformers loads it: nothing but tensors, and what low_rank.py declares safe.
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    again = asked.build(apart)
    for part, kept in zip((apart, again, schedule_again := linear(again)), state, strict=True):
        part.load_state_dict(kept)
    assert dtypes(again) == dtypes(optimizer)
    learn(apart, [again], [schedule_again], batches(NUM_STEPS)[SAVED_AT:])
    assert same(weights(apart), weights(joint))


def dtypes(optimizer) -> list[dict]:
    """Of the state of each parameter in turn."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [
        {name: value.dtype for name, value in optimizer.state[parameter].items() if torch.is_tensor(value)}
        for parameter in parameters
    ]


def test_a_step_is_of_the_groups_that_are_there(monkeypatch):
    """As DeepSpeed's ZeRO-1 and 2 call it: for one group after the other, with all gradients there."""
    model = make_policy()
    optimizer = spec("adams", "adamw").build(model)
    model(batches(1)[0]).backward()
    for place, group in enumerate(optimizer.param_groups):
        before = [parameter.clone() for parameter in model.parameters()]
        with monkeypatch.context() as patched:
            patched.setattr(optimizer, "param_groups", [group])
            optimizer.step()
        moved = {
            parameter
            for parameter, old in zip(model.parameters(), before, strict=True)
            if not torch.equal(parameter, old)
        }
        assert moved == set(group["params"]), place


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("joint")


@pytest.fixture(scope="module")
def runs(folder) -> dict:
    """Every case over two processes: in one engine, and each half in an engine of its own."""
    run_processes(Path(__file__).with_name("joint_runs.py"), folder, processes=2)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_one_engine_trains_both_halves_as_two_engines_do(case, runs):
    """bf16 weights with fp32 masters, under ZeRO-0 to 3: the same to the bit."""
    policy, critic, stage = case
    assert same(runs[case]["weights"], runs["policy", policy, stage] | runs["critic", critic, stage])
    asked = joint_spec(policy, critic)
    assert runs[case]["classes"] == [asked.policy.cls.__name__, asked.critic.cls.__name__]


@pytest.mark.parametrize("case", SAVED, ids=lambda case: "-".join(map(str, case)))
def test_an_engines_checkpoint_continues_exactly(case, runs):
    assert same(runs[case]["resumed"], runs[case]["weights"])


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (SAVED[0], "its optimizer keeps exp_avg_sq for some of its shards alone"),
        (SAVED[1], "its groups differ in lr, weight_decay, .*part, and ZeRO-3 loads"),
    ],
    ids=["zero1", "zero3"],
)
def test_what_a_universal_checkpoint_would_lose_is_not_converted(case, message, runs, folder, tmp_path):
    with pytest.raises(EngineError, match=message):
        convert_to_universal(folder / "-".join(map(str, case)) / "saved", tmp_path / "universal")


def test_groups_go_by_role_within_each_part():
    policy = resolve_optimizer("adams", lr=1e-6, weight_decay=0.1, lr_by_role={"embeddings": 1e-7})
    critic = resolve_optimizer("adamw", lr=1e-5, weight_decay=0.2, no_decay=["norms", "embeddings"], key="critic")
    model = make_policy()
    optimizer = JointSpec(policy, critic).build(model)
    matrices = 2 * 30 * 30 + 2 * 10 * 30 + 3 * 30 * 37
    embedding = 61 * 30
    assert [tuple(row.values()) for row in describe_groups(optimizer, model)] == [
        ("policy", ["matrices", "output_layer"], matrices + embedding, 1e-6, 0.1),
        ("policy", ["embeddings"], embedding, 1e-7, 0.1),
        ("policy", ["norms"], 3 * 30, 1e-6, 0.0),
        ("critic", ["matrices"], matrices, 1e-5, 0.2),
        # Three norms, and the head.
        ("critic", ["embeddings", "norms"], embedding + 4 * 30, 1e-5, 0.0),
    ]


def test_a_critic_that_shares_the_backbone_has_its_head_alone():
    model = make_policy(critic=False)
    model.critic = Critic(None)
    optimizer = spec("scale", "muon").build(model)
    rows = [row for row in describe_groups(optimizer, model) if row["part"] == "critic"]
    assert [(row["roles"], row["num_parameters"]) for row in rows] == [(["norms"], 30)]
    with pytest.raises(RecipeError, match="GaLore refuses the model"):
        spec("adams", "galore").build(model)
    assert hasattr(model, "critic")


def test_a_class_that_is_put_in_the_place_of_a_part_is_found():
    asked = spec("adams", "adamw")
    optimizer = asked.build(make_policy())
    check_optimizer(optimizer, *asked.classes)
    optimizer.parts["critic"] = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    with pytest.raises(EngineError, match=r"AdamW was asked for, but torch\.optim\.adam\.Adam runs"):
        check_optimizer(optimizer, *asked.classes)
    with pytest.raises(EngineError, match=r"JointOptimizer was asked for, but rl_posttrain\.optim\.adams\.AdamS runs"):
        check_optimizer(optimizer.parts["policy"], *asked.classes)


class PolicyTrainer(transformers.Trainer):
    def compute_loss(self, model, inputs, **kwargs):
        return model(inputs["ids"])


def test_a_trainer_of_transformers_runs_it(tmp_path):
    """accelerate loads the state once before the first step, which gives the optimizer other groups."""
    arguments = transformers.TrainingArguments(
        tmp_path, max_steps=2, per_device_train_batch_size=2, use_cpu=True, max_grad_norm=0, lr_scheduler_type="linear",
        report_to="none", save_strategy="no", remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    model, asked = make_policy(), spec("adams", "adamw")
    rows = [{"ids": ids} for ids in batches(1)[0]]
    trainer = PolicyTrainer(model, arguments, train_dataset=rows)
    put_in(trainer, lambda: asked)
    trainer.train()
    halves = [make_policy(critic=False), make_critic()]
    for half, part in zip(halves, (asked.policy, asked.critic), strict=True):
        optimizer = part.build(half)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 2)
        # A row order of the trainer's own does not change the mean over both.
        learn(half, [optimizer], [schedule], [batches(1)[0]] * 2)
    expected = weights(halves[0]) | weights(halves[1], "critic.")
    for name, weight in weights(model).items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["adams", "adamw"])
def test_a_part_of_rate_0_waits_and_then_steps_as_a_new_one(name):
    """As a policy waits for its critic. AdamW would count the updates; gradients that are not its own would add up."""
    waited, fresh = make_policy(), make_policy()
    optimizers = [spec(name, "adams").build(model) for model in (waited, fresh)]
    rates = [group["lr"] for group in optimizers[0].param_groups]
    for group in optimizers[0].param_groups:
        group["lr"] *= group["part"] == "critic"
    learn(waited, optimizers[:1], [], batches(NUM_STEPS)[1:])
    start = weights(fresh)
    policy = [key for key in start if not key.startswith("critic.")]
    assert all(torch.equal(weights(waited)[key], start[key]) for key in policy)
    assert any(not torch.equal(weights(waited)[key], start[key]) for key in start if key.startswith("critic."))
    for group, rate in zip(optimizers[0].param_groups, rates, strict=True):
        group["lr"] = rate
    for model, optimizer in zip((waited, fresh), optimizers, strict=True):
        learn(model, [optimizer], [], batches(1))
    assert all(torch.equal(weights(waited)[key], weights(fresh)[key]) for key in policy)
    assert any(not torch.equal(weights(fresh)[key], start[key]) for key in policy)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("pair", [("adams", "scale"), ("galore", "muon")], ids=str)
def test_a_distributed_checkpoint_goes_on_to_the_bit(pair, flat, tmp_path):
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    straight, steps = make_policy(), batches(4)
    learn(straight, [spec(*pair).build(straight)], [], steps)
    model = make_policy()
    optimizer = spec(*pair).build(model)
    learn(model, [optimizer], [], steps[:2])
    dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer, options=options)}, checkpoint_id=tmp_path)
    again = spec(*pair).build(model)
    saved = {"optimizer": get_optimizer_state_dict(model, again, options=options)}
    dcp.load(saved, checkpoint_id=tmp_path)
    set_optimizer_state_dict(model, again, saved["optimizer"], options=options)
    learn(model, [again], [], steps[2:])
    assert same(weights(model), weights(straight))


def test_a_state_of_another_optimizer_is_refused():
    optimizer = spec("adams", "adams").build(make_policy())
    alone = spec_of("adams", 1e-3, 0.1).build(make_policy(critic=False))
    with pytest.raises(ValueError, match=r"groups of the parts \[None, None\], and the optimizer has \['policy', "):
        optimizer.load_state_dict(alone.state_dict())


def test_whole_matrices_are_named_with_the_part_that_needs_them():
    critic = resolve_optimizer("muon", lr=1e-3, key="critic.optimizer")
    joint = JointSpec(resolve_optimizer("adams", lr=1e-3), critic)
    assert joint.needs_whole_matrices
    joint.refuse_shards(0)
    with pytest.raises(RecipeError, match=r"critic\.optimizer\.name=muon needs whole matrices"):
        joint.refuse_shards(2)
    assert not spec("adams", "adamw").needs_whole_matrices


def test_a_copy_steps_as_the_original():
    model = make_policy()
    optimizer = spec("adams", "adamw").build(model)
    learn(model, [optimizer], [], batches(1))
    twin, copied = copy.deepcopy((model, optimizer))
    assert isinstance(pickle.loads(pickle.dumps(optimizer)).parts["critic"], torch.optim.AdamW)
    assert type(copied) is JointOptimizer
    for one, its_optimizer in ((model, optimizer), (twin, copied)):
        learn(one, [its_optimizer], [], batches(2)[1:])
    assert same(weights(twin), weights(model))
