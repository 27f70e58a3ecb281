"""Seeds that are added until all is decided: levels, looks, the plan on disk, and the command on written runs."""

import json
import sys
from pathlib import Path

import pytest
from scipy import stats
from synthetic import finish

from rl_posttrain.errors import RecipeError, RunError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.study.designs import as_compared
from rl_posttrain.study.estimates import Estimate
from rl_posttrain.study.histories import read_runs
from rl_posttrain.study.judging import judge
from rl_posttrain.study.monitor import Monitor, make_plan, open_monitor, read_monitor, write_monitor
from rl_posttrain.study.plan import plan_seeds, plan_variants
from rl_posttrain.study.sequential import SequentialPlan, plan_looks, sequence_of_seeds
from rl_posttrain.study.spending import nominal_levels

sys.path.append(str(Path(__file__).resolve().parents[2] / "experiments" / "verdicts"))
from sequential import UNPLANNED, simulate

STEPS = "algorithm.num_steps=10"
QUICKSTART = load_recipe("quickstart", [STEPS])


def plan_of(*variants: str, looks=(4, 8, 16), **changes) -> SequentialPlan:
    seeds = tuple(range(looks[-1]))
    return SequentialPlan(("adamw", *variants), "adamw", seeds, looks, "final", 0.05, **changes)


def estimate_of(p_different: float, number: int, error=1.0) -> Estimate:
    """A difference so many standard errors from 0 that the paired t test has this p value."""
    t = float(stats.t.isf(p_different / 2, number - 1))
    return Estimate(t * error, error, number - 1, number, True)


# Lan and DeMets' boundaries in standard errors for five even looks, two-sided 0.05, as the field's programs print them.
@pytest.mark.parametrize(
    ("spending", "bounds", "within"),
    [
        ("pocock", (2.438, 2.4268, 2.4101, 2.3966, 2.3859), 0.02),
        ("obrien-fleming", (4.8769, 3.3569, 2.6803, 2.2898, 2.031), 0.02),
    ],
)
def test_levels_are_those_of_the_tables_where_seeds_are_many(spending, bounds, within):
    levels = nominal_levels((4000, 8000, 12000, 16000, 20000), 0.05, 2, spending)
    found = [float(stats.norm.isf(level / 2)) for level in levels]
    # The first boundary of O'Brien and Fleming is crossed once in a million.
    assert found[1:] == pytest.approx(bounds[1:], abs=within)
    assert found[0] == pytest.approx(bounds[0], abs=0.5 if spending == "obrien-fleming" else within)


def test_one_look_has_the_whole_level():
    for sides in (1, 2):
        assert nominal_levels((5,), 0.05, sides, "pocock")[0] == pytest.approx(0.05, abs=0.0007)


def test_looks_grow_by_one_factor():
    assert plan_looks(20) == (4, 6, 8, 11, 14, 20)
    assert plan_looks(3) == (3,)
    assert plan_looks(5) == (4, 5)
    assert plan_looks(50)[0] == 4
    assert plan_looks(50)[-1] == 50


def test_claims_are_rare_without_a_difference_and_common_without_a_plan():
    looks = plan_looks(20)
    false, _, undecided, _ = simulate(300, [0.0], 0.08, looks, 0.05, "pocock", 0)
    assert false <= 0.08
    assert undecided > 0.8
    assert simulate(300, [0.0], 0.08, looks, 0.05, UNPLANNED, 0)[0] > 0.1
    false, true, _, seeds = simulate(100, [0.1, 0.1], 0.02, looks, 0.05, "pocock", 0)
    assert (false, true) == (0, 1)
    assert seeds < 6


