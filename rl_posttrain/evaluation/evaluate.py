"""One evaluation: draw what is missing, score it, keep it, work out the numbers. Training and `eval` both call it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl_posttrain.evaluation.blocks import BLOCKS_PER_CALL, Block, missing_blocks, seed_of
from rl_posttrain.evaluation.results import BREAKDOWNS, as_json, breakdown, overall, question_metrics
from rl_posttrain.evaluation.samples import SampleFile
from rl_posttrain.evaluation.votes import vote_of
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.runs.evaluations import QUESTIONS_FILE, RESULTS_FILE
from rl_posttrain.runs.files import to_json, write_atomically
from rl_posttrain.scoring.completions import score
from rl_posttrain.scoring.judges import Judge, judging_rewards
from rl_posttrain.scoring.rewards import Reward

Rows = Sequence[Mapping[str, Any]]
Draw = Callable[[Rows, Sequence[int]], list[Completion]]
Gather = Callable[[list], list]
OnProgress = Callable[[int, int, int, float], None]


@dataclass(frozen=True)
class Amount:
    """How much is asked of an evaluation.

    Attributes:
        num_questions: the first so many of the rows.
        num_samples: of each question.
        ks: of pass@k and maj@k; none above `num_samples`.
        by: columns to break results down by, where rows have them.
    """

    num_questions: int
    num_samples: int
    ks: Sequence[int]
    by: Sequence[str] = BREAKDOWNS


@dataclass(frozen=True)
class Processes:
    """The processes that share an evaluation.

    Attributes:
        rank, world_size: of this process.
        gather: concatenates a list over processes, in the order of ranks.
    """

    rank: int = 0
    world_size: int = 1
    gather: Gather = list


def evaluate(
    rows: Rows,
    draw: Draw,
    rewards: Sequence[Reward],
    amount: Amount,
    *,
    seed: int,
    depends_on_batch: bool,
    folder: Path,
    settings: Mapping[str, Any],
    processes: Processes = Processes(),
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Evaluate a policy on `rows`; every process calls it, and the first writes `folder`.

    Args:
        rows: all rows that could be asked for, the same on every process.
        draw: draws one completion a row, from one seed each.
        rewards: of the recipe. The first that judges answers says what is right.
        depends_on_batch: of the engine, see `RolloutEngine`.
        folder: samples that it has are not drawn again.
        settings: whatever decides the samples; see `SampleFile`.
        on_progress: called on the first process with samples drawn and to draw, tokens drawn and seconds.

    Returns:
        The content of results.json; the same on every process.

    Raises:
        RunError: `folder` has samples of other settings, or cannot be written.
    """
    file = SampleFile(folder, settings) if processes.rank == 0 else None
    drawn = set(processes.gather(list(file.samples) if file else []))
    blocks = missing_blocks(len(rows), amount.num_questions, amount.num_samples, drawn, whole=depends_on_batch)
    per_call = 1 if depends_on_batch else BLOCKS_PER_CALL
    to_draw, num_done, num_tokens, started = sum(len(block.places) for block in blocks), 0, 0, time.monotonic()
    for first in range(0, len(blocks), per_call * processes.world_size):
        together = blocks[first : first + per_call * processes.world_size]
        mine = together[processes.rank :: processes.world_size]
        # Under ZeRO-3 generation is a collective: a process without a block draws one that another has, too.
        own = _draw(rows, draw, rewards, mine or together[:1], seed)
        sampled = processes.gather(own if mine else [])
        num_done, num_tokens = num_done + len(sampled), num_tokens + sum(row["num_tokens"] for row in sampled)
        if file:
            file.add(sampled)
            if on_progress:
                on_progress(num_done, to_draw, num_tokens, time.monotonic() - started)
    results: list[dict[str, Any]] = []
    if file:
        speed = {"tokens_drawn": num_tokens, "seconds": time.monotonic() - started}
        results = [_write_results(file, rows, rewards, amount, dict(settings), speed)]
    return processes.gather(results)[0]


def _draw(
    rows: Rows, draw: Draw, rewards: Sequence[Reward], blocks: Sequence[Block], seed: int
) -> list[dict[str, Any]]:
    """Samples of `blocks`, as samples.jsonl has them."""
    places = [place for block in blocks for place in block.places]
    completions = draw([rows[question] for question, _ in places], [seed_of(seed, *place) for place in places])
    # A reward may need what it logs with; what it logs is of a training step, and nothing is kept here.
    score(completions, rewards, log_metric=_nothing, log_extra=_nothing)
    judge, form = judging_rewards([reward.spec for reward in rewards])
    sampled = []
    for (question, sample), completion in zip(places, completions, strict=True):
        right = _credit(judge, completion)
        sampled.append(
            {
                "question": question,
                "sample": sample,
                "prompt": completion.row["prompt"],
                "completion": completion.text,
                "answer": completion.row.get("answer"),
                "right": right,
                "well_formed": _credit(form, completion),
                "vote": _vote(judge, completion, right),
                "rewards": completion.rewards,
                "reward": completion.reward,
                "num_tokens": len(completion.token_ids),
                "finish_reason": completion.finish_reason,
            }
        )
    return sampled


def _nothing(name: str, value: Any) -> None:
    """What a reward logs in an evaluation goes here."""


def _credit(judge: Judge | None, completion: Completion) -> bool | None:
    return None if judge is None else judge.gives_full_credit(completion.rewards)


def _vote(judge: Judge | None, completion: Completion, right: bool | None) -> str | None:
    """What it votes for, read as the reward that judges it reads answers; None where none does."""
    spec = None if judge is None else judge.of(completion.rewards)
    return None if spec is None else vote_of(completion.text, bool(right), spec)


def _write_results(
    file: SampleFile,
    rows: Rows,
    rewards: Sequence[Reward],
    amount: Amount,
    settings: dict[str, Any],
    speed: dict[str, float],
) -> dict[str, Any]:
    """Work out the numbers of what was asked for, and write questions.jsonl and results.json."""
    judge, form = judging_rewards([reward.spec for reward in rewards])
    questions = [
        question_metrics(
            [file.samples[question, sample] for sample in range(amount.num_samples)],
            amount.ks,
            judged=judge is not None,
            formed=form is not None,
        )
        for question in range(amount.num_questions)
    ]
    results = settings | {
        "num_questions": amount.num_questions,
        "num_samples": amount.num_samples,
        "metrics": as_json(overall(questions)),
        "by": breakdown(rows, questions, amount.by),
        **speed,
    }
    lines = [
        {"question": number, "prompt": row["prompt"], "answer": row.get("answer")}
        | {column: row[column] for column in amount.by if column in row}
        | {"metrics": metrics}
        for number, (row, metrics) in enumerate(zip(rows, questions, strict=False))
    ]
    write_atomically(file.folder / QUESTIONS_FILE, "".join(to_json(line) + "\n" for line in lines))
    write_atomically(file.folder / RESULTS_FILE, to_json(results, indent=2) + "\n")
    return results
