"""What the terminal shows of runs, read back as it was printed."""

import io
import json
import math
import re

import numpy as np
import pytest
import yaml
from rich.console import Console

from rl_posttrain.errors import RunError
from rl_posttrain.runs.directory import RunDirectory
from rl_posttrain.study.bands import band, drawn, t95, whole
from rl_posttrain.study.histories import read_runs
from rl_posttrain.study.judging import judge
from rl_posttrain.views.terminal import print_curves, print_notices, print_runs, print_verdicts, unfinished_and_left_out


def rows_of(rewards, *, tokens=100, **columns):
    rows = []
    for index, reward in enumerate(rewards):
        row = {"step": index + 1, "reward": reward, "seconds": 10.0 + 4.0 * index, "tokens": tokens * (index + 1)}
        row["prompts_sha256"] = f"of step {index}"
        rows.append(row | {key: values[index] for key, values in columns.items()})
    return rows


def run_of(path, rows, *, num_steps=6, finished=False, optimizer=None, seed=0):
    recipe = {"run": {"seed": seed}, "algorithm": {"num_steps": num_steps}}
    if optimizer:
        recipe |= {"optimizer": {"name": optimizer}, "rewards": [{"fn": "math_accuracy", "range": [0, 1]}]}
    run = RunDirectory.create(path, recipe_yaml=yaml.safe_dump(recipe))
    for row in rows:
        run.append_metrics(row)
    run.write_environment({"initial_weights_sha256": f"of seed {seed}"})
    if finished:
        run.write_summary({"steps": len(rows)})
    return path


def console_of(width=80, terminal=False):
    colours = {"force_terminal": True, "color_system": "truecolor"} if terminal else {"force_terminal": False}
    return Console(file=io.StringIO(), width=width, **colours)


def printed(show, what, *, width=80, terminal=False, **options):
    console = console_of(width, terminal)
    show(what, console=console, **options)
    return console.file.getvalue()


def drawn_text(paths, **options):
    return printed(print_curves, read_runs(paths), **options)


def plot_lines(text):
    return [line for line in text.splitlines() if line.endswith("│")]


def test_curves_in_a_pipe(tmp_path):
    first = run_of(tmp_path / "adams", rows_of([0, 0, 0, 0.5, 0.5, 1]), finished=True)
    second = run_of(tmp_path / "[red]adamw", rows_of([0, 0.25]))
    collection = read_runs([first, second])
    text = printed(print_curves, collection, every_run=True)
    assert "\x1b" not in text
    assert text.splitlines()[0] == "reward   * adams   o [red]adamw"
    assert max(map(len, text.splitlines())) <= 80
    # The highest reward is on the top line, at the right end; the lowest on the bottom line, at the left.
    plot = plot_lines(text)
    assert plot[0].startswith("1.00┤")
    assert plot[0].rstrip("│").endswith("*")
    assert "┤o" in plot[-1]


def test_the_table_of_runs(tmp_path):
    first = run_of(tmp_path / "adams", rows_of([0, 0, 0, 0.5, 0.5, 1]), finished=True)
    second = run_of(tmp_path / "[red]adamw", rows_of([0, 0.25]))
    third = run_of(tmp_path / "long", rows_of([0.5] * 7, accuracy=[0.25] * 7, tokens=1234))
    text = printed(print_runs, read_runs([first, second, third]))
    assert "\x1b" not in text
    (line,) = [line for line in text.splitlines() if "6/6" in line]
    # Means of 0 0 0 .5 .5 and of 0 0 .5 .5 1, their difference, the best; no accuracy; median seconds; tokens; state.
    assert " ".join(line.split()) == "adams 6/6 0.200 0.400 +0.200 0.400 - 4.0 600 finished"
    (line,) = [line for line in text.splitlines() if "2/6" in line]
    assert line.rstrip().endswith(" failed")
    assert "[red]adamw" in text
    (line,) = [line for line in text.splitlines() if "7/6" in line]
    assert "0.250  4.0  8,638" in re.sub(r" +", "  ", line)


