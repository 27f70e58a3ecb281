"""The report on runs: figures, tables and one page."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from rl_posttrain.study.judging import Judgement

if TYPE_CHECKING:
    from rl_posttrain.views.report.figures import FigureFiles


def write_report(
    judgement: Judgement, out: Path, *, command: str, figures: "FigureFiles", reload_s: int | None = None
) -> list[Path]:
    """Write the page, its figures and the table of verdicts into the folder `out`. Earlier files are replaced.

    Args:
        command: the command that makes this report again; the page shows it.
        figures: how the figures are written.
        reload_s: runs go on and the page will be written again: it says how old it is, and an open one loads itself
            again after so many seconds.

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

    reload = {"written": time.time(), "reload_s": reload_s} if reload_s else {}
    texts = {
        "index.html": render_page(make_payload(judgement, command) | reload),
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
