"""`compare --launcher slurm`: the array job has exactly the missing runs, whatever the folder is called."""

import re
import stat
import subprocess

import pytest
from conftest import clean_environment
from synthetic import finish

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.plan import plan_runs
from rl_posttrain.study.slurm import leave_to_slurm

ODD = 'it\'s a "$HOME" `folder`'
WORDS = ["adams", "adamw(betas=[0.9,0.95])"]
COMMAND = ("compare", "quickstart", "--optimizers", ",".join(WORDS), "--seeds", "0,1", "--launcher", "slurm")
QUICK = (
    "rollout.engine=transformers",
    "distributed.engine=none",
    "algorithm.num_steps=2",
    "checkpoint.every_steps=1",
    "checkpoint.final_model=true",
)


def run_task(script, number: int, **variables: str) -> subprocess.CompletedProcess:
    """What Slurm does with a task of the array."""
    environment = clean_environment(SLURM_ARRAY_TASK_ID=str(number), SLURM_ARRAY_JOB_ID="7", **variables)
    return subprocess.run(["bash", script], capture_output=True, text=True, env=environment, cwd="/")


def array_of(script) -> int:
    """How many tasks the file asks for."""
    return int(re.search(r"^#SBATCH --array=0-(\d+)$", script.read_text(), re.MULTILINE)[1]) + 1


def test_each_task_trains_one_planned_run_and_finished_ones_have_none(run_main, monkeypatch, tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    monkeypatch.chdir(folder)
    status, said, errors = run_main(*COMMAND)
    assert (status, errors) == (0, "")
    compared = folder / "runs" / "quickstart-compare"
    script = compared / "slurm.sbatch"
    assert "of 4 runs 0 are finished, 0 go on, and a guard stopped 0" in said
    planned = plan_runs(load_recipe("quickstart"), WORDS, (0, 1), ({},), compared)
    assert not [run for run in planned if run.path.exists()]
    # A Python that says what it was told stands in the place of the one that would train.
    told = tmp_path / "told"
    told.write_text('#!/bin/bash\nprintf "%s\\n" "$PWD" "$@" > "$TOLD"\nexit 5\n')
    told.chmod(told.stat().st_mode | stat.S_IXUSR)
    script.write_text(re.sub(r"^\S+python\S*(?= -m )", str(told), script.read_text(), flags=re.MULTILINE))
    assert array_of(script) == len(planned)
    for number, run in enumerate(planned):
        assert run_task(script, number, TOLD=str(tmp_path / "words")).returncode == 5
        recipe = compared / "recipes" / f"{run.path.name}.yaml"
        words = ["-m", "rl_posttrain", "train", str(recipe), "--auto-resume"]
        assert (tmp_path / "words").read_text().splitlines() == [str(folder), *words]
        assert load_recipe(recipe).model_dump() == run.recipe.model_dump()
    assert run_task(script, len(planned)).returncode != 0

    finish(planned[0], 0.5)
    status, said, _ = run_main(*COMMAND, "--jobs", "2")
    assert "of 4 runs 1 are finished, 0 go on, and a guard stopped 0" in said
    listed = re.search(r"^runs=\((.*?)^\)", script.read_text(), re.MULTILINE | re.DOTALL)[1].split()
    assert listed == [run.path.name for run in planned[1:]]
    assert "#SBATCH --array=0-2%2\n" in script.read_text()


def test_what_decides_on_later_runs_by_earlier_ones_is_refused(run_main, tmp_path):
    for option in (("--tune", "optimizer.lr=1e-5,2e-5"), ("--until-decided",)):
        status, _, said = run_main(*COMMAND, *option, f"--out={tmp_path / 'out'}")
        assert status == 2
        assert said.startswith(
            f"rl-posttrain: --launcher=slurm: {option[0]} chooses runs by the results of earlier ones"
        )
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_several_processes_are_started_by_torchrun_on_one_machine(tmp_path):
    recipe = load_recipe("quickstart", ["algorithm.micro_batch_size=16"])
    runs = plan_runs(recipe, ["adams"], (0,), ({},), tmp_path, 4)
    leave_to_slurm(runs, tmp_path, jobs=None, num_processes=4, command=["compare", "two\nlines; rm -r x"])
    text = (tmp_path / "slurm.sbatch").read_text()
    assert " -m torch.distributed.run --standalone --nproc_per_node=4 " in text
    assert "#SBATCH --gpus-per-node=4\n" in text
    assert [line for line in text.splitlines() if "rm -r x" in line] == [
        "#   rl-posttrain compare 'two\\nlines; rm -r x'"
    ]


@pytest.mark.long
def test_the_tasks_train_and_the_same_command_then_reports_without_training(tiny_recipe, tmp_path, run_main):
    out = tmp_path / ODD.replace("$", "")  # a recipe fills variables in, also in run.output_dir
    command = ("compare", tiny_recipe, *QUICK, "--optimizers", "adams,adamw", "--seeds", "0", f"--out={out}")
    status, _, errors = run_main(*command, "--launcher", "slurm")
    assert (status, errors) == (0, "")
    script = out / "slurm.sbatch"
    for number in range(array_of(script)):
        done = run_task(script, number, OMP_NUM_THREADS="1")
        assert done.returncode == 0, [log.read_text() for log in (out / "logs").iterdir()]
    runs = [RunDirectory.open(out / f"{name}-seed0") for name in ("adams", "adamw")]
    made = [run.metrics_path.stat().st_mtime_ns for run in runs]
    assert all(run.summary() and run.checkpoint_folders() for run in runs)
    script.unlink()
    status, said, _ = run_main(*command, "--launcher", "slurm")
    assert status == 0
    assert (out / "report" / "index.html").is_file()
    assert "adamw" in said
    assert not script.exists()
    assert [run.metrics_path.stat().st_mtime_ns for run in runs] == made
    assert not any(run.checkpoint_folders() for run in runs)
