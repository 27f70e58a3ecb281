"""Which runs count in a verdict, and what stands beside it: reports of files and run directories that went wrong."""

import json

import numpy as np
import pytest
import yaml
from made_runs import FAILED, ONE_REWARD, RUNNING, history, study

from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.runs.lock import try_lock
from rl_posttrain.study.absent import Absent
from rl_posttrain.study.histories import Collection, read_runs
from rl_posttrain.study.judging import judge
from rl_posttrain.study.outcomes import Share


def write_csv(folder, name, rewards, steps=None):
    folder.mkdir(exist_ok=True)
    steps = range(1, len(rewards) + 1) if steps is None else steps
    rows = "".join(f"{step},{reward:.6f}\n" for step, reward in zip(steps, rewards, strict=True))
    (folder / f"{name}.csv").write_text("step,reward\n" + rows)


def curve(level, number=100, *, nan_from=None, seed=0):
    rewards = level * np.minimum(1.0, np.arange(1, number + 1) / 40) + np.random.default_rng(seed).normal(
        0, 0.01, number
    )
    if nan_from is not None:
        rewards[nan_from - 1 :] = np.nan
    return rewards


def judged(folder, *, planned_steps=None, **terms):
    """The same from Python, without the page."""
    return judge(read_runs([folder], planned_steps=planned_steps), **terms).as_dict()


@pytest.fixture
def report(tmp_path, run_main):
    """What `report --json` says of the runs in a folder."""

    def report(folder, *options):
        status, stdout, stderr = run_main("report", folder, "--out", tmp_path / "page", "--json", *options)
        assert (status, stderr) == (0, ""), stderr
        return json.loads(stdout)

    return report


def test_runs_that_end_in_nan_are_no_better_ones(tmp_path, report):
    for seed in range(3):
        write_csv(tmp_path / "runs", f"adamw-seed{seed}", curve(0.4, seed=seed))
        write_csv(tmp_path / "runs", f"adams-seed{seed}", curve(0.9, nan_from=45, seed=seed))
    unknown = judged(tmp_path / "runs")
    assert unknown["comparisons"][0]["sentence"] == (
        "adams: no verdict: 3 of 3 runs of adams and 0 of 3 runs of adamw failed, and count as nothing, for the lowest "
        "reward is not known: set --range LOW,HIGH, or --failed"
    )
    shares = {variant["variant"]: variant["failed"] for variant in unknown["variants"]}
    assert shares["adams"] == {"count": 3, "interval": (pytest.approx(0.05 ** (1 / 3)), 1.0)}
    known = report(tmp_path / "runs", "--range", "0,1")
    assert known["comparisons"][0]["word"] == "worse"
    assert (
        "3 of 6 runs failed, and each counts as 0: adams-seed0 (its reward is not finite since step 45)"
        in (known["notices"][0])
    )
    assert judged(tmp_path / "runs", failed=0.1)["comparisons"][0]["word"] == "worse"
    assert judged(tmp_path / "runs", reward_range=(0, 1), failed="none")["comparisons"][0]["word"] == "none"


def make_run(path, recipe, rewards, *, stopped=False, done=True):
    run = RunDirectory.create(path, recipe_yaml=yaml.safe_dump(recipe))
    for step, reward in enumerate(rewards, 1):
        run.append_metrics({"step": step, "reward": reward, "prompts_sha256": f"{recipe['run']['seed']}-{step}"})
    run.write_environment({"initial_weights_sha256": f"of seed {recipe['run']['seed']}"})
    if stopped:
        run.write_stopped({"step": len(rewards), "guard": "entropy", "policy": "stop", "saw": "entropy is 0"})
    elif done:
        run.write_summary({"steps": len(rewards)})


def recipe_of(optimizer, seed):
    return ONE_REWARD | {
        "run": {"seed": seed, "name": f"{optimizer}-seed{seed}"},
        "optimizer": {"name": optimizer},
        "algorithm": {"num_steps": 20},
    }


