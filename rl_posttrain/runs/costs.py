"""The part of the table of metrics that says what steps took: tokens, time and memory."""

from rl_posttrain.runs.metric import Metric

COSTS: tuple[Metric, ...] = (
    Metric(
        "tokens", "Prompt and completion tokens since the start of the run.", unit="tokens",
        detail="Includes what resampling threw away.", trl="num_tokens", x_label="tokens",
    ),
    Metric(
        "seconds", "Wall-clock time since training began, evaluations and checkpoints included.", unit="s",
        detail="Start-up is not included. A resumed run continues the count.", x_label="wall-clock (s)",
        spellings=("_runtime",),
    ),
    Metric(
        "time/rollout", "Time that the step spent sampling completions.", unit="s", verl="timing_s/gen",
        plots=("phases",), better="lower",
    ),
    Metric(
        "time/draw", "Time that drawing the step's completions took, in the process that took longest.", unit="s",
        detail="They are drawn while other steps are updated; `time/rollout` is the wait for them.",
        absent="at `rollout.max_staleness: 0`", better="lower",
    ),
    Metric(
        "time/reward", "Time that the step spent in reward functions.", unit="s", verl="timing_s/reward",
        plots=("phases",), better="lower",
    ),
    Metric(
        "time/update",
        "The rest of the step's time: log-probabilities, forward, backward, optimizer, bookkeeping.", unit="s",
        plots=("phases",), better="lower",
    ),
    Metric(
        "time/sync", "Time that the step spent handing the weights to the sampler.", unit="s", plots=("phases",),
        better="lower",
    ),
    Metric("time/evaluation", "Time of the evaluation, on the steps that have one.", unit="s", better="lower"),
    Metric(
        "optimizer_state_bytes", "Bytes of optimizer state, in the process that has most.", unit="bytes",
        better="lower", words="optimizer state", plots=("memory",),
    ),
    Metric(
        "peak_memory_bytes", "Most memory in use since the process started, in the process that used most.",
        unit="bytes",
        detail="Of a GPU as torch's allocator counts it; of main memory where training is on a CPU.",
        better="lower", words="peak memory", plots=("memory",),
    ),
)  # fmt: skip
