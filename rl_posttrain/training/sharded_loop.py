"""The loop where the backend writes and reads checkpoints itself, since transformers does not know that it shards."""

import torch

from rl_posttrain.training.backends.backend import Backend
from rl_posttrain.training.loop import PolicyTrainer
from rl_posttrain.training.rates import rates_kept


class ShardedTrainer(PolicyTrainer):
    """`PolicyTrainer` with a backend that has `keeps_own_state`."""

    def _move_model_to_device(self, model: torch.nn.Module, device: torch.device) -> None:
        """Each layer goes to its device when it is sharded, and the whole model never."""

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Every process gathers the weights, and the main one writes them."""
        weights = self.policy.state_dict()
        if self.args.should_save:
            self._save(output_dir or self.args.output_dir, weights)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self.policy.backend.write_state(self, output_dir)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        self.policy.backend.read_weights(self, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with rates_kept(self, place=False):
                self.policy.backend.read_optimizer(self, checkpoint)


def trainer_class(backend: Backend) -> type[PolicyTrainer]:
    """The trainer that suits `backend`."""
    return ShardedTrainer if backend.keeps_own_state else PolicyTrainer