def test_runs_that_guards_stopped_count_as_the_worst(tmp_path, report):
    for seed in range(6):
        make_run(tmp_path / "runs" / f"adamw-seed{seed}", recipe_of("adamw", seed), [0.5 + 0.01 * seed] * 20)
        stopped = seed >= 3
        rewards = [0.7 + 0.012 * seed] * (8 if stopped else 20)
        make_run(tmp_path / "runs" / f"adams-seed{seed}", recipe_of("adams", seed), rewards, stopped=stopped)
    found = report(tmp_path / "runs")
    assert found["comparisons"][0]["word"] == "undecided"
    assert found["comparisons"][0]["num_pairs"] == 6
    assert found["comparisons"][0]["difference"] == pytest.approx((0.7 + 0.712 + 0.724) / 6 - 0.525)
    failed = {variant["variant"]: variant["failed"]["count"] for variant in found["variants"]}
    assert failed == {"adams": 3, "adamw": 0}
    assert "adams-seed3 (stopped by guards.entropy after 8 of 20 steps)" in found["notices"][0]


def test_runs_that_a_comparison_planned_and_that_never_began_count_too(tmp_path, report):
    (tmp_path / "cmp" / "recipes").mkdir(parents=True)
    for seed in range(3):
        for optimizer, level in (("adamw", 0.5), ("adams", 0.6)):
            recipe = recipe_of(optimizer, seed)
            (tmp_path / "cmp" / "recipes" / f"{optimizer}-seed{seed}.yaml").write_text(yaml.safe_dump(recipe))
            if (optimizer, seed) != ("adams", 2):
                make_run(tmp_path / "cmp" / f"{optimizer}-seed{seed}", recipe, [level + 0.01 * seed] * 20)
    found = report(tmp_path / "cmp")
    missing = next(run for run in found["runs"] if run["run"] == "adams-seed2")
    assert (missing["outcome"], missing["reason"]) == ("failed", "planned, and never begun")
    assert (missing["variant"], missing["counted"]) == ("adams", 0.0)
    assert found["comparisons"][0]["word"] == "undecided"
    # Whoever names some of the runs reads of the others.
    some = read_runs([tmp_path / "cmp" / f"{name}-seed{seed}" for name in ("adams", "adamw") for seed in (0, 1)])
    assert some.left_out == [
        f"adams-seed2, adamw-seed2: planned by the comparison in {tmp_path / 'cmp'}, and not named"
    ]
    # While the comparison lives, it may still begin.
    with (tmp_path / "cmp" / "recipes" / ".lock").open("a") as lock:
        assert try_lock(lock)
        (waiting,) = read_runs([tmp_path / "cmp"]).absent
        assert (waiting.outcome.word, waiting.outcome.reason) == ("running", "it has not begun")
        found = judged(tmp_path / "cmp")
    assert found["comparisons"][0]["sentence"] == "adams: no verdict: still training: adams-seed2 (it has not begun)"


def test_a_short_and_a_long_log_of_one_curve(tmp_path, report):
    for seed in range(3):
        write_csv(tmp_path / "runs", f"adamw-seed{seed}", curve(0.5, 100, seed=seed))
        write_csv(tmp_path / "runs", f"adams-seed{seed}", curve(0.5, 1000, seed=seed + 9))
    found = judged(tmp_path / "runs", measure="auc", reward_range=(0, 1))
    assert found["comparisons"][0]["sentence"] == (
        "adams: no verdict: all runs of adamw end at step 100, and others at 1000; set --planned-steps 1000 if they "
        "were cut short, or 100 to compare the first 100 steps of all"
    )
    found = report(tmp_path / "runs", "--measure", "auc", "--range", "0,1", "--planned-steps", "100")
    assert found["comparisons"][0]["word"] == "equivalent"
    found = judged(tmp_path / "runs", measure="auc", reward_range=(0, 1), planned_steps=1000)
    assert found["comparisons"][0]["word"] == "better"  # as the user says: they failed


def test_csvs_that_are_cut_short_have_failed(tmp_path):
    for seed in range(3):
        write_csv(tmp_path / "runs", f"adamw-seed{seed}", curve(0.5, seed=seed))
        write_csv(tmp_path / "runs", f"adams-seed{seed}", curve(0.8, 42 if seed else 100, seed=seed))
    found = judged(tmp_path / "runs", reward_range=(0, 1))
    assert found["comparisons"][0]["word"] == "undecided"
    assert [variant["failed"]["count"] for variant in found["variants"]] == [2, 0]