def test_a_terminal_is_coloured_and_filled(tmp_path):
    run = run_of(tmp_path / "adams", rows_of([0, 0.5, 1]))
    text = drawn_text([run], width=132, terminal=True, keys=("reward", "tokens"), smoothing=2)
    assert "38;2;0;114;178" in text
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, bare.splitlines())) == 132
    assert "reward, mean of 2   ━━ adams" in bare
    assert "tokens, mean of 2   ━━ adams" in bare
    assert "0.75┤" in bare  # mean of the last two rewards


def test_a_narrow_terminal_still_gets_a_plot(tmp_path):
    text = drawn_text([run_of(tmp_path / "quick", rows_of([0, 1]))], width=10)
    assert {len(line) for line in plot_lines(text)} == {40}


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [run_of(tmp_path / folder / "quick", rows_of([0, 1])) for folder in ("a", "b")]
    text = drawn_text(runs, width=300, every_run=True)
    assert f"* {tmp_path}/a/quick" in text
    assert f"o {tmp_path}/b/quick" in text


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            rows_of([1, 1]),
            {"keys": ("reward", "rewad")},
            "other: no finished step recorded 'rewad'; did you mean 'reward'?",
        ),
        (
            rows_of([1, 1], kl=[None, None]),
            {"keys": ("kl",)},
            "quick: no finished step recorded 'kl'; it is absent at `algorithm.kl_coef: 0`",
        ),
        (
            rows_of([1, 1]),
            {"keys": ("num_tokens",)},
            "no finished step recorded 'num_tokens'; its name here is 'tokens'",
        ),
        ([{"step": 1, "reward": 1}], {"axis": "tokens"}, "quick: no finished step recorded 'tokens'; known: "),
        (
            rows_of([1, 1], **{"eval/accuracy": [0.5, None], "seconds": [None, 3.0]}),
            {"keys": ("reward", "eval/accuracy"), "axis": "seconds"},
            "quick: no finished step recorded both 'eval/accuracy' and 'seconds'; set another --axis",
        ),
    ],
)
def test_nothing_is_drawn_rather_than_something_wrong(tmp_path, rows, options, message):
    other = run_of(tmp_path / "other", rows_of([0, 1], kl=[0, 1], **{"eval/accuracy": [0, 1]}))
    collection = read_runs([other, run_of(tmp_path / "quick", rows)])
    console = console_of()
    with pytest.raises(RunError, match=re.escape(message)):
        print_curves(collection, console=console, **options)
    assert console.file.getvalue() == ""


def test_nulls_in_the_file_are_gaps_and_not_zeros(tmp_path):
    run = run_of(tmp_path / "quick", rows_of([0.5, math.nan, 1.0]))
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[1])["reward"] is None
    text = drawn_text([run])
    assert "0.50┤" in text
    assert "0.00┤" not in text


def test_a_single_step_is_drawn(tmp_path):
    assert "*" in drawn_text([run_of(tmp_path / "quick", rows_of([0.5]))]).split("\n", 1)[1]


def test_more_runs_than_colours_are_told_apart_by_characters(tmp_path):
    runs = [run_of(tmp_path / f"run{index}", rows_of([index, index + 1])) for index in range(7)]
    text = drawn_text(runs, terminal=True, every_run=True)
    legend, plot = text.split("\n", 1)
    assert "x run3" in legend
    assert "% run6" in legend
    assert "\x1b" not in plot.split("step")[0]


def study(folder, *, levels=None, **options):
    """Two optimizers, each at two seeds, six steps at one level each."""
    levels = levels or {"adams": (0.5, 1.0), "adamw": (0.0, 0.5)}
    for name, found in levels.items():
        for seed, level in enumerate(found):
            run_of(folder / f"{name}-{seed}", rows_of([level] * 6), finished=True, optimizer=name, seed=seed, **options)
    return folder


def test_of_several_seeds_the_mean_is_drawn(tmp_path):
    text = drawn_text([study(tmp_path)])
    assert text.splitlines()[0] == "reward   * adams   o adamw"
    lines = plot_lines(text)
    # 0.75 and 0.25: the runs' own levels are not on the scale.
    assert lines[0].startswith("0.75┤*")
    assert lines[-1].startswith("0.25┤o")


