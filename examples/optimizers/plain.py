"""AdamS in a plain PyTorch loop. `python examples/optimizers/plain.py` trains a tiny model on a made-up task."""

import torch
from torch import nn

from rl_posttrain.optim import build_optimizer

torch.manual_seed(0)
tokens = torch.randint(16, (64, 4))
answers = tokens.sum(dim=1) % 16

model = nn.Sequential(nn.Embedding(16, 32), nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 16))
optimizer = build_optimizer(
    model, "adams", lr=3e-3, weight_decay=0.1, lr_by_role={"embeddings": 1e-3}
)  # for a tiny model from random weights
schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=30)

for step in range(30):
    loss = nn.functional.cross_entropy(model(tokens), answers)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    print(f"step {step}: loss {loss.item():.4f}")
