"""How much farther AdamS steps than AdamW at one learning rate, against how noisy the gradients are.

    python experiments/adams/step_length.py [--num-elements 5000] [--num-steps 4000]

Each element's gradient is a mean plus normal noise of spread 1, new in every step. The means are the signal-to-noise
ratio. Both optimizers of the project take the same gradients at lr 1. After their averages have settled, the table has
the length of AdamS's steps over that of AdamW's, at AdamW's (0.9, 0.999) and at AdamS's betas, and what follows for the
normalizers alone, sqrt(E v / E nu).
"""

import argparse
import math

import torch

from rl_posttrain.optim import build_optimizer

RATIOS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
BETAS = (0.9, 0.95)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-elements", type=int, default=5_000, help="(default: %(default)s)")
    parser.add_argument("--num-steps", type=int, default=4_000, help="before measuring (default: %(default)s)")
    arguments = parser.parse_args()
    print("| signal to noise | AdamS / AdamW (0.9, 0.999) | AdamS / AdamW (0.9, 0.95) | sqrt(E v / E nu) |")
    print("| --- | --- | --- | --- |")
    for ratio in RATIOS:
        adams, usual, same = (
            step_length(name, betas, ratio, arguments.num_elements, arguments.num_steps)
            for name, betas in (("adams", BETAS), ("adamw", (0.9, 0.999)), ("adamw", BETAS))
        )
        print(f"| {ratio:g} | {adams / usual:.2f} | {adams / same:.2f} | {predicted(ratio):.2f} |", flush=True)


def predicted(ratio: float, betas: tuple[float, float] = BETAS) -> float:
    """sqrt(E v / E nu) for gradients of mean `ratio` and spread 1.

    E v = mean^2 + 1. A momentum has the variance (1 - beta1) / (1 + beta1), so that
    E nu = mean^2 + beta2 (1 - beta1) / (1 + beta1) + 1 - beta2.
    """
    beta1, beta2 = betas
    return math.sqrt((ratio**2 + 1) / (ratio**2 + beta2 * (1 - beta1) / (1 + beta1) + 1 - beta2))


def step_length(name: str, betas: tuple[float, float], ratio: float, num_elements: int, num_steps: int) -> float:
    """Root mean square of an element's move in a step at lr 1, over 20 steps far enough apart, after `num_steps`."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Linear(num_elements, 1, bias=False)
    optimizer = build_optimizer(model, name, lr=1.0, betas=betas)
    squares = []
    for step in range(num_steps + 400):
        model.weight.grad = ratio + torch.randn(1, num_elements, generator=generator)
        measured = step >= num_steps and step % 20 == 0
        if measured:
            model.weight.data.zero_()
        optimizer.step()
        if measured:
            squares.append(model.weight.detach().square().mean().item())
    return math.sqrt(sum(squares) / len(squares))


if __name__ == "__main__":
    main()
