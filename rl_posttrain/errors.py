"""What can go wrong for a user, as exceptions whose message is the one line the command prints."""


class RlPosttrainError(Exception):
    """Base of every error a user can cause or mend; the command line prints its message and exits with status 2."""


class RecipeError(RlPosttrainError, ValueError):
    """A recipe, an override or a plug-in name that cannot be used as written."""


class RunError(RlPosttrainError):
    """A run directory that is missing, already there, not writable, or not readable as a run."""


class EngineError(RlPosttrainError):
    """An engine (vLLM, DeepSpeed) that was asked for and is missing, or that did not do what the recipe says."""


class WeightSyncError(EngineError):
    """The rollout engine samples from other weights than the trainer holds."""


class RewardError(RlPosttrainError):
    """A reward function that raised, or returned something that is no list of numbers."""
