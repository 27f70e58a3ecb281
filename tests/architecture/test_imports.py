"""Who imports whom, read from the source; and in fresh processes, what is loaded."""

import subprocess
import sys

import pytest
from conftest import clean_environment
from rooms import (
    IMPORTED_ONLY_BY,
    MAY_IMPORT_ONLY,
    MODULES,
    ROOMS,
    ROOT,
    drawing,
    imports,
    lies_in,
    project_imports,
    room,
)

from rl_posttrain.runs.directory import RunDirectory

# Modules of optim that are loaded when something is asked for by name, and what they import for it.
BY_NAME = {
    "optim.adams_triton": {"triton"},
    "optim.chunks": {"triton"},
    "optim.rounding_triton": {"triton"},
    "optim.scale_triton": {"triton"},
    "optim.signs": {"pytorch_optimizer"},
    "optim.adamw_8bit": {"torchao"},
    "optim.low_rank": {"pytorch_optimizer"},
    "optim.adam_mini": {"adam_mini"},
    "optim.autoswap": {"transformers"},
}


def test_every_module_has_its_room():
    assert {room(module) for module in MODULES} == set(ROOMS)


def test_imports_go_downward():
    wrong = [
        f"{module} imports {imported}, whose room stands after it"
        for module, path in MODULES.items()
        for imported in project_imports(path)
        if ROOMS.index(room(imported)) > ROOMS.index(room(module))
    ]
    assert not wrong, wrong


@pytest.mark.parametrize("name", MAY_IMPORT_ONLY)
def test_some_rooms_import_less(name):
    wrong = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        if room(module) == name
        for imported in project_imports(path)
        if imported != "models" and not lies_in(imported, MAY_IMPORT_ONLY[name])
    ]
    assert not wrong, wrong


def test_the_generator_of_writings_shares_no_code_with_the_reader_that_it_checks():
    for module, path in MODULES.items():
        if lies_in(module, {"rewards.writings"}):
            used = {name for name in project_imports(path) if name != "rewards"}
            assert all(lies_in(name, {"rewards.writings"}) for name in used), module


def test_no_circle_within_a_room():
    graph = {module: project_imports(path) - {module} for module, path in MODULES.items()}
    while leaves := [module for module, needed in graph.items() if not needed & graph.keys()]:
        for leaf in leaves:
            del graph[leaf]
    assert not graph, f"modules that import each other in a circle: {sorted(graph)}"


@pytest.mark.parametrize(("package", "places"), IMPORTED_ONLY_BY.items())
def test_engines_are_imported_in_one_place(package, places):
    importers = {
        module
        for module, path in MODULES.items()
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }
    assert importers, f"nothing imports {package}; is this test still reading the source?"
    assert {module for module in importers if not lies_in(module, places)} == set()


def test_optim_needs_torch_and_nothing_else():
    for module, path in MODULES.items():
        if room(module) == "optim":
            outside = {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names
            assert outside <= {"torch", "rl_posttrain", *BY_NAME.get(module, ())}, module


def test_files_can_be_read_in_one_sitting():
    lengths = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > 320} == {}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_git_ignores_no_module():
    """A name in .gitignore that is meant for a folder of runs would leave a room of that name out of every commit."""
    paths = [str(path) for path in MODULES.values()]
    ignored = subprocess.run(["git", "check-ignore", "--no-index", *paths], cwd=ROOT, capture_output=True, text=True)
    assert ignored.stdout == ""


def test_every_room_says_what_belongs_in_it():
    packages = [path for path in MODULES.values() if path.name == "__init__.py"]
    assert [path for path in packages if not path.read_text(encoding="utf-8").startswith('"""')] == []


def test_the_drawing_in_the_docs_is_true():
    assert drawing() in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMAND = """
import sys
from rl_posttrain.cli.main import main
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
        "torchao",
    }


def test_rewards_load_no_mathematics():
    loaded = loaded_after("import sys, rl_posttrain.rewards")
    assert not loaded & {"torch", "sympy", "math_verify", "pydantic"}
