"""Statistics against numbers worked out by hand, and plots read back as they were written."""

import io
import json
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from rl_posttrain.curves import first_last, print_curves, smooth, sparkline, step_seconds, summarize
from rl_posttrain.errors import RunError
from rl_posttrain.plots import plot_png
from rl_posttrain.runs import RunDirectory


def rows_of(rewards, **columns):
    rows = []
    for index, reward in enumerate(rewards):
        row = {"step": index + 1, "reward": reward, "seconds": 10.0 + 4.0 * index, "tokens": 100 * (index + 1)}
        rows.append(row | {"time/rollout": 1.0, "time/update": 2.5} | {key: v[index] for key, v in columns.items()})
    return rows


def run_of(path, rows, *, num_steps=6, finished=False):
    run = RunDirectory.create(path, recipe_yaml=f"algorithm: {{num_steps: {num_steps}}}\n")
    for row in rows:
        run.append_metrics(row)
    if finished:
        run.write_summary(summarize(run.metrics()))
    return run


def printed(runs, *, width=80, terminal=False, **options):
    file = io.StringIO()
    colours = {"force_terminal": True, "color_system": "truecolor"} if terminal else {"force_terminal": False}
    print_curves(runs, console=Console(file=file, width=width, **colours), **options)
    return file.getvalue()


def test_sparkline_runs_from_the_lowest_block_to_the_full_one():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([-1.0, 1.0], 80) == "▁█"


def test_sparkline_averages_into_bins_on_the_scale_of_the_values():
    # Bins (0, 7) and (7, 0): both 3.5 of 7, and neither end of the scale.
    assert sparkline([0, 7, 7, 0], 2) in ("▄▄", "▅▅")
    assert sparkline([0, 0, 7, 7, 0, 0], 3) == "▁█▁"
    assert len(sparkline(list(range(1000)), 33)) == 33


def test_sparkline_of_nothing_equal_values_and_gaps():
    assert sparkline([], 10) == ""
    assert sparkline([1, 2], 0) == sparkline([1, 2], -3) == ""
    assert sparkline([0.5, 0.5, 0.5], 10) == "▄▄▄"
    assert sparkline([0, None, 7, math.nan], 10) == "▁ █ "
    assert sparkline([None, None], 10) == "  "


def test_smooth_is_a_trailing_mean():
    assert smooth([1, 2, 3, 4, 5], 3) == [1, 1.5, 2, 3, 4]
    assert smooth([4, 8], 1) == [4, 8]
    assert smooth([1, None, 3], 2) == [1, 1, 3]
    assert math.isnan(smooth([None, 1], 3)[0])
    with pytest.raises(RunError, match="smoothing=0"):
        smooth([1], 0)


def test_first_last_takes_the_windows_from_recorded_steps():
    rows = rows_of([0, 1, 2, 3, 4, 5, 6, 7, 8, 19])
    assert first_last(rows) == (2.0, 9.0)
    assert first_last(rows, window=2) == (0.5, 13.5)
    assert first_last(rows_of([1.0, 4.0])) == (2.5, 2.5)
    assert first_last(rows_of([None, 1.0, math.nan, 3.0]), window=1) == (1.0, 3.0)


def test_step_seconds_are_differences_and_the_first_counts_from_zero():
    assert step_seconds([{"seconds": 3.0}, {"seconds": 5.0}, {"seconds": 9.0}]) == [3.0, 2.0, 4.0]


def test_summarize_by_hand():
    rows = rows_of([0, 0, 1, 1, 1, 1, 1, 0], accuracy=[0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0, None])
    assert summarize(rows) == {
        "steps": 8,
        "reward_first5": pytest.approx(0.6),
        "reward_last5": pytest.approx(0.8),
        "reward_gain": pytest.approx(0.2),
        "reward_best": pytest.approx(1.0),  # steps 3 to 7
        "accuracy_first5": pytest.approx(0.3),
        "accuracy_last5": pytest.approx(0.7),  # steps 3 to 7: step 8 recorded none
        "seconds": 38.0,
        "tokens": 800,
        "seconds_per_step": 4.0,  # the first step's 10 s do not move the median
        "seconds_rollout": 8.0,
        "seconds_reward": 0.0,
        "seconds_update": 20.0,
        "seconds_sync": 0.0,
    }


def test_a_lucky_first_step_is_not_the_best():
    assert summarize(rows_of([1.0, 0, 0, 0, 0, 0.5]))["reward_best"] == pytest.approx(0.2)
    assert summarize(rows_of([1.0, 0.0]))["reward_best"] == 0.5


def test_what_was_not_recorded_is_none():
    summary = summarize([{"step": 1, "reward": 0.5}])
    assert summary["steps"] == 1
    for key in ("accuracy_first5", "accuracy_last5", "seconds", "tokens", "seconds_per_step"):
        assert summary[key] is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [([], "no finished step yet"), ([{"step": 1, "rewards": 1.0}], "recorded 'reward'; did you mean 'rewards'")],
)
def test_a_run_without_rewards_has_no_summary(rows, message):
    with pytest.raises(RunError, match=message):
        summarize(rows)