def test_every_run_of_several_seeds(tmp_path):
    text = drawn_text([study(tmp_path)], every_run=True)
    assert text.splitlines()[0] == "reward   * adams-0   o adams-1   + adamw-0   x adamw-1"
    assert plot_lines(text)[0].startswith("1.00┤o")


def test_a_run_on_its_way_does_not_cut_the_mean_short(tmp_path):
    study(tmp_path)
    run_of(tmp_path / "adams-2", rows_of([0.0, 0.0]), optimizer="adams", seed=2)
    assert plot_lines(drawn_text([tmp_path]))[0].startswith("0.75┤*")


def test_along_tokens_the_stretch_that_all_seeds_cover(tmp_path):
    for seed, tokens in ((0, 100), (1, 200)):
        rows = rows_of(np.linspace(0, 1, 6).tolist(), tokens=tokens)
        run_of(tmp_path / f"adams-{seed}", rows, finished=True, optimizer="adams", seed=seed)
    text = drawn_text([tmp_path], axis="tokens")
    # From 200, where the second begins, to 600, where the first ends. There the second is at 0.4, so the mean is 0.7.
    ticks = next(line for line in text.splitlines() if "600" in line).split()
    assert (ticks[0], ticks[-1]) == ("200", "600")
    assert plot_lines(text)[0].startswith("0.70┤")
    assert "tokens" in text


def test_seeds_without_a_common_stretch(tmp_path):
    for seed, tokens in ((0, 1), (1, 1000)):
        run_of(tmp_path / f"adams-{seed}", rows_of([0, 1], tokens=tokens), finished=True, optimizer="adams", seed=seed)
    console = console_of()
    with pytest.raises(
        RunError, match="adams: its seeds have no tokens in common that recorded 'reward'; set --every-run"
    ):
        print_curves(read_runs([tmp_path]), axis="tokens", console=console)
    assert console.file.getvalue() == ""
    assert "adams-1" in drawn_text([tmp_path], axis="tokens", every_run=True)


def test_the_mean_and_the_band_by_hand():
    x = np.array([1.0, 2.0])
    points, mean, half = band([(x, np.array([0.0, 1.0])), (x, np.array([1.0, 1.0])), (x, np.array([2.0, 4.0]))])
    assert points.tolist() == [1, 2]
    assert mean.tolist() == [1, 2]
    # Standard deviations 1 and sqrt(3), over sqrt(3); t(0.975, 2) is 4.3027.
    np.testing.assert_allclose(half, [4.30265 / math.sqrt(3), 4.30265], rtol=1e-5)
    assert t95(2) == pytest.approx(12.7062, rel=1e-5)


def test_the_band_of_curves_on_unequal_axes():
    points, mean, half = band(
        [(np.array([0.0, 4.0]), np.array([0.0, 4.0])), (np.array([1.0, 3.0]), np.array([5.0, 5]))]
    )
    assert (points[0], points[-1], len(points)) == (1.0, 3.0, 200)
    np.testing.assert_allclose(mean, (points + 5) / 2)
    np.testing.assert_allclose(half, 12.7062 * np.abs(points - 5) / 2, rtol=1e-5)


def test_the_band_of_one_curve_is_none_and_of_strangers_empty():
    one, other = (np.array([1.0, 2.0]), np.array([3.0, 4.0])), (np.array([5.0, 6.0]), np.array([3.0, 4.0]))
    assert [part.tolist() for part in band([one])] == [[1, 2], [3, 4], [0, 0]]
    assert [len(part) for part in band([one, other])] == [0, 0, 0]
    touching = (np.array([2.0, 6.0]), np.array([0.0, 4.0]))
    assert [part.tolist() for part in band([one, touching])[:2]] == [[2.0], [2.0]]


def test_what_is_drawn_of_runs(tmp_path):
    study(tmp_path)
    late = run_of(tmp_path / "adams-2", rows_of([0.0, 1.0, 0.0], kl=[1, None, 3]), optimizer="adams", seed=2)
    runs = read_runs([tmp_path]).variants["adams"]
    assert [run.name for run in whole(runs)] == ["adams-0", "adams-1"]
    (curve,) = drawn(runs, "kl", "tokens", 2)
    assert [values.tolist() for values in curve] == [[100, 300], [1, 2]]
    alone = read_runs([late]).runs
    assert whole(alone) == alone  # of a variant without a finished run, what there is


