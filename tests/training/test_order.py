"""The questions of a run that goes on in its second pass over the rows."""

import pytest
from conftest import run_command
from hits import runs_folder, without_costs

from rl_posttrain.runs.directory import RunDirectory

# Two steps a pass.
OPTIONS = ("rollout.engine=transformers", "distributed.engine=none", "task.num_train=8", "checkpoint.every_steps=3")


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_run_that_goes_on_in_a_later_pass_has_the_questions_of_one_without_a_stop(tiny_recipe, processes):
    for name, *more in (
        (f"passes-whole-{processes}", "algorithm.num_steps=6"),
        (f"passes-part-{processes}", "algorithm.num_steps=3"),
        (f"passes-part-{processes}", "algorithm.num_steps=6", "--resume"),
    ):
        done = run_command("train", tiny_recipe, f"run.name={name}", *OPTIONS, *more, processes=processes)
        assert done.returncode == 0, done.stderr
    whole, part = (
        RunDirectory.open(runs_folder(tiny_recipe) / f"passes-{way}-{processes}") for way in ("whole", "part")
    )
    assert len({row["prompts_sha256"] for row in whole.metrics()}) == 6
    assert without_costs(part.metrics()) == without_costs(whole.metrics())