def test_print_curves_to_a_pipe(tmp_path):
    first = run_of(tmp_path / "adams", rows_of([0, 0, 0, 0.5, 0.5, 1]), finished=True)
    second = run_of(tmp_path / "[red]adamw", rows_of([0, 0.25]))
    text = printed([first, second])
    assert "\x1b" not in text
    assert "* adams" in text
    assert "o [red]adamw" in text
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    # The highest reward is on the top line, at the right end; the lowest on the bottom line, at the left.
    plot = [line for line in lines if line.endswith("│")]
    assert plot[0].startswith("1.00┤")
    assert plot[0].rstrip("│").endswith("*")
    assert plot[-1].split("│")[-2].split("┤")[-1].startswith("o") or "┤o" in plot[-1]
    (table_line,) = [line for line in lines if "6/6" in line]
    # Means of 0 0 0 .5 .5 and of 0 0 .5 .5 1, their difference, the best; no accuracy; median seconds; tokens; state.
    cells = "adams 6/6 0.200 0.400 +0.200 0.400 - 4.0 600 finished"
    assert table_line.split() == cells.split()
    (table_line,) = [line for line in lines if "2/6" in line]
    assert "running or" in table_line


def test_print_curves_to_a_terminal_is_coloured_and_as_wide_as_it(tmp_path):
    run = run_of(tmp_path / "adams", rows_of([0, 0.5, 1]))
    text = printed([run], width=132, terminal=True, keys=("reward", "tokens"), smoothing=2)
    assert "38;2;0;114;178" in text
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert max(map(len, bare.splitlines())) == 132
    assert "reward, mean of 2   ━━ adams" in bare
    assert "tokens, mean of 2   ━━ adams" in bare
    assert "0.75┤" in bare  # mean of the last two rewards


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [run_of(tmp_path / folder / "quick", rows_of([0, 1])) for folder in ("a", "b")]
    text = printed(runs, width=300)
    assert f"* {tmp_path}/a/quick" in text
    assert f"o {tmp_path}/b/quick" in text


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        ([], ("reward",), "quick: no finished step yet"),
        (rows_of([1, 1]), ("reward", "rewad"), "quick: no finished step recorded 'rewad'; did you mean 'reward'?"),
        (rows_of([1, 1], kl=[None, None]), ("kl",), "quick: no finished step recorded 'kl'"),
    ],
)
def test_print_curves_draws_nothing_rather_than_something_wrong(tmp_path, rows, keys, message):
    run = run_of(tmp_path / "quick", rows)
    file = io.StringIO()
    with pytest.raises(RunError, match=re.escape(message)):
        print_curves([run], keys=keys, console=Console(file=file))
    assert file.getvalue() == ""


def test_nulls_in_the_file_are_gaps_and_not_zeros(tmp_path):
    run = run_of(tmp_path / "quick", rows_of([0.5, math.nan, 1.0]))
    assert json.loads(run.metrics_path.read_text().splitlines()[1])["reward"] is None
    assert "0.50┤" in printed([run])
    assert "0.00┤" not in printed([run])


def test_plot_png_replaces_the_file_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    columns = {"accuracy": [0, None, 1], "completion_length": [7, 8, 9], "entropy": [1.5, 1.2, None]}
    plot_png({"_a $x": rows_of([0, None, 1], **columns), "b": rows_of([0.5])}, path, title="a $ and no formula$")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n")
    assert data.rstrip().endswith(b"IEND\xaeB`\x82")
    assert list(tmp_path.iterdir()) == [path]


def test_plot_png_of_a_run_without_steps_leaves_the_old_file(tmp_path):
    path = tmp_path / "curve.png"
    path.write_bytes(b"old")
    for rows_by_run, message in (({}, "no run to draw"), ({"quick": []}, "quick: no finished step yet")):
        with pytest.raises(RunError, match=message):
            plot_png(rows_by_run, path)
    with pytest.raises(OSError, match="nowhere"):
        plot_png({"quick": rows_of([1])}, tmp_path / "nowhere" / "curve.png")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_plot_png_draws_the_rewards_and_their_trailing_means(tmp_path, monkeypatch):
    import matplotlib.figure

    drawn = []
    save = matplotlib.figure.Figure.savefig

    def keep(figure, *args, **kwargs):
        drawn.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", keep)
    plot_png({"quick": rows_of([0, 1, None, 2], entropy=[1, None, 2, 3])}, tmp_path / "curve.png")
    top, _, right = drawn[0].axes
    assert [list(line.get_ydata()) for line in top.lines] == [[0, 1, 2], [0, 0.5, 1], []]
    assert list(top.lines[0].get_xdata()) == [1, 2, 4]
    assert list(right.lines[0].get_xdata()) == [1, 3, 4]
    assert [text.get_text() for text in top.get_legend().get_texts()] == ["quick", "reward, mean of 5"]


def test_more_runs_than_colours_are_told_apart_by_characters(tmp_path):
    runs = [run_of(tmp_path / f"run{index}", rows_of([index, index + 1])) for index in range(7)]
    text = printed(runs, terminal=True)
    legend, plot = text.split("\n", 1)
    assert "x run3" in legend
    assert "% run6" in legend
    assert "\x1b" not in plot.split("step")[0]


def test_every_name_of_the_summary_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    for name in summarize(rows_of([0.5])):
        assert f"`{name}`" in page
