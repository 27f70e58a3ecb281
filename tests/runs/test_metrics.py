"""The table of metrics: its lookups, and the names that other programs have."""

import importlib.util
import re
from pathlib import Path

import pytest

from rl_posttrain.runs.metrics import AXES, METRICS, PHASES, find_metric, markdown_table, our_name, plotted


def test_every_metric_is_said_once_and_in_a_sentence():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        for text in filter(None, (metric.meaning, metric.detail)):
            assert text.endswith("."), metric.name
            assert text[0].isupper() or text[0] == "`", metric.name
            assert "|" not in text, "it would end a cell of the table"


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("reward", "reward"),
        ("rewards/math_accuracy", "rewards/<name>"),
        ("eval/accuracy", "eval/accuracy"),
        ("eval/pass@16", "eval/pass@<k>"),
        ("eval/math_accuracy", "eval/<name>"),
        ("math_accuracy/timeout", "math_accuracy/timeout"),
        ("countdown/errors", "<reward>/errors"),
        ("countdown/numbers_used", "<reward>/<metric>"),
        ("time/rollout", "time/rollout"),
        ("entropi", None),
    ],
)
def test_a_name_finds_its_entry(name, entry):
    found = find_metric(name)
    assert (found.name if found else None) == entry


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        # TRL and transformers, as trainer_state.json has them
        ("completions/mean_length", "completion_length"),
        ("frac_reward_zero_std", "frac_zero_variance"),
        ("num_tokens", "tokens"),
        ("learning_rate", "lr"),
        ("rewards/accuracy_reward/mean", "rewards/accuracy_reward"),
        ("rewards/accuracy_reward/std", "rewards/accuracy_reward/std"),
        ("eval_reward", "eval/reward"),
        ("eval_completions/mean_length", "eval/completion_length"),
        ("eval_rewards/accuracy_reward/mean", "eval/rewards/accuracy_reward"),
        # verl and OpenRLHF
        ("critic/score/mean", "reward"),
        ("response_length/mean", "completion_length"),
        ("response_length/clip_ratio", "truncated_share"),
        ("timing_s/gen", "time/rollout"),
        ("response_length", "completion_length"),
        ("actor_lr", "lr"),
        # of any program
        ("_step", "step"),
        ("Global_Step", "step"),
        ("Reward", "reward"),
        ("no_such_metric", "no_such_metric"),
        ("loss", "loss"),
    ],
)
def test_names_of_other_programs_become_ours(theirs, ours):
    assert our_name(theirs) == ours


def test_the_table_in_the_docs_is_this_one():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = page.partition("<!-- metrics -->\n")[2].partition("<!-- end of metrics -->\n")[0]
    assert table == markdown_table(), "python -m rl_posttrain.runs.metrics prints what should be there"


@pytest.mark.parametrize("name", [metric.trl for metric in METRICS if metric.trl])
def test_trl_or_transformers_logs_the_name_that_we_read(name):
    def source(package, file):
        return (Path(importlib.util.find_spec(package).submodule_search_locations[0]) / file).read_text("utf-8")

    if name in ("loss", "grad_norm", "learning_rate"):
        assert f'logs["{name}"]' in source("transformers", "trainer.py")
    else:
        name = name.replace("<name>", "{reward_func_name}")
        assert re.search(rf'_metrics\[mode\]\[f?"{re.escape(name)}"\]', source("trl", "trainer/grpo_trainer.py"))


def test_axes_phases_and_plots():
    assert AXES == {"step": "step", "tokens": "tokens", "seconds": "wall-clock (s)"}
    assert PHASES == ("rollout", "reward", "update", "sync")
    assert [metric.name for metric in plotted("training")] == [
        "completion_length", "entropy", "grad_norm", "update_norm", "value_loss", "explained_variance",
    ]  # fmt: skip
    assert [metric.y_label for metric in plotted("curve:left")] == ["completion length (tokens)"]
