"""The table of metrics: what every name in metrics.jsonl means, and where each metric is shown.

Whatever writes, reads, prints or draws a metric looks here: the recorder, runs of other programs, the live view, the
terminal, the plots, the report page and docs/metrics.md. A new metric is one entry of `METRICS`.

`python -m rl_posttrain.runs.metrics` prints the table of docs/metrics.md.
"""

import re

from rl_posttrain.runs.costs import COSTS
from rl_posttrain.runs.health import HEALTH
from rl_posttrain.runs.metric import Metric, Plot, name_pattern
from rl_posttrain.runs.off_policy import OFF_POLICY

METRICS: tuple[Metric, ...] = (
    Metric(
        "step", "Steps made so far, the first is 1.", unit="steps", x_label="step",
        detail="A step draws completions and makes `algorithm.num_epochs` x `algorithm.num_mini_batches` updates.",
        spellings=("global_step", "_step"),
    ),
    Metric(
        "reward", "Mean over the step's completions of the weighted sum of rewards; training maximizes it.",
        better="higher", trl="reward", verl="critic/score/mean", openrlhf="reward",
        plots=("page", "rewards", "curve:top"), column="5.2f", must_be_finite=True,
    ),
    Metric(
        "rewards/<name>", "Mean of one reward function, before its weight.",
        better="higher", trl="rewards/<name>/mean",
    ),
    Metric(
        "accuracy", "Share of right answers, whatever the reward pays.", unit="0 to 1",
        detail="A right answer has full credit from the first reward that judges answers.",
        absent="without a reward that judges answers",
        better="higher", plots=("page", "rewards", "curve:top"), live_line="answers", column="4.2f",
    ),
    Metric(
        "well_formed", "Share of completions in the form that was asked for.", unit="0 to 1",
        detail="Such a completion has full credit from the first reward that judges form.",
        absent="without a reward that judges form",
        better="higher", words="well-formed", plots=("page",), live_line="answers",
    ),
    Metric(
        "right_and_well_formed", "Share of completions that are both right and well-formed.", unit="0 to 1",
        detail="Of the completions that both rewards judge.", absent="without a reward for each of the two",
        better="higher",
    ),
    Metric(
        "eval/accuracy", "Share of right answers to the task's evaluation questions, on which the run does not train.",
        unit="0 to 1", absent="without evaluation", better="higher", words="evaluation accuracy", plots=("page",),
    ),
    Metric(
        "eval/accuracy_error", "Standard error of `eval/accuracy` over questions.", unit="0 to 1", better="lower",
        detail="`eval/pass@<k>` and `eval/maj@<k>` have one, too; `evaluations/` has those of all.",
    ),
    Metric(
        "eval/maj@<k>", "Chance that the right answer wins a vote among k completions.", unit="0 to 1", better="higher",
        detail="For each k of `eval.k` above 1; unreadable answers do not vote, and a tie is shared.",
    ),
    Metric(
        "eval/unreadable", "Share of the evaluation's completions without a readable answer.", unit="0 to 1",
        better="lower",
    ),
    Metric("eval/length", "Tokens of the evaluation's completions, in the mean.", unit="tokens"),
    Metric("eval/truncated", "Share of the evaluation's completions that were cut at the limit.", unit="0 to 1"),
    Metric("eval/reward", "Mean weighted reward in the evaluation.", better="higher"),
    Metric(
        "eval/pass@<k>", "Chance that at least one of k completions is right.", unit="0 to 1",
        detail="For each k of `eval.k`; the unbiased estimate (arXiv:2107.03374, eq. 1).", better="higher",
    ),
    Metric(
        "eval/well_formed", "Share of the evaluation's completions in the form that was asked for.", unit="0 to 1",
        better="higher",
    ),
    Metric(
        "eval/right_and_well_formed", "Share of the evaluation's completions that are both.", unit="0 to 1",
        better="higher",
    ),
    Metric("eval/<name>", "Mean of one reward function in the evaluation, before its weight.", better="higher"),
    Metric(
        "math_accuracy/exact", "Share of completions that `math_accuracy` judged by text or exact arithmetic.",
        unit="0 to 1",
    ),
    Metric(
        "math_accuracy/symbolic",
        "Share that it judged as an expression, by math-verify or by the expression's value at a point.",
        unit="0 to 1",
    ),
    Metric(
        "math_accuracy/timeout", "Share that it could not judge within its limits of time and memory.", unit="0 to 1",
        better="lower",
    ),
    Metric(
        "math_accuracy/unparseable", "Share with an answer that cannot be read.", unit="0 to 1", better="lower",
    ),
    Metric("math_accuracy/missing", "Share without an answer.", unit="0 to 1", better="lower"),
    Metric(
        "loss", "Value of the objective that the update minimizes.", unit="nats",
        detail="Tokens weigh as `algorithm.loss` says; a critic adds its `value_loss`. It does not measure progress: "
        "advantages have a mean of about 0, so the policy's part stays near 0.",
        trl="loss", must_be_finite=True,
    ),
    Metric(
        "completion_length", "Mean length of the completions, the end-of-sequence token included.", unit="tokens",
        trl="completions/mean_length", verl="response_length/mean", openrlhf="response_length",
        plots=("page", "training", "curve:left"), label="length", form=".1f", live_line="tokens", column="6.1f",
    ),
    Metric(
        "truncated_share", "Share of completions that reached `rollout.max_new_tokens` without an end.", unit="0 to 1",
        better="lower", trl="completions/clipped_ratio", verl="response_length/clip_ratio",
        openrlhf="response_clip_ratio", words="truncated", plots=("page",), form=".1%",
        live_line="tokens",
    ),
    Metric(
        "entropy", "Mean entropy of the policy's next-token distribution; near 0 the policy no longer explores.",
        unit="nats per token", detail="Over the completions' tokens.", trl="entropy", verl="actor/entropy",
        plots=("page", "training", "curve:right"), live_line="update", column="5.2f",
    ),
    Metric(
        "grad_norm", "Norm of the whole gradient before clipping.",
        detail="`optimizer.max_grad_norm` is the limit of clipping. Null under ZeRO-0 in float32, where DeepSpeed "
        "reports none.",
        trl="grad_norm", verl="actor/grad_norm", words="gradient norm", plots=("page", "training"),
        label="grad", live_line="update", column="6.2f", must_be_finite=True,
    ),
    Metric(
        "update_norm", "L2 norm of the change that the step made to all weights.",
        detail="Of several updates the root of the mean square. Estimated from an evenly spaced sample of 4 million "
        "weights; exact for smaller models. A critic's weights count too.",
        plots=("page", "training"),
    ),
    Metric(
        "weight_norm", "L2 norm of all weights before the step's update.",
        detail="Estimated as `update_norm`. Null where the update was left out.",
    ),
    Metric(
        "lr", "Learning rate of the step.", trl="learning_rate", verl="actor/lr", openrlhf="actor_lr",
        words="learning rate", label="lr", form=".1e", live_line="update",
    ),
    Metric(
        "lr/critic", "Learning rate of the critic in this step.", absent="without a critic", verl="critic/lr",
        openrlhf="critic_lr", words="learning rate of the critic", form=".1e",
    ),
    Metric(
        "value_loss", "Mean of the critic's clipped loss, half a squared error.", unit="squared reward",
        detail="It falls while the critic learns, and rises again when the policy changes what is worth what.",
        absent="without a critic", verl="critic/vf_loss", openrlhf="critic_loss", plots=("page", "training"),
    ),
    Metric(
        "explained_variance",
        "Share of the variance of the returns that the critic's values explain, before the update.",
        unit="at most 1",
        detail="It starts near 0 and should rise; below 0 the values are worse than a constant, and advantages are "
        "noisier than without a critic. Null in a step whose returns are all the same.",
        absent="without a critic", better="higher", verl="critic/vf_explained_var", plots=("page", "training"),
    ),
    Metric(
        "value_mean", "Mean of the critic's values, before the update.",
        detail="It should follow `return_mean` after some steps.", absent="without a critic",
        verl="critic/values/mean", openrlhf="values", plots=("page",),
    ),
    Metric(
        "return_mean", "Mean of the returns that the critic is trained towards, over tokens.",
        detail="At `critic.gamma` and lambda 1 it is the reward, in which long completions count more.",
        absent="without a critic", verl="critic/returns/mean", openrlhf="return", plots=("page",),
    ),
    Metric(
        "advantage_mean", "Mean of the advantages over tokens, before they are normalized.",
        detail="Near 0 once a critic knows what to expect.",
        absent="with `grpo` and `rloo`", plots=("page",),
    ),
    Metric(
        "advantage_std", "Standard deviation of the advantages over tokens, before they are normalized.",
        detail="Near 0 nothing is left to learn from.", absent="with `grpo` and `rloo`", plots=("page",),
    ),
    Metric(
        "clip_share/policy", "Share of tokens whose probability ratio was clipped, so that they teach nothing.",
        unit="0 to 1",
        detail="It is 0 in the first update of a step. Above about 0.2 the updates are too large, or too many.",
        absent="with the losses `cispo`, `sapo` and `vespo`", trl="clip_ratio/region_mean",
        verl="actor/pg_clipfrac", openrlhf="ppo_clip_ratio", words="clipped by the policy loss", plots=("page",),
    ),
    Metric(
        "clip_share/value", "Share of tokens whose value loss was clipped.", unit="0 to 1",
        detail="Large while returns are far from the values. Raise `critic.value_clip` if it stays large.",
        absent="without a critic", verl="critic/vf_clipfrac", words="clipped by the value loss", plots=("page",),
    ),
    Metric(
        "kl", "Estimated KL divergence of the policy from the reference model.", unit="nats per token",
        detail="By `algorithm.kl_estimator`; k1 can be negative. It rises slowly from 0 in a healthy run.",
        absent="at `algorithm.kl_coef: 0`", trl="kl", verl="actor/kl_loss", openrlhf="kl", words="KL",
        plots=("page",), form=".4f", live_line="update",
    ),
    Metric(
        "frac_zero_variance", "Share of groups whose completions all got the same reward; they teach nothing.",
        unit="0 to 1", better="lower", trl="frac_reward_zero_std", words="groups that teach nothing", plots=("page",),
        absent="with other algorithms than `grpo`",
    ),
    Metric(
        "skipped_share", "Share of completions that were left out of the update because their group teaches nothing.",
        unit="0 to 1", detail="`entropy` and `kl` are then means over the other completions.",
        absent="without `algorithm.zero_variance_groups: skip`",
    ),
    Metric(
        "resampled_share", "Share of groups whose prompt was replaced because the group taught nothing.", unit="0 to 1",
        absent="without `algorithm.zero_variance_groups: resample`",
    ),
    Metric(
        "checked_weights_share", "Share of the weights that can be read back from the rollout engine.", unit="0 to 1",
        detail="After each sync a part of them is compared with the policy's, in turn all; a difference fails the run.",
        absent="with `rollout.engine: transformers`, which has no copy of the weights",
    ),
    Metric(
        "servers_in_use", "Servers that had the weights of this step, and gave its completions.",
        detail="Fewer than `rollout.servers` has: the run's output says which is left out, and why.",
        absent="with other engines than `vllm_server`",
    ),
    Metric(
        "sampling_logprob_difference",
        "Mean absolute difference between the sampler's and the trainer's log-probabilities of the sampled tokens.",
        unit="nats per token",
        detail="A large value says that the sampler has other weights than the trainer; beyond "
        "`rollout.max_logprob_difference` the run fails.",
        absent="without vLLM",
        better="lower", trl="sampling/sampling_logp_difference/mean", words="sampler and trainer", plots=("page",),
    ),
    Metric(
        "prompts_sha256", "The first 16 digits of a hash of the step's prompts in their order.",
        detail="Text, not a number. Runs that were asked the same have the same.",
    ),
    Metric(
        "<reward>/errors", "Share of completions on which a reward with `on_error: zero` failed.", unit="0 to 1",
        better="lower", form=".1%",
    ),
    *OFF_POLICY,
    *HEALTH,
    *COSTS,
    Metric(
        "<reward>/<metric>", "What a reward function logs itself, by `log_metric`.", detail="Mean over processes.",
    ),
)  # fmt: skip

