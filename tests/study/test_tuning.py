"""Tuning: parsed, searched, widened, written down and judged on other seeds. Runs are written, not trained."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import run_command
from synthetic import finish

from rl_posttrain.errors import RecipeError, RunError
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.study.designs import as_compared
from rl_posttrain.study.histories import read_runs
from rl_posttrain.study.judging import judge
from rl_posttrain.study.plan import PlannedRun, plan_runs
from rl_posttrain.study.search import Search
from rl_posttrain.study.tuning import Tuned, read_tuned, read_tuning

STEPS = "algorithm.num_steps=10"
QUICKSTART = load_recipe("quickstart", [STEPS])
GRID = ["optimizer.lr=3e-6,1e-5,3e-5"]


def rate_of(run: PlannedRun) -> float:
    return run.recipe.optimizer.lr


def near(best: dict[str, float]) -> Callable[[PlannedRun], float]:
    """A reward that is highest at an optimizer's best rate, and falls with the decades from it."""
    return lambda run: 0.8 - 0.1 * abs(math.log10(rate_of(run) / best[run.recipe.optimizer.name]))


def search(
    folder: Path, reward, tune=GRID, optimizers=("adams", "adamw"), widen=2, seeds="100"
) -> tuple[Tuned, list[list[str]]]:
    """Tune with written runs; also the names of the runs that each round had."""
    tuning = read_tuning(tune, seeds, [0, 1], widen)
    found = Search(tuning, QUICKSTART, [(name, {}) for name in optimizers], folder, measure="final")
    rounds = []
    while found.is_open:
        runs = found.runs()
        rounds.append([run.path.name for run in runs])
        for run in runs:
            if not run.is_finished():
                finish(run, reward(run))
        planned = {run.path: run.recipe.model_dump(mode="json") for run in runs}
        found.look(judge(read_runs([], planned=planned)))
    return found.result, rounds


def rates(tuned: Tuned, name: str) -> list[float]:
    (variant,) = [variant for variant in tuned.variants if variant.name == name]
    return [trial.values["optimizer.lr"] for trial in variant.trials]


def test_the_best_of_each_is_chosen_and_an_edge_widens_the_grids_of_all(tmp_path):
    tuned, rounds = search(tmp_path, near({"adams": 1e-5, "adamw": 1e-4}))
    assert [variant.chosen for variant in tuned.variants] == ["adams-lr=1e-5", "adamw-lr=9e-5"]
    # adamw's best was at its upper edge (3e-5), then at the next one (9e-5); by 2.7e-4 it is inside.
    assert rates(tuned, "adamw") == [3e-6, 1e-5, 3e-5, 9e-5, 2.7e-4]
    # adams got as many trials, first at the end next to which its better neighbour was, then at the nearer end.
    assert rates(tuned, "adams") == [9e-7, 3e-6, 1e-5, 3e-5, 9e-5]
    assert [len(names) for names in rounds] == [6, 8, 10]
    assert rounds[0][:3] == ["adams-lr=3e-6-seed100", "adams-lr=1e-5-seed100", "adams-lr=3e-5-seed100"]
    assert all(not variant.edges for variant in tuned.variants)
    assert tuned.notices() == []
    assert tuned.widened == 2


def test_a_best_value_that_stays_at_the_edge_is_said(tmp_path):
    tuned, _ = search(tmp_path, near({"adams": 1e-5, "adamw": 1.0}), widen=1)
    (notice,) = tuned.notices()
    assert notice.startswith(
        "adamw: its best optimizer.lr=9e-5 is at the edge of its grid (the highest of 3e-6, 1e-5, 3e-5, 9e-5)"
    )
    assert tuned.as_dict()["variants"][1]["edges"] == {"optimizer.lr": "highest"}
    assert len({len(variant.trials) for variant in tuned.variants}) == 1
    assert search(tmp_path / "none", near({"adams": 1e-5, "adamw": 1.0}), widen=0)[0].widened == 0


def test_factors_make_a_grid_around_each_own_rate(tmp_path):
    tuned, _ = search(
        tmp_path,
        near({"adams": 1e-5, "sgd": 1e-2}),
        tune=["optimizer.lr=x0.3,x1,x3"],
        optimizers=("adams", "sgd(lr=1.0e-2)"),
    )
    assert [(variant.name, variant.chosen) for variant in tuned.variants] == [
        ("adams", "adams-lr=1e-5"),
        ("sgd", "sgd-lr=0.01"),
    ]
    assert rates(tuned, "adams") == [3e-6, 1e-5, 3e-5]
    assert rates(tuned, "sgd") == [3e-3, 1e-2, 3e-2]