def test_seeds_without_a_partner_take_part(tmp_path, report):
    for seed in range(6):
        write_csv(tmp_path / "runs", f"adamw-seed{seed}", curve(0.5, seed=seed))
    for seed in range(3, 9):
        write_csv(tmp_path / "runs", f"adams-seed{seed}", curve(0.6 if seed < 6 else 0.05, seed=seed))
    guessed = judged(tmp_path / "runs", reward_range=(0, 1))
    assert guessed["comparisons"][0]["word"] == "undecided"
    assert not guessed["comparisons"][0]["paired"]
    said = " ".join(guessed["notices"])
    assert "seeds 3, 4, 5 are not paired: seeds are guessed from the names of files" in said
    assert "seeds without a partner count too, unpaired: 6, 7, 8 of the variant, 0, 1, 2 of the baseline" in said
    paired = report(tmp_path / "runs", "--range", "0,1", "--paired")
    assert (paired["comparisons"][0]["num_pairs"], paired["comparisons"][0]["singles"]) == (3, [3, 3])
    assert paired["comparisons"][0]["word"] == "undecided"
    assert any("seeds 3, 4, 5 are paired as --paired says" in notice for notice in paired["notices"])


def test_all_runs_at_the_floor_are_not_equivalent(tmp_path):
    for seed in range(3):
        for name in ("adamw", "adams"):
            write_csv(tmp_path / "runs", f"{name}-seed{seed}", np.zeros(30))
    found = judged(tmp_path / "runs", reward_range=(0, 1))
    assert found["comparisons"][0]["sentence"] == (
        "adams: no verdict: all runs are at 0, the floor of the reward (0), at every step: no measure can tell them "
        "apart; make the task easier, or train longer"
    )


def test_runs_that_end_alike_on_different_ways_have_another_measure(tmp_path):
    for seed in range(3):
        for name, start in (("adamw", 0.5), ("adams", 0.2)):
            rewards = np.r_[np.full(15, start), np.ones(15)]
            write_csv(tmp_path / "runs", f"{name}-seed{seed}", rewards)
    found = judged(tmp_path / "runs", reward_range=(0, 1))
    assert found["comparisons"][0]["sentence"] == (
        "adams: no verdict: all runs are at 1, the ceiling of the reward (1): the measure final cannot tell variants "
        "apart here; the area (--measure auc) or the time to a threshold may"
    )


@pytest.mark.parametrize(
    ("level", "end"), [(0.0, "the floor of the reward (0)"), (1.0, "the ceiling of the reward (1)")]
)
def test_the_end_of_the_range_is_named(level, end):
    judgement = judge(study({"adams": [level] * 3, "adamw": [level] * 3}, recipe=ONE_REWARD), measure="auc")
    assert judgement.comparisons[0].word == "none"
    assert end in judgement.comparisons[0].sentence
    near = [abs(level - 0.01), abs(level - 0.02), abs(level - 0.005)]
    judgement = judge(study({"adams": near, "adamw": near[::-1]}, recipe=ONE_REWARD))
    assert any(f"all runs are within 0.025 of one value, {end}" in notice for notice in judgement.notices)


def test_without_a_range_the_same_value_everywhere_is_no_verdict():
    sentence = judge(study({"adams": [0.3] * 3, "adamw": [0.3] * 3})).comparisons[0].sentence
    assert sentence.startswith("adams: no verdict: all runs are at 0.3")


def collapsing(level=0.8, *, seed=0, **options):
    rewards = np.r_[np.linspace(0, level, 40), np.full(30, level), np.full(30, 0.1)]
    return history(rewards, name=f"adams-{seed}", seed=seed, recipe=ONE_REWARD, **options)


def test_collapses_are_counted_and_said():
    runs = [history(curve(0.8, seed=seed), name=f"adams-{seed}", seed=seed, recipe=ONE_REWARD) for seed in range(4)]
    base = [
        history(curve(0.5, seed=9 + seed), name=f"adamw-{seed}", variant="adamw", seed=seed, recipe=ONE_REWARD)
        for seed in range(5)
    ]
    judgement = judge(Collection([*runs, collapsing(seed=4), *base], []))
    assert judgement.collapsed == {"adams": Share(1, 5), "adamw": Share(0, 5)}
    assert "adams-4" in next(notice for notice in judgement.notices if notice.startswith("collapsed"))
    quiet = judge(Collection([*runs, *base[:4]], [])).comparisons[0]
    assert quiet.word == "better"
    assert quiet.cannot_exclude == (
        "0 of 4 runs of each failed or collapsed, which still allows 53 % (one-sided 95 % bound)"
    )
    assert quiet.sentence.endswith(quiet.cannot_exclude)


