"""What this machine reaches, measured in seconds: `rl-posttrain check --measure-speed`.

Products, a few layers of the recipe's own model forward and backward, copies, and an all-reduce over loopback. Several
processes measure at the same time, started by torchrun as those of a run are, and so share the cores as they do.
"""

import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.cost.devices import Speeds
from rl_posttrain.cost.model_shape import shape_of
from rl_posttrain.cost.step import forward_flops, training_flops
from rl_posttrain.errors import EngineError

_LAYERS = 2
_MOST_TOKENS = 2048
_COPIED_BYTES = 2**26


@dataclass(frozen=True)
class Work:
    """What is timed: a micro batch of so many sequences and tokens, in the precision of the recipe's backend.

    ``at_once`` sequences get one more token each, for the cost of small batches.
    """

    sequences: int
    length: int
    scored: int
    at_once: int
    weights_dtype: str
    autocasts: bool


def measure_speed(config: Any, work: Work, num_processes: int) -> Speeds:
    """Speeds of each of `num_processes` processes of this machine, all at work.

    Raises:
        EngineError: a process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        task = {"folder": folder, "work": asdict(work)}
        start = [sys.executable]
        if num_processes > 1:
            start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num_processes}"]
        done = subprocess.run([*start, "-m", __name__, json.dumps(task)], capture_output=True, text=True)
        answer = Path(folder) / "speeds.json"
        if done.returncode or not answer.is_file():
            said = [line for line in done.stderr.splitlines() if "Error: " in line] or ["it printed no error"]
            raise EngineError(f"--measure-speed: a process failed ({said[0].strip()}); leave the option out")
        return Speeds(**json.loads(answer.read_text()))


def seconds_of(do: Callable[[], Any], at_least_s: float = 0.4) -> float:
    """Seconds of one call: the mean of as many as take that long, after one to warm up."""
    do()
    calls, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < at_least_s:
        do()
        calls += 1
    return passed / calls


def _measure(config: Any, work: Work) -> dict[str, float]:
    """Speeds of this process, but for the links."""
    import torch
    from transformers import AutoModelForCausalLM

    from rl_posttrain.training.logprobs import add_completion_scoring, linear_logprobs

    text = config.get_text_config()
    whole = shape_of(config, num_parameters=0, tensors=0)
    for layers in ("num_hidden_layers", "max_window_layers"):
        if hasattr(text, layers):
            setattr(text, layers, _LAYERS)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:_LAYERS]
    dtype = getattr(torch, work.weights_dtype)
    runs_in = torch.bfloat16 if work.autocasts else dtype
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).train()
    add_completion_scoring(model, 1.0)
    sequences = max(1, min(work.sequences, _MOST_TOKENS // work.length))
    ids = torch.randint(text.vocab_size, (sequences, work.length))
    mask = torch.ones_like(ids)
    mask[:, 0] = 0  # padding, as in a batch of a run
    batch = {"tokens": ids.numel(), "context": work.length, "scored": sequences * work.scored}
    precision = {"device_type": "cpu", "dtype": torch.bfloat16, "enabled": work.autocasts}

    def forward() -> torch.Tensor:
        with torch.autocast(**precision):
            return model(input_ids=ids, attention_mask=mask, completion_tokens=work.scored)[0].sum()

    def train() -> None:
        forward().backward()
        model.zero_grad()

    @torch.no_grad()
    def score() -> None:
        forward()

    rows = torch.randint(text.vocab_size, (min(work.at_once, _MOST_TOKENS), 1))
    sampler = model.base_model if dtype == runs_in else copy.deepcopy(model.base_model).to(runs_in)

    @torch.no_grad()
    def token_step() -> None:
        sampler(input_ids=rows, use_cache=False)

    # A few layers and the output layer are timed apart, and then make up the whole model.
    hidden = torch.randn(sequences * work.scored, whole.hidden, dtype=runs_in, requires_grad=True)
    head = model.get_output_embeddings().weight.detach().to(runs_in).requires_grad_()
    targets = torch.randint(text.vocab_size, (len(hidden),))

    def train_head() -> None:
        linear_logprobs(hidden, head, targets, 1.0)[0].sum().backward()

    @torch.no_grad()
    def score_head() -> None:
        linear_logprobs(hidden, head, targets, 1.0)

    def of_whole(with_head_s: float, head_s: float) -> float:
        return max(with_head_s - head_s, 0.1 * with_head_s) / _LAYERS * whole.layers + head_s

    last = torch.randn(len(rows), whole.hidden, dtype=runs_in)

    @torch.no_grad()
    def sample() -> None:
        logprobs = (last @ head.t()).float().log_softmax(1)
        logprobs.gather(1, logprobs.argmax(1, keepdim=True))

    trained_s = of_whole(seconds_of(train), seconds_of(train_head))
    scored_s = of_whole(seconds_of(score), seconds_of(score_head))
    with torch.no_grad():
        logits_s = seconds_of(lambda: last @ head.t())
    decoded_s = seconds_of(token_step) / _LAYERS * whole.layers + logits_s
    decoded = forward_flops(whole, tokens=len(rows), context=1, scored=len(rows))
    left = torch.randn(_MOST_TOKENS, whole.hidden, dtype=runs_in)
    right = torch.randn(whole.hidden, whole.intermediate, dtype=runs_in)
    product_s = seconds_of(lambda: left @ right)
    source = torch.zeros(_COPIED_BYTES, dtype=torch.uint8)
    target = torch.zeros_like(source)
    # What a sampler on a CPU does with new weights: it packs them, which takes about as long as to transpose them; and
    # rows with NaN are looked for in those that are compared.
    return {
        "packed_byte_s": seconds_of(lambda: head.detach().t().contiguous()) / head.nbytes,
        "compared_byte_s": seconds_of(lambda: head.detach().isnan().any(dim=1)) / head.nbytes,
        "product_flops_per_s": 2 * _MOST_TOKENS * whole.hidden * whole.intermediate / product_s,
        "training_flops_per_s": training_flops(whole, **batch, recomputes=False) / trained_s,
        "forward_flops_per_s": forward_flops(whole, **batch) / scored_s,
        "decode_flops_per_s": decoded / decoded_s,
        "token_step_s": seconds_of(sample) - logits_s,
        "memory_bytes_per_s": 2 * _COPIED_BYTES / seconds_of(lambda: target.copy_(source)),
    }


def _all_reduce_bytes_per_s() -> float:
    """What a ring all-reduce of 16 MiB gets through: 2 (n - 1) / n times its size in that time."""
    import torch
    from torch import distributed

    values, num = torch.zeros(2**22), distributed.get_world_size()
    distributed.barrier()
    start = time.perf_counter()
    for _ in range(5):
        distributed.all_reduce(values)
    return 5 * 2 * values.nbytes * (num - 1) / num / (time.perf_counter() - start)


def _main(task: dict[str, Any]) -> None:
    from rl_posttrain.machine.process import prepare_process, use_cpu_if_no_gpu, world_size

    prepare_process(verbose=False)
    use_cpu_if_no_gpu()
    import torch
    from torch import distributed
    from transformers import AutoConfig

    several = world_size() > 1
    if several:
        distributed.init_process_group("gloo")
        distributed.barrier()
    found = _measure(AutoConfig.from_pretrained(task["folder"]), Work(**task["work"]))
    link = found["memory_bytes_per_s"]
    if several:
        names = list(found)
        means = torch.tensor([found[name] for name in names], dtype=torch.float64)
        distributed.all_reduce(means)
        found = dict(zip(names, (means / world_size()).tolist(), strict=True))
        link = _all_reduce_bytes_per_s()
    links = {name: link for name in ("node_bytes_per_s", "network_bytes_per_s", "host_bytes_per_s")}
    if not several or distributed.get_rank() == 0:
        (Path(task["folder"]) / "speeds.json").write_text(json.dumps(found | links))
    if several:
        distributed.destroy_process_group()


if __name__ == "__main__":
    _main(json.loads(sys.argv[1]))