def test_several_keys_make_the_product_grid_and_words_have_no_edge(tmp_path):
    def reward(run):
        return near({"adams": 1e-5})(run) + 0.1 * (run.recipe.algorithm.loss == "grpo")

    tuned, rounds = search(tmp_path, reward, tune=[*GRID, "algorithm.loss=dapo,grpo"], optimizers=("adams",))
    (adams,) = tuned.variants
    assert adams.best.values == {"optimizer.lr": 1e-5, "algorithm.loss": "grpo"}
    assert adams.edges == {}
    assert len(rounds) == 1
    assert len(rounds[0]) == 6


def test_a_value_that_no_recipe_takes_is_no_edge(tmp_path):
    # gamma is at most 1: the upper edge is the end of what there is.
    ppo = load_recipe("quickstart", ["algorithm.name=ppo", STEPS])
    found = Search(read_tuning(["critic.gamma=0.5,1.0"], "7", [0], 2), ppo, [("adams", {})], tmp_path, measure="final")
    runs = found.runs()
    for run in runs:
        finish(run, run.recipe.critic.gamma / 2)
    found.look(judge(read_runs([tmp_path / "tuning"])))
    assert not found.is_open
    assert found.result.variants[0].edges == {}


def test_a_failed_trial_counts_with_the_floor(tmp_path):
    def reward(run):
        # On seed 101 the highest rate diverges: its mean is then 0.45, that of the middle one 0.7.
        return math.nan if rate_of(run) > 2e-5 and run.seed == 101 else {3e-6: 0.1, 1e-5: 0.7, 3e-5: 0.9}[rate_of(run)]

    tuned, _ = search(tmp_path, reward, optimizers=("adams",), seeds="100,101")
    (adams,) = tuned.variants
    assert adams.chosen == "adams-lr=1e-5"
    assert [trial.failed for trial in adams.trials] == [(), (), (101,)]
    assert adams.trials[2].scores == {100: pytest.approx(0.9, abs=0.01), 101: 0.0}
    assert adams.trials[2].mean == pytest.approx(0.45, abs=0.01)


def test_nothing_is_chosen_where_every_run_of_a_variant_failed(tmp_path):
    with pytest.raises(RunError, match="--tune: every tuning run of adamw failed, so there is nothing to choose from"):
        search(tmp_path, lambda run: math.nan if run.recipe.optimizer.name == "adamw" else 0.5)


def test_the_choice_is_written_and_read_back_and_another_grid_is_refused(tmp_path):
    reward = near({"adams": 1e-5})
    tuned, rounds = search(tmp_path, reward, optimizers=("adams",))
    assert read_tuned(tmp_path) == tuned
    again, rounds_again = search(tmp_path, reward, optimizers=("adams",))
    assert (again, rounds_again) == (tuned, rounds)
    larger, _ = search(
        tmp_path, reward, optimizers=("adams",), tune=["optimizer.lr=1e-6,3e-6,1e-5,3e-5"], seeds="100,101"
    )
    assert rates(larger, "adams") == [1e-6, 3e-6, 1e-5, 3e-5]
    with pytest.raises(RunError, match=r"--tune: .*tuning.json was made with --tune optimizer.lr=1e-6,3e-6,1e-5,3e-5 "):
        search(tmp_path, reward, optimizers=("adams",))
    (tmp_path / "tuning.json").write_text('{"keys": 3}')
    with pytest.raises(RunError, match=r"tuning.json: not what compare --tune writes; the file is damaged"):
        search(tmp_path, reward, optimizers=("adams",))


@pytest.mark.parametrize(
    ("tune", "seeds", "message"),
    [
        (["optimizer.lr"], None, "--tune=optimizer.lr: write it as key=a,b,c"),
        (["optimizer.lr=1e-5"], None, "--tune=optimizer.lr=1e-5: a grid has two or more different values"),
        (["optimizer.lr=1e-5,1.0e-5"], None, "--tune=optimizer.lr=1e-5,1.0e-5: a grid has two or more different"),
        (["optimizer.lr=x0.3,1e-5"], None, "--tune=optimizer.lr=x0.3,1e-5: it has values and factors"),
        (["run.seed=1,2"], None, "--tune=run.seed: it does not change what the run learns"),
        (GRID * 2, None, "--tune=optimizer.lr=3e-6,1e-5,3e-5: optimizer.lr is tuned twice"),
        (GRID, "1,100", "--tune-seeds=1,100: 1 would choose and judge"),
        (GRID, "x", "--tune-seeds=x: seeds are whole numbers"),
    ],
)
def test_a_mistake_is_one_line(tune, seeds, message):
    with pytest.raises(RecipeError) as error:
        read_tuning(tune, seeds, [0, 1, 2])
    assert str(error.value).startswith(message)


