"""Statistics against numbers worked out by hand, and plots read back as they were written."""

import math
from pathlib import Path

import numpy as np
import pytest

from rl_posttrain.errors import RunError
from rl_posttrain.runs.columns import columns_of
from rl_posttrain.runs.picture import plot_png, write_figure
from rl_posttrain.runs.series import first_last, smooth, step_seconds, summarize
from rl_posttrain.views.text import sparkline


def rows_of(rewards, **columns):
    rows = []
    for index, reward in enumerate(rewards):
        row = {"step": index + 1, "reward": reward, "seconds": 10.0 + 4.0 * index, "tokens": 100 * (index + 1)}
        rows.append(row | {"time/rollout": 1.0, "time/update": 2.5} | {key: v[index] for key, v in columns.items()})
    return rows


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
    values = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 19.0])
    assert first_last(values) == (2.0, 9.0)
    assert first_last(values, window=2) == (0.5, 13.5)
    assert first_last(np.array([1.0, 4.0])) == (2.5, 2.5)
    assert summarize(columns_of(rows_of([None, 1.0, math.nan, 4.0])))["reward_gain"] == 0.0


def test_step_seconds_are_differences_and_the_first_counts_from_zero():
    assert step_seconds(columns_of(rows_of([0, 0, 0]))).tolist() == [10.0, 4.0, 4.0]


def test_step_seconds_of_rows_that_stand_for_several_steps():
    rows = [(10, 30.0), (20, None), (30, 70.0), (30, 75.0), (31, 77.0)]
    assert step_seconds(columns_of([{"step": s, "seconds": t} for s, t in rows])).tolist() == [3.0, 2.0, 2.0]
    assert step_seconds(columns_of([{"step": 0, "seconds": 5.0}, {"step": 1, "seconds": 7.0}])).tolist() == [2.0]


def test_summarize_by_hand():
    rows = rows_of([0, 0, 1, 1, 1, 1, 1, 0], accuracy=[0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0, None])
    assert summarize(columns_of(rows)) == {
        "steps": 8,
        "reward_first5": pytest.approx(0.6),
        "reward_last5": pytest.approx(0.8),
        "reward_gain": pytest.approx(0.2),
        "reward_best": pytest.approx(1.0),  # steps 3 to 7
        "accuracy_first5": pytest.approx(0.3),
        "accuracy_last5": pytest.approx(0.7),  # steps 3 to 7: step 8 recorded none
        "seconds": 38.0,
        "tokens": 800,
        "guards": {},
        "skipped_updates": 0,
        "rollbacks": 0,
        "seconds_per_step": 4.0,  # the first step's 10 s do not move the median
        "seconds_rollout": 8.0,
        "seconds_reward": 0.0,
        "seconds_update": 20.0,
        "seconds_sync": 0.0,
    }


def test_the_summary_counts_what_guards_saw_and_did():
    rows = rows_of([0.0] * 4)
    rows[1] |= {"guards/loss": 2, "skipped_updates": 2}
    rows[3] |= {"guards/loss": 1, "guards/entropy": 1, "skipped_updates": 1, "rolled_back_to": 0}
    summary = summarize(columns_of(rows))
    assert summary["guards"] == {"entropy": 1, "loss": 3}
    assert (summary["skipped_updates"], summary["rollbacks"]) == (3, 1)


def test_a_lucky_first_step_is_not_the_best():
    assert summarize(columns_of(rows_of([1.0, 0, 0, 0, 0, 0.5])))["reward_best"] == pytest.approx(0.2)
    assert summarize(columns_of(rows_of([1.0, 0.0])))["reward_best"] == 0.5


def test_what_was_not_recorded_is_none():
    summary = summarize(columns_of([{"step": 1, "reward": 0.5}]))
    assert summary["steps"] == 1
    for key in ("accuracy_first5", "accuracy_last5", "seconds", "tokens", "seconds_per_step"):
        assert summary[key] is None


@pytest.mark.parametrize("reward", [{}, {"reward": None}])
def test_a_run_whose_rewards_were_no_numbers_has_none_in_its_summary(reward):
    summary = summarize(columns_of([{"step": 1, "accuracy": 0.25, **reward}]))
    assert (summary["steps"], summary["accuracy_last5"]) == (1, 0.25)
    for key in ("reward_first5", "reward_last5", "reward_gain", "reward_best"):
        assert summary[key] is None


def test_a_run_without_a_step_has_no_summary():
    with pytest.raises(RunError, match="no finished step yet"):
        summarize(columns_of([]))


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


def test_write_figure_takes_no_name_for_a_formula_and_leaves_nothing_half_written(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.suptitle("costs $x^ and {no end")
    write_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG\r\n")
    with pytest.raises(OSError, match="nowhere"):
        write_figure(figure, tmp_path / "nowhere" / "figure.png")
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


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


def test_every_name_of_the_summary_is_documented():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for name in summarize(columns_of(rows_of([0.5]))):
        assert f"`{name}`" in page
