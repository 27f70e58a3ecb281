"""AIME: the American Invitational Mathematics Examination, 30 problems a year; answers are whole numbers up to 999.

On the hub: HuggingFaceH4/aime_2024 (split train), math-ai/aime25 and math-ai/aime26 (split test), each with `problem`
and `answer`. Models may have seen the years before their own.
"""

from pathlib import Path

from rl_posttrain.errors import RecipeError
from rl_posttrain.tasks.columns import Row
from rl_posttrain.tasks.published import rows_to_evaluate_on
from rl_posttrain.tasks.readers import READERS
from rl_posttrain.tasks.rows import TaskRows
from rl_posttrain.tasks.templates import BOXED_REQUEST

ON_HUB = {24: "HuggingFaceH4/aime_2024", 25: "math-ai/aime25", 26: "math-ai/aime26"}


def aime(*, years: tuple[int, ...] = tuple(ON_HUB), path: str | None = None) -> TaskRows:
    """Problems to evaluate on.

    Args:
        years: of these; 24 is 2024.
        path: a folder with a file for each year, whose name has the year in it (24 or 2024); or one file, of which all
            rows are taken. None for the hub.

    Returns:
        Rows with `question`, `answer` and `year` (24; None where one file has all rows).
    """
    if not years or not set(years) <= set(ON_HUB):
        known = ", ".join(map(str, ON_HUB))
        raise RecipeError(f"task.years={list(years)}: the years are {known}; list some of them")
    sources: dict[int | None, str] = {year: ON_HUB[year] for year in years}
    if path is not None:
        folder = Path(path).expanduser()
        sources = {year: _file_of(folder, year) for year in years} if folder.is_dir() else {None: path}
    rows: list[Row] = []
    notes: list[str] = []
    for year, source in sources.items():
        found = rows_to_evaluate_on(source, {"question": "problem", "answer": "answer"})
        rows += [row | {"year": year} for row in found.eval]
        notes += found.notes
    return TaskRows([], rows, request=BOXED_REQUEST, notes=tuple(notes))


def _file_of(folder: Path, year: int) -> str:
    found = sorted(file for file in folder.iterdir() if f"{year}" in file.stem and file.suffix.lower() in READERS)
    if not found:
        raise RecipeError(f"task.path={folder}: no file of the year {year}; add aime{year}.jsonl, or set task.years")
    return str(found[0])
