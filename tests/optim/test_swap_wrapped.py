"""Swapped optimizers under DDP, DeepSpeed and FSDP2, each with and without LoRA or offload, over two processes."""

from pathlib import Path

import pytest
import torch
from conftest import run_processes
from trainer_runs import LONG, REFUSED, RUNNING, SCHEDULED, Case

CLASSES = {"adams": "AdamS", "scale": "SCALE"}
# What transformers trains, and what the optimizer finds in its groups.
WRAPPED = {
    "ddp": ("DistributedDataParallel", "Parameter"),
    "zero0": ("DeepSpeedEngine", "Parameter"),
    "zero1": ("DeepSpeedEngine", "Tensor"),
    "zero2": ("DeepSpeedEngine", "Tensor"),
    "zero3": ("DeepSpeedEngine", "Tensor"),
    "fsdp2": ("FSDP", "DTensor"),
}
ROUNDING = 2e-5
"""A fiftieth of one step: clipped gradients that are summed in another order, and an element's own size divides it."""


def marked(cases: list[Case]) -> list:
    return [pytest.param(case, marks=[pytest.mark.long] * (case in LONG), id=case.name) for case in cases]


@pytest.fixture(scope="module")
def runs(tiny_model, tmp_path_factory, request) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("trainers")
    long = ["long"] * any(item.get_closest_marker("long") for item in request.session.items)
    run_processes(Path(__file__).with_name("trainer_runs.py"), tiny_model, folder, *long, processes=2)
    return torch.load(folder / "found.pt")


@pytest.mark.parametrize("case", marked(RUNNING + LONG))
def test_the_optimizer_that_was_asked_for_runs(case, runs):
    run, (wrapper, tensor) = runs[case.name], WRAPPED[case.wrapper]
    assert run["class"] == CLASSES[case.optimizer]
    assert run["wrapper"].startswith(wrapper)
    assert run["lines"] == [1, 0]  # of the main process
    if case.optimizer == "adams":
        assert run["state"] == ["exp_avg"]
    else:  # LoRA trains matrices alone, which SCALE keeps nothing of
        assert run["state"] == ([] if case.lora else ["exp_avg", "exp_avg_sq", "step"])
    if run["state"]:
        assert run["tensors"] == [tensor]
    assert all("lora" in name for name in run["weights"]) is case.lora
    assert all(weight.isfinite().all() for weight in run["weights"].values())


@pytest.mark.parametrize(
    "case", marked([case for case in RUNNING + LONG if case.trainer == "Trainer" and case.wrapper != "ddp"])
)
def test_wrappers_end_in_the_weights_of_ddp(case, runs):
    plain = runs[Case("Trainer", "ddp", case.optimizer, arguments=case.arguments).name]
    for name, weight in runs[case.name]["weights"].items():
        torch.testing.assert_close(weight, plain["weights"][name], rtol=0, atol=ROUNDING)
    assert runs[case.name]["rates"] == pytest.approx(plain["rates"])


@pytest.mark.parametrize("case", marked([case for case in RUNNING + LONG if case.arguments == SCHEDULED]))
def test_schedules_reach_the_optimizer_that_runs(case, runs):
    assert runs[case.name]["rates"] == pytest.approx([1e-3, 7.5e-4, 2.5e-4])


@pytest.mark.parametrize("message", REFUSED)
def test_what_would_be_replaced_is_refused_before_training(message, runs):
    assert message in runs[REFUSED[message].name]["error"]
