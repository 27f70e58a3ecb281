"""What is on the screen, read back from what rich wrote for it."""

import io
import json
import math
import re
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console

from rl_posttrain.runs.files import to_json
from rl_posttrain.runs.metrics import METRICS
from rl_posttrain.views.live import LiveDisplay, make_display
from rl_posttrain.views.plain import PlainDisplay
from rl_posttrain.views.text import duration, printable, tail

HOSTILE = "[red]x[/red] [/] :boom: \x1b[2J\x1b]0;title\x07\r\n\t\x00\u202eevil\u2028\ud800 日本 👩\u200d👩"


def row_of(step, **changes):
    row = {
        "step": step,
        "reward": step / 10,
        "accuracy": 0.25,
        "well_formed": 0.5,
        "completion_length": 7.1,
        "truncated_share": 0.031,
        "entropy": 1.2,
        "grad_norm": 0.83,
        "lr": 1e-5,
        "seconds": 30.0 + 4.1 * (step - 1),
        "time/rollout": 1.0,
        "time/reward": 0.0,
        "time/update": 3.0,
        "time/sync": 0.1,
    }
    return row | changes


def sample_of(completion="7", prompt="Q: What is 3 + 4?\nA:"):
    return {"prompt": prompt, "completion": completion, "reward": 1.0, "answer": "7"}


def live(width=80, height=24, num_steps=30):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    return make_display(name="quickstart", num_steps=num_steps, device="2 CPU cores", console=console), console


def plain(num_steps=30, file=None):
    console = Console(file=file or io.StringIO(), force_terminal=False)
    return make_display(name="quickstart", num_steps=num_steps, device="cpu", console=console), console.file


def screen(display, width=80, height=24):
    """The view as lines of text."""
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(display.view())
    return console.file.getvalue().splitlines()


def line_of(lines, label):
    """What stands behind a label of the view."""
    (line,) = [line for line in lines if line.startswith(f"│ {label} ")]
    return " ".join(line.strip("│").split()[1:])


def test_a_terminal_gets_the_live_view_and_everything_else_lines(monkeypatch):
    assert isinstance(live()[0], LiveDisplay)
    assert isinstance(plain()[0], PlainDisplay)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(make_display(name="a", num_steps=1, device="cpu"), PlainDisplay)
    dumb = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})
    assert isinstance(make_display(name="a", num_steps=1, device="cpu", console=dumb), PlainDisplay)


def test_plain_lines_by_hand():
    display, file = plain()
    with display:
        display.note("loading model")
        display.phase("rollout")
        display.resumed([])
        display.step(row_of(1), [sample_of()])
        display.step(row_of(2), [])
        display.step(row_of(3, **{"seconds": 40.2, "eval/accuracy": 0.5, "eval/pass@4": 0.75}), [])
    assert file.getvalue().splitlines() == [
        "quickstart on cpu, 30 steps",
        "loading model",
        # The first step's 30 s hold the start-up: no estimate is made of them, and none of the others counts them.
        "step  1/30  reward  0.10  accuracy 0.25  length    7.1  entropy  1.20  grad   0.83   30.0 s "
        "(rollout 1.0 reward 0.0 update 3.0 sync 0.1)  left -",
        "step  2/30  reward  0.20  accuracy 0.25  length    7.1  entropy  1.20  grad   0.83    4.1 s "
        "(rollout 1.0 reward 0.0 update 3.0 sync 0.1)  left 1m55s",
        # Steps 2 and 3 took 4.1 and 6.1 s: 27 more of 5.1 s each.
        "step  3/30  reward  0.30  accuracy 0.25  length    7.1  entropy  1.20  grad   0.83    6.1 s "
        "(rollout 1.0 reward 0.0 update 3.0 sync 0.1)  left 2m18s  eval accuracy 0.500  pass@4 0.750",
    ]


def test_what_the_table_of_metrics_places_on_the_screen_is_there():
    row = row_of(1) | {metric.name: 0.5 for metric in METRICS if metric.live_line or metric.column}
    display, _ = live(width=120)
    display.step(row, [])
    for metric in METRICS:
        if metric.live_line:
            assert f"{metric.label} {0.5:{metric.form}}" in line_of(screen(display, 120), metric.live_line)
    display, file = plain()
    display.step(row, [])
    for metric in METRICS:
        assert (f"  {metric.label} {0.5:{metric.column}}" in file.getvalue()) == bool(metric.column)


def test_time_left_goes_by_the_last_ten_steps():
    display, file = plain(num_steps=100)
    for step in range(1, 21):
        display.step(row_of(step, seconds=1000.0 * min(step, 10) + 2.0 * max(step - 10, 0)), [])
    assert file.getvalue().splitlines()[-1].endswith("left 2m40s")  # 80 steps of 2 s
    display, file = plain(num_steps=2)
    display.step(row_of(1), [])
    display.step(row_of(2), [])
    assert file.getvalue().splitlines()[-1].endswith("left 0s")


