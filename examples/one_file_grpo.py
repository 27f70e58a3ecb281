"""GRPO in one file: sample, score, compare within each group, update. Read it from top to bottom.

    python examples/one_file_grpo.py                                 # the bundled model learns one-digit sums
    python examples/one_file_grpo.py --model FOLDER --steps 5        # any causal language model of transformers

`rl-posttrain train quickstart` runs the same loop with vLLM, DeepSpeed, checkpoints, evaluation and records. Each
comment "In the project" names the file that does that part there.
"""

import argparse
from collections.abc import Callable, Sequence

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rl_posttrain.models.find import resolve_model
from rl_posttrain.optim import AdamS
from rl_posttrain.rewards import math_accuracy
from rl_posttrain.tasks.arithmetic import arithmetic


def sample(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], max_new_tokens: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One completion of each prompt, drawn from the model's own distribution.

    In the project: rl_posttrain/rollout/ (vLLM or transformers), called by rl_posttrain/training/rollouts.py.

    Returns:
        Token ids (B, P + T) of prompts, padded on the left, and completions, padded on the right; the attention mask
        of the same shape; and the completion mask (B, T), 1 up to and with the end-of-sequence token.
    """
    inputs = tokenizer(list(prompts), return_tensors="pt", padding=True).to(model.device)
    with torch.no_grad():
        ids = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=max_new_tokens,
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
    ended = ids[:, inputs["input_ids"].size(1) :] == tokenizer.eos_token_id
    # A token counts if no token before it ended the sequence.
    completion_mask = (ended.cumsum(dim=1) - ended.long() == 0).long()
    return ids, torch.cat([inputs["attention_mask"], completion_mask], dim=1), completion_mask


def group_advantages(rewards: torch.Tensor, group_size: int) -> torch.Tensor:
    """How much better each completion is than the others of its prompt, in standard deviations of that group.

    In the project: rl_posttrain/training/algorithms/grpo.py.

    Args:
        rewards: (B,), groups of G = `group_size` together.

    Returns:
        (B,). A group whose completions all got the same reward has advantages of 0: it teaches nothing.
    """
    groups = rewards.view(-1, group_size)
    return ((groups - groups.mean(dim=1, keepdim=True)) / (groups.std(dim=1, keepdim=True) + 1e-4)).flatten()


def completion_logprobs(
    model: PreTrainedModel, ids: torch.Tensor, attention_mask: torch.Tensor, num_tokens: int
) -> torch.Tensor:
    """Log-probability (B, T) in nats of each completion token, under the present weights.

    In the project: TRL's trainer; on a CPU rl_posttrain/training/logprobs.py.
    """
    positions = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)  # padding on the left moves no token
    logits = model(
        input_ids=ids, attention_mask=attention_mask, position_ids=positions, logits_to_keep=num_tokens + 1
    ).logits
    # The logits at one position are those of the next token.
    logprobs = logits[:, :-1].float().log_softmax(dim=-1)
    return logprobs.gather(-1, ids[:, -num_tokens:].unsqueeze(-1)).squeeze(-1)


def dr_grpo_loss(logprobs: torch.Tensor, advantages: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
    """The mean over completions of -advantage * log-probability, over a constant length (arXiv:2503.20783).

    There is one update a batch, so old and new policy are the same: their ratio is 1, clipping never acts, and the
    gradient of the ratio is that of the log-probability.

    Args:
        logprobs, completion_mask: (B, T); the denominator is B * T, whatever was sampled.
        advantages: (B,).
    """
    return -(advantages.unsqueeze(1) * logprobs * completion_mask).sum() / completion_mask.numel()


def train(
    model_name: str,
    *,
    steps: int,
    prompts_per_step: int = 8,
    group_size: int = 8,
    max_new_tokens: int = 16,
    lr: float = 1e-5,
    seed: int = 0,
    reward: Callable[..., Sequence[float | None]] = math_accuracy,
) -> list[float]:
    """Train on one-digit sums and print a line a step.

    Returns:
        The mean reward of each step.
    """
    torch.manual_seed(seed)
    folder = resolve_model(model_name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    # fp32 weights: an update of 1e-5 would be lost in the rounding of bf16 weights.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device).eval()
    optimizer = AdamS(model.parameters(), lr=lr, betas=(0.9, 0.95))
    rows = arithmetic(num_train=steps * prompts_per_step, num_eval=0, seed=seed, operators=["+"], digits=1).train

    mean_rewards = []
    for step in range(steps):
        # Each prompt stands there G times: the completions of one prompt are compared with one another.
        batch = [row for row in rows[step * prompts_per_step :][:prompts_per_step] for _ in range(group_size)]
        with torch.autocast(device, dtype=torch.bfloat16):
            ids, attention_mask, completion_mask = sample(
                model, tokenizer, [f"Q: {row['question']}\nA:" for row in batch], max_new_tokens
            )
            num_tokens = completion_mask.size(1)
            texts = tokenizer.batch_decode(ids[:, -num_tokens:], skip_special_tokens=True)
            # In the project: rl_posttrain/scoring/.
            rewards = torch.tensor(reward(completions=texts, answer=[row["answer"] for row in batch]), device=device)
            advantages = group_advantages(rewards, group_size)
            logprobs = completion_logprobs(model, ids, attention_mask, num_tokens)
        loss = dr_grpo_loss(logprobs, advantages, completion_mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean_rewards.append(rewards.mean().item())
        print(f"step {step + 1:2}/{steps}  reward {mean_rewards[-1]:.2f}  {texts[0]!r}", flush=True)
    return mean_rewards


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="GRPO in one file, on one-digit sums.")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="bundled model, local folder or hub name")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    train(arguments.model, steps=arguments.steps, seed=arguments.seed)
