"""What every optimizer of the table must do: states, copies, checkpoints, schedules, hooks."""

import copy
import io
import pickle

import pytest
import torch
import torch.distributed.checkpoint as dcp
from conformance import (
    Case,
    Model,
    assert_goes_on,
    assert_same,
    assert_same_tree,
    check,
    fresh,
    straight,
    train,
    weights,
)
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import lr_scheduler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from rl_posttrain.optim.ledger import predict_memory, state_bytes


@check
def a_state_dict_goes_both_ways(case):
    model, optimizer = case.pair()
    train(model, optimizer, range(3))
    saved = copy.deepcopy(optimizer.state_dict())
    _, again = fresh(case, model)
    again.load_state_dict(saved)
    assert_same_tree(again.state_dict(), saved)
    assert_same_tree(optimizer.state_dict(), saved)
    # accelerate loads an optimizer's own state into it, and puts other tensors into its groups after that.
    _, untouched = fresh(case, model)
    untouched.load_state_dict(untouched.state_dict())
    assert not untouched.state


@check
def a_run_resumes_to_the_bit_from_a_file_of_plain_values(case):
    model, optimizer = case.pair()
    train(model, optimizer, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    model, again = fresh(case, model)
    # As transformers loads it: tensors, numbers, texts and containers of these alone.
    with torch.serialization.safe_globals([]):
        again.load_state_dict(torch.load(file, weights_only=True))
    assert_goes_on(case, model, again)


@check
def a_state_of_other_shapes_is_refused_and_never_steps(case):
    """Of a model with another vocabulary, smaller or larger. A kernel that trusts it writes past its end."""
    model, optimizer = case.pair(weight_decay=0.0)  # torch's AdamW decays a weight before it fails
    train(model, optimizer, range(2))
    for size in (5, 1000):
        other = Model()
        other.embed, other.lm_head = nn.Embedding(size, 6), nn.Linear(5, size, bias=False)
        again, resized = case.build(other, weight_decay=0.0), [other.embed.weight, other.lm_head.weight]
        for parameter in other.parameters():
            parameter.grad = torch.ones_like(parameter)
        before = [parameter.detach().clone() for parameter in resized]
        if not state_bytes(optimizer):
            again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            continue  # there is no state, so it has no shape

        def load_and_step(again=again):
            again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            again.step()

        with pytest.raises((ValueError, RuntimeError), match=r"shape|size of tensor"):
            load_and_step()
        for parameter, old in zip(resized, before, strict=True):
            assert torch.equal(parameter, old)


@check
def it_can_be_copied_deeply(case):
    model, optimizer = case.pair()
    train(model, optimizer, range(3))
    copied, its_optimizer = copy.deepcopy((model, optimizer))
    assert_goes_on(case, copied, its_optimizer)
    assert_goes_on(case, model, optimizer)


@check
def it_can_be_pickled(case):
    model, optimizer = case.pair()
    assert pickle.loads(pickle.dumps(optimizer)).state_dict() == optimizer.state_dict()
    train(model, optimizer, range(3))
    assert_goes_on(case, *pickle.loads(pickle.dumps((model, optimizer))))


@check
def a_closure_has_gradients_and_its_loss_is_returned(case):
    model, optimizer = case.pair()
    losses = []

    def closure():
        assert torch.is_grad_enabled()
        optimizer.zero_grad()
        losses.append(model.loss(0))
        losses[-1].backward()
        return losses[-1]

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1
    assert_same(model, straight(case, 1))
    assert optimizer.step() is None


@check
def schedules_of_the_rate_are_followed(case):
    for make in (
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: float(step < 2)),
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 2, eta_min=0.0),
        lambda optimizer: lr_scheduler.ChainedScheduler([lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 2)]),
    ):
        model, optimizer = case.pair()
        schedule = make(optimizer)
        train(model, optimizer, range(2), schedule)
        assert all(group["lr"] == pytest.approx(0, abs=1e-12) for group in optimizer.param_groups)
        before = weights(model)
        train(model, optimizer, range(2, 3))
        # A rate of zero moves nothing, so each rate in the groups is the one that the step takes.
        for ours, theirs in zip(model.parameters(), before, strict=True):
            torch.testing.assert_close(ours.detach(), theirs, rtol=0, atol=1e-7)
    model, optimizer = case.pair()
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    for _ in range(3):
        schedule.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0125] * len(optimizer.param_groups)


@check
def schedules_that_cycle_the_momentum_reach_every_momentum(case):
    for kind, settings in ((lr_scheduler.OneCycleLR, {"max_lr": 0.05, "total_steps": 9}), (lr_scheduler.CyclicLR, {})):
        settings = settings or {"base_lr": 0.05, "max_lr": 0.05, "step_size_up": 2}
        ends = []
        for momenta in ({"base_momentum": 0.9, "max_momentum": 0.9}, {"base_momentum": 0.2, "max_momentum": 0.2}):
            model, optimizer = case.pair()
            schedule = kind(optimizer, **settings, **momenta)
            for step in range(8):
                torch.manual_seed(step)
                for parameter in model.parameters():  # the same ones whatever other parameters have done
                    parameter.grad = torch.randn_like(parameter)
                optimizer.step()
                schedule.step()
            ends.append(dict(model.named_parameters()))
        holds_momentum = {parameter for parameter, state in optimizer.state.items() if momentum_of(state)}
        for name, parameter in ends[1].items():
            if parameter in holds_momentum:
                assert not torch.equal(ends[0][name], parameter), name