def test_tuning_seeds_come_after_the_judging_seeds():
    assert read_tuning(GRID, None, [0, 1]).seeds == (100, 101)
    assert read_tuning(GRID, None, [0, 150]).seeds == (151, 152)


def test_compare_tunes_then_judges_fresh_seeds(run_main, tmp_path):
    """The whole command; every run that it would train is there, so it trains none."""
    out = tmp_path / "cmp"
    best = {"adams": 1e-5, "adamw": 3e-5}
    settings = [{"optimizer.lr": rate} for rate in (3e-6, 1e-5, 3e-5, 9e-7, 9e-5)]
    # As `compare --vary optimizer.lr=... --seeds 100,101 --out OUT/tuning` makes them.
    for run in plan_runs(QUICKSTART, ["adams", "adamw"], [100, 101], settings, out / "tuning"):
        finish(run, near(best)(run))
    for run in plan_runs(QUICKSTART, ["adams", "adamw"], [0, 1, 2], settings, out):
        finish(run, near(best)(run) + 0.2 * (run.recipe.optimizer.name == "adams"))
    arguments = (
        "compare",
        "quickstart",
        STEPS,
        "--tune",
        *GRID,
        "--seeds",
        "0,1,2",
        "--baseline",
        "adamw",
        "--out",
        out,
    )
    status, stdout, stderr = run_main(*arguments, "--json")
    assert (status, "started" in stderr) == (0, False), stderr
    found = json.loads(stdout)
    assert {run["run"] for run in found["runs"]} == {
        f"{name}-seed{seed}" for name in ("adams-lr=1e-5", "adamw-lr=3e-5") for seed in (0, 1, 2)
    }
    assert found["baseline"] == "adamw-lr=3e-5"
    assert found["tuning"] == json.loads((out / "tuning.json").read_text())
    assert [variant["chosen"] for variant in found["tuning"]["variants"]] == ["adams-lr=1e-5", "adamw-lr=3e-5"]
    assert (
        "the best of 4 trials of each variant, after a widening, by mean final over tuning seeds 100, 101"
        in found["terms"]
    )
    assert (out / "report" / "tuning.png").stat().st_size > 10_000
    assert stderr.startswith("final is the mean of one step, the last tenth of 10: ")
    assert re.search(r"adams: best adams-lr=1e-5, mean final 0\.(80|79)\d of 4 trials", stderr)
    # A report on the folder says the same of the tuning; one by another measure says nothing of it.
    assert as_compared(judge(read_runs([out]), baseline="adamw-lr=3e-5"), [out]).tuned == read_tuned(out)
    assert as_compared(judge(read_runs([out]), measure="auc"), [out]).tuned is None
    status, _, stderr = run_main(*arguments[:5], "--seeds", "0,100", "--tune-seeds", "100,101", "--out", out)
    assert (status, stderr.startswith("rl-posttrain: --tune-seeds=100,101: 100 would choose and judge")) == (2, True)


@pytest.mark.long
def test_compare_tunes_and_trains(tiny_recipe, tmp_path):
    """Two trials and one judged run, trained."""
    out = tmp_path / "cmp"
    plain = ("rollout.engine=transformers", "distributed.engine=none", "algorithm.num_steps=2")
    tune = ("--tune", "optimizer.lr=1e-4,1e-3", "--tune-seeds", "100", "--tune-widen", "0")
    arguments = ("compare", tiny_recipe, *plain, "--optimizers", "adams", *tune, "--seeds", "0", "--out", out)
    done = run_command(*arguments, "--range", "0,1.5")
    assert done.returncode == 0, done.stderr
    (variant,) = json.loads((out / "tuning.json").read_text())["variants"]
    lower = variant["chosen"] == "adams-lr=0.0001"
    assert variant["edges"] == {"optimizer.lr": "lowest" if lower else "highest"}
    assert {path.name for path in (out / "tuning").glob("*-seed100")} == {
        "adams-lr=0.0001-seed100",
        "adams-lr=0.001-seed100",
    }
    assert [path.name for path in out.glob("*-seed0")] == [f"{variant['chosen']}-seed0"]
    assert "is at the edge of its grid" in done.stdout
