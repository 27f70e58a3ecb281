"""AdamS's rule in Python floats, and what its tests feed it with."""

import math

import torch

from rl_posttrain.optim import AdamS

DEFAULTS = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.0}


def reference(
    weight,
    gradients,
    *,
    lr,
    betas,
    eps,
    weight_decay,
    maximize=False,
    bias_correction=False,
    eps_inside_sqrt=False,
    capturable=False,
    variant="paper",
) -> list[torch.Tensor]:
    """The weights after each step, element by element in Python floats (arXiv:2505.16363).

    `capturable` says where numbers are kept and changes none.
    """
    beta1, beta2 = betas
    weights, momenta = weight.double().flatten().tolist(), [0.0] * weight.numel()
    after = []
    for count, gradient in enumerate(gradients, start=1):
        corrected = 1 - beta1**count if bias_correction or variant == "authors" else 1.0
        for place, g in enumerate(gradient.double().flatten().tolist()):
            g = -g if maximize else g
            new = beta1 * momenta[place] + (1 - beta1) * g
            normalizing = new if variant == "new_momentum" else momenta[place]
            nu = beta2 * (normalizing / corrected) ** 2 + (1 - beta2) * g**2
            momenta[place] = new
            divisor = math.sqrt(nu + eps) if eps_inside_sqrt else math.sqrt(nu) + eps
            weights[place] = (1 - lr * weight_decay) * weights[place] - lr * momenta[place] / corrected / divisor
        after.append(torch.tensor(weights, dtype=torch.float64).view(weight.shape))
    return after


def train(parameter, gradients, **options) -> tuple[AdamS, list[torch.Tensor]]:
    """The optimizer, and the weights after each step."""
    optimizer = AdamS([parameter], **options)
    after = []
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        after.append(parameter.detach().clone())
    return optimizer, after


def random_case(shape, dtype, num_steps=6):
    """A weight, and gradients over many magnitudes with zeros among them."""
    generator = torch.Generator().manual_seed(len(shape) + 1)
    weight = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    gradients = [
        (torch.randn(shape, generator=generator, dtype=torch.float64) * 10.0 ** (step - 4)).to(dtype)
        for step in range(num_steps)
    ]
    gradients[2] = gradients[2] * 0
    return weight, gradients
