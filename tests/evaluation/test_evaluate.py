"""An evaluation over any number of processes: what is drawn, counted, kept and continued."""

import dataclasses
import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import slowness

from rl_posttrain.errors import RewardError, RunError
from rl_posttrain.evaluation import blocks
from rl_posttrain.evaluation.evaluate import Amount, Processes, evaluate
from rl_posttrain.evaluation.samples import SampleFile
from rl_posttrain.recipe.reward_spec import resolve_reward
from rl_posttrain.recipe.schema import RewardSection
from rl_posttrain.rewards import REWARDS
from rl_posttrain.rollout.completion import Completion
from rl_posttrain.scoring.rewards import Reward

ROWS = [{"prompt": f"p{number}", "answer": str(number), "level": number % 2} for number in range(5)]
SETTINGS = {"model": "m", "sampling": {"top_p": 1.0, "temperature": 1.0}}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Five rows then make three blocks, and a process gets more than one."""
    monkeypatch.setattr(blocks, "BLOCK_SIZE", 2)


def reward(name, function):
    """The built-in of that name, which says what it judges and what full credit is, with another function.

    Any other name judges nothing.
    """
    built_in = resolve_reward(RewardSection(fn=name if name in REWARDS else "math_accuracy"), f"rewards.{name}")
    unknown = {} if name in REWARDS else {"judges": None, "range": None}
    return Reward(dataclasses.replace(built_in, name=name, function=function, **unknown))


def draw_answers(rows, seeds):
    """The sampler says its seed, and where that is even also the right answer."""
    return [
        Completion([1], [seed % 7] * 3, "stop" if seed % 3 else "length", row=row, text=f"{row['answer']} {seed}")
        for row, seed in zip(rows, seeds, strict=True)
    ]


def by_row(completions, prompts, answer, **kwargs):
    """Right on rows 0 and 1 always; never elsewhere. No judgement of row 4."""
    assert [f"p{gold}" for gold in answer] == prompts
    assert all(text.startswith(gold) for text, gold in zip(completions, answer, strict=True))
    return [None if gold == "4" else float(gold in "01") for gold in answer]


def by_seed(completions, **kwargs):
    return [float(int(text.split()[1]) % 2 == 0) for text in completions]


def run(folder, amount, *, world_size=1, rewards=None, depends_on_batch=True, settings=SETTINGS, draw=draw_answers):
    """`evaluate` on every rank, a thread each: its results, and the sizes of each rank's calls of `draw`."""
    calls: list[list[int]] = [[] for _ in range(world_size)]
    parts: list[list] = [[] for _ in range(world_size)]
    barrier = threading.Barrier(world_size, timeout=60 * slowness())

    def process(rank: int) -> dict:
        def counted(rows: list, seeds: list) -> list[Completion]:
            calls[rank].append(len(rows))
            return draw(rows, seeds)

        def gather(own: list) -> list:
            barrier.wait()
            parts[rank] = own
            barrier.wait()
            return list(itertools.chain(*parts))

        own = [reward(name, function) for name, function in (rewards or {"math_accuracy": by_seed}).items()]
        return evaluate(
            ROWS, counted, own, amount, seed=0, depends_on_batch=depends_on_batch, folder=folder, settings=settings,
            processes=Processes(rank, world_size, gather),
        )  # fmt: skip

    with ThreadPoolExecutor(world_size) as pool:
        first, *others = pool.map(process, range(world_size))
    assert all(other == first for other in others)
    return first, calls


def samples_of(folder):
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len({(line["question"], line["sample"]) for line in lines}) == len(lines)
    return {(line["question"], line["sample"]): line for line in lines}


