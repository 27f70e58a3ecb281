"""The report on runs: figures, tables and one page."""

from pathlib import Path
from typing import TYPE_CHECKING

from rl_posttrain.study.judging import Judgement

if TYPE_CHECKING:
    from rl_posttrain.views.report.figures import FigureFiles


def write_report(judgement: Judgement, out: Path, *, command: str, figures: "FigureFiles") -> list[Path]:
    """Write the page, its figures and the table of verdicts into the folder `out`. Earlier files are replaced.

    Args:
        command: the command that makes this report again; the page shows it.
        figures: how the figures are written.

    Returns:
        The files: ``index.html`` first, then ``verdicts.csv`` and ``verdicts.tex``, then the figures.

    Raises:
        RunError: `out` cannot be written.
    """
    from rl_posttrain.errors import RunError
    from rl_posttrain.runs.files import write_atomically
    from rl_posttrain.views.report.page import render_page
    from rl_posttrain.views.report.payload import make_payload
    from rl_posttrain.views.report.verdict_files import verdicts_csv, verdicts_tex

    texts = {
        "index.html": render_page(make_payload(judgement, command)),
        "verdicts.csv": verdicts_csv(judgement),
        "verdicts.tex": verdicts_tex(judgement, command),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        drawn = figures.write(judgement, out)
        for name, text in texts.items():
            write_atomically(out / name, text)
    except OSError as error:
        raise RunError(f"--out={out}: cannot be written ({error.strerror}); set another folder") from error
    return [*(out / name for name in texts), *drawn]
