"""Metrics of how far the sampler is from the policy that is updated."""

from rl_posttrain.runs.metric import Metric

OFF_POLICY: tuple[Metric, ...] = (
    Metric(
        "staleness", "Steps that the policy has made since it had the sampler's weights.",
        unit="steps", detail="The mean over the completions.", absent="at `rollout.max_staleness: 0`",
    ),
    Metric(
        "corrected_share", "Share of the tokens whose loss is not multiplied by their whole importance ratio.",
        unit="0 to 1", detail="Their ratio is cut at a limit of `rollout.importance_correction`, or they are left out.",
        absent="with `rollout.importance_correction: none`",
    ),
    Metric(
        "importance_ratio", "Mean importance ratio of the tokens before the correction; 1 where nothing differs.",
        detail="Probability under the policy before the update over the probability that the sampler drew with.",
        absent="with `rollout.importance_correction: none`",
        trl="sampling/importance_sampling_ratio/mean",
    ),
)  # fmt: skip