def test_a_claim_gives_its_level_to_the_others_and_a_decided_variant_is_tested_no_more():
    plan = plan_of("adams", "sgd")
    monitor = Monitor(plan)
    half, whole = plan.level(0, 2, 2), plan.level(0, 1, 2)
    assert half < whole
    # adams is below the level of two; so sgd may use the whole level.
    monitor.look({"adams": estimate_of(half * 0.9, 4), "sgd": estimate_of((half + whole) / 2, 4)})
    assert [found.word for found in monitor.comparisons()] == ["better", "better"]
    assert not monitor.is_open
    # If it is not, sgd is held against the same level, and neither is claimed.
    monitor = Monitor(plan)
    monitor.look({"adams": estimate_of(half * 1.1, 4), "sgd": estimate_of((half + whole) / 2, 4)})
    assert monitor.undecided == ["adams", "sgd"]
    # At the next look adams is claimed; at the last one sgd has the whole level, and adams is not asked again.
    monitor.look({"adams": estimate_of(plan.level(1, 2, 2) * 0.9, 8), "sgd": estimate_of(0.5, 8)})
    assert monitor.undecided == ["sgd"]
    monitor.look({"sgd": estimate_of(plan.level(2, 1, 2) * 0.99, 16)})
    assert [(found.word, found.num_pairs) for found in monitor.comparisons()] == [("better", 8), ("better", 16)]
    assert (monitor.seeds_of("adams"), monitor.seeds_of("sgd"), monitor.seeds_of("adamw")) == (8, 16, 16)


def test_equivalence_has_levels_of_its_own_and_intervals_are_repeated_ones():
    plan = plan_of("adams")
    monitor = Monitor(plan)
    near = Estimate(0.01, 0.004, 3, 4, True)
    monitor.look({"adams": near})
    (found,) = monitor.comparisons()
    # By hand: both one-sided tests, (0.05 - 0.01) / 0.004 = 10 standard errors to the nearer margin.
    assert found.p_equivalent == pytest.approx(float(stats.t.sf(10, 3)))
    assert found.word == "equivalent"
    assert found.p_equivalent < plan.level(0, 1, 1)
    half = float(stats.t.isf(plan.level(0, 1, 2) / 2, 3)) * 0.004
    assert (found.low, found.high) == pytest.approx((0.01 - half, 0.01 + half))
    assert "(repeated 95 % CI " in found.sentence
    assert "look 1 of 3" in found.sentence


def test_a_plan_is_remembered_and_another_one_is_refused(tmp_path):
    monitor = open_monitor(plan_of("adams"), tmp_path)
    monitor.look({"adams": estimate_of(0.5, 4)})
    write_monitor(monitor, tmp_path)
    again = open_monitor(plan_of("adams"), tmp_path)
    assert again.looks == monitor.looks
    assert again.num_seeds == 8
    for other, said in (
        (plan_of("adams", looks=(4, 8, 20)), "seeds 0,1,2"),
        (plan_of("adams", "sgd"), r"variants adamw,adams, now adamw,adams,sgd"),
        (plan_of("adams", alpha=0.1), "alpha 0.05, now 0.1"),
    ):
        with pytest.raises(RunError, match=rf"--until-decided: .*sequential.json has another plan \({said}"):
            open_monitor(other, tmp_path)
    (tmp_path / "sequential.json").write_text("{}")
    with pytest.raises(RunError, match=r"not what compare --until-decided writes"):
        read_monitor(tmp_path)


def test_seeds_that_somebody_may_have_judged_are_not_used(tmp_path):
    variants = plan_variants(QUICKSTART, [("adams", {}), ("adamw", {})])
    for run in plan_seeds(variants, [0, 1, 2], tmp_path):
        finish(run, 0.5)
    terms = {"max_seeds": 5, "measure": "final", "margin": 0.05}
    plan = make_plan(list(variants), "adamw", tmp_path, first=[], excluded=(4,), **terms)
    assert (plan.seeds, plan.taken, plan.seen) == ((3, 5, 6, 7, 8), (0, 1, 2), ())
    listed = make_plan(list(variants), "adamw", tmp_path, first=[1, 2, 3], **terms)
    assert (listed.seeds, listed.taken, listed.seen) == ((1, 2, 3, 4, 5), (0,), (1, 2))
    open_monitor(plan, tmp_path)
    for run in plan_seeds(variants, [3, 5], tmp_path):
        finish(run, 0.5)
    assert make_plan(list(variants), "adamw", tmp_path, first=[], excluded=(4,), **terms) == plan