PROGRAMS = ("trl", "verl", "openrlhf")
AXES: dict[str, str] = {metric.name: metric.x_label for metric in METRICS if metric.x_label}
"""What metrics are drawn against: name to label."""
PHASES: tuple[str, ...] = tuple(metric.name.removeprefix("time/") for metric in METRICS if "phases" in metric.plots)
"""The phases of a step whose times add up to it."""


def plotted(plot: Plot) -> list[Metric]:
    """The metrics that a plot shows, in their order."""
    return [metric for metric in METRICS if plot in metric.plots]


def find_metric(name: str) -> Metric | None:
    """The entry for a name in metrics.jsonl, such as ``rewards/math_accuracy``; None where no entry fits."""
    return _BY_NAME.get(name) or next((metric for metric in _FAMILIES if metric.pattern.fullmatch(name)), None)


def our_name(theirs: str) -> str:
    """Our name for a metric in another program's log; a name that no entry has stays as it is.

    What transformers logs of an evaluation (``eval_reward``) becomes ``eval/`` and our name. Case does not count where
    a whole name is known.
    """
    if theirs.startswith("eval_"):
        return f"eval/{our_name(theirs.removeprefix('eval_'))}"
    if known := _OURS.get(theirs.lower()):
        return known
    for metric in _FAMILIES:
        for program in PROGRAMS:
            pattern = getattr(metric, program)
            if pattern and (match := name_pattern(pattern).fullmatch(theirs)):
                return re.sub(r"<\w+>", lambda _, found=match: found[1], metric.name)
    return theirs


