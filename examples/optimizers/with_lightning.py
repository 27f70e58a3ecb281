"""AdamS in Lightning: build it in `configure_optimizers`. `pip install lightning`, then

python examples/optimizers/with_lightning.py
"""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rl_posttrain.optim import build_optimizer


class Sums(lightning.LightningModule):
    """Learns the sum of four numbers modulo 16."""

    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Embedding(16, 32), nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 16))

    def training_step(self, batch, index):
        tokens, answers = batch
        loss = nn.functional.cross_entropy(self.model(tokens), answers)
        print(f"step {self.global_step}: loss {loss.item():.4f}")
        return loss

    def configure_optimizers(self):
        optimizer = build_optimizer(
            self, "adams", lr=3e-3, weight_decay=0.1, lr_by_role={"embeddings": 1e-3}
        )  # for a tiny model from random weights
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=1.0, end_factor=0.1, total_iters=30)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


torch.manual_seed(0)
tokens = torch.randint(16, (64, 4))
answers = tokens.sum(dim=1) % 16
model = Sums()
trainer = lightning.Trainer(
    max_steps=30, accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(model, DataLoader(TensorDataset(tokens, answers), batch_size=64))
