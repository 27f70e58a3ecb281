"""The tables of a judgement, once for the terminal and the page.

A table is a dict of ``title``, ``note``, ``columns`` (``key``, ``label``, ``kind``: text or number, ``help``) and
``rows``; a cell is text, or a dict of ``text``, the ``value`` it is sorted by, and a verdict's ``class`` (good, bad,
even, open).
"""

import statistics
from collections.abc import Sequence
from typing import Any

from rl_posttrain.study.histories import History, recipe_differences
from rl_posttrain.study.judging import Judgement

_CLASSES = {"better": "good", "worse": "bad", "equivalent": "even", "undecided": "open", "none": "open"}
_WORDS = {"none": "no verdict"}


def verdict_table(judgement: Judgement) -> dict[str, Any]:
    """A row a variant: means over its seeds, and how it stands to the baseline."""
    results = {comparison.variant: comparison for comparison in judgement.comparisons}
    rows = []
    for variant, runs in judgement.collection.variants.items():
        finished = sum(run.finished for run in runs)
        more = f" + {len(runs) - finished} unfinished" if finished < len(runs) else ""
        row: dict[str, Any] = {"variant": variant, "seeds": {"text": f"{finished}{more}", "value": finished}}
        for key in ("final", "best", "auc", "accuracy"):
            row[key] = _mean_and_spread(judgement.values(variant, key))
        for axis in ("steps", "tokens", "seconds"):
            row[f"{axis}_to"] = _reached(judgement.values(variant, f"{axis}_to"))
        row["seconds_per_step"] = _mean_and_spread(judgement.values(variant, "seconds_per_step"), ".2f")
        if variant == judgement.baseline:
            row["verdict"] = "baseline"
        elif (result := results[variant]).difference is None:
            kind = "seed" if result.paired else "run"
            text = f"no verdict ({result.num_pairs} {kind}{'s' * (result.num_pairs != 1)})"
            row["verdict"] = {"text": text, "class": "open"}
        else:
            row |= {
                "difference": _number(result.difference, "+.3f"),
                "interval": f"{result.low:+.3f} to {result.high:+.3f}",
                "p_different": _number(result.p_different, ".2g"),
                "p_equivalent": _number(result.p_equivalent, ".2g"),
                "verdict": {"text": _WORDS.get(result.word, result.word), "class": _CLASSES[result.word]},
                "needed": _number(result.seeds_needed, "d"),
            }
        rows.append(row)
    threshold, margin = f"{judgement.threshold:.3g}", f"{judgement.margin:.3g}"
    return {
        "title": f"Verdicts against {judgement.baseline}",
        "note": f"{judgement.terms} Means over seeds ± standard deviation; steps, tokens and seconds to the "
        "threshold are medians over the seeds that reached it. P values are corrected for the number of variants by "
        "Holm's method.",
        "columns": [
            _column("variant", "Variant", "text"),
            _column("verdict", "Verdict", "text"),
            _column("difference", "Difference", help=f"variant less baseline, on {judgement.measure}"),
            _column("interval", "95 % interval", "text"),
            _column("p_different", "p different", help="that there is no difference, two-sided"),
            _column("p_equivalent", "p equivalent", help=f"that they differ by {margin} or more (two one-sided tests)"),
            _column("seeds", "Seeds"),
            _column("final", "Final reward", help="mean of the last tenth of the steps"),
            _column("best", "Best", help="best mean of 5 consecutive steps"),
            _column("auc", "Area", help="under the reward curve, divided by its steps"),
            _column("accuracy", "Accuracy", help="mean of the last tenth of the steps"),
            _column("steps_to", f"Steps to {threshold}"),
            _column("tokens_to", f"Tokens to {threshold}"),
            _column("seconds_to", f"Seconds to {threshold}"),
            _column("seconds_per_step", "s/step"),
            _column("needed", "Seeds to decide", help="power 0.8, if difference and spread stay as they are"),
        ],
        "rows": rows,
    }  # fmt: skip


