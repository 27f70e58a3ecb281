"""Which runs of one seed are a pair, and what is said of it."""

import dataclasses

import pytest
from made_runs import FAILED, ONE_REWARD, RUNNING, study

from rl_posttrain.study.absent import Absent
from rl_posttrain.study.histories import Collection
from rl_posttrain.study.judging import judge
from rl_posttrain.study.pairs import pairs_with

LEVELS = {"adams": [0.5, 0.6, 0.7, 0.8], "adamw": [0.4, 0.52, 0.58, 0.71]}


def ours():
    return study(LEVELS, recipe=ONE_REWARD)


def changed(collection, name, **fields):
    return Collection(
        [dataclasses.replace(run, **fields) if run.name == name else run for run in collection.runs],
        [],
    )


def test_runs_of_ours_that_recorded_the_same_are_pairs():
    pairs = pairs_with(ours(), "adamw", assumed=False)
    assert pairs.seeds == {"adams": frozenset(range(4))}
    assert pairs.notices == []


@pytest.mark.parametrize("assumed", [False, True])
@pytest.mark.parametrize(
    "fields", [{"environment": {"initial_weights_sha256": "other"}}, {"prompts": ("0-0", "other")}]
)
def test_what_was_found_to_differ_is_never_paired(fields, assumed):
    pairs = pairs_with(changed(ours(), "adams-0", **fields), "adamw", assumed=assumed)
    assert pairs.seeds == {"adams": frozenset({1, 2, 3})}
    assert pairs.notices == ["adams against adamw: seed 0 is not paired: other prompts or other initial weights"]


@pytest.mark.parametrize("fields", [{"environment": {}}, {"prompts": ()}])
def test_what_was_not_recorded_is_paired_where_the_user_says_so(fields):
    collection = changed(ours(), "adams-0", **fields)
    said = "prompts or initial weights were not recorded, so it was not checked that they are the same"
    pairs = pairs_with(collection, "adamw", assumed=False)
    assert pairs.seeds["adams"] == {1, 2, 3}
    assert pairs.notices == [f"adams against adamw: seed 0 is not paired: {said}; --paired makes them pairs"]
    pairs = pairs_with(collection, "adamw", assumed=True)
    assert pairs.seeds["adams"] == {0, 1, 2, 3}
    assert pairs.notices == [f"adams against adamw: seed 0 is paired as --paired says: {said}"]


def test_seeds_from_the_names_of_files_are_guessed():
    pairs = pairs_with(study(LEVELS | {"sgd": [0.1, 0.2, 0.3, 0.4]}), "adamw", assumed=False)
    assert pairs.seeds == {"adams": frozenset(), "sgd": frozenset()}
    assert pairs.notices == [
        "adams, sgd against adamw: seeds 0, 1, 2, 3 are not paired: seeds are guessed from the names of files, and "
        "nothing says that prompts and weights are the same; --paired makes them pairs",
        "adams, sgd against adamw: all runs are compared unpaired (Welch's test)",
    ]


def test_one_of_two_runs_of_a_seed_that_differs_makes_it_no_pair():
    collection = ours()
    again = dataclasses.replace(collection.runs[0], name="again", environment={"initial_weights_sha256": "other"})
    pairs = pairs_with(Collection([*collection.runs, again], []), "adamw", assumed=False)
    assert pairs.seeds["adams"] == {1, 2, 3}


def test_a_run_that_never_began_is_in_no_pair_and_counts():
    collection = ours()
    absent = Absent("adams-0", None, "adams", 0, ONE_REWARD, FAILED)
    collection = Collection(collection.runs[1:], [], [absent])
    judgement = judge(collection)
    assert (judgement.comparisons[0].num_pairs, judgement.comparisons[0].singles) == (3, (1, 1))


def test_a_failed_run_is_in_its_pair():
    collection = changed(ours(), "adams-0", outcome=FAILED, prompts=("0-0", "0-1"))
    judgement = judge(collection)
    assert (judgement.comparisons[0].num_pairs, judgement.comparisons[0].singles) == (4, (0, 0))
    expected = (-0.4 + 0.08 + 0.12 + 0.09) / 4
    assert judgement.comparisons[0].difference == pytest.approx(expected)


def test_of_a_run_that_has_not_begun_nothing_is_said():
    runs = [run for run in ours().runs if run.seed != 3]
    absent = [Absent(f"{variant}-3", None, variant, 3, ONE_REWARD, RUNNING) for variant in LEVELS]
    pairs = pairs_with(Collection(runs, [], absent), "adamw", assumed=False)
    assert pairs.seeds == {"adams": {0, 1, 2}}
    assert pairs.notices == []
