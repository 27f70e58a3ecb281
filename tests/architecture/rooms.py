"""The rooms of the house in order, and who imports whom. `python tests/architecture/rooms.py` draws the imports.

The drawing stands in docs/architecture.md; a test keeps it true.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The one ordered list. A module imports from its own room and from the rooms before it.
ROOMS = (
    "errors", "users_code", "plugins", "machine", "rewards", "recipes", "runs", "models", "optim", "tasks", "recipe",
    "rollout", "scoring", "evaluation", "training", "cost", "study", "views", "cli", "__main__",
)  # fmt: skip
# Rooms that may import less than the order allows.
MAY_IMPORT_ONLY = {
    "rewards": {"errors", "machine.process", "rewards"},
    "runs": {"errors", "runs"},
    "optim": {"errors", "users_code", "plugins", "machine", "models.shapes", "optim"},
    "study": {"errors", "users_code", "plugins", "machine", "runs", "optim", "recipe", "study"},
    "views": {"errors", "runs", "cost", "study", "views"},
}
# Third-party packages that one place alone may import.
IMPORTED_ONLY_BY = {
    "vllm": {"rollout"},
    "trl": {"training"},
    "deepspeed": {"training.backends", "models.universal"},
}


def modules() -> dict[str, Path]:
    """Every module of the package by its name below rl_posttrain; the package itself is left out."""
    found = {}
    for folder, prefix in (("rl_posttrain", ()), ("rewards", ("rewards",)), ("recipes", ("recipes",))):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = (*prefix, *path.relative_to(ROOT / folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = path
    del found[""]
    return found


def imports(path: Path) -> Iterator[str]:
    """Full names of what a file imports, at its top or inside a function; of `from a import b`, both a and a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide what is imported"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = modules()


def project_imports(path: Path) -> set[str]:
    """The project's own modules that a file imports, by their names below rl_posttrain."""
    names = {name.removeprefix("rl_posttrain.") for name in imports(path) if name.startswith("rl_posttrain.")}
    return {name for name in names if name in MODULES}


def room(module: str) -> str:
    return module.partition(".")[0]


def lies_in(module: str, places: set[str]) -> bool:
    """Whether a module is one of `places`, or inside one of them."""
    return any(module == place or module.startswith(f"{place}.") for place in places)


def drawing() -> str:
    """A line a room: the rooms it imports, in order. Every arrow points up the page, to a room that stands before."""
    needed: dict[str, set[str]] = {name: set() for name in ROOMS}
    for module, path in MODULES.items():
        needed[room(module)] |= {room(imported) for imported in project_imports(path)} - {room(module)}
    width = max(map(len, ROOMS))
    lines = []
    for name in ROOMS:
        found = ", ".join(other for other in ROOMS if other in needed[name])
        lines.append(f"{name:<{width}}  -> {found}" if found else name)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(drawing(), end="")
