"""Drawing and scoring completions, with the tiny model and the recipe's own rewards."""

import json

import pytest

from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.rollout.seeds import derive_seed, seeds_of_samples
from rl_posttrain.training.order import RowsOfSteps


@pytest.fixture(scope="module")
def trainer(tiny_recipe, make_trainer):
    return make_trainer(load_recipe(tiny_recipe, ["distributed.engine=none", "rollout.engine=transformers"]))


@pytest.fixture(scope="module")
def rows(trainer):
    return [dict(trainer.train_dataset[place]) for place in (0, 0, 1, 1)]


def drawn(trainer, rows, *arguments):
    return [completion.token_ids for completion in trainer.rollouts.draw(rows, *arguments)]


def test_a_draw_follows_from_update_and_purpose(trainer, rows):
    first = drawn(trainer, rows, 0, "rollout")
    assert drawn(trainer, rows, 0, "rollout") == first
    assert drawn(trainer, rows, 1, "rollout") != first
    assert drawn(trainer, rows, 0, "evaluation", 0) != first
    assert first[0] != first[1], "completions of one prompt should differ"


def test_a_samples_seed_does_not_know_how_many_processes_share_the_step():
    """Worked out by hand: of a question's samples in the step, the n-th has the seed of its n-th."""
    step = [{"prompt": text} for text in ("a", "a", "b", "b", "a", "b")]
    alone = seeds_of_samples(step, 7, 3, rank=0, gather=lambda mine: mine)
    assert alone == [
        derive_seed(7, 3, f'"{text}"', sample) for text, sample in zip("aabbab", (0, 1, 0, 1, 2, 2), strict=True)
    ]
    assert len(set(alone)) == 6
    for cut in range(7):
        parts = step[:cut], step[cut:]
        questions = [[json.dumps(row["prompt"]) for row in part] for part in parts]
        shared = [
            seed
            for rank, part in enumerate(parts)
            for seed in seeds_of_samples(part, 7, 3, rank=rank, gather=lambda mine, all_of_them=questions: all_of_them)
        ]
        assert shared == alone


def test_a_completion_is_filled_on_the_way(trainer):
    completions, metrics = trainer.rollouts.collect(0)
    rows = RowsOfSteps(trainer, 0)(1)
    assert metrics["new_tokens"] == sum(len(c.prompt_ids) + len(c.token_ids) for c in completions)
    for completion, row in zip(completions, rows, strict=True):
        assert completion.row == row
        assert trainer.processing_class.decode(completion.prompt_ids) == row["prompt"]
        assert trainer.processing_class.decode(completion.token_ids, skip_special_tokens=True) == completion.text
        digits = sum(c.isdigit() for c in completion.text) / max(1, len(completion.text))
        assert completion.rewards["digit_share"] == pytest.approx(digits)
        assert completion.reward == pytest.approx(digits + 0.5 * completion.rewards["math_accuracy"])
        assert completion.advantage is None


def test_weights_are_brought_to_the_engine_once_an_update(trainer, rows, monkeypatch):
    brought = []
    monkeypatch.setattr(trainer.rollouts._engine, "load_weights", lambda weights: brought.append(dict(weights)))
    trainer.rollouts.draw(rows, 5, "rollout")
    trainer.rollouts.draw(rows, 5, "evaluation", 0)
    trainer.rollouts.draw(rows, 6, "rollout")
    names = {name for name, _ in trainer.model.named_parameters()}
    assert [set(weights) for weights in brought] == [names, names]
    trainer.rollouts.weights_changed()  # a run that goes back to a checkpoint has other weights after no update
    trainer.rollouts.draw(rows, 6, "rollout")
    assert len(brought) == 3
