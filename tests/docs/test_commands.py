"""Every command in README and the pages: it exists with these options, its recipe loads, and a test runs its kind."""

import re

import pytest
import typer
import typer.main
from conftest import run_python
from pages import ROOT, Command, commands

from rl_posttrain.cli.main import app
from rl_posttrain.errors import RlPosttrainError
from rl_posttrain.models.find import BUNDLED
from rl_posttrain.recipe.files import bundled_recipes
from rl_posttrain.recipe.load import load_recipe
from rl_posttrain.study.plan import plan_runs, read_plan

COMMANDS = commands()
# What these tests do not run themselves, and the test that does.
RUN_BY = {
    "train": "tests/training/test_training.py::test_the_quickstart_learns",
    "compare": "tests/study/test_compare.py"
    "::test_a_comparison_survives_ctrl_c_a_kill_and_a_failure_and_ends_in_a_report",
    "eval": "tests/evaluation/test_alone.py::test_the_command_evaluates_compares_and_tells_where_the_samples_are",
    "golds": "tests/scoring/test_trial.py::test_the_command_prints_a_table_and_json",
    "report": "tests/architecture/test_imports.py::test_a_report_loads_neither_torch_nor_vllm",
    "curves": "tests/cli/test_cli.py::test_curves_draw_what_is_there",
    "export": "tests/models/test_export.py::test_the_command",
    "doctor": "tests/cli/test_cli.py::test_doctor_tells_each_finding_with_its_fix",
    "optim run": "tests/optim/test_programs.py::test_trls_script_trains_with_the_optimizer_that_was_asked_for",
    "optim bench": "tests/optim/test_bench.py::test_every_optimizer_is_timed_beside_fused_adamw",
    "optim memory --measure": "tests/cost/test_memory.py::test_measured_and_predicted_stand_side_by_side",
    "check --measure-speed": "tests/cost/test_check.py::test_the_command_measures_this_machine",
}
RUN_HERE = ("check", "recipes", "optim list", "optim memory")


def of(program: str, *, patterns: bool | None = None) -> list[Command]:
    """Commands of a program; patterns or exact ones alone. Of torchrun, what it starts of ours."""
    found = []
    for command in COMMANDS:
        words = command.words
        if program == "rl-posttrain" and words[0] == "torchrun" and "rl_posttrain" in words:
            words = ("rl-posttrain", *words[words.index("rl_posttrain") + 1 :])
        if words[0] == program and patterns in (None, command.is_pattern):
            found.append(command.__class__(**{**vars(command), "words": words}))
    return found


def resolve(words: tuple[str, ...]) -> tuple[str, object, list[str]]:
    """The name of the subcommand that the words begin with, the command itself, and the words that are left."""
    command, rest, path = typer.main.get_command(app), list(words[1:]), []
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        path.append(rest[0])
        command = command.commands[rest.pop(0)]
    return " ".join(path), command, rest


def parsed(command: Command) -> tuple[str, dict]:
    """The subcommand and its values, as typer reads them without running anything."""
    name, found, rest = resolve(command.words)
    if "--help" in rest:
        return name, {}
    try:
        return name, found.make_context(name, rest).params
    except typer.BadParameter.__base__ as error:
        raise AssertionError(f"{command}: {error.format_message()}") from error


def options(words: tuple[str, ...] | list[str]) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(words)))


def test_there_are_commands_to_test():
    assert len(of("rl-posttrain", patterns=False)) > 20
    assert len(of("rl-posttrain", patterns=True)) > 20
    assert of("make")
    assert of("python")


@pytest.mark.parametrize("command", of("rl-posttrain", patterns=True), ids=str)
def test_every_command_in_prose_is_there_with_its_options(command):
    name, found, rest = resolve(command.words)
    assert name or not rest or rest[0].startswith("-"), command
    known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    assert options(rest) <= known, command


@pytest.mark.parametrize("command", of("rl-posttrain", patterns=False), ids=str)
def test_every_command_is_read_and_its_recipe_loads(command, tmp_path):
    name, values = parsed(command)
    if command.answer.startswith("rl-posttrain: "):  # a mistake, and what is said of it
        with pytest.raises(RlPosttrainError) as error:
            load_recipe(values["recipe"], values["overrides"])
        assert f"rl-posttrain: {error.value}" == command.answer
    elif "recipe" in values:
        is_the_readers = values["recipe"] not in bundled_recipes() and not (ROOT / values["recipe"]).exists()
        recipe = load_recipe("quickstart" if is_the_readers else values["recipe"], values["overrides"] or [])
        if name == "compare":
            names, seeds, settings = read_plan(
                recipe, optimizers=values["optimizers"], seeds=values["seeds"], vary=values["vary"] or []
            )
            assert plan_runs(recipe, names, seeds, settings, tmp_path, values["num_processes"])
        if name in ("train", "compare") and recipe.model.name != BUNDLED:
            assert "GPU" in command.section, f"{command}: say on which hardware it runs"


def test_every_kind_of_command_is_run_by_a_test():
    for command in of("rl-posttrain", patterns=False):
        name, values = parsed(command)
        measures = [option for option in ("measure", "measure_speed") if values.get(option) is True]
        if (name and name not in RUN_HERE) or measures:
            options = "".join(f" --{option.replace('_', '-')}" for option in measures)
            path, _, test = RUN_BY[name + options].partition("::")
            assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), (path, test)


RUNNABLE = {
    command.words: command
    for command in of("rl-posttrain", patterns=False)
    if resolve(command.words)[0] in RUN_HERE
    and not {"--measure", "--measure-speed"} & set(command.words)
    and not command.answer
}


@pytest.mark.parametrize("command", RUNNABLE.values(), ids=str)
def test_commands_that_take_seconds_run(command, run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = run_main(*command.words[1:])
    assert status == 0, stderr
    assert stdout


@pytest.mark.parametrize("command", [*of("python"), *of("python3")], ids=str)
def test_every_script_and_module_takes_its_options(command):
    script = ("-m", command.words[2]) if command.words[1] == "-m" else (ROOT / command.words[1],)
    done = run_python(*script, "--help")
    assert done.returncode == 0, done.stderr
    assert options(command.words) <= options(done.stdout.split()), command


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_every_target_of_make_is_there(command):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [word for word in command.words[1:] if "=" not in word]
    assert targets
    for target in targets:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), command


@pytest.mark.parametrize("command", of("pytest"), ids=str)
def test_every_test_that_is_named_is_there(command):
    paths = [word for word in command.words[1:] if "/" in word]
    text = ""
    for path in paths:
        assert (ROOT / path).exists(), command
        text += (ROOT / path).read_text(encoding="utf-8") if path.endswith(".py") else ""
    if "-k" in command.words:
        assert command.words[command.words.index("-k") + 1] in text, command


@pytest.mark.parametrize("command", [*of("bash"), *of("pip")], ids=str)
def test_every_file_and_extra_that_is_named_is_there(command):
    if command.words[0] == "bash":
        assert (ROOT / command.words[1]).is_file(), command
        return
    extras = re.findall(r"rl_posttrain\[([\w,]+)\]", " ".join(command.words))
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in ",".join(extras).split(","):
        assert not extra or f"\n{extra} = [" in pyproject, command
