"""Which samples are still drawn, and in which batches."""

import itertools

from rl_posttrain.evaluation.blocks import BLOCK_SIZE, missing_blocks, seed_of


def places(blocks):
    return list(itertools.chain(*(block.places for block in blocks)))


def batches(num_rows, num_questions, num_samples, drawn=()):
    return {
        (block.start, block.stop, block.sample)
        for block in missing_blocks(num_rows, num_questions, num_samples, drawn, whole=True)
    }


def test_every_sample_that_was_asked_for_is_drawn_once():
    for num_questions in (1, 63, 64, 65, 200):
        drawn = places(missing_blocks(1000, num_questions, 3, (), whole=False))
        assert sorted(drawn) == list(itertools.product(range(num_questions), range(3)))


def test_a_whole_block_is_the_same_block_however_much_is_asked_for():
    all_of_it = batches(150, 150, 4)
    assert {(0, 64, 0), (64, 128, 3), (128, 150, 1)} <= all_of_it
    for num_questions, num_samples in itertools.product((1, 64, 65, 149), (1, 3)):
        assert batches(150, num_questions, num_samples) <= all_of_it


def test_more_samples_or_questions_draw_only_what_is_missing():
    first = places(missing_blocks(150, 70, 2, (), whole=True))
    rest = places(missing_blocks(150, 150, 4, set(first), whole=True))
    assert not set(first) & set(rest)
    assert set(first) | set(rest) == set(itertools.product(range(150), range(4)))
    assert missing_blocks(150, 70, 2, set(first), whole=True) == []


def test_a_block_that_was_drawn_in_part_is_drawn_again_as_a_whole():
    (block,) = missing_blocks(BLOCK_SIZE, BLOCK_SIZE, 1, {(0, 0)}, whole=True)
    assert (block.start, block.stop) == (0, BLOCK_SIZE)


def test_a_seed_for_each_question_and_sample():
    seeds = {seed_of(seed, question, sample) for seed in range(3) for question in range(50) for sample in range(8)}
    assert len(seeds) == 3 * 50 * 8
