"""Tables of evaluations, from results made by hand."""

import pytest

from rl_posttrain.views.evaluation import print_evaluations, results_table

SAMPLING = {"temperature": 0.0}


def result(model, **metrics):
    """A result of ten questions."""
    task = {"name": "file", "version": "1", "template": "qa"}
    return {
        "model": model, "title": "q.jsonl", "task": task, "num_questions": 10, "num_samples": 1, "sampling": SAMPLING,
        "metrics": {name: {"value": value, "error": 0.1} for name, value in metrics.items()}, "by": {}, "folder": "f",
    }  # fmt: skip


def rows(*results):
    return list(results_table(results)[1].columns[0].cells)


def test_one_reward_is_shown_unless_it_is_the_accuracy_of_every_model():
    assert rows(result("m", mine=0.5, reward=0.5)) == ["reward"]
    same = result("m", accuracy=0.5, mine=0.5, reward=0.5)
    assert rows(same) == ["accuracy"]
    assert rows(same, result("n", accuracy=0.5, mine=0.6, reward=0.6)) == ["accuracy", "reward"]
    assert rows(result("m", accuracy=0.5, a=0.5, b=1.0, reward=1.5)) == ["accuracy", "reward", "a", "b"]


@pytest.mark.parametrize("width", [60, 80])
def test_long_names_are_not_cut_off(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # as CI services do; a file is no terminal
    names = [f"/a/long/way/to/the/folder/of/many/models/number-{number}" for number in range(3)]
    results = [result(name, accuracy=0.5) for name in names]
    for each in results:
        each["by"] = {"level": {"1": {"num_questions": 10, "metrics": each["metrics"]}}}
    comparison = {
        "task": "q.jsonl", "model": names[1], "baseline": names[0], "sentence": "s",
        "differences": {"accuracy": {"difference": 0.1, "low": 0.0, "high": 0.2}},
    }  # fmt: skip
    print_evaluations(results, [comparison])
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert all(f"\n{name}\n" in printed for name in names)  # above its breakdown
    assert f"\n{names[1]} minus {names[0]}\n" in printed
    assert "\x1b" not in printed
    assert printed.startswith("q.jsonl (version 1, template qa): 10 questions, greedy\n")
