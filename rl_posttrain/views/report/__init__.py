"""The report on runs: figures, tables and one page."""

from pathlib import Path

from rl_posttrain.study.judging import Judgement


def write_report(judgement: Judgement, out: Path, *, command: str) -> Path:
    """Write the page and its figures into the folder `out`. Files of an earlier report are replaced.

    Args:
        command: the command that makes this report again; the page shows it.

    Returns:
        ``index.html``. Beside it are ``rewards.png``, ``training.png`` and ``cost.png``,
        and ``tuning.png`` where values were tuned.

    Raises:
        RunError: `out` cannot be written.
    """
    from rl_posttrain.errors import RunError
    from rl_posttrain.runs.files import write_atomically
    from rl_posttrain.views.report.figures import figures_of
    from rl_posttrain.views.report.page import render_page
    from rl_posttrain.views.report.payload import make_payload

    page = out / "index.html"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, draw in figures_of(judgement).items():
            draw(judgement, out / name)
        write_atomically(page, render_page(make_payload(judgement, command)))
    except OSError as error:
        raise RunError(f"--out={out}: cannot be written ({error.strerror}); set another folder") from error
    return page
