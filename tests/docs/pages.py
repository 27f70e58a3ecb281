"""What README and the pages hold: commands, from code blocks and `inline code`, and examples that name their file."""

import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
PROGRAMS = ("rl-posttrain", "make", "python", "python3", "torchrun", "pytest", "bash", "pip")
# MODEL, RUN ..., [--json], none|0|1: a pattern of commands rather than one.
_PLACEHOLDER = re.compile(r"\[|\||\.\.\.|^[A-Z][A-Z_]+$|=[A-Z]\b|=[A-Z][A-Z_]+$|<\w+>")
# The first line of an example names its file.
_EXAMPLE = re.compile(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", re.DOTALL)
_INLINE = re.compile(rf"`((?:{'|'.join(PROGRAMS[:6])}) [^`]+)`")


@dataclass(frozen=True)
class Command:
    """One command of a page, split as a shell does."""

    page: Path
    line: int
    words: tuple[str, ...]
    is_pattern: bool
    section: str
    """All that stands under the same heading."""
    answer: str = ""
    """The line below it in the page."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {' '.join(self.words)}"


def write_examples(page: str, folder: Path) -> list[str]:
    """Writes the examples of a page into a folder; returns the names of the files."""
    examples = dict(_EXAMPLE.findall((ROOT / page).read_text(encoding="utf-8")))
    for name, text in examples.items():
        (folder / name).write_text(text)
    return sorted(examples)


def commands() -> list[Command]:
    return [command for page in PAGES for command in _commands_of(page)]


def _commands_of(page: Path) -> Iterator[Command]:
    lines = page.read_text(encoding="utf-8").splitlines()
    sections = _sections(lines)
    variables: dict[str, str] = {}
    is_fenced = False
    for place, line in enumerate(lines):
        if line.lstrip().startswith("```"):
            is_fenced = not is_fenced
        elif is_fenced or line.startswith("    "):
            text, following = _joined(lines, place)
            if assigned := re.fullmatch(r'([A-Z]+)="(.*)"', text):
                variables[assigned[1]] = assigned[2]
            for name, value in variables.items():
                text = re.sub(rf"\${name}\b", value, text)
            if (words := _words(text)) and words[0] in PROGRAMS:
                is_pattern = any(map(_PLACEHOLDER.search, _bare(text)))
                yield Command(page, place + 1, words, is_pattern, sections[place], following)
        else:
            for inline in _INLINE.findall(line.replace(r"\|", "|")):
                yield Command(page, place + 1, tuple(inline.split()), True, sections[place])


def _sections(lines: list[str]) -> list[str]:
    """For each line, all text under its heading."""
    starts = [place for place, line in enumerate(lines) if line.startswith("#")]
    bounds = [0, *(start for start in starts if start), len(lines)]
    sections = []
    for start, end in itertools.pairwise(bounds):
        sections += ["\n".join(lines[start:end])] * (end - start)
    return sections


def _joined(lines: list[str], place: int) -> tuple[str, str]:
    """The command that begins on a line, with the lines that continue it, and the line after them."""
    text = lines[place].strip().removeprefix("$ ")
    following = [*lines[place + 1 :], ""]
    while text.endswith("\\") or following[0].lstrip().startswith("[--"):
        text = f"{text.removesuffix(chr(92))} {following.pop(0).strip()}"
    return text, following[0].strip()


def _words(text: str) -> tuple[str, ...]:
    """The words before a comment, without variables set for the command alone."""
    try:
        words = shlex.split(text, comments=True)
    except ValueError:  # prose with an apostrophe
        return ()
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words.pop(0)
    return tuple(words)


def _bare(text: str) -> list[str]:
    """The words that no quotes protect, up to a comment: in quotes, brackets are a value's."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|=\[[^\]]*\]|=\{[^}]*\}", "", text).partition(" #")[0].split()
