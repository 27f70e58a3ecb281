"""C++ kernels for the CPU: the machine's own compiler compiles them on first use, into the cache folder."""

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from rl_posttrain.errors import EngineError, one_line
from rl_posttrain.machine.tools import cache_folder, find_compiler

_TYPES = {torch.float32: "float", torch.float64: "double", torch.bfloat16: "bfloat16"}
# By what torch itself found, not by -march=native: a home folder may be shared by machines of other kinds.
_VECTORS = {"AVX512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"], "AVX2": ["-mavx2", "-mfma"]}


@functools.cache
def load_kernel(name: str, **dtypes: torch.dtype) -> ctypes.CDLL:
    """The library of ``name.cpp`` of this folder for values of these dtypes.

    Args:
        name: of the source file, ``adams`` or ``scale``.
        **dtypes: the dtype of each kind of tensor in the source, such as ``weight=torch.bfloat16``. The arithmetic is
            in fp32, in fp64 for fp64 weights.

    Raises:
        EngineError: there is no compiler, it fails, or there are no kernels for a dtype.
    """
    unknown = next((dtype for dtype in dtypes.values() if dtype not in _TYPES), None)
    if unknown is not None:
        raise EngineError(f"fused=True: there is no kernel for {unknown} on a CPU; leave fused out")
    compiler = find_compiler()
    if compiler is None:
        named = os.environ.get("CXX", "")
        raise EngineError(f"fused=True: no C++ compiler {named!r}; install g++, name yours in CXX, or leave fused out")
    folder = Path(__file__).parent
    real = "double" if torch.float64 in dtypes.values() else "float"
    types = [f"-D{place.upper()}={_TYPES[dtype]}" for place, dtype in dtypes.items()]
    vectors = _VECTORS.get(torch.backends.cpu.get_cpu_capability(), [])
    # A square root that set errno, or operations whose exceptions were looked at, would not become vectors.
    flags = ["-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", *vectors]
    command = [compiler, *flags, f"-DREAL={real}", *types]
    source = folder / f"{name}.cpp"
    parts = [*command, source.read_text(), (folder / "values.h").read_text()]
    library = cache_folder() / "kernels" / f"{name}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}.so"
    try:
        if not library.exists():
            _compile(command, source, library)
        # After torch, whose OpenMP runtime it then shares.
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise EngineError(
            f"fused=True: {library} cannot be written or loaded ({one_line(error)}); set RL_POSTTRAIN_CACHE to a "
            "folder that you can write to, or leave fused out"
        ) from error


@functools.cache
def can_compile(name: str, weight: torch.dtype, gradient: torch.dtype, momentum: torch.dtype) -> bool:
    """Whether this machine can compile the kernel. It tries, once."""
    try:
        load_kernel(name, weight=weight, gradient=gradient, momentum=momentum)
    except EngineError:
        return False
    return True


def addresses(tensors: list[torch.Tensor]) -> ctypes.Array:
    """The tensors' data pointers as an array of C, for a kernel; the tensors must outlive the call."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])


def numbers_of_c(kind: type, numbers: Sequence[float] | None) -> ctypes.Array | None:
    """`numbers` as an array of C, for a kernel, of a type such as ``ctypes.c_int64``; None is a null pointer."""
    return None if numbers is None else (kind * len(numbers))(*numbers)


def _compile(command: list[str], source: Path, library: Path) -> None:
    """Compile into a folder beside `library`, then rename: no process ever sees half a library."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made = Path(folder) / library.name
        result = subprocess.run([*command, str(source), "-o", str(made)], capture_output=True, text=True)
        if result.returncode:
            reason = " ".join(result.stderr.split())[:200]
            raise EngineError(
                f"fused=True: {command[0]} fails here ({reason}); see `rl-posttrain doctor`, or leave fused out"
            )
        made.replace(library)
