"""Who imports whom, read from the source; and in fresh processes, what is loaded and how long that takes."""

import ast
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import clean_environment

from rl_posttrain.runs import RunDirectory

ROOT = Path(__file__).resolve().parents[2]

# Downward order, lowest first: a module imports from its own floor and those below. Names are rooms (a package with all
# of its modules) or single modules, the longest name that fits counts.
FLOORS = (
    {"errors", "machine"},
    {"plugins", "schema", "shapes"},
    {"runs"},
    {"optim", "rewards", "environment", "trainers.objectives", "trainers.logprobs", "trainers.groups"},
    {"recipe", "tasks", "models", "rollout", "evaluate", "scoring", "reward_functions"},
    {"trainers"},
    {"training", "check", "memory"},
    {"closing", "compare", "comparison_display", "cli"},
    {"__main__"},
)
# What may be imported of the project at all, by those who stand apart from the order or more strictly in it.
ONLY = {
    "optim": {"errors", "machine", "plugins", "shapes", "optim"},
    "rewards": {"errors", "rewards"},
    "trainers.objectives": set(),
    "trainers.logprobs": set(),
    "trainers.groups": set(),
    "curves": {"errors", "plugins", "runs"},
    "plots": {"errors", "plugins", "runs", "curves"},
    "text": {"curves"},
    "display": {"errors", "plugins", "runs", "curves", "text"},
    "doctor": {"errors", "machine", "models"},
    # Judging runs: on what stands in them, whoever made them.
    "foreign": {"errors"},
    "histories": {"errors", "runs", "foreign"},
    "equivalence": {"errors", "plugins"},
    "judging": {"errors", "plugins", "histories", "equivalence"},
    "bands": {"histories", "judging"},
    "tables": {"histories", "judging"},
    "terminal": {"errors", "plugins", "curves", "histories", "judging", "bands", "tables"},
    "report": {"errors", "runs", "curves", "plots", "text", "histories", "judging", "bands", "tables", "report"},
    "compare": {"errors", "schema", "runs", "recipe", "optim", "histories"},
    "comparison_display": {"compare", "text"},
}
BESIDE = {"curves", "plots", "text", "display", "doctor"} | {
    "foreign", "histories", "equivalence", "judging", "bands", "tables", "terminal", "report",
}  # fmt: skip
# Modules of optim that are loaded when something is asked for by name, and what they import for it.
BY_NAME = {
    "optim.adams_triton": {"triton"},
    "optim.low_rank": {"pytorch_optimizer"},
    "optim.adam_mini": {"adam_mini"},
}
HOMES = {"vllm": "rollout", "trl": "trainers", "deepspeed": "trainers"}


def modules() -> dict[str, Path]:
    """Every module of the package by its name below rl_posttrain; the package itself is "" and loads nothing itself."""
    found = {}
    for folder, prefix in (
        (ROOT / "rl_posttrain", ()),
        (ROOT / "rewards", ("rewards",)),
        (ROOT / "recipes", ("recipes",)),
    ):
        for path in sorted(folder.rglob("*.py")):
            parts = (*prefix, *path.relative_to(folder).with_suffix("").parts)
            found[".".join(part for part in parts if part != "__init__")] = path
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


def room(module: str, names) -> str | None:
    """The longest of `names` that is the module or a package around it."""
    return max((name for name in names if module == name or module.startswith(f"{name}.")), key=len, default=None)


def floor(module: str) -> int | None:
    names = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    found = room(module, names)
    return None if found is None else names[found]


def test_every_module_has_its_place():
    placed = {name for floor in FLOORS for name in floor} | BESIDE
    homeless = [name for name in MODULES if name not in ("", "recipes") and room(name, placed) is None]
    assert not homeless, f"say in FLOORS or BESIDE where these belong: {homeless}"
    gone = [name for name in placed if not any(room(module, {name}) for module in MODULES)]
    assert not gone, f"these are no modules any more: {gone}"


def test_imports_go_downward():
    wrong = []
    for module, path in MODULES.items():
        for imported in project_imports(path):
            if floor(imported) is not None and floor(module) is not None and floor(imported) > floor(module):
                wrong.append(f"{module} imports {imported}, which stands above it")
            if room(imported, BESIDE) and floor(module) is not None and floor(module) < floor("training"):
                wrong.append(f"{module} imports {imported}, which is for training and the commands")
    assert not wrong, wrong


