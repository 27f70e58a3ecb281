"""The section `guards`: what ends a run, or a step, on which going on would only burn money. See docs/guards.md."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rl_posttrain.recipe.section import NonNegative, Positive, Section

# What a guard does: end the run, leave the update out, go back to the last checkpoint, say so, or nothing.
AnyPolicy = Literal["stop", "skip_step", "rollback", "warn", "off"]
# Of guards that can judge only after the update.
AfterUpdate = Literal["stop", "rollback", "warn", "off"]
# Of guards whose finding lies in the recipe: leaving a step out or going back would not help.
OfTheSetup = Literal["stop", "warn", "off"]
Share = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=1)]


class _Guard(Section):
    @model_validator(mode="before")
    @classmethod
    def _take_a_policy_alone(cls, data: Any) -> Any:
        """`guards: {loss: stop}` is short for `guards: {loss: {policy: stop}}`."""
        return {"policy": data} if isinstance(data, str) else data


class RewardGuard(_Guard):
    policy: AnyPolicy = "stop"

    @property
    def if_unusable(self) -> Literal["collect", "keep"]:
        """What becomes of a value that is no use: None takes its place and the guard is told, or it stays."""
        return "keep" if self.policy == "off" else "collect"


class LossGuard(_Guard):
    policy: AnyPolicy = "skip_step"


class GradientGuard(_Guard):
    policy: AnyPolicy = "skip_step"


class GradientNormGuard(_Guard):
    policy: AnyPolicy = "skip_step"
    factor: Factor = 10.0
    window: Positive = 50
    after_steps: Positive = 10


class WeightsGuard(_Guard):
    policy: AfterUpdate = "stop"
    max_change: Annotated[float, Field(gt=0)] = 0.5


class EntropyGuard(_Guard):
    policy: AfterUpdate = "stop"
    min: Annotated[float, Field(gt=0)] = 0.02
    steps: Positive = 10


class RewardCollapseGuard(_Guard):
    policy: AfterUpdate | None = None  # None: warn where task.order_by makes questions harder, else stop
    share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    steps: Positive = 5


class NoGroupTeachesGuard(_Guard):
    policy: OfTheSetup = "stop"
    warn_steps: Positive = 3
    steps: Positive = 20


class EqualCompletionsGuard(_Guard):
    policy: OfTheSetup = "stop"
    steps: Positive = 3


class TruncationGuard(_Guard):
    policy: OfTheSetup = "warn"
    share: Share = 0.9
    steps: Positive = 3


class GuardsSection(Section):
    """Every guard by its name, and how often a run may skip in a row and go back."""

    reward: RewardGuard = RewardGuard()
    loss: LossGuard = LossGuard()
    gradient: GradientGuard = GradientGuard()
    gradient_norm: GradientNormGuard = GradientNormGuard()
    weights: WeightsGuard = WeightsGuard()
    entropy: EntropyGuard = EntropyGuard()
    reward_collapse: RewardCollapseGuard = RewardCollapseGuard()
    no_group_teaches: NoGroupTeachesGuard = NoGroupTeachesGuard()
    equal_completions: EqualCompletionsGuard = EqualCompletionsGuard()
    truncation: TruncationGuard = TruncationGuard()
    max_skips: Positive = 5
    max_rollbacks: NonNegative = 3

    def policies(self) -> dict[str, str]:
        """The policy of each guard, by its name; `reward_collapse` may leave it open."""
        guards = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: guard.policy for name, guard in guards.items() if isinstance(guard, _Guard)}
