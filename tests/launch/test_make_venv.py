"""What is shipped and how it is set up: the wheel outside of the checkout, and launch/make_venv.py run again."""

import importlib.util
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip")


def run(*command, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    inherited = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools leaves build/ in the folder it builds, and would ship what lies there from before.
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "rl_posttrain", "rewards", "recipes", "tests"):
        (source / name).symlink_to(ROOT / name)
    done = run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    target = wheel.parent / "target"
    done = run(*PIP, "install", "--no-deps", "--no-index", "--target", target, wheel, cwd=wheel.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def test_the_wheel_holds_the_package_rewards_and_recipes_and_no_tests(wheel):
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = next(archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
    sources = (ROOT / "rl_posttrain").rglob("*.*")
    expected = {
        str(path.relative_to(ROOT)) for path in sources if path.suffix in (".py", ".cpp", ".h", ".html", ".css", ".js")
    }
    expected |= {f"rl_posttrain/{path.relative_to(ROOT)}" for path in (ROOT / "rewards").rglob("*.py")}
    recipes = (path for path in (ROOT / "recipes").rglob("*.*") if path.suffix in (".py", ".yaml"))
    expected |= {f"rl_posttrain/recipes/{path.relative_to(ROOT / 'recipes')}" for path in recipes}
    assert shipped == expected
    assert any(name.endswith(".yaml") for name in shipped)
    assert "License-Expression: Apache-2.0" in metadata


def test_the_installed_wheel_runs_from_another_folder(installed, tmp_path):
    environment = {"PYTHONPATH": str(installed)}
    where = run(sys.executable, "-c", "import rl_posttrain; print(rl_posttrain.__file__)", cwd=tmp_path, **environment)
    assert where.stdout.strip() == str(installed / "rl_posttrain" / "__init__.py"), where.stderr
    listed = run(sys.executable, "-m", "rl_posttrain.cli.main", "recipes", cwd=tmp_path, **environment)
    assert listed.returncode == 0, listed.stderr
    for recipe in (ROOT / "recipes").glob("*.yaml"):
        assert recipe.stem in listed.stdout


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A copy of what the set-up reads, with a bare .venv that carries the stamp of a finished install."""
    checkout = tmp_path / "checkout"
    (checkout / "launch").mkdir(parents=True)
    (checkout / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (checkout / "launch" / "make_venv.py").write_bytes((ROOT / "launch" / "make_venv.py").read_bytes())
    venv.create(checkout / ".venv", symlinks=True)
    spec = importlib.util.spec_from_file_location("setup_of_copy", checkout / "launch" / "make_venv.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    setup.STAMP.write_text(setup.stamp(setup.has_nvidia_gpu()))
    return checkout


def set_up(checkout: Path) -> subprocess.CompletedProcess:
    """Runs the copy's set-up where nothing can be fetched, so that an install fails in its first stage."""
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}
    return run(sys.executable, "launch/make_venv.py", cwd=checkout, **offline)


def contents(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_a_second_set_up_installs_nothing(checkout):
    before = contents(checkout / ".venv")
    done = set_up(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert contents(checkout / ".venv") == before


def test_a_change_of_what_is_installed_or_a_failed_install_is_set_up_again(checkout):
    kept = checkout / ".venv" / "kept"
    kept.touch()
    finished = {name: (checkout / name).read_bytes() for name in ("pyproject.toml", "launch/make_venv.py")}
    # The last time as it was when the stamp was written: what the failed attempts left is no finished install.
    for changed in (*finished, None):
        for name, content in finished.items():
            (checkout / name).write_bytes(content + (b"\n# another line\n" if name == changed else b""))
        done = set_up(checkout)
        assert done.returncode != 0
        assert "uv ... failed" in done.stdout
        assert "No matching distribution found for uv" in done.stderr
        assert kept.exists()


def test_a_moved_checkout_is_set_up_again(checkout):
    moved = checkout.rename(checkout.parent / "moved")
    assert "uv ... failed" in set_up(moved).stdout


def test_the_set_up_goes_on_without_what_may_fail_and_ends_without_anything_else(checkout, capsys):
    spec = importlib.util.spec_from_file_location("setup_of_copy", checkout / "launch" / "make_venv.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    fails = [sys.executable, "-c", "print('no compiler'); raise SystemExit(3)"]
    setup.stage("extra", fails, without="something is missing")
    assert capsys.readouterr().out == "  extra ... failed: something is missing\n"
    with pytest.raises(SystemExit, match=r"^no compiler\n\nextra: failed with exit status 3: "):
        setup.stage("extra", fails)