def stability_table(judgement: Judgement) -> dict[str, Any]:
    rows = []
    for variant in judgement.collection.variants:
        drops = [value for value in judgement.values(variant, "largest_drop") if value is not None]
        rows.append(
            {
                "variant": variant,
                "largest_drop": _number(max(drops, default=None), ".3f"),
                "mean_drop": _number(statistics.fmean(drops) if drops else None, ".3f"),
                "spikes": _total(judgement.values(variant, "spikes")),
                "non_finite": _total(judgement.values(variant, "non_finite")),
            }
        )
    return {
        "title": "Stability",
        "note": "A drop is that of the mean reward of 5 steps from its highest point before. A spike is a step whose "
        "gradient norm is over 3 times the median of the 20 steps before it.",
        "columns": [
            _column("variant", "Variant", "text"),
            _column("largest_drop", "Largest drop", help="over all seeds"),
            _column("mean_drop", "Mean drop", help="mean over seeds of each one's largest"),
            _column("spikes", "Gradient spikes", help="steps, all seeds together"),
            _column("non_finite", "Not finite", help="steps whose reward, loss or gradient norm was no finite number"),
        ],
        "rows": rows,
    }  # fmt: skip


def seeds_table(judgement: Judgement) -> dict[str, Any]:
    """A row a run."""
    rows = []
    for run in judgement.collection.runs:
        found = judgement.statistics[run.name]
        row: dict[str, Any] = {
            "run": run.name, "variant": run.variant, "seed": _number(run.seed, "d"), "state": state_of(run),
        }  # fmt: skip
        for key, form in (
            ("final", ".3f"),
            ("best", ".3f"),
            ("auc", ".3f"),
            ("accuracy", ".3f"),
            ("largest_drop", ".3f"),
        ):
            row[key] = _number(found[key], form)
        for key in ("steps_to", "tokens_to", "seconds_to"):
            row[key] = _number(found[key], ",.0f")
        rows.append(row)
    threshold = f"{judgement.threshold:.3g}"
    return {
        "title": "Every run",
        "note": "A dash where a run did not record a value or never reached the threshold.",
        "columns": [
            _column("run", "Run", "text"),
            _column("variant", "Variant", "text"),
            _column("seed", "Seed"),
            _column("state", "State", "text"),
            _column("final", "Final reward"),
            _column("best", "Best"),
            _column("auc", "Area"),
            _column("accuracy", "Accuracy"),
            _column("steps_to", f"Steps to {threshold}"),
            _column("tokens_to", f"Tokens to {threshold}"),
            _column("seconds_to", f"Seconds to {threshold}"),
            _column("largest_drop", "Largest drop"),
        ],
        "rows": rows,
    }


def differences_table(judgement: Judgement) -> dict[str, Any]:
    """A row a variant, a column a recipe key that is not the same in all."""
    differences = recipe_differences(judgement.collection.runs)
    rows = [
        {"variant": variant, **{key: values.get(variant, "-") for key, values in differences.items()}}
        for variant in judgement.collection.variants
    ]
    return {
        "title": "What differs between the recipes",
        "note": "All other keys are the same in every run." if differences else "The recipes do not differ.",
        "columns": [_column("variant", "Variant", "text"), *(_column(key, key, "text") for key in differences)],
        "rows": rows,
    }


def state_of(run: History) -> str:
    """Finished, or how far it has come."""
    done = int(run.columns["step"][-1])
    return "finished" if run.finished else f"{done}/{run.num_planned or '?'} steps, running or stopped"


def cell_text(cell: Any) -> str:
    """What a cell shows; a dash where there is none."""
    return "-" if cell is None else cell["text"] if isinstance(cell, dict) else str(cell)


def _column(key: str, label: str, kind: str = "number", help: str = "") -> dict[str, str]:
    return {"key": key, "label": label, "kind": kind, "help": help}


def _number(value: float | None, form: str) -> dict[str, Any] | None:
    return None if value is None else {"text": format(value, form), "value": value}


def _total(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    return _number(int(sum(known)), "d") if known else None


def _mean_and_spread(values: Sequence[float | None], form: str = ".3f") -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    mean = statistics.fmean(known)
    spread = f" ± {statistics.stdev(known):{form}}" if len(known) > 1 else ""
    return {"text": f"{mean:{form}}{spread}", "value": mean}


def _reached(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    missing = f" ({len(known)} of {len(values)} seeds)" if len(known) < len(values) else ""
    return {"text": f"{statistics.median(known):,.0f}{missing}", "value": statistics.median(known)}
