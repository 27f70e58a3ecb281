"""The end of a run that a guard stops: what its one line says, and what the run directory keeps of it."""

from rl_posttrain.errors import GuardError
from rl_posttrain.machine.process import is_main_process
from rl_posttrain.runs.commands import resume_command
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.training.guards.finding import Finding


def stop(run: RunDirectory, finding: Finding, step: int, *, policy: str, made: bool) -> GuardError:
    """The error to raise. The main process writes `stopped.json`, so that comparisons know why there is no summary.

    Args:
        policy: of the guard, or what has come to an end: ``max_skips`` or ``max_rollbacks``.
        made: whether the step's update was made.
    """
    last = run.last_checkpoint()
    happened = "its update was made, and is in no checkpoint" if made else "its update was not made"
    said = f"guards.{finding.guard}={policy}: at step {step} {finding.what}; {happened}; {finding.fix}"
    if is_main_process():
        checkpoint = last.name if last else None
        run.write_stopped(
            {"step": step, "guard": finding.guard, "policy": policy, "saw": finding.what, "checkpoint": checkpoint}
        )
    go_on = f"`{resume_command(run, *(finding.override or (f'guards.{finding.guard}=warn',)))}`"
    if last is not None:
        began = finding.since if finding.since is not None and checkpoint_step(last) >= finding.since else None
        when = "" if began is None else f", from after it began at step {began}"
        return GuardError(f"{said}; the last sound checkpoint is {last}{when}; go on with {go_on}")
    if run.last_row() is not None:
        return GuardError(f"{said}; there is no checkpoint to go on from; start again with {go_on}")
    return GuardError(f"{said}; no step was finished, so start again")