def test_columns_stay_aligned():
    display, file = plain(num_steps=100)
    display.step(row_of(9, reward=-0.5, grad_norm=123.456), [])
    display.step(row_of(10, reward=None, entropy=math.nan, completion_length=1024.0), [])
    first, second = file.getvalue().splitlines()
    assert [first.index(word) for word in ("reward", "accuracy", "length", "entropy", "grad")] == [
        second.index(word) for word in ("reward", "accuracy", "length", "entropy", "grad")
    ]
    assert "reward -0.50" in first
    assert "reward     -  " in second
    assert "entropy     -  " in second


def test_a_resumed_run_goes_on_where_it_was():
    rows = [row_of(step) for step in range(1, 13)]
    display, file = plain()
    display.resumed(rows)
    display.step(row_of(13, seconds=rows[-1]["seconds"] + 50.0), [])
    resumed, step = file.getvalue().splitlines()
    assert resumed == "resumed after step 12  reward, mean of 5: 1.00"  # rewards 0.8 to 1.2
    assert " 50.0 s (" in step
    assert step.endswith("left 1m10s")  # 17 steps of 4.1 s: this process's first step does not count
    display, _ = live()
    display.resumed([*rows[:-1], rows[-1] | {"eval/accuracy": 0.5}])
    lines = screen(display)
    assert "▁" in lines[5]
    assert "█" in lines[5]
    assert lines[5].split()[1] == "0.10"
    assert lines[5].split()[-2] == "1.20"
    assert line_of(lines, "eval") == "step 12: accuracy 0.500"
    assert "step 12/30" in lines[1]
    assert "1m15s elapsed, 1m14s left" in lines[1]  # 75.1 s before; 18 steps of 4.1 s to go


def test_each_line_is_flushed():
    written = []

    class Pipe(io.StringIO):
        def flush(self):
            written.append(self.getvalue())

    display, _ = plain(file=Pipe())
    display.step(row_of(1), [])
    assert written[-1].startswith("step  1/30")


def test_plain_output_survives_any_text_and_any_encoding():
    raw = io.BytesIO()
    display, _ = plain(file=io.TextIOWrapper(raw, encoding="ascii"))
    with display:
        display.note(HOSTILE)
        display.step(row_of(1), [sample_of(HOSTILE, HOSTILE)])
        display.finish()
    assert b"\x1b" not in raw.getvalue()
    assert len(raw.getvalue().splitlines()) == 4  # heading, note, step, finish
    assert b"[red]x[/red] [/] :boom: \\x1b[2J" in raw.getvalue()
    assert raw.getvalue().splitlines()[-1].startswith(b"finished 1 steps in ")


def test_the_live_view_by_hand():
    evaluation = {"eval/math": 0.625, "eval/accuracy": 0.5, "eval/pass@4": 0.75}
    display, _ = live()
    with display:
        display.resumed([])
        for step in range(1, 11):
            display.step(row_of(step, **(evaluation if step == 5 else {})), [])
        display.step(row_of(11, reward=0.2), [sample_of("7\nQ: and more"), sample_of("another")])
        display.phase("rollout")
        lines = screen(display)
    assert len(lines) <= 23
    assert {cell_len(line) for line in lines} == {80}
    assert "quickstart on 2 CPU cores" in lines[0]
    assert "step 11/30" in lines[1]
    bar = lines[1].count("━"), lines[1].count("─")
    assert bar[0] / sum(bar) == pytest.approx(11 / 30, abs=0.02)
    assert lines[1].rstrip("│ ").endswith("1m18s left")  # 19 steps of 4.1 s
    assert line_of(lines, "now") == "rollout 0s"
    assert line_of(lines, "reward") == "0.200 mean of 5 0.720"  # 0.7 0.8 0.9 1.0 0.2
    assert lines[5].strip("│ ").split() == ["0.10", "▁▂▃▃▄▅▆▆▇█▂", "1.00"]
    assert line_of(lines, "answers") == "accuracy 0.250 well-formed 0.500"
    assert line_of(lines, "tokens") == "length 7.1 truncated 3.1%"
    assert line_of(lines, "update") == "entropy 1.200 grad 0.830 lr 1.0e-05"
    assert line_of(lines, "seconds") == "█ rollout 1.0 ░ reward 0.0 ▓ update 3.0 ▒ sync 0.1"
    assert line_of(lines, "eval") == "step 5: accuracy 0.500 pass@4 0.750 math 0.625"
    assert line_of(lines, "prompt") == "Q: What is 3 + 4?↵A:"
    assert line_of(lines, "completion") == "7↵Q: and more"
    assert line_of(lines, "scored") == "1.000 answer 7"


