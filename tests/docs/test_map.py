"""The map in docs/architecture.md has every file, and the proofs that README names are there."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAPPED = ("rl_posttrain", "rewards", "launch", "examples")


def files_on_the_map() -> set[str]:
    """Paths from the indented tree of docs/architecture.md; a line that ends in a slash opens a folder."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.partition("## The map")[2].split("```")[1].partition("\n")[2]
    found, folders = set(), {}
    for line in filter(str.strip, tree.splitlines()):
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        if name.endswith("/"):
            folders = {level: folder for level, folder in folders.items() if level < depth} | {depth: name}
        else:
            found.add("".join(folder for level, folder in sorted(folders.items()) if level < depth) + name)
    return found


def test_every_file_is_on_the_map():
    tracked = subprocess.run(["git", "ls-files", *MAPPED], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    # A room's __init__.py is its own line on the map.
    files = {name for name in tracked.split() if name.count("/") < 2 or not name.endswith("__init__.py")}
    differ = files_on_the_map() ^ (files - {"rewards/__init__.py"})
    assert not differ, f"docs/architecture.md: add or remove a line in the map for {sorted(differ)}"


def test_the_proofs_in_the_readme_are_there():
    named = re.findall(r"\[`(test_\w+)`\]\((tests/[\w/]+\.py)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    gone = [name for name, file in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")]
    assert not gone