def test_a_run_that_never_learned_collapsed_where_its_variants_others_did_learn():
    judgement = judge(study({"adams": [0.8, 0.82, 0.1], "adamw": [0.1, 0.12, 0.1]}, recipe=ONE_REWARD))
    assert judgement.collapsed == {"adams": Share(1, 3), "adamw": Share(0, 3)}


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_without_a_range_a_collapse_is_seen_by_the_variants_own_curves(scale):
    levels = [0.8, 0.82, 0.1]
    rewards = [np.r_[np.linspace(0, 0.8, 50), np.full(50, level)] * scale for level in levels]
    noise = [0.5 * scale + curve(0.0, seed=seed) for seed in range(3)]
    runs = [history(found, name=f"adams-{seed}", seed=seed) for seed, found in enumerate(rewards)]
    runs += [history(found, name=f"adamw-{seed}", variant="adamw", seed=seed) for seed, found in enumerate(noise)]
    assert judge(Collection(runs, [])).collapsed == {"adams": Share(1, 3), "adamw": Share(0, 3)}


def test_a_failed_run_is_no_collapsed_one():
    judgement = judge(Collection([collapsing(seed=seed, outcome=FAILED) for seed in range(3)], []))
    assert (judgement.failed["adams"], judgement.collapsed["adams"]) == (Share(3, 3), Share(0, 3))


def test_a_variant_without_any_step_counts():
    collection = study({"adamw": [0.5, 0.51, 0.52]}, recipe=ONE_REWARD)
    absent = [Absent(f"sgd-{seed}", None, "sgd", seed, ONE_REWARD, FAILED) for seed in range(3)]
    judgement = judge(Collection(collection.runs, [], absent))
    assert [(found.variant, found.word) for found in judgement.comparisons] == [("sgd", "worse")]
    assert judgement.values("sgd", "final") == [0.0] * 3
    waiting = [Absent("sgd-0", None, "sgd", 0, ONE_REWARD, RUNNING)]
    assert judge(Collection(collection.runs, [], waiting)).comparisons[0].word == "none"


def test_values_that_were_not_finite_and_recovered_are_said():
    runs = [history([0.5] * 10, name="adams-0", recipe=ONE_REWARD, non_finite=[0, 1, 1] + [0] * 7)]
    notice = "a reward, loss or gradient norm was not finite, and the run recovered: adams-0 (2 steps)"
    assert notice in judge(Collection(runs, [])).notices


@pytest.mark.parametrize(("value", "said"), [(7.0, True), (0.0, False)])
def test_failed_runs_that_count_as_more_than_finished_ones_are_said(value, said):
    failed = [history([0.1] * 10, name=f"sgd-{s}", variant="sgd", seed=s, outcome=FAILED) for s in range(3)]
    runs = study({"adamw": [0.5, 0.51, 0.52]}).runs + failed
    notice = "a failed run counts as 7, and 3 of 3 finished runs have less"
    assert any(found.startswith(notice) for found in judge(Collection(runs, []), failed=value).notices) == said


def test_copies_of_one_run_are_said():
    def run(variant, seed, rewards):
        return history(rewards, name=f"{variant}-{seed}", variant=variant, seed=seed)

    rising, other = np.linspace(0, 1, 10), np.linspace(0.1, 1, 10)
    runs = [run("adamw", 0, rising), run("adamw", 1, other), run("adamw", 2, rising), run("adams", 0, rising)]
    copies = [found for found in judge(Collection(runs, [])).notices if "copies of one run" in found]
    assert copies == [
        "the same rewards at every step, as copies of one run have, though each counts by itself: adamw-2 and adamw-0"
    ]
    runs = [run("adamw", seed, [0.5] * 10) for seed in range(3)]  # a task on which nothing moves
    assert not any("copies" in found for found in judge(Collection(runs, [])).notices)