def test_the_bar_of_phases_has_their_shares():
    display, _ = live(width=120)
    display.step(row_of(1, **{"time/rollout": 1.0, "time/reward": 1.0, "time/update": 6.0, "time/sync": 0.0}), [])
    (bar,) = [line for line in screen(display, 120) if "▓▓" in line]
    cells = 120 - 4 - 11
    assert bar.count("█") == pytest.approx(cells / 8, abs=1)
    assert bar.count("░") == pytest.approx(cells / 8, abs=1)
    assert bar.count("▓") == pytest.approx(cells * 6 / 8, abs=1)
    assert bar.count("█") + bar.count("░") + bar.count("▓") == cells


@pytest.mark.parametrize(("width", "height"), [(120, 40), (80, 24), (40, 24), (20, 10), (5, 4), (1, 1)])
@pytest.mark.parametrize("text", [HOSTILE, "x" * 3_000_000, "👩\u200d👩" * 100_000, "e" + "\u0301" * 100_000, "", None])
def test_no_text_breaks_the_view(width, height, text):
    display, console = live(width, height)
    with display:
        display.note(str(text)[:50])
        display.step(row_of(1), [{"prompt": text, "completion": text, "reward": None, "answer": text}])
        lines = screen(display, width, height)
    assert len(lines) <= max(height - 1, 3)
    assert max(cell_len(line) for line in lines) <= width
    shown = "\n".join(lines)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\u2028\u200d\ud800]", shown)
    assert console.file.getvalue().encode()  # no lone surrogate was written
    if text == HOSTILE and width == 120:
        assert line_of(lines, "completion").startswith(
            r"[red]x[/red] [/] :boom: \x1b[2J\x1b]0;title\x07\r↵\t\x00\u202eevil"
        )


def test_a_long_prompt_shows_its_end():
    display, _ = live()
    display.step(row_of(1), [sample_of(prompt="Answer with a number. " * 1000 + "Q: 3 + 4?")])
    shown = line_of(screen(display), "prompt")
    assert shown.startswith("…")
    assert shown.endswith("Answer with a number. Q: 3 + 4?")


def test_chat_prompts_show_the_last_message():
    display, _ = live()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4?"}]
    display.step(row_of(1), [sample_of(prompt=messages, completion=[{"role": "assistant", "content": "7"}])])
    lines = screen(display)
    assert line_of(lines, "prompt") == "3 + 4?"
    assert line_of(lines, "completion") == "7"


def test_values_that_are_missing_null_or_nan():
    display, _ = live()
    assert "no step finished yet" in "\n".join(screen(display))
    null = {key: math.nan for key in row_of(1) if key != "step"}
    display.step(json.loads(to_json(row_of(1) | null)), [])
    lines = screen(display)
    assert line_of(lines, "reward") == "- mean of 5 -"
    assert "nan" not in "\n".join(lines).lower()
    assert not any("rollout" in line for line in lines)
    display.step({"step": 2}, [])
    lines = screen(display)
    assert "step 2/30" in lines[1]
    assert "accuracy" not in "\n".join(lines)
    display, file = plain()
    display.step({"step": 2}, [])
    assert file.getvalue() == "step  2/30      - s  left -\n"


def test_the_live_view_is_left_with_its_last_state():
    display, console = live()
    with display:
        display.note("starting vLLM [red]")
        display.step(row_of(1), [])
        display.finish()
    text = console.file.getvalue()
    assert "starting vLLM [red]" in text
    assert "finished" in text
    assert text.endswith("\x1b[?25h")  # the cursor is back
    display, console = live()
    with pytest.raises(KeyError), display:
        raise KeyError("broken")
    assert "stopped by KeyError" in console.file.getvalue()
    assert "\x1b[?25h" in console.file.getvalue()


def test_durations():
    seconds = (None, 0, 59.4, 59.6, 112, 3600, 7505, 273_600)
    assert [duration(value) for value in seconds] == ["-", "0s", "59s", "1m00s", "1m52s", "1h00m", "2h05m", "3d04h"]


def test_printable_and_tail():
    assert printable("a\tb\nc\x7f\u200b") == r"a\tb↵c\x7f\u200b"
    assert printable("日本é👍 \\") == "日本é👍 \\"
    assert printable("abcdef", 3) == "abc…"
    assert tail("abcdef", 6) == "abcdef"
    assert tail("abcdef", 4) == "…def"
    assert tail("日本語", 5) == "…本語"
    assert tail("日本語", 4) == "…語"
