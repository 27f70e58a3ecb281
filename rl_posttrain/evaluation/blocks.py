"""Which samples are still to be drawn, in blocks that are always drawn alike.

A sample follows from the model, the settings, its question and its number. Where an engine's completions depend on the
prompts beside them, a block is therefore always the same questions: `BLOCK_SIZE` in a row, one sample of each. Such an
engine draws a last block to its end, also where fewer questions were asked for; the rest is kept for later.
"""

from collections.abc import Container
from dataclasses import dataclass

from rl_posttrain.rollout.seeds import derive_seed

BLOCK_SIZE = 64
# Of an engine that seeds each completion: enough for a GPU, and little is lost where a call is interrupted.
BLOCKS_PER_CALL = 16


@dataclass(frozen=True)
class Block:
    """One sample of each question from `start` up to and without `stop`."""

    start: int
    stop: int
    sample: int

    @property
    def places(self) -> list[tuple[int, int]]:
        """Question and sample of each completion."""
        return [(question, self.sample) for question in range(self.start, self.stop)]


def seed_of(seed: int, question: int, sample: int) -> int:
    """The seed of one sample.

    Args:
        seed: of the evaluation.
        question: its place among the evaluation's rows, from 0.
        sample: its number, from 0.
    """
    return derive_seed(seed, "evaluation", question, sample)


def missing_blocks(
    num_rows: int,
    num_questions: int,
    num_samples: int,
    drawn: Container[tuple[int, int]],
    *,
    whole: bool,
) -> list[Block]:
    """The blocks that have a sample which was asked for and is not in `drawn`.

    Args:
        num_rows: all rows that could be asked for.
        num_questions: the first so many are asked for.
        num_samples: of each question.
        drawn: question and sample of what is there.
        whole: draw whole blocks, for an engine whose completions depend on the batch.
    """
    blocks = []
    for start in range(0, num_questions, BLOCK_SIZE):
        stop = min(start + BLOCK_SIZE, num_rows if whole else num_questions)
        for sample in range(num_samples):
            block = Block(start, stop, sample)
            if any(place not in drawn for place in block.places if place[0] < num_questions):
                blocks.append(block)
    return blocks
