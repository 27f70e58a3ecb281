"""Draws ahead of their steps: what a checkpoint gives back of them, to whom, and what is made again."""

import contextlib
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl_posttrain.rollout.engine import Sampling
from rl_posttrain.rollout.transformers import TransformersEngine
from rl_posttrain.training.ahead import DRAWN_AHEAD_FILE, DrawsAhead

SAMPLING = Sampling(max_tokens=3, other={"eta_cutoff": 0.0})
# Token ids of four prompts of each step.
PROMPTS = {step: [[10 * step + number] for number in range(4)] for step in range(1, 9)}


@pytest.fixture(scope="module")
def make(tiny_model):
    """Draws by the tiny model, which nobody trains."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    engine = TransformersEngine(lambda: contextlib.nullcontext(model), tokenizer, [tokenizer.eos_token_id])
    made = []

    def make(staleness: int, sampling: Sampling = SAMPLING) -> DrawsAhead:
        made.append(DrawsAhead(engine, sampling, staleness, shares_cores=False))
        return made[-1]

    yield make
    for draws in made:
        draws.close()


@pytest.fixture(scope="module")
def saved(make, tmp_path_factory):
    """A checkpoint after step 3 of a run with staleness 2: steps 4 and 5, of the weights after steps 1 and 2."""
    folder, draws = tmp_path_factory.mktemp("saved"), make(2)
    for step in (4, 5):
        draws.begin(step, step - 3, PROMPTS[step], [0, 1, 2, 3])
    draws.save(folder, 3, lambda found: found, writes=True)
    return folder


def loaded(draws: DrawsAhead, folder, prompts=PROMPTS, rank: int = 0, processes: int = 1) -> list[int]:
    """The steps of which `draws` has taken the completions."""
    share = 4 // processes

    def of_process(step: int) -> list[list[int]]:
        return prompts[step][rank * share : (rank + 1) * share]

    draws.load(folder, of_process, rank, lambda found: found)
    return [step for step in range(1, 9) if not draws.lacks(step)]


def test_the_same_run_takes_all_of_them(make, saved):
    draws = make(2)
    assert loaded(draws, saved) == [4, 5]
    kept = json.loads((saved / DRAWN_AHEAD_FILE).read_text())
    for step, weights_step in ((4, 1), (5, 2)):
        completions, seconds = draws.take(step)
        assert [each.token_ids for each in completions] == [one["token_ids"] for one in kept[str(step)]["completions"]]
        assert [each.prompt_ids for each in completions] == PROMPTS[step]
        assert {each.weights_step for each in completions} == {weights_step}
        assert seconds == kept[str(step)]["seconds"]
    # What is left to begin, up to the last step.
    assert draws.missing(5, 8) == [6, 7]
    assert draws.missing(5, 6) == [6]
    assert draws.missing(5, 5) == []


def test_each_of_two_processes_takes_its_own(make, saved):
    for rank in (0, 1):
        draws = make(2)
        assert loaded(draws, saved, rank=rank, processes=2) == [4, 5]
        assert [each.prompt_ids for each in draws.take(4)[0]] == PROMPTS[4][2 * rank : 2 * rank + 2]


def test_what_does_not_fit_any_more_is_made_again(make, saved):
    # At staleness 1 step 4 needs the weights after step 2 at least, and step 5 those after step 3.
    assert loaded(make(1), saved) == []
    assert loaded(make(3), saved) == [4, 5]
    for sampling in (Sampling(max_tokens=3, temperature=0.7), Sampling(max_tokens=4, other={"eta_cutoff": 0.0})):
        assert loaded(make(2, sampling), saved) == []
    assert loaded(make(2), saved, prompts=PROMPTS | {4: PROMPTS[7]}) == [5]


def test_nothing_is_left_of_what_is_forgotten(make):
    draws = make(1)
    draws.begin(2, 1, PROMPTS[2], [0, 1, 2, 3])
    draws.forget()
    assert draws.lacks(2)
    assert draws.missing(2, 8) == [2, 3]


def test_completions_are_handed_out_as_the_engine_gave_them(make):
    """Whoever is handed them writes rewards into them; a step that is dropped is taken again."""
    draws = make(1)
    draws.begin(2, 1, PROMPTS[2], [0, 1, 2, 3])
    first, _ = draws.take(2)
    first[0].reward, first[0].text = 1.0, "changed"
    again, _ = draws.take(2)
    assert (again[0].reward, again[0].text) == (None, "")
    assert [each.token_ids for each in again] == [each.token_ids for each in first]
    draws.begin(3, 2, PROMPTS[3], [0, 1, 2, 3])
    draws.take(3)
    assert draws.lacks(2)
