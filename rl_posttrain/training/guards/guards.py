"""Guards: the one object that the trainer holds. It asks the guards at the seams of a step, and does as policies say.

A step goes by `drawn` (its completions), `loss` (each micro batch), the gate (each update), `finished` (its row) and
`before_checkpoint`. Every process calls them alike, and all come to the same answer: what they look at is gathered, or
is reduced over processes first.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object

from rl_posttrain.errors import GuardError
from rl_posttrain.machine.process import is_main_process
from rl_posttrain.recipe.reward_spec import RewardSpec
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.runs.directory import RunDirectory, checkpoint_step
from rl_posttrain.scoring.judges import judging_rewards
from rl_posttrain.scoring.shares import shares_of_full_credit
from rl_posttrain.training.agree import of_main_process
from rl_posttrain.training.algorithms.algorithm import Algorithm
from rl_posttrain.training.guards import completions, history, weights
from rl_posttrain.training.guards.finding import Finding
from rl_posttrain.training.guards.gate import Gate
from rl_posttrain.training.guards.rollback import checkpoint_before, roll_back
from rl_posttrain.training.guards.stopping import stop

Note = Callable[[str], None]
# A guard that fires in each step would fill the screen: these occurrences are shown, and every 100th.
_SAID = {1, 2, 3, 10, 30}


class Guards:
    """The guards of a recipe.

    Args:
        specs: of the rewards.
        algorithm: one that needs groups of two or more compares the completions of a prompt with each other.
        run: names its last sound checkpoint, and keeps why it was stopped.
        note: called with a line for the user; every process calls it, and only the first one's shows.
    """

    def __init__(
        self, recipe: Recipe, specs: Sequence[RewardSpec], algorithm: Algorithm, run: RunDirectory, note: Note
    ):
        self._recipe, self._specs, self._run, self._note = recipe, specs, run, note
        self._by_group = getattr(algorithm, "min_group_size", 1) > 1
        self._judges = judging_rewards(specs)
        self._policies = recipe.guards.policies()
        if self._policies["reward_collapse"] is None:
            self._policies["reward_collapse"] = "warn" if recipe.task.order_by else "stop"
        self._rows: list[Mapping[str, Any]] = []
        self._fired: Counter[str] = Counter()  # in the whole run
        self._of_step: Counter[str] = Counter()
        self._skips = 0  # steps in a row without an update
        self._rollbacks = 0
        self._step = 1
        self._skipping: Finding | None = None  # why the step's updates are left out
        self._going_back: Finding | None = None
        self._bad_loss: torch.Tensor | None = None
        self._checked_step: int | None = None  # whose weights have all been looked at
        self._is_finite = True  # the weights now, as far as they were looked at
        self.step_is_sound = True
        """Whether the last step's own weights are there, and finite as far as they were looked at."""
        self.gate = Gate(self._opens)

    def attach(self, trainer: Any, updates_per_step: int) -> None:
        """Take the trainer: it is what goes back, and has the weights."""
        self._trainer, self._updates_per_step = trainer, updates_per_step
        trainer.add_callback(self.gate)

    def at_the_start(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterable[tuple[str, torch.Tensor]]:
        """The weights that the run starts from, checked on the way; every process walks all of them.

        Raises:
            GuardError: one is not finite, or all are zero.
        """
        policy = self._policies["weights"]
        if policy == "off":
            return tensors

        def tell(what: str) -> None:
            said = f"model.name={self._recipe.model.name}: {what}; use a model that was saved whole"
            if policy != "warn":
                raise GuardError(f"{said}, or set guards.weights=warn")
            self._note(said)

        return weights.checked(tensors, tell)

    def start(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The run begins, or goes on: what stopped it before is over.

        Args:
            rows: of the steps that a resumed run has behind it.
        """
        was_stopped = of_main_process(lambda: self._run.stopped() is not None)
        if is_main_process():
            self._run.write_stopped(None)
        self._rows = list(rows)
        self._rollbacks = sum(row.get("rolled_back_to") is not None for row in rows)
        for row in rows:
            self._fired.update({name: int(row.get(f"guards/{name}") or 0) for name in self._policies})
            self._skips = self._skips + 1 if row.get("skipped_updates") == self._updates_per_step else 0
        if was_stopped:  # whoever goes on has changed something, and gets as many tries as a new run
            self._skips = 0
        if warning := completions.too_cold(self._recipe):
            self._note(warning)

    def drawn(self, step: int, rollouts: Sequence[Mapping[str, Any]], unusable: Sequence[str]) -> dict[str, Any]:
        """Judge a step's completions. Returns what its row says of them.

        Args:
            rollouts: of all processes, groups together.
            unusable: of the rewards of this process that were taken out because they are no finite numbers: reward,
                row and completion, in words.
        """
        self._step = step
        recipe, policies = self._recipe, self._policies
        if policies["reward"] != "off" and (found := gather_object(list(unusable))):
            more = f" ({len(found) - 1} more like it)" if len(found) > 1 else ""
            self._act(Finding("reward", found[0] + more, "correct the reward", completions.allowed("rewards")))
        found = completions.shares(rollouts, recipe.algorithm.group_size, by_group=self._by_group)
        credit = shares_of_full_credit([rollout["rewards"] for rollout in rollouts], *self._judges)
        cut = sum(rollout["finish_reason"] == "length" for rollout in rollouts) / len(rollouts)
        rows = [*self._rows, found | credit | {"truncated_share": cut}]
        accuracy = credit.get("accuracy")
        for finding in (
            completions.equal_completions(recipe, accuracy, rows, step),
            completions.no_group_teaches(recipe, rollouts, self._judges, rows, step),
            completions.truncation(recipe, rows, step),
        ):
            if finding is not None:
                self._act(finding)
        return found

    def loss(self, loss: torch.Tensor) -> None:
        """A micro batch's loss, a scalar: remembered, without waiting for the device."""
        self.gate.next_update()
        bad = ~torch.isfinite(loss.detach()).all()
        self._bad_loss = bad if self._bad_loss is None else self._bad_loss | bad

    def _opens(self, norm: float) -> bool:
        """Whether the update is made, given the gradient's norm before clipping; NaN or infinity where it is none."""
        finding = self._of_numbers(norm)
        if finding is None and math.isfinite(norm) and self._policies["gradient_norm"] != "off":
            finding = history.gradient_norm(self._recipe, norm, self._rows)
        if finding is not None:
            self._act(finding)
        return self._skipping is None and self._going_back is None

    def _of_numbers(self, norm: float) -> Finding | None:
        """A loss that is not finite, else a gradient, by the processes' common knowledge."""
        flags = torch.tensor(
            [self._bad_loss is not None and bool(self._bad_loss), not math.isfinite(norm)], dtype=torch.float32
        ).to(self._trainer.accelerator.device)
        self._bad_loss = None
        bad_loss, bad_gradient = (self._trainer.accelerator.reduce(flags, "sum") > 0).tolist()
        recipe = self._recipe
        fix, override = f"lower optimizer.lr={recipe.optimizer.lr:g}", history.lower_rate(recipe)
        if all(row.get("skipped_updates") == self._updates_per_step for row in self._rows) and not self.gate.num_made:
            fix, override = "no update was made before, so look at the model, the rewards and algorithm.kl_coef", ()
        if bad_loss and self._policies["loss"] != "off":
            what = "the loss is not finite"
            return Finding(
                "loss", "neither the loss nor the gradient is finite" if bad_gradient else what, fix, override
            )
        if bad_gradient and self._policies["gradient"] != "off":
            return Finding("gradient", f"the gradient is not finite (its norm is {norm:g})", fix, override)
        return None

    def finished(self, row: dict[str, Any], *, saves: bool) -> dict[str, Any]:
        """Judge a step that is over, by its row of metrics; what the row says of guards.

        Args:
            saves: whether its weights may be kept, in a checkpoint or as the final model: then all are looked at.

        Raises:
            GuardError: a guard stops the run. The step is not recorded then.
        """
        left_out = self._updates_per_step - self.gate.num_asked
        for _ in range(left_out):  # by DeepSpeed, which has not moved the schedule either
            self._trainer.lr_scheduler.step()
        is_known = self._of_step["loss"] or self._of_step["gradient"]
        if left_out and not is_known and (finding := self._of_numbers(math.inf)):
            self._act(replace(finding, what=f"{finding.what}, so DeepSpeed left the update out"))
        skipped = self._updates_per_step - self.gate.num_made
        said: dict[str, Any] = {"skipped_updates": skipped} if skipped else {}
        if self._of_step["loss"]:
            said["loss"] = math.nan  # transformers has put the mean of earlier ones in its place
        self._skips = self._skips + 1 if skipped == self._updates_per_step else 0
        if self._skips:
            said["update_norm"] = 0.0
            self._stop_after_too_many_skips()
        elif finding := weights.change(self._recipe, row["update_norm"], row["weight_norm"]):
            self._act(finding, made=True)
        rows = [*self._rows, row | said]
        for finding in (
            weights.unchanged(rows),
            history.entropy(self._recipe, self._specs, rows),
            history.reward_collapse(self._recipe, rows),
        ):
            if finding is not None:
                self._act(finding, made=True)
        if saves:
            self._look_at_all_weights()
            if not self._is_finite:
                self._act(weights.not_finite(self._recipe), made=True)
        returned = self._go_back()
        said |= returned
        self.step_is_sound = self._is_finite and not returned
        said |= {f"guards/{name}": count for name, count in sorted(self._of_step.items())}
        self._rows.append(row | said)
        self._of_step, self._skipping, self._bad_loss = Counter(), None, None
        self.gate.next_step()
        return said

    def _stop_after_too_many_skips(self) -> None:
        finding, limit = self._skipping, self._recipe.guards.max_skips
        if finding is not None and self._going_back is None and self._skips > limit:
            finding = replace(finding, what=f"{finding.what}; no update for {self._skips} steps in a row")
            raise stop(self._run, finding, self._step, policy=f"skip_step, guards.max_skips={limit}", made=False)

    def evaluated(self, step: int, unusable: Sequence[str]) -> None:
        """Say which rewards of an evaluation count in no mean, since they are no finite numbers; all processes call."""
        if self._policies["reward"] != "off" and (found := gather_object(list(unusable))):
            more = f" ({len(found) - 1} more like it)" if len(found) > 1 else ""
            self._note(f"evaluation after step {step}: {found[0]}{more}; it counts in no mean")

    def before_checkpoint(self) -> bool:
        """Whether a checkpoint may be written: all weights are finite. All processes ask.

        Weights that a signal wants to keep, after a step that it dropped, are looked at here.
        """
        if self._checked_step != self._step:
            self._look_at_all_weights()
            if not self._is_finite:
                self._note(f"at step {self._step} {weights.not_finite(self._recipe).what}")
        return self._is_finite

    def _look_at_all_weights(self) -> None:
        """Learn whether all weights are finite, on all processes."""
        self._checked_step, self._is_finite = self._step, True
        if self._policies["weights"] == "off":
            return
        model = self._trainer.accelerator.unwrap_model(self._trainer.model)
        bad = torch.tensor([float(not weights.are_finite(model))], device=self._trainer.accelerator.device)
        self._is_finite = self._trainer.accelerator.reduce(bad, "sum").item() == 0

    def _act(self, finding: Finding, *, made: bool = False) -> None:
        """Do what the guard's policy says.

        Args:
            made: whether the update of this step has been made.
        """
        policy = self._policies[finding.guard]
        if policy == "off":
            return
        if finding.only_warns:
            policy = "warn"
        self._of_step[finding.guard] += 1
        self._fired[finding.guard] += 1
        if policy == "stop":
            raise stop(self._run, finding, self._step, policy=policy, made=made)
        if policy == "skip_step":
            self._skipping = finding
        elif policy == "rollback":
            self._going_back = finding
        times = self._fired[finding.guard]
        # Of going back `_go_back` says where to.
        if policy != "rollback" and (times in _SAID or times % 100 == 0):
            done = "its update is left out; " if policy == "skip_step" else ""
            often = f" ({times} times so far)" if times > 1 else ""
            said = f"guards.{finding.guard}={policy}: at step {self._step} {finding.what}"
            self._note(f"{said}; {done}{finding.fix}{often}")

    def _go_back(self) -> dict[str, int]:
        """Go back to a checkpoint, if a guard has asked for it; ``rolled_back_to`` for the row."""
        finding, self._going_back = self._going_back, None
        if finding is None:
            return {}
        limit, made = self._recipe.guards.max_rollbacks, self.gate.num_made > 0
        if self._rollbacks >= limit:
            policy = f"rollback, guards.max_rollbacks={limit}"
            raise stop(self._run, finding, self._step, policy=policy, made=made)
        folder = of_main_process(lambda: checkpoint_before(self._run, finding.since or self._step))
        if folder is None:
            finding = replace(finding, fix=f"there is no checkpoint from before to go back to; {finding.fix}")
            raise stop(self._run, finding, self._step, policy="rollback", made=made)
        roll_back(self._trainer, folder)
        self._is_finite = True  # as all that a checkpoint holds
        self._trainer.rollouts.weights_changed()
        self._rollbacks += 1
        self._skips = 0
        said = f"guards.{finding.guard}=rollback: at step {self._step} {finding.what}"
        self._note(f"{said}; the run goes on from the weights of {folder}; {finding.fix}")
        return {"rolled_back_to": checkpoint_step(folder)}