def test_seeds_go_on_after_those_of_the_user():
    assert sequence_of_seeds([], 4, ()) == (0, 1, 2, 3)
    assert sequence_of_seeds([7, 3], 4, {8}) == (7, 3, 9, 10)
    with pytest.raises(RecipeError, match="--max-seeds=2: a verdict needs 3 seeds or more"):
        sequence_of_seeds([], 2, ())
    with pytest.raises(RecipeError, match="--seeds=0,1,2,3: more than --max-seeds 3"):
        sequence_of_seeds([0, 1, 2, 3], 3, ())


def test_the_command_stops_where_all_is_decided(run_main, tmp_path):
    """The plan was made before its runs. All that it needs are there, so it trains none."""
    out = tmp_path / "cmp"
    variants = plan_variants(QUICKSTART, [("adams", {}), ("adamw", {}), ("sgd", {})])
    plan = make_plan(list(variants), "adamw", out, first=[], max_seeds=8, measure="final", margin=0.05)
    assert plan.looks == (4, 5, 6, 7, 8)
    out.mkdir()
    open_monitor(plan, out)
    # adams is better from the first look on, so it needs four seeds and no more. sgd spreads in its first four.
    for run in plan_seeds(variants, range(8), out):
        off = (0.03, -0.03, 0.03, -0.03)[run.seed] if run.variant == "sgd" and run.seed < 4 else 0.0
        if run.variant != "adams" or run.seed < 4:
            finish(run, {"adams": 0.7, "adamw": 0.5, "sgd": 0.5}[run.variant] + off)
    arguments = ("compare", "quickstart", STEPS, "--optimizers", "adams,adamw,sgd", "--until-decided", "--out", out)
    status, stdout, stderr = run_main(*arguments, "--max-seeds", "8", "--json")
    assert (status, "started" in stderr) == (0, False), stderr
    found = json.loads(stdout)
    adams, sgd = found["comparisons"]
    assert (adams["word"], adams["num_pairs"]) == ("better", 4)
    assert (sgd["word"], sgd["num_pairs"]) == ("equivalent", plan.looks[len(found["sequential"]["found"]) - 1])
    assert sgd["num_pairs"] > 4
    assert [len(looks) for looks in found["sequential"]["found"]] == [2] + [1] * (len(found["sequential"]["found"]) - 1)
    assert {"adams-seed3", f"sgd-seed{sgd['num_pairs'] - 1}"} <= {run["run"] for run in found["runs"]}
    assert found["sequential"]["found"] == json.loads((out / "sequential.json").read_text())["found"]
    assert "looks at 4, 5, 6, 7 and 8 seeds that were fixed before the first one" in found["terms"]
    assert adams["sentence"].startswith("adams is better than adamw: +0.2 (repeated 95 % CI ")
    # A report on the folder has the verdicts of the looks; against another baseline it says what it is.
    again = as_compared(judge(read_runs([out]), baseline="adamw"), [out])
    verdicts = [comparison.sentence.partition(";")[0] for comparison in again.comparisons]
    assert verdicts == [found["sentence"].partition(";")[0] for found in (adams, sgd)]
    other = as_compared(judge(read_runs([out]), baseline="adams"), [out])
    assert other.monitor is None
    assert other.notices[-1].startswith("seeds were added by looks at final against adamw (sequential.json)")
    status, _, stderr = run_main(*arguments, "--max-seeds", "9")
    assert (status, "has another plan (seeds 0,1,2,3,4,5,6,7, now" in stderr) == (2, True)
    status, _, stderr = run_main(*arguments[:-3], "--max-seeds", "9")
    assert (status, stderr) == (
        2,
        "rl-posttrain: --max-seeds=9: it goes with --until-decided; add --until-decided, or leave it out\n",
    )
