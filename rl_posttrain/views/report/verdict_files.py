"""The table of verdicts as files for other programs and for papers: CSV with all digits, LaTeX without any package."""

import csv
import io
from typing import Any

from rl_posttrain.study.judging import Judgement
from rl_posttrain.study.summaries import mean_and_deviation

_STATISTICS = ("final", "auc", "accuracy", "seconds_per_step")
_ESCAPED = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip


def verdict_rows(judgement: Judgement) -> list[dict[str, Any]]:
    """A row for each variant, with numbers as they are; None where there is none."""
    results = {comparison.variant: comparison for comparison in judgement.comparisons}
    rows = []
    for variant, runs in judgement.collection.planned.items():
        result = results.get(variant)
        row: dict[str, Any] = {
            "variant": variant,
            "baseline": judgement.baseline,
            "measure": judgement.measure,
            "margin": judgement.margin,
            "verdict": "baseline" if result is None else "no verdict" if result.word == "none" else result.word,
            **{key: getattr(result, key, None) for key in ("difference", "low", "high", "p_different", "p_equivalent")},
            "runs": len(runs),
            "failed": judgement.failed[variant].count,
            "collapsed": judgement.collapsed[variant].count,
        }
        for key in _STATISTICS:
            found = mean_and_deviation(judgement.values(variant, key))
            row |= {f"{key}_mean": found[0] if found else None, f"{key}_std": found[1] if found else None}
        row["seeds_needed"] = getattr(result, "seeds_needed", None)
        rows.append(row)
    return rows


def verdicts_csv(judgement: Judgement) -> str:
    """The rows with commas, each number with all its digits; a cell is empty where there is no number."""
    rows = verdict_rows(judgement)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def verdicts_tex(judgement: Judgement, command: str) -> str:
    """A ``tabular`` that plain LaTeX sets, to be taken in by ``\\input``."""
    lines = [
        f"% {' '.join(command.split())}",
        r"\begin{tabular}{llrrrrrr}",
        r"\hline",
        r"Variant & Verdict & Difference & 95\,\% interval & $p$ different & $p$ equivalent & Runs & Final reward \\",
        r"\hline",
    ]
    for row in verdict_rows(judgement):
        interval = "" if row["low"] is None else f"{_signed(row['low'])} to {_signed(row['high'])}"
        final = "" if row["final_mean"] is None else f"${row['final_mean']:.3f}"
        if final:
            final += "$" if row["final_std"] is None else rf" \pm {row['final_std']:.3f}$"
        failed = f" ({row['failed']} failed)" if row["failed"] else ""
        cells = (
            escaped(row["variant"]), row["verdict"], _signed(row["difference"]), interval, _number(row["p_different"]),
            _number(row["p_equivalent"]), f"{row['runs']}{failed}", final,
        )  # fmt: skip
        lines.append(f"{' & '.join(cells)} \\\\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}", ""])


def escaped(text: str) -> str:
    """`text` for LaTeX: signs that mean something to it are set as they are."""
    return "".join(_ESCAPED.get(sign, sign) for sign in text)


def _signed(value: float | None) -> str:
    return "" if value is None else f"${value:+.3f}$"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    digits, _, power = f"{value:.2g}".partition("e")
    return f"${digits} \\times 10^{{{int(power)}}}$" if power else f"${digits}$"
