"""AdamS and SCALE under DeepSpeed: the same weights at every stage, offloaded, resumed, with fewer processes.

`pytest tests/optim/test_zero.py -s` prints the differences that docs/results/zero_exactness.md holds.
"""

from pathlib import Path

import pytest
import torch
from conftest import run_processes
from zero_runs import CASES, CONVERTED, LONG, POWERSTEP, REPLAYED, SAVED, SETTINGS, Case, replay

from rl_posttrain.errors import EngineError
from rl_posttrain.models.universal import convert_to_universal
from rl_posttrain.optim import SCALE, AdamS

ROUNDING = 1e-6
"""Of fp32 weights that twenty steps have moved by up to 0.02: gradients and their norm are summed in another order."""


def marked(cases: list[Case]) -> list:
    return [pytest.param(case, marks=[pytest.mark.long] * (case in LONG), id=case.name) for case in cases]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("zero")


@pytest.fixture(scope="module")
def runs(folder, request) -> dict[str, dict]:
    """Every case over two processes; then every saved one, converted, in a single process."""
    found = {}
    long = ["long"] * any(item.get_closest_marker("long") for item in request.session.items)
    for what, processes in (("walk", 2), ("universal", 1)):
        run_processes(Path(__file__).with_name("zero_runs.py"), what, folder, *long, processes=processes)
        found |= torch.load(folder / f"{what}.pt", weights_only=False)  # classes stand in it
    return found


def difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest of any weight; exactly 0 is the same to the bit."""
    return max((weight - expected[name]).abs().max().item() for name, weight in found.items())


def plain(runs: dict[str, dict], case: Case, *, whole: bool) -> dict[str, torch.Tensor]:
    return runs[Case(None, case.optimizer, clipped=case.clipped, whole=whole).name]["weights"]


@pytest.mark.parametrize("case", marked([case for case in CASES + LONG if not case.options and case not in POWERSTEP]))
def test_every_stage_ends_in_the_weights_of_plain_pytorch(case, runs):
    found = runs[case.name]["weights"]
    halves, whole = (difference(found, plain(runs, case, whole=whole)) for whole in (False, True))
    print(f"\n| {case.name} | {halves:.1e} | {whole:.1e} |")
    assert max(halves, whole) < ROUNDING
    # Of each process's own gradients, halved and summed, nothing is rounded until the norm is.
    if case.stage < 3 and case.optimizer is AdamS and not case.clipped:
        assert halves == 0


def test_powerstep_on_shards_is_powerstep_on_the_whole(runs):
    """torch rounds a power otherwise at the end of a tensor, and a gradient near zero may change its sign for it.

    How far such a weight gets hangs on the processor: they are few, and none is a whole step off.
    """
    case = POWERSTEP[0]
    assert case.stage == 2
    found, expected = runs[case.name]["weights"], plain(runs, case, whole=False)
    off = torch.cat([(weight - expected[name]).abs().flatten() for name, weight in found.items()])
    assert (off > ROUNDING).float().mean() < 1e-3
    assert off.max() < 0.1 * SETTINGS["lr"]


@pytest.mark.parametrize("case", marked(REPLAYED))
def test_zero_3_updates_exactly_though_its_gradients_are_rounded_otherwise(case, runs):
    """Handed its gradients, one process does the same to the bit: only the matrix products before differ."""
    difference_of_updates = difference(runs[case.name]["weights"], replay(case, runs[case.name]["gradients"]))
    print(f"\n| {case.name}, its own gradients | {difference_of_updates:.1e} | |")
    assert difference_of_updates <= (0 if case.optimizer is AdamS else 1e-7)


@pytest.mark.parametrize("case", marked(CASES + LONG))
def test_what_ran_is_the_optimizer_with_its_one_buffer_shared_out(case, runs):
    run = runs[case.name]
    assert run["class"] is case.optimizer
    if case.optimizer is SCALE:
        return
    num_parameters = sum(weight.numel() for weight in run["weights"].values())
    buffer = "exp_avg" if case.optimizer is AdamS else "momentum_buffer"
    assert run["state"] == ([buffer, "step"] if case.options else [buffer])
    assert run["dtypes"] == {torch.bfloat16 if case.options else torch.float32}
    assert run["num_elements"] == pytest.approx(num_parameters / (2 if case.stage else 1), abs=30)


@pytest.mark.parametrize("case", SAVED, ids=lambda case: case.name)
def test_a_checkpoint_goes_on_exactly(case, runs):
    assert difference(runs[f"{case.name}-resumed"]["weights"], runs[case.name]["weights"]) == 0


@pytest.mark.parametrize("case", CONVERTED, ids=lambda case: case.name)
def test_a_universal_checkpoint_goes_on_exactly_with_one_process_instead_of_two(case, runs):
    run, uninterrupted = runs[f"{case.name}-universal"], runs[case.name]
    assert difference(run["weights"], uninterrupted["weights"]) == 0
    assert run["state"] == uninterrupted["state"]
    assert run["dtypes"] == uninterrupted["dtypes"]
    assert run["num_elements"] == sum(weight.numel() for weight in run["weights"].values())


def test_zeros_of_the_converter_take_no_space(runs, folder):
    for case in CONVERTED:
        converted = folder / case.name / "saved_universal"
        found = list(converted.rglob("exp_avg_sq.pt"))
        assert len(list(converted.rglob("exp_avg.pt"))) == len(runs[case.name]["weights"])
        assert len(found) == (len(runs[case.name]["weights"]) if case.stage == 3 else 0)
        assert all(torch.load(path).untyped_storage().nbytes() == 4 for path in found)
        assert not list(converted.glob("tmp*"))


def test_states_move_to_the_host_and_back_where_deepspeed_does_that(runs):
    """The saved cases did so halfway, and still ended in the same weights; ZeRO-3 refuses."""
    refusals = {case.stage: runs[case.name]["refusal"] for case in SAVED}
    assert refusals == {1: None, 2: None, 3: "Offloading is supported only for DeepSpeed FusedAdam."}


def test_only_zero_checkpoints_of_one_buffer_are_converted(runs, folder, tmp_path):
    with pytest.raises(EngineError, match="it has no ZeRO states"):
        convert_to_universal(tmp_path, tmp_path / "universal")
    saved = next((folder / Case(1).name / "saved").glob("*_optim_states.pt"))
    states = torch.load(saved, weights_only=False)
    for state in states["optimizer_state_dict"]["base_optimizer_state"]["state"].values():
        state["momentum_buffer"] = state.pop("exp_avg")
    torch.save(states, tmp_path / saved.name)
    with pytest.raises(EngineError, match=r"keeps \['momentum_buffer'\], and exp_avg for 0 of 1 shards"):
        convert_to_universal(tmp_path, tmp_path / "universal")
    # SCALE keeps nothing of its matrices.
    with pytest.raises(EngineError, match=r"keeps \['exp_avg', 'exp_avg_sq', 'step'\], and exp_avg for 2 of 4 shards"):
        convert_to_universal(folder / Case(2, SCALE).name / "saved", tmp_path / "universal")
