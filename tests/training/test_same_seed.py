"""One seed gives one run: on one process or several, under every engine and ZeRO stage, and not on another device."""

import itertools
import shutil

import pytest
import torch
from conftest import run_command
from hits import without_costs
from safetensors.torch import load_file

from rl_posttrain.errors import EngineError, RunError
from rl_posttrain.machine.process import deterministic_kernels
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.training.resume import check_same_device

ENGINES = ("vllm", "transformers")
DETERMINISTIC = ("run.deterministic=true", "checkpoint.final_model=true", "rollout.max_new_tokens=16")


def trained(recipe, name, *overrides, processes=1) -> RunDirectory:
    done = run_command("train", recipe, f"run.name={name}", *DETERMINISTIC, *overrides, processes=processes)
    assert done.returncode == 0, done.stdout + done.stderr
    return RunDirectory.open(recipe.parent / "runs" / name)


def weights(run: RunDirectory) -> bytes:
    return (run.final_model_path / "model.safetensors").read_bytes()


def sampled(run: RunDirectory, step: int) -> list[dict]:
    return [{key: rollout[key] for key in ("prompt", "completion", "rewards")} for rollout in run.rollouts(step)]


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.long)])
def test_a_step_samples_the_same_completions_on_one_process_and_on_two(tiny_recipe, engine):
    """In fp32, where rounding in batches of another size changes no token of this small model."""
    options = (f"rollout.engine={engine}", "distributed.engine=none", "model.dtype=float32", "algorithm.num_steps=1")
    one, two = (trained(tiny_recipe, f"{engine}-on-{n}", *options, processes=n) for n in (1, 2))
    assert sampled(two, 1) == sampled(one, 1)
    assert len({rollout["completion"] for rollout in one.rollouts(1)}) > 8
    assert two.metrics()[0]["reward"] == pytest.approx(one.metrics()[0]["reward"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("engine", "distributed"),
    list(itertools.product(ENGINES, ("engine=none", *(f"zero_stage={stage}" for stage in range(4))))),
)
def test_two_deterministic_runs_are_bitwise_equal(tiny_recipe, engine, distributed):
    processes = 2 if distributed in ("engine=none", "zero_stage=2", "zero_stage=3") else 1
    options = (f"rollout.engine={engine}", f"distributed.{distributed}")
    one, two = (trained(tiny_recipe, f"{engine}-{distributed[-1]}-{n}", *options, processes=processes) for n in "ab")
    assert without_costs(one.metrics()) == without_costs(two.metrics())
    assert weights(one) == weights(two)
    assert [one.rollouts(step) for step in (1, 2, 3)] == [two.rollouts(step) for step in (1, 2, 3)]


def test_an_operation_without_a_deterministic_kernel_is_named_and_torch_is_left_as_it_was():
    with deterministic_kernels(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    with (
        pytest.raises(
            EngineError, match=r"^run\.deterministic=true: put_ does not have a deterministic implementation"
        ),
        deterministic_kernels(True),
    ):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    with deterministic_kernels(False):
        assert not torch.are_deterministic_algorithms_enabled()


def test_a_run_that_is_resumed_on_another_device_says_so_and_a_deterministic_one_is_refused(tiny_recipe, tmp_path):
    recipe = load_recipe(tiny_recipe)
    run = RunDirectory.create(tmp_path / "moved", recipe_yaml=recipe.to_yaml())
    assert check_same_device(recipe, run, "CPU, 2 threads, X") == []
    run.write_environment({"device": "CPU, 2 threads, X"})
    assert check_same_device(recipe, run, "CPU, 2 threads, X") == []
    (note,) = check_same_device(recipe, run, "CPU, 1 threads, X")
    assert note.startswith("started on CPU, 2 threads, X, resumed on CPU, 1 threads, X: sums may be rounded")
    strict = load_recipe(tiny_recipe, ["run.deterministic=true"])
    with pytest.raises(
        RunError, match=r"^run\.deterministic=true: .* was started on CPU, 2 threads, X, and this is CPU, 1"
    ):
        check_same_device(strict, run, "CPU, 1 threads, X")


@pytest.mark.long
def test_a_plain_run_goes_on_with_another_number_of_processes(tiny_recipe):
    """In fp32 on this small model other rounding changes no token of the next step. Questions are always the same."""
    options = (
        "rollout.engine=transformers", "distributed.engine=none", "model.dtype=float32", "algorithm.num_steps=4",
        "checkpoint.every_steps=2", "checkpoint.keep=2", "rollout.max_new_tokens=16", "checkpoint.final_model=true",
    )  # fmt: skip
    for before, after in ((1, 2), (2, 1)):
        runs = {}
        for name in ("whole", "moved"):
            arguments = ("train", tiny_recipe, f"run.name={name}-{before}", *options)
            assert run_command(*arguments, processes=before).returncode == 0
            runs[name] = RunDirectory.open(tiny_recipe.parent / "runs" / f"{name}-{before}")
        (runs["moved"].path / "summary.json").unlink()
        shutil.rmtree(runs["moved"].checkpoints_path / "checkpoint-4")
        done = run_command(*arguments, "--resume", processes=after)
        assert done.returncode == 0, done.stderr
        assert f"it was started on {before} process{'es' * (before > 1)}, not {after}: sums are rounded" in done.stdout
        for step in (1, 2, 3):
            assert sampled(runs["moved"], step) == sampled(runs["whole"], step)
        ours, theirs = ([one["prompt"] for one in run.rollouts(4)] for run in runs.values())
        assert ours == theirs
        ours, theirs = (load_file(run.final_model_path / "model.safetensors") for run in runs.values())
        assert all(torch.allclose(ours[key], theirs[key], atol=1e-4) for key in ours)
