"""The process around a run: variables that vLLM and DeepSpeed read at import, quiet logs, cores and ranks."""

import contextlib
import ctypes
import logging
import os
import platform
import warnings
from collections.abc import Iterator

from rl_posttrain.errors import EngineError, one_line

_CHATTY = (
    "vllm",
    "DeepSpeed",
    "deepspeed",
    "trl",
    "transformers",
    "accelerate",
    "datasets",
    "torch",
    "filelock",
    "httpx",
)

# mallopt's parameters, from malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def prepare_process(*, verbose: bool, deterministic: bool = False) -> None:
    """Set the environment variables that the engines read. Call it before torch, vllm or deepspeed is imported.

    Variables that the user has set keep their values, except MASTER_PORT of a process without a launcher: it gets a
    free port.

    Args:
        verbose: leave third-party logs as they are.
        deterministic: choose the kernels and collectives of a GPU that always add in the same order.
    """
    defaults = {
        # The engine runs in this process, where it gets the trainer's weights directly.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # If this is unset, vLLM sets torch to one thread, which slows the update, too.
        "OMP_NUM_THREADS": str(cores_per_process()),
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if deterministic:
        defaults |= {
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
            "FLASH_ATTENTION_DETERMINISTIC": "1",
            "NCCL_ALGO": "Ring",  # left to itself, NCCL chooses by measured speeds
        }
    if "TORCHELASTIC_RUN_ID" not in os.environ and "WORLD_SIZE" not in os.environ:
        defaults |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(free_port())
    elif os.environ.get("OMP_NUM_THREADS") == "1" and os.environ.get("TORCHELASTIC_RUN_ID"):
        # 1 is what torchrun sets for several processes, not a choice of the user's.
        del os.environ["OMP_NUM_THREADS"]
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if not verbose:
        _quiet()


@contextlib.contextmanager
def deterministic_kernels(asked: bool) -> Iterator[None]:
    """Where `asked`, torch runs operations inside the block by kernels that repeat themselves bit for bit.

    Raises:
        EngineError: an operation has no such kernel on this device.
    """
    if not asked:
        yield
        return
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # vLLM leaves places uninitialized whose values it masks by multiplying with 0, which NaN would survive.
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    except RuntimeError as error:
        if "deterministic implementation" not in str(error):
            raise
        raise EngineError(
            f"run.deterministic=true: {one_line(error, limit=200)}; leave out what needs this operation, or set "
            "run.deterministic=false"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]


def _keep_freed_memory() -> None:
    """Make glibc's allocator keep the memory that torch frees.

    By default glibc maps new pages for every large tensor, several times a step. Without that, an update on a CPU takes
    about a quarter less time; docs/log.md has the figures.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_ARENA_MAX, 1)


def use_cpu_if_no_gpu() -> bool:
    """Whether this process trains on the CPU. If so, DeepSpeed and the allocator are set up for that."""
    import torch

    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        _keep_freed_memory()
    return on_cpu


def world_size() -> int:
    """Number of processes of this job, from the variables that torchrun sets; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def num_machines() -> int:
    """Number of machines of this job, from the variables that torchrun sets; 1 without it."""
    return int(os.environ.get("GROUP_WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this is the first process of the job. Only that one writes files and shows progress."""
    return os.environ.get("RANK", "0") == "0"


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_per_process() -> int:
    """This process's share of the cores: torchrun says how many processes of the job share this machine."""
    return max(1, num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def free_port() -> int:
    """A port to listen on some seconds later, when torch is imported.

    By then a port that the system chooses may be another process's: it gives these to every connection. It gives none
    of those below 32768 to any.
    """
    import random
    import socket

    ports = random.SystemRandom().sample(range(20_000, 30_000), 1000)
    for port in ports:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port is free: of {len(ports)} from 20000 to 29999 all are in use")


def _quiet() -> None:
    """Silence third-party logs, except errors."""
    quiet = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "DATASETS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "DEEPSPEED_LOG_LEVEL": "error",
        "DS_LOG_LEVEL": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "GLOO_LOG_LEVEL": "ERROR",
    }
    for name, value in quiet.items():
        os.environ.setdefault(name, value)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
