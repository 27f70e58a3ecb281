"""Tables of comparisons that were tuned first, or looked at several times; of the shape that tables.py describes."""

from typing import Any

from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.sensitivity import Curve, Spread, sensitivity
from rl_posttrain.study.tuning import listed
from rl_posttrain.study.variants import value_text
from rl_posttrain.views.tables import CLASSES, column, number_cell


def tuning_table(judgement: Judgement) -> dict[str, Any] | None:
    """A row for each trial: the measure over the tuning seeds, and which trial was chosen; None without tuning."""
    tuned = judgement.tuned
    if tuned is None:
        return None
    keys, rows = [key.key for key in tuned.tuning.keys], []
    for variant in tuned.variants:
        for trial in variant.trials:
            chosen = trial.variant == variant.chosen
            edges = ", ".join(f"{edge} {key} of its grid" for key, edge in variant.edges.items())
            rows.append(
                {"variant": variant.name}
                | {key: {"text": value_text(trial.values[key]), "value": trial.values[key]} for key in keys}
                | {
                    "mean": number_cell(trial.mean, ".3f"),
                    "scores": ", ".join("-" if score is None else f"{score:.3f}" for score in trial.scores.values()),
                    "failed": number_cell(len(trial.failed), "d"),
                    "chosen": (f"chosen, at the edge: {edges}" if edges else "chosen") if chosen else "",
                }
            )
    kinds = {key.key: "number" if key.numeric else "text" for key in tuned.tuning.keys}
    return {
        "title": "Tuning",
        "note": f"{tuned.words()[0].upper()}{tuned.words()[1:]}. A failed run counts as in the verdict.",
        "columns": [
            column("variant", "Variant", "text"),
            *(column(key, key, kinds[key]) for key in keys),
            column("mean", "Mean", help=f"Of the measure {judgement.measure} over the tuning seeds."),
            column("scores", "Runs", "text", help=f"At the tuning seeds {listed(tuned.tuning.seeds)}."),
            column("failed", "Failed", help="Runs that failed."),
            column("chosen", "Choice", "text", help="The best mean of its variant."),
        ],
        "rows": rows,
    }


def looks_table(judgement: Judgement) -> dict[str, Any] | None:
    """A row for each look at each variant; None where there was one look, at the end."""
    monitor = judgement.monitor
    if monitor is None:
        return None
    rows = []
    for look in (look for looks in monitor.looks for look in looks):
        found = look.comparison
        row = {
            "look": number_cell(look.number, "d"),
            "seeds": number_cell(look.num_seeds, "d"),
            "variant": found.variant,
            "verdict": {"text": "no verdict" if found.word == "none" else found.word, "class": CLASSES[found.word]},
        }
        if found.difference is not None:
            row |= {
                "difference": number_cell(found.difference, "+.3f"),
                "interval": f"{found.low:+.3f} to {found.high:+.3f}",
                "p_different": number_cell(found.p_different, ".2g"),
                "level_different": number_cell(look.level_different, ".2g"),
                "p_equivalent": number_cell(found.p_equivalent, ".2g"),
                "level_equivalent": number_cell(look.level_equivalent, ".2g"),
            }
        rows.append(row)
    return {
        "title": "Looks",
        "note": f"{monitor.plan.words()} A p value below its level is a claim.",
        "columns": [
            column("look", "Look"),
            column("seeds", "Seeds"),
            column("variant", "Variant", "text"),
            column("verdict", "Verdict", "text"),
            column("difference", "Difference"),
            column("interval", "Repeated 95 % interval", "interval", help="It holds at all looks together."),
            column("p_different", "p different", help="As it is, not corrected."),
            column("level_different", "its level", help="Of this look, by alpha spending and Holm's method."),
            column("p_equivalent", "p equivalent", help="As it is, not corrected."),
            column("level_equivalent", "its level", help="Of this look, by alpha spending and Holm's method."),
        ],
        "rows": rows,
    }


def sensitivity_charts(judgement: Judgement) -> list[dict[str, Any]]:
    """For the page, of each tuned key: its name, whether all values are above 0, the seeds, and the curves."""
    variants = list(judgement.collection.variants)
    return [
        {
            "key": key,
            "log": all(value > 0 for curve in curves for value in curve.values),
            "measure": judgement.measure,
            "seeds": list(judgement.tuned.tuning.seeds),
            "curves": [_curve(curve, variants) for curve in curves],
        }
        for key, curves in sensitivity(judgement).items()
    ]


def _curve(curve: Curve, variants: list[str]) -> dict[str, Any]:
    return {
        "label": curve.variant,
        "variant": variants.index(curve.judged) if curve.judged in variants else len(variants) - 1,
        "values": list(curve.values),
        "spreads": [_spread(spread) for spread in curve.spreads],
        "chosen": curve.chosen,
        "best": value_text(curve.values[curve.chosen]),
        "edge": curve.edge,
        "fresh": _spread(curve.fresh) if curve.fresh else None,
    }


def _spread(spread: Spread) -> dict[str, Any]:
    return {
        "values": list(spread.values),
        "failed": list(spread.failed),
        "mean": spread.mean,
        "low": spread.low,
        "high": spread.high,
    }
