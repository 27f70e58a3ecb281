"""Evaluation in training: before the first step and after the last, kept by sample, and without a trace in the run."""

import json

import pytest

from rl_posttrain import load_recipe, train
from rl_posttrain.runs.directory import RunDirectory

ON = ["eval.at_start=true", "eval.num_samples=2", "eval.k=[1,2]"]
# What differs from run to run.
UNSTEADY = ("seconds", "time/", "peak_memory_bytes", "eval/")


def rows_of(run: RunDirectory) -> list[dict]:
    """The rows of metrics.jsonl without times and without what the evaluation adds."""
    return [{key: value for key, value in row.items() if not key.startswith(UNSTEADY)} for row in run.metrics()]


@pytest.fixture(scope="module")
def evaluated(tiny_recipe) -> RunDirectory:
    return train(load_recipe(tiny_recipe, [*ON, "run.name=evaluated", "checkpoint.final_model=true"]))


def test_a_run_is_the_same_with_evaluations_and_without(tiny_recipe, evaluated):
    plain = train(load_recipe(tiny_recipe, ["run.name=not-evaluated"]))
    each_step = train(load_recipe(tiny_recipe, ["eval.every_steps=1", "eval.temperature=0.5", "run.name=each-step"]))
    assert rows_of(plain) == rows_of(evaluated) == rows_of(each_step)
    for step in (1, 2, 3):
        assert plain.rollouts(step) == evaluated.rollouts(step) == each_step.rollouts(step)
    assert [each_step.evaluation(step) is not None for step in (0, 1, 2, 3)] == [True] * 4


def test_before_and_after_are_on_disk_and_the_last_row_has_them(evaluated):
    before, after = evaluated.evaluation(0), evaluated.evaluation(3)
    assert evaluated.evaluation(1) is None
    for results, step in ((before, 0), (after, 3)):
        assert (results["step"], results["num_questions"], results["num_samples"]) == (step, 8, 2)
        lines = (evaluated.evaluation_folder(step) / "questions.jsonl").read_text().splitlines()
        accuracies = [json.loads(line)["metrics"]["accuracy"] for line in lines]
        assert results["metrics"]["accuracy"]["value"] == pytest.approx(sum(accuracies) / 8)
    assert before["metrics"]["digit_share"] != after["metrics"]["digit_share"]  # other weights, other samples
    last = evaluated.metrics()[-1]
    for name in ("accuracy", "pass@2", "maj@2", "digit_share", "length"):
        assert last[f"eval/{name}"] == after["metrics"][name]["value"]
    assert last["eval/accuracy_error"] == after["metrics"]["accuracy"]["error"]
    assert not any(key.startswith("eval/") for row in evaluated.metrics()[:-1] for key in row)


def test_the_command_draws_the_samples_of_the_evaluation_after_training(evaluated, run_main, tmp_path):
    status, stdout, stderr = run_main("eval", evaluated.path, "--out", tmp_path / "alone", "--json")
    assert status == 0, stderr
    (results,) = json.loads(stdout)["evaluations"]
    assert results["metrics"] == evaluated.evaluation(3)["metrics"]
    alone = (tmp_path / "alone" / "samples.jsonl").read_text()
    assert alone == (evaluated.evaluation_folder(3) / "samples.jsonl").read_text()


def test_samples_do_not_depend_on_the_number_of_processes(tiny_recipe, evaluated):
    from conftest import run_command

    overrides = [*ON, "run.name=on-two", "distributed.zero_stage=3", "algorithm.num_steps=1"]
    done = run_command("train", tiny_recipe, *overrides, processes=2)
    assert done.returncode == 0, done.stderr
    two = RunDirectory.open(evaluated.path.parent / "on-two")
    one, other = (
        sorted((run.evaluation_folder(0) / "samples.jsonl").read_text().splitlines()) for run in (evaluated, two)
    )
    assert one == other
