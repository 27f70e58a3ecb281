"""AdamS with accelerate, which may put DDP, FSDP2 or DeepSpeed around model and optimizer.

accelerate launch examples/optimizers/with_accelerate.py
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rl_posttrain.optim import build_optimizer

torch.manual_seed(0)
tokens = torch.randint(16, (64, 4))
answers = tokens.sum(dim=1) % 16

accelerator = Accelerator()
model = nn.Sequential(nn.Embedding(16, 32), nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 16))
# Before prepare(): the roles of parameters are read from the model as it is.
optimizer = build_optimizer(
    model, "adams", lr=3e-3, weight_decay=0.1, lr_by_role={"embeddings": 1e-3}
)  # for a tiny model from random weights
schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=30)
batches = DataLoader(TensorDataset(tokens, answers), batch_size=64)
model, optimizer, schedule, batches = accelerator.prepare(model, optimizer, schedule, batches)

for step in range(30):
    for batch_tokens, batch_answers in batches:
        loss = nn.functional.cross_entropy(model(batch_tokens), batch_answers)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
    accelerator.print(f"step {step}: loss {loss.item():.4f}")
