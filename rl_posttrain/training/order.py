"""The order of the questions in a run that goes on in a later pass over its rows."""

from transformers import TrainerCallback


class SameOrder(TrainerCallback):
    """TRL shuffles the rows once a pass, from one generator. A run that goes on draws for the passes behind it, too."""

    def on_train_begin(self, args, state, control, train_dataloader=None, **kwargs) -> None:
        batches = train_dataloader.batch_sampler
        batches = getattr(batches, "batch_sampler", batches)  # accelerate's, with several processes, is around it
        for _ in range(int(state.epoch or 0)):
            next(iter(batches.sampler))