@pytest.mark.parametrize("name", ONLY)
def test_some_rooms_import_less(name):
    wrong = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        if room(module, ONLY) == name
        for imported in project_imports(path)
        if room(imported, ONLY[name]) is None
    ]
    assert not wrong, wrong


def test_no_circle_within_a_floor():
    graph = {module: project_imports(path) - {module} for module, path in MODULES.items()}
    while leaves := [module for module, needed in graph.items() if not needed & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"modules that import each other in a circle: {sorted(graph)}"


@pytest.mark.parametrize(("package", "home"), HOMES.items())
def test_engines_are_imported_in_one_room(package, home):
    importers = {
        module
        for module, path in MODULES.items()
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }
    assert importers, f"nothing imports {package}; is this test still reading the source?"
    assert {room(module, {home}) for module in importers} == {home}, importers


def test_optim_needs_torch_and_nothing_else():
    for module, path in MODULES.items():
        if room(module, {"optim"}):
            outside = {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names
            assert outside <= {"torch", "rl_posttrain", *BY_NAME.get(module, ())}, module


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=clean_environment(), timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMAND = """
import sys
from rl_posttrain.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
LOADED = "\nprint('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"


def loaded_after(code: str, *arguments: str) -> set[str]:
    """Top-level modules that stand in sys.modules once `code` has run in a fresh process."""
    last = run_python(code + LOADED, *arguments).splitlines()[-1]
    assert last.startswith("LOADED ")
    return set(last.split()[1:])


def test_help_loads_nothing_heavy():
    loaded = loaded_after(COMMAND, "--help")
    assert "typer" in loaded
    assert not loaded & {"torch", "vllm", "trl", "deepspeed", "transformers", "pydantic", "matplotlib", "rich"}


def test_curves_load_neither_torch_nor_vllm(tmp_path):
    run = RunDirectory.create(tmp_path / "made-up", recipe_yaml="algorithm: {num_steps: 2}\n")
    for step in (1, 2):
        run.append_metrics({"step": step, "reward": step / 2, "seconds": 3.0 * step})
    loaded = loaded_after(COMMAND, "curves", str(run.path))
    assert "plotext" in loaded
    assert not loaded & {"torch", "vllm", "trl", "deepspeed", "transformers"}


def test_a_report_loads_neither_torch_nor_vllm(tmp_path):
    for optimizer in ("adams", "adamw"):
        recipe = (
            f"model: {{name: m}}\ntask: {{name: t}}\nalgorithm: {{num_steps: 2}}\noptimizer: {{name: {optimizer}}}\n"
        )
        run = RunDirectory.create(tmp_path / optimizer, recipe_yaml=recipe)
        for step in (1, 2):
            run.append_metrics({"step": step, "reward": step / 2, "seconds": 3.0 * step, "tokens": 100 * step})
        run.write_summary({"steps": 2})
    elsewhere = tmp_path / "trl-seed0.csv"
    elsewhere.write_text("step,reward\n1,0.25\n2,0.5\n")
    loaded = loaded_after(COMMAND, "report", str(tmp_path), str(elsewhere), "--out", str(tmp_path / "page"))
    assert (tmp_path / "page" / "index.html").is_file()
    assert "matplotlib" in loaded
    assert not loaded & {"torch", "vllm", "trl", "deepspeed", "transformers"}


def test_recipes_load_neither_torch_nor_vllm():
    loaded = loaded_after(COMMAND, "recipes")
    assert not loaded & {"torch", "vllm", "trl", "deepspeed", "transformers"}


def test_optimizers_load_torch_and_none_of_the_trainers():
    loaded = loaded_after("import sys, rl_posttrain.optim")
    assert "torch" in loaded
    assert not loaded & {
        "trl",
        "vllm",
        "deepspeed",
        "transformers",
        "pydantic",
        "triton",
        "pytorch_optimizer",
        "adam_mini",
    }


def test_rewards_load_no_mathematics():
    loaded = loaded_after("import sys, rl_posttrain.rewards")
    assert not loaded & {"torch", "sympy", "math_verify", "pydantic"}


def test_help_is_there_at_once():
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        run_python(COMMAND, "--help")
        seconds.append(time.perf_counter() - started)
    # Meant to be under 0.5 s; the test allows twice that, because shared CI machines are slow and uneven.
    assert statistics.median(seconds) < 1.0, seconds
