"""Whether the engine has the policy's weights: values of both, compared after each sync.

The drift check in drift.py looks at log-probabilities, and sees a stale engine only where the policy has moved far: at
a learning rate of 1e-6 it sees none. Here the weights themselves are compared, bit for bit in the engine's dtype.
"""

import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from rl_posttrain.errors import WeightSyncError
from rl_posttrain.models.quantized import is_transposed
from rl_posttrain.recipe.schema import Recipe
from rl_posttrain.rollout.engine import Held, RolloutEngine
from rl_posttrain.rollout.seeds import derive_seed
from rl_posttrain.training.adapters import bare, checkpoint_name

# After so many syncs each layer has been looked at; the first sync looks at all.
NUM_PARTS = 8
# Values of a matrix: at a learning rate of 1e-6 a step changes 1 in 200 to 1,000 of a bf16 weight's.
_NUM_VALUES, _FEWEST_COLUMNS = 2**14, 8
_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class _Sample:
    """Values of the policy: (outputs, columns) of a matrix, or a whole vector, for which `columns` is None.

    `bad_rows`: (outputs,) bool, rows with a NaN in any column.
    """

    values: torch.Tensor
    columns: Sequence[int] | None
    bad_rows: torch.Tensor


class WeightCheck:
    """Brings weights to an engine, and fails the run where the engine then has others.

    Embedding, output layer and whatever belongs to no layer are compared each time, layers in turn.

    Args:
        recipe: its seed, with the step, chooses the columns.
        gather: concatenates a list over processes.
        note: called once with a line about weights that cannot be read back.
        transposed: names of matrices that the policy has as (inputs, outputs).
    """

    def __init__(
        self,
        recipe: Recipe,
        gather: Callable[[list], list],
        note: Callable[[str], None],
        transposed: Collection[str],
    ):
        self._seed, self._engine_name = recipe.run.seed, recipe.rollout.engine
        self._gather, self._note, self._transposed = gather, note, transposed
        self._num_parts = 1
        self._sizes: dict[str, int] = {}
        self._readable: set[str] = set()
        self.share: float | None = None
        """The share of the weights that are compared, in turn; None before the first sync, or if there is no copy."""

    def sync(self, engine: RolloutEngine, weights: Iterator[tuple[str, torch.Tensor]], step: int) -> None:
        """Load `weights` into the engine, and compare.

        Args:
            weights: the policy's, under their checkpoint names. They are walked once, so that what is sharded is
                gathered once.
            step: the step that will be sampled.

        Raises:
            WeightSyncError: the engine of any process has other weights; on all processes.
        """
        if engine.shares_weights:
            engine.load_weights(weights)
            return
        taken: dict[str, _Sample] = {}
        walk = self._sampled(weights, step, taken)
        engine.load_weights(walk)
        for _ in walk:  # what an engine left of it: other processes may wait for their part
            pass
        said = self._compare(engine, taken, step)
        self._num_parts = min(NUM_PARTS, max(1, len({_layer(name) for name in self._sizes} - {None})))
        if wrong := next((text for text in self._gather([said]) if text), None):
            raise WeightSyncError(wrong)

    def _sampled(
        self, weights: Iterator[tuple[str, torch.Tensor]], step: int, taken: dict[str, _Sample]
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """`weights`, of which a sample goes into `taken` on the way."""
        for name, tensor in weights:
            self._sizes[name] = tensor.numel()
            layer = _layer(name)
            is_due = layer is None or layer % self._num_parts == step % self._num_parts
            if is_due and tensor.ndim in (1, 2):
                taken[name] = self._sample(name, tensor.detach(), step)
            yield name, tensor

    def _sample(self, name: str, tensor: torch.Tensor, step: int) -> _Sample:
        if tensor.ndim == 1:
            return _Sample(tensor, None, tensor.isnan())
        matrix = tensor.t() if name in self._transposed else tensor
        outputs, inputs = matrix.shape
        number = min(inputs, max(_FEWEST_COLUMNS, _NUM_VALUES // outputs))
        columns = sorted(random.Random(derive_seed(self._seed, step, name)).sample(range(inputs), number))
        return _Sample(matrix[:, columns], columns, matrix.isnan().any(dim=1))

    def _compare(self, engine: RolloutEngine, taken: dict[str, _Sample], step: int) -> str | None:
        """What to say where the engine's values differ from the policy's."""
        compared, wrong = set(), {}
        for held in engine.fingerprint({name: sample.columns for name, sample in taken.items()}):
            expected = taken[held.name].values.to(device=held.values.device, dtype=held.values.dtype)
            if expected.shape != held.values.shape:
                continue
            # A product with a one-hot row is NaN where the weight's row has a NaN anywhere: such rows are not compared.
            bad = taken[held.name].bad_rows
            bad = bad if bad.dim() == expected.dim() else bad[:, None]
            differ = (expected != held.values) & ~bad.to(held.values.device)
            if (number := int(differ.sum())) == 0:
                compared.add(held.name)
            elif not _is_reordered(expected, held):
                compared.add(held.name)
                wrong.setdefault(held.name, (held.place, number, differ.numel()))
        if self.share is None:
            self._readable = compared
            self._say_share(compared)
        if lost := sorted((self._readable & taken.keys()) - compared):
            return (
                f"rollout.engine={self._engine_name}: at step {step} the engine's {lost[0]} and {len(lost) - 1} other "
                "weights cannot be read back any more, as they were before; set rollout.engine=transformers"
            )
        if not wrong:
            return None
        name, (place, number, size) = next(iter(wrong.items()))
        where = name if name.startswith(place) else f"{name}, in its {place},"
        return (
            f"rollout.engine={self._engine_name}: at step {step} the engine samples from stale or wrong weights: "
            f"{where} differs from the policy's in {number} of the {size} values looked at, and {len(wrong) - 1} of "
            f"{len(compared) - 1} other weights do; a sync did not reach it, or this version of vLLM takes weights "
            "differently; set rollout.engine=transformers to train without a copy of the weights"
        )

    def _say_share(self, compared: Collection[str]) -> None:
        """Keep, and say once, what share of the weights can be compared; after a sync that looked at all of them."""
        missing = [name for name in self._sizes if name not in compared]
        total = sum(self._sizes.values())
        self.share = 1 - sum(self._sizes[name] for name in missing) / total
        if missing:
            self._note(
                f"the engine's copy of {self.share:.1%} of the weights is compared with the policy's after each sync; "
                f"the rest cannot be read back: {missing[0]} and {len(missing) - 1} others"
            )


def transposed_weights(policy: torch.nn.Module) -> set[str]:
    """The names of the matrices that a policy has as (inputs, outputs): those of GPT-2's layers."""
    modules = bare(policy).named_modules()
    return {checkpoint_name(f"{name}.weight") for name, module in modules if is_transposed(module)}


def _layer(name: str) -> int | None:
    """The number of the layer that a weight belongs to."""
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def _is_reordered(expected: torch.Tensor, held: Held) -> bool:
    """Whether each column has the same values in another order: then this model's layer has a layout of its own.

    So it is in models whose loader sorts the rows of heads. No stale weight has the same values in another order.
    """
    return torch.equal(expected.sort(dim=0).values, held.values.sort(dim=0).values)
