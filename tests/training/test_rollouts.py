"""Drawing and scoring completions, with the tiny model and the recipe's own rewards."""

import pytest

from rl_posttrain.recipe.load import load_recipe


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


def test_every_process_draws_from_seeds_of_its_own(trainer, monkeypatch):
    first = trainer.rollouts.seed(0, "rollout")
    monkeypatch.setattr(trainer.rollouts, "rank", 1)
    assert trainer.rollouts.seed(0, "rollout") != first


def test_a_completion_is_filled_on_the_way(trainer, rows):
    completions, metrics = trainer.rollouts.collect(rows, 0)
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