def momentum_of(state: dict) -> list[torch.Tensor]:
    return [state[name] for name in ("exp_avg", "m", "momentum_buffer") if name in state]


@check
def a_gradient_scaler_skips_what_overflowed(case):
    model, optimizer = case.pair()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step, factor in ((0, 1.0), (9, float("inf")), (1, 1.0), (2, 1.0)):
        optimizer.zero_grad()
        scaler.scale(model.loss(step) * factor).backward()
        scaler.step(optimizer)
        scaler.update()
    # Scales are powers of two, so that scaling changes no bit.
    assert_same(model, straight(case, 3))


@check
def weights_are_averaged_over_steps(case):
    model, optimizer = case.pair()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    schedule = torch.optim.swa_utils.SWALR(optimizer, swa_lr=0.01, anneal_epochs=2)
    seen = []
    for step in range(3):
        train(model, optimizer, range(step, step + 1), schedule)
        averaged.update_parameters(model)
        seen.append(weights(model))
    for mean, values in zip(averaged.module.parameters(), zip(*seen, strict=True), strict=True):
        torch.testing.assert_close(mean.detach(), torch.stack(values).mean(0))
    assert all(group["lr"] == pytest.approx(0.01) for group in optimizer.param_groups)


def through_a_folder(case: Case, folder, num_steps: int, *, flat: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model and optimizer after so many steps, saved and loaded by torch.distributed.checkpoint."""
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    model, optimizer = case.pair()
    train(model, optimizer, range(num_steps))
    optimizer.zero_grad()
    dcp.save({"optimizer": get_optimizer_state_dict(model, optimizer, options=options)}, checkpoint_id=folder)
    model, again = fresh(case, model)
    saved = {"optimizer": get_optimizer_state_dict(model, again, options=options)}
    dcp.load(saved, checkpoint_id=folder)
    set_optimizer_state_dict(model, again, saved["optimizer"], options=options)
    return model, again


@check
def a_distributed_checkpoint_goes_on_to_the_bit(case, folder):
    assert_goes_on(case, *through_a_folder(case, folder, 3, flat=False))


@check
def a_flat_distributed_checkpoint_goes_on_to_the_bit(case, folder):
    assert_goes_on(case, *through_a_folder(case, folder, 3, flat=True))


@check
def a_state_dict_in_memory_goes_on_to_the_bit_by_name(case):
    """As the checkpoints above, without a folder, and with all values on the CPU of one process.

    torch's own helper fails for a state that is both flat and full, whatever the optimizer is.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    model, optimizer = case.pair()
    train(model, optimizer, range(3))
    optimizer.zero_grad()
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    model, again = fresh(case, model)
    set_optimizer_state_dict(model, again, saved, options=options)
    assert_goes_on(case, model, again)


@check
def checkpoints_before_the_first_step_hold_the_whole_state(case, folder):
    """Both forms ask for the state by a step with zero gradients and a rate of zero."""
    for flat in (False, True):
        model, optimizer = through_a_folder(case, folder / str(flat), 0, flat=flat)
        assert_same(model, Model())
        train(model, optimizer, range(3))
        expected, reference = case.pair()
        get_optimizer_state_dict(expected, reference)
        train(expected, reference, range(3))
        assert_same(model, expected)


@check
def hooks_run_once_and_are_heeded(case):
    model, optimizer = case.pair()
    called = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: called.append("any pre")),
        register_optimizer_step_post_hook(lambda *_: called.append("any post")),
        optimizer.register_step_pre_hook(lambda *_: called.append("pre")),
        optimizer.register_step_post_hook(lambda *_: called.append("post")),
    ]
    try:
        train(model, optimizer, range(2))
    finally:
        for handle in handles:
            handle.remove()
    assert called == ["any pre", "pre", "post", "any post"] * 2
    train(model, optimizer, range(2, 3))
    optimizer.register_state_dict_pre_hook(lambda _: called.append("saving"))
    optimizer.register_state_dict_post_hook(lambda _, state: {**state, "note": 1})
    saved = copy.deepcopy(optimizer.state_dict())
    assert called[-1] == "saving"
    assert saved.pop("note") == 1
    model, again = fresh(case, model)
    numbers = {place: f"p{place}" for group in saved["param_groups"] for place in group["params"]}
    renamed = {
        "state": {numbers[place]: state for place, state in saved["state"].items()},
        "param_groups": [
            {**group, "params": [numbers[place] for place in group["params"]]} for group in saved["param_groups"]
        ],
    }
    again.register_load_state_dict_pre_hook(lambda *_: renamed)
    again.register_load_state_dict_post_hook(lambda loaded: called.append(len(loaded.state)))
    again.load_state_dict({"state": {}, "param_groups": []})
    assert called[-1] == len(optimizer.state)
    assert_goes_on(case, model, again)


@check
def its_memory_is_predicted_on_meta_tensors(case):
    with torch.device("meta"):
        shapes = Model()
    ledger = predict_memory(shapes, case.spec(), zero_stage=None)
    model, optimizer = case.pair()
    train(model, optimizer, range(1))
    assert ledger.optimizer_state == state_bytes(optimizer)