def values_of(results):
    return {name: estimate["value"] for name, estimate in results["metrics"].items()}


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_every_sample_counts_once_on_any_number_of_processes(tmp_path, world_size):
    results, calls = run(tmp_path, Amount(5, 4, (1, 2, 4)), world_size=world_size, rewards={"math_accuracy": by_row})
    metrics = values_of(results)
    assert metrics["math_accuracy"] == 0.5  # of the four questions that were judged
    assert metrics["accuracy"] == pytest.approx(2 / 5)  # no judgement is no right answer
    assert [metrics[f"pass@{k}"] for k in (1, 2, 4)] == pytest.approx([2 / 5] * 3)
    assert results["metrics"]["accuracy"]["error"] == pytest.approx((0.3 / 5) ** 0.5)  # sqrt(var(1,1,0,0,0) / 5)
    # Generation is a collective under ZeRO-3: every process makes the same number of calls.
    assert len({len(own) for own in calls}) == 1
    assert results["by"] == {
        "level": {
            "0": {"num_questions": 3, "metrics": results["by"]["level"]["0"]["metrics"]},
            "1": {"num_questions": 2, "metrics": results["by"]["level"]["1"]["metrics"]},
        }
    }
    assert results["by"]["level"]["0"]["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3)
    lines = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    assert [line["metrics"]["accuracy"] for line in lines] == [1, 1, 0, 0, 0]
    assert [line["level"] for line in lines] == [0, 1, 0, 1, 0]


def test_samples_are_the_same_on_any_number_of_processes_and_however_they_are_asked_for(tmp_path):
    """The engine of this test seeds a batch as a whole: only the same batches give the same samples."""

    def draw(rows, seeds):
        return draw_answers(rows, [sum(seeds) + place for place in range(len(seeds))])

    whole, _ = run(tmp_path / "whole", Amount(5, 8, (1, 8)), draw=draw)
    run(tmp_path / "parts", Amount(3, 4, (1,)), draw=draw)
    run(tmp_path / "parts", Amount(5, 4, (1,)), draw=draw, world_size=2)
    parts, _ = run(tmp_path / "parts", Amount(5, 8, (1, 8)), draw=draw, world_size=3)
    assert samples_of(tmp_path / "parts") == samples_of(tmp_path / "whole")
    assert parts["metrics"] == whole["metrics"]
    _, calls = run(tmp_path / "parts", Amount(5, 8, (1, 8)), draw=draw)
    assert calls == [[]]
    fewer, calls = run(tmp_path / "whole", Amount(3, 4, (1,)), draw=draw)
    again, _ = run(tmp_path / "fewer", Amount(3, 4, (1,)), draw=draw)
    assert calls == [[]]
    assert fewer["metrics"] == again["metrics"]


def test_an_engine_that_seeds_each_sample_draws_no_more_than_asked_in_few_calls(tmp_path):
    _, calls = run(tmp_path, Amount(3, 4, (1,)), depends_on_batch=False)
    assert calls == [[12]]
    assert set(samples_of(tmp_path)) == set(itertools.product(range(3), range(4)))


@pytest.mark.parametrize("cut", [1, 30])
def test_an_interrupted_evaluation_goes_on_where_it_stopped(tmp_path, cut):
    run(tmp_path / "whole", Amount(5, 4, (1, 4)))

    class StoppedError(Exception):
        pass

    calls = itertools.count()

    def until_the_third(rows, seeds):
        if next(calls) == 3:
            raise StoppedError
        return draw_answers(rows, seeds)

    with pytest.raises(StoppedError):
        run(tmp_path / "cut", Amount(5, 4, (1, 4)), draw=until_the_third)
    path = tmp_path / "cut" / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])  # killed while it wrote the last line
    assert not (tmp_path / "cut" / "results.json").exists()
    _, sizes = run(tmp_path / "cut", Amount(5, 4, (1, 4)))
    assert sum(sizes[0]) < 20 - 3
    assert samples_of(tmp_path / "cut") == samples_of(tmp_path / "whole")


def test_samples_of_other_settings_are_not_mixed(tmp_path):
    run(tmp_path, Amount(5, 1, (1,)))
    with pytest.raises(RunError) as caught:
        run(tmp_path, Amount(5, 1, (1,)), settings=SETTINGS | {"sampling": {"top_p": 1.0, "temperature": 0.5}})
    assert str(caught.value) == (
        f"{tmp_path}: its samples were drawn with sampling.temperature=1.0, not 0.5; name another folder, or remove "
        "this one"
    )


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path):
    first = SampleFile(tmp_path, SETTINGS)
    with pytest.raises(RunError, match="another process evaluates into it"):
        run(tmp_path, Amount(5, 1, (1,)))
    del first
    run(tmp_path, Amount(5, 1, (1,)))


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file/x: cannot be written"):
        run(tmp_path / "file" / "x", Amount(5, 1, (1,)))


def test_pass_at_k_counts_samples_of_the_same_question(tmp_path):
    first_only = {"countdown_equation": lambda completions, **kwargs: [float(next(draws) < 2) for _ in completions]}
    draws = itertools.count()  # the first call draws sample 0 of questions 0 and 1
    metrics = values_of(run(tmp_path, Amount(2, 4, (1, 2, 4)), rewards=first_only)[0])
    assert metrics["accuracy"] == metrics["pass@1"] == 0.25
    assert metrics["pass@2"] == pytest.approx(0.5)
    assert metrics["pass@4"] == 1.0


def test_partial_credit_is_no_right_answer_and_other_rewards_tell_only_their_mean(tmp_path):
    rewards = {
        "think_answer_format": lambda completions, **kwargs: [0.5] * len(completions),
        "countdown_equation": lambda completions, **kwargs: [0.1] * len(completions),
    }
    metrics = values_of(run(tmp_path / "both", Amount(5, 1, (1,)), rewards=rewards)[0])
    assert (metrics["think_answer_format"], metrics["countdown_equation"]) == pytest.approx((0.5, 0.1))
    assert (metrics["accuracy"], metrics["well_formed"], metrics["right_and_well_formed"]) == (0.0, 0.0, 0.0)
    del rewards["countdown_equation"]
    metrics = values_of(run(tmp_path / "form", Amount(5, 1, (1,)), rewards=rewards)[0])
    assert "accuracy" not in metrics
    assert "pass@1" not in metrics
    assert metrics["well_formed"] == 0.0


def test_a_reward_that_is_no_number_is_refused_with_its_completion(tmp_path):
    rewards = {"mine": lambda completions, **_: [1.0, float("nan")][: len(completions)]}
    with pytest.raises(RewardError, match=r"fn=mine: returned nan on row 1 of 2, prompt 'p1', completion .*; fix the"):
        run(tmp_path, Amount(5, 1, (1,)), rewards=rewards)


def test_a_reward_that_gives_none_counts_the_same_when_it_is_read_back(tmp_path):
    rewards = {"mine": lambda completions, **_: [1.0, None][: len(completions)]}
    first, again = (run(tmp_path, Amount(5, 1, (1,)), rewards=rewards)[0]["metrics"] for _ in range(2))
    assert first == again
    assert first["mine"]["value"] == 1.0


def test_a_reward_that_judges_nothing_is_null(tmp_path):
    results, _ = run(tmp_path, Amount(5, 1, (1,)), rewards={"mine": lambda completions, **_: [None] * len(completions)})
    assert results["metrics"]["mine"] == {"value": None, "error": None}
    assert results["metrics"]["length"]["value"] == 3.0
