"""What a report writes beside its page: the table of verdicts, and figures for papers."""

import csv
import json
import re

import pytest
from matplotlib.image import imread

from rl_posttrain.views.report.verdict_files import escaped


def write_runs(folder, *variants):
    folder.mkdir()
    for place, variant in enumerate(variants):
        for seed in range(3):
            level = 0.3 + 0.4 * place + 0.01 * seed
            (folder / f"{variant}-seed{seed}.csv").write_text(f"step,reward,loss\n1,0,1\n2,{level},1\n")
    return folder


def test_a_report_writes_the_verdicts_as_csv_and_latex_and_figures_of_the_size_that_was_asked_for(tmp_path, run_main):
    runs = write_runs(tmp_path / "runs", "adamw", "50%_& $x#{1}")
    out = tmp_path / "out"
    options = ("--figure-format", "png,pdf,svg", "--figure-size", "10x5cm", "--range", "0,1")
    status, stdout, stderr = run_main("report", runs, "--out", out, *options)
    assert (status, stderr) == (0, "")
    assert "verdicts.csv, verdicts.tex, rewards.png, rewards.pdf" in " ".join(stdout.split())
    second, first = list(csv.DictReader((out / "verdicts.csv").open()))
    assert (first["variant"], first["verdict"], first["difference"]) == ("adamw", "baseline", "")
    assert (second["variant"], second["verdict"]) == ("50%_& $x#{1}", "better")
    assert float(second["difference"]) == pytest.approx(0.4)
    assert float(second["final_mean"]) == pytest.approx(0.71)
    assert float(second["final_std"]) == pytest.approx(0.01)
    status, stdout, _ = run_main("report", runs, "--out", tmp_path / "other", "--json", "--range", "0,1")
    said = json.loads(stdout)
    assert float(second["p_different"]) == said["comparisons"][0]["p_different"]
    assert said["files"][0] == str(tmp_path / "other" / "verdicts.csv")
    assert (tmp_path / "other" / "rewards.png").exists()
    assert not (tmp_path / "other" / "rewards.pdf").exists()
    assert not (tmp_path / "other" / "cost.png").exists()  # these runs recorded no cost: no empty axes

    table = (out / "verdicts.tex").read_text()
    body = [line for line in table.splitlines() if not line.startswith("%")]
    assert (body[0], body[-1]) == (r"\begin{tabular}{llrrrrrr}", r"\end{tabular}")
    rows = [line for line in body if line.endswith(r" \\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [7, 7, 7]
    assert rows[1].startswith(r"50\%\_\& \$x\#\{1\} & better & $+0.400$ & ")

    height, width, _ = imread(out / "rewards.png").shape
    assert (width, height) == pytest.approx((10 / 2.54 * 130, 5 / 2.54 * 130), abs=1)
    pdf = (out / "rewards.pdf").read_bytes()
    assert b"/MediaBox [ 0 0 283.46" in pdf
    assert b"/FontFile2" in pdf  # TrueType, so that text stays text
    assert b"/Type3" not in pdf
    svg = (out / "rewards.svg").read_text()
    assert 'width="283.46' in svg
    assert ">50%_&amp; $x#{1}</text>" in svg  # and no outlines


def test_every_sign_that_latex_reads_is_escaped():
    assert escaped(r"a_b%&$#{}~^\<>|") == (
        r"a\_b\%\&\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}\textless{}\textgreater{}\textbar{}"
    )


@pytest.mark.parametrize(
    ("option", "value"), [("format", "gif"), ("format", ""), ("size", "6.5"), ("size", "0x3in"), ("size", "6x3ft")]
)
def test_figures_that_cannot_be(tmp_path, run_main, option, value):
    runs = write_runs(tmp_path / "runs", "adamw", "mine")
    status, _, stderr = run_main("report", runs, "--out", tmp_path / "out", f"--figure-{option}={value}")
    assert (status, stderr.count("\n")) == (2, 1)
    assert f"--figure-{option}={value}: " in stderr
    assert not (tmp_path / "out").exists()