def markdown_table() -> str:
    """The table of docs/metrics.md."""
    lines = ["| name | meaning | unit | better | in other programs |", "| --- | --- | --- | --- | --- |"]
    for metric in METRICS:
        others = [(program, getattr(metric, program)) for program in PROGRAMS]
        names = ", ".join(f"`{name}` ({_PROGRAM_NAMES[program]})" for program, name in others if name)
        absent = f"Absent {metric.absent}." if metric.absent else ""
        meaning = " ".join(filter(None, (metric.meaning, metric.detail, absent)))
        better = "" if metric.better == "neutral" else metric.better
        lines.append(f"| `{metric.name}` | {meaning} | {metric.unit} | {better} | {names} |")
    return "\n".join(lines) + "\n"


_PROGRAM_NAMES = {"trl": "TRL", "verl": "verl", "openrlhf": "OpenRLHF"}
_BY_NAME = {metric.name: metric for metric in METRICS if not metric.is_family}
_FAMILIES = [metric for metric in METRICS if metric.is_family]
_OURS: dict[str, str] = {
    name.lower(): metric.name
    for metric in METRICS
    if not metric.is_family
    for name in (*(getattr(metric, program) for program in PROGRAMS), *metric.spellings, metric.name)
    if name
}

if __name__ == "__main__":
    print(markdown_table(), end="")
