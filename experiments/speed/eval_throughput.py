"""Tokens a second of `rl-posttrain eval` beside a bare vLLM loop on the same prompts, in one process.

    python experiments/speed/eval_throughput.py [--model smollm2-135m-instruct] [--questions 256] [--samples 1]
        [--max-new-tokens 64] [--rounds 3] [--full-length] [--sequences 64] [--json FILE]

The bare loop is one `LLM.generate` over all prompts, with vLLM's own options but for the length of the context, eager
mode on a CPU (as ours), and `--sequences`, how many it draws at a time. The evaluation is whole: seeds, blocks,
rewards, and writing the samples. They take turns, `--rounds` times after a warm-up; the medians count. With
`--full-length` every completion has the full length (min_tokens); without, they end where the model ends them.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from rl_posttrain.machine.process import prepare_process

prepare_process(verbose=False)

import torch  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402

from rl_posttrain.evaluation.evaluate import Amount, evaluate  # noqa: E402
from rl_posttrain.evaluation.sampler import Sampler  # noqa: E402
from rl_posttrain.evaluation.subjects import find_subject  # noqa: E402
from rl_posttrain.machine.describe import device_name  # noqa: E402
from rl_posttrain.recipe.evaluation import evaluation_for  # noqa: E402
from rl_posttrain.recipe.resolve import resolve_task  # noqa: E402
from rl_posttrain.recipe.reward_spec import resolve_reward  # noqa: E402
from rl_posttrain.rollout.engine import Sampling  # noqa: E402
from rl_posttrain.rollout.prompts import load_tokenizer, tokenize  # noqa: E402
from rl_posttrain.scoring.rewards import build_rewards  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full-length", action="store_true")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    subject = find_subject(arguments.model)
    overrides = ["task.digits=2", f"task.num_eval={arguments.questions}"]
    evaluation = evaluation_for(subject.name, task="arithmetic", options={}, overrides=overrides, recipe=None)
    rows = resolve_task(evaluation.task, 0).make_rows().eval
    prompts = tokenize(load_tokenizer(subject.location, name=subject.name), [row["prompt"] for row in rows], {})
    longest = max(map(len, prompts)) + arguments.max_new_tokens
    other = {"min_tokens": arguments.max_new_tokens} if arguments.full_length else {}

    bare = LLM(
        model=subject.location,
        dtype=evaluation.model.dtype,
        max_model_len=longest,
        max_num_seqs=arguments.sequences,
        seed=0,
        use_tqdm_on_load=False,
        **({"gpu_memory_utilization": 0.4} if torch.cuda.is_available() else {"enforce_eager": True}),
    )
    evaluation = evaluation.model_copy(
        update={"rollout": evaluation.rollout.model_copy(update={"gpu_memory_share": 0.4})}
    )
    sampler = Sampler(subject, evaluation, longest)
    sampling = Sampling(max_tokens=arguments.max_new_tokens, other=other)
    rewards = build_rewards([resolve_reward(section, "rewards.0") for section in evaluation.rewards], list(rows[0]))

    def bare_loop() -> int:
        parameters = SamplingParams(temperature=1.0, max_tokens=arguments.max_new_tokens, n=arguments.samples, **other)
        outputs = bare.generate([{"prompt_token_ids": prompt} for prompt in prompts], parameters, use_tqdm=False)
        return sum(len(drawn.token_ids) for output in outputs for drawn in output.outputs)

    def whole_evaluation() -> int:
        with tempfile.TemporaryDirectory() as folder:
            results = evaluate(
                rows,
                lambda asked, seeds: sampler.draw(asked, seeds, sampling, {}),
                rewards,
                Amount(len(rows), arguments.samples, (1,)),
                seed=0,
                depends_on_batch=sampler.depends_on_batch,
                folder=Path(folder),
                settings={},
            )
        return results["tokens_drawn"]

    speeds: dict[str, list[float]] = {"bare vLLM": [], "eval": []}
    for number in range(arguments.rounds + 1):
        for name, draw in (("bare vLLM", bare_loop), ("eval", whole_evaluation)):
            started = time.perf_counter()
            num_tokens = draw()
            if number:
                speeds[name].append(num_tokens / (time.perf_counter() - started))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratio = medians["eval"] / medians["bare vLLM"]
    for name, value in medians.items():
        print(f"{name:10s} {value:8.1f} tokens/s")
    print(f"ratio      {ratio:8.3f}")
    if arguments.json:
        result = {"device": device_name(), "tokens_per_second": medians, "all": speeds, "ratio": ratio}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
