"""The missing runs of a comparison as a Slurm array job: a file to look at, to change and to hand to `sbatch`."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rl_posttrain.runs.files import write_atomically
from rl_posttrain.study.absent import RECIPES_FOLDER
from rl_posttrain.study.plan import PlannedRun
from rl_posttrain.study.runner import LOGS_FOLDER, Runner, write_recipes

FILE = "slurm.sbatch"
_CPUS_PER_PROCESS = 8  # for rewards beside the process itself; this machine may be unlike those of the cluster
_SCRIPT = r"""#!/bin/bash
# The missing runs of a comparison, one a task; Slurm deals the tasks to its machines. This file is written by
#   {command}
# in the folder {where}
# Look at the lines that begin with #SBATCH, then:    sbatch {file}
# What has become of the runs, and once all are finished the report: that command again. It trains nothing.
# It also writes this file again, with the runs that are still missing: keep a copy of what you change.
#
# To change: time, partition, account and memory as your cluster wants them; `##` leaves a line out. Without GPUs take
# the line with them out. The warning of SIGUSR1 must come earlier than a step and a checkpoint take.
#SBATCH --job-name={name}
#SBATCH --array=0-{last}{at_once}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus-per-node={num_processes}
#SBATCH --cpus-per-task={num_cpus}
#SBATCH --time=24:00:00
##SBATCH --partition=gpu
##SBATCH --account=mine
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --output=/dev/null

runs=(
{runs}
)
run=${{runs[${{SLURM_ARRAY_TASK_ID:?it is a task of an array job: sbatch this file}}]:?there is no such run}}
cd {place} || exit
exec >> {logs}/"$run.log" 2>&1

# In the background, so that this shell hears SIGUSR1 and hands it on: the run then writes a checkpoint and ends.
{start} train {recipes}/"$run.yaml" --auto-resume &
child=$!
asked=
trap 'asked=yes; kill -USR1 $child' USR1
trap : TERM  # Slurm sends it to each process of a job; handed on, it would be a second one, which ends the run at once
wait $child
status=$?
while kill -0 $child 2>/dev/null; do
    wait $child
    status=$?
done
if [ -n "$asked" ] && [ $status -ne 0 ]; then
    # Its time is over, and the run is not: it goes on in a new job. Slurm itself does so with a job that is preempted.
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID"
fi
exit $status
"""


def leave_to_slurm(
    runs: Sequence[PlannedRun], folder: Path, *, jobs: int | None, num_processes: int, command: Sequence[str]
) -> list[str]:
    """Write the array job of the runs that are missing, and their recipes.

    Args:
        runs: of the comparison, all of them.
        folder: of the comparison.
        jobs: most tasks at the same time; None leaves it to Slurm.
        num_processes: of each run, all on one machine.
        command: what was typed behind `rl-posttrain`.

    Returns:
        Lines for the user; none where no run is missing: all are finished, or stopped by a guard.

    Raises:
        RunError: a run's directory exists and has another recipe.
    """
    runner = Runner(runs)
    finished = [run for run in runs if run.is_finished()]
    for run in finished:
        run.directory().drop_checkpoints()  # a finished run is never resumed
    missing = runner.waiting
    if not missing:
        return []
    write_recipes(runs)
    file = folder.absolute() / FILE
    write_atomically(file, _script(missing, file, jobs, num_processes, ["rl-posttrain", *command]))
    going_on = sum(1 for run in missing if (directory := run.directory()) and directory.is_locked())
    return [
        f"of {len(runs)} runs {len(finished)} are finished, {going_on} go on, and a guard stopped {len(runner.failed)}",
        f"{file} trains the {len(missing)} that are not; look at its head, then: sbatch {shlex.quote(str(file))}",
        "later this command again: it trains nothing, and reports once all are finished",
    ]


def _script(runs: Sequence[PlannedRun], file: Path, jobs: int | None, num_processes: int, command: list[str]) -> str:
    """The array job's text.

    Args:
        file: where it will be.
    """
    python = [sys.executable, "-m"]
    if num_processes > 1:
        python += ["torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
        python += ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGUSR1", "--shutdown-timeout", "280", "-m"]
    folder = file.parent
    place = shlex.quote(str(Path.cwd()))
    return _SCRIPT.format(
        command=_on_one_line(shlex.join(command)),
        where=_on_one_line(place),
        place=place,
        file=_on_one_line(shlex.quote(str(file))),
        name=re.sub(r"[^\w.-]", "-", folder.name),
        last=len(runs) - 1,
        at_once=f"%{jobs}" if jobs else "",
        num_processes=num_processes,
        num_cpus=_CPUS_PER_PROCESS * num_processes,
        runs="\n".join(f"    {shlex.quote(run.path.name)}" for run in runs),
        start=shlex.join([*python, "rl_posttrain"]),
        logs=shlex.quote(str(folder / LOGS_FOLDER)),
        recipes=shlex.quote(str(folder / RECIPES_FOLDER)),
    )


def _on_one_line(text: str) -> str:
    """For a comment, which a line break would end."""
    return text.replace("\n", "\\n")
