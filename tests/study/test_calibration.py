"""How often verdicts are wrong on runs whose truth is known; `experiments/verdicts/calibration.py` in small."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "experiments" / "verdicts"))
import calibration
from calibration import EQUAL, MARGIN, NOT_EQUAL, Scenario

NORMAL = Scenario("normal", spread=0.028)


def test_equal_optimizers_are_seldom_called_different():
    counts = calibration.simulate(NORMAL, 0.0, 100, seed=1)
    assert counts.total() == 100
    assert counts["better"] + counts["worse"] <= 7
    assert counts["equivalent"] > 50  # and often told to be equal


def test_a_difference_of_twice_the_margin_is_found():
    counts = calibration.simulate(NORMAL, 2 * MARGIN, 100, seed=1)
    assert counts["better"] >= 80
    assert counts["worse"] == counts["equivalent"] == 0


@pytest.mark.parametrize("difference", [MARGIN, -MARGIN])
def test_a_difference_of_the_margin_is_seldom_called_equivalent(difference):
    assert calibration.simulate(NORMAL, difference, 100, seed=1)["equivalent"] <= 9


def test_what_few_seeds_cannot_show_is_said_with_every_wrong_verdict():
    scenario = Scenario("a fifth of the variant's collapses", 3, collapse=0.2)
    found = calibration.false_reports(scenario, NOT_EQUAL, 60, seed=1)
    assert len(found) >= 5  # seeds that did not collapse say nothing of those that would
    assert all(found)


def test_runs_that_end_at_the_floor_are_not_called_equivalent():
    scenario = next(one for one in calibration.scenarios() if one.floor)
    assert set(calibration.simulate(scenario, MARGIN, 20, seed=1)) == {"none"}


def test_the_true_difference_is_the_margin_in_the_mean():
    for scenario in calibration.scenarios():
        difference = calibration.true_difference(scenario)
        lost = scenario.collapse * 0.6 + scenario.failure * (scenario.plateau + difference)
        base = scenario.baseline_collapse * 0.6 + scenario.baseline_failure * scenario.plateau
        if scenario.truths != (EQUAL,):
            assert abs(difference - lost + base) >= MARGIN - 1e-12
        if EQUAL in scenario.truths:
            equal = scenario.lead - scenario.collapse * 0.6 + scenario.baseline_collapse * 0.6
            assert equal == pytest.approx(0.0, abs=1e-12)


@pytest.mark.long
@pytest.mark.parametrize("scenario", list(calibration.scenarios()), ids=str)
def test_wrong_verdicts_are_rare_or_carry_a_notice(scenario):
    for truth in scenario.truths:
        found = calibration.false_reports(scenario, truth, 300, seed=2)
        assert len(found) <= 0.085 * 300 or sum(found) >= 0.95 * len(found)  # 7 %, and one standard error


def test_the_calibration_prints_its_table(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["calibration.py", "--comparisons", "2", "--only", "all runs fails"])
    calibration.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("| a fifth of all runs fails")]
    assert len(rows) == 3
    assert all(re.search(r"\| [\d.*]+ %(\*\*)? \|", row) for row in rows)


def test_scenarios_differ_in_their_random_numbers():
    few = dataclasses.replace(NORMAL, num_seeds=3)
    values = [list(next(calibration.judgements(one, 0.0, 1, 0)).counted.values()) for one in (NORMAL, few)]
    assert values[0][:3] != values[1][:3]