def test_verdicts(tmp_path):
    study(tmp_path, levels={"adams": (0.7, 0.8, 0.9), "adamw": (0.1, 0.2, 0.31)})
    text = printed(print_verdicts, judge(read_runs([tmp_path])), width=130)
    assert "\x1b" not in text
    lines = text.splitlines()
    (line,) = [line for line in lines if "better" in line and "than" not in line]
    for cell in ("0 of 3 (95 %: up to 63 %)", "0.800 ± 0.100", "+0.597", "+0.582 to +0.611"):
        assert cell in line, line
    assert any("baseline" in line and line.lstrip().startswith("adamw") for line in lines)
    assert "Margin: 0.05 (0.05 of the reward range of 1" in text
    assert "initial weights: the same in every variant at each of 3 seeds" in lines
    assert lines[-1].startswith("adams is better than adamw: +0.597 (95 % CI +0.582 to +0.611, 3 seeds, p = ")
    assert lines[-1].endswith(
        "; 0 of 3 runs of each failed or collapsed, which still allows 63 % (one-sided 95 % bound)"
    )


def test_a_failed_run_counts_in_the_verdict(tmp_path):
    study(tmp_path, levels={"adams": (0.7, 0.8, 0.9), "adamw": (0.1, 0.2, 0.31)})
    run_of(tmp_path / "adams-3", rows_of([0.9]), optimizer="adams", seed=3)
    lines = printed(print_verdicts, judge(read_runs([tmp_path])), width=130).splitlines()
    failed = "adams-3 (cut short after 1 of 6 steps, and no process trains it)"
    assert lines[0] == f"1 of 7 runs failed, and each counts as 0: {failed}"
    assert any("1 of 4 (95 %: 0.63 to 81 %)" in line for line in lines)
    assert lines[-1].startswith("adams against adamw is undecided: +0.397 (95 % CI ")
    assert "3 pairs, 1 + 0 single runs" in lines[-1]


def test_verdicts_in_a_narrow_terminal_are_whole_words(tmp_path):
    study(tmp_path, levels={"adams": (0.7, 0.8, 0.9), "adamw": (0.1, 0.2, 0.31)})
    text = printed(print_verdicts, judge(read_runs([tmp_path])), width=80)
    table = text[: text.index("Measure:")].splitlines()
    assert max(map(len, table)) <= 80
    (line,) = [line for line in table if "better" in line]
    assert "+0.597" in line
    assert "0.800 ± 0.100" in line
    assert "adams is better than adamw: +0.597 (95 % CI +0.582 to +0.611, 3 seeds, p = " in text


def test_verdicts_in_a_terminal_are_coloured_and_say_loudly_that_pairs_are_none(tmp_path):
    study(tmp_path, levels={"adams": (0.7, 0.8, 0.9), "adamw": (0.1, 0.2, 0.31)})
    for folder in tmp_path.iterdir():
        RunDirectory(folder).write_environment({"initial_weights_sha256": folder.name})
    text = printed(print_verdicts, judge(read_runs([tmp_path])), width=150, terminal=True)
    assert re.search(r"\x1b\[32mbetter", text)
    assert "\x1b[1;31minitial weights: DIFFERENT between variants at seed 0, 1, 2" in text


def test_notices_of_runs_in_progress(tmp_path):
    run_of(tmp_path / "adams", rows_of([0.5] * 3))
    run_of(tmp_path / "adamw", rows_of([0.5] * 6), finished=True)
    run_of(tmp_path / "sgd", [])
    collection = read_runs([tmp_path])
    notices = unfinished_and_left_out(collection)
    assert notices == [
        "adams: failed: cut short after 3 of 6 steps, and no process trains it",
        "sgd: failed: it made no step",
    ]
    assert printed(print_notices, notices, width=40) == "\n".join(notices) + "\n"  # a line each, however narrow
    assert unfinished_and_left_out(read_runs([tmp_path / "adamw"])) == []
