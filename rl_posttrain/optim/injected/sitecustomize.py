"""Python runs this when it starts, in every process of a program under `rl-posttrain optim run`.

It waits until a process imports transformers' trainer, and then imports rl_posttrain.optim.autoswap. Other processes,
such as launchers and workers, only pay for reading this file. It uses the standard library alone: it also runs in a
Python where rl_posttrain is not installed, and says so there.

Why by PYTHONPATH: launchers start processes in many ways (torchrun, accelerate, trl, deepspeed, shell scripts), and all
of them hand on the environment. To rewrite their command lines one would have to know each of them.
"""

import contextlib
import importlib.machinery
import importlib.util
import os
import sys
import time

_NAME, _NOTES = "RL_POSTTRAIN_OPTIMIZER", "RL_POSTTRAIN_OPTIMIZER_NOTES"


class _AfterTrainer:
    """A finder that finds the trainer's module as Python does, and swaps after it was run."""

    def find_spec(self, name, path=None, target=None):
        if name != "transformers.trainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            run = spec.loader.exec_module

            def run_and_swap(module):
                run(module)
                _swap()

            spec.loader.exec_module = run_and_swap
        return spec


def _swap():
    try:
        import rl_posttrain.optim.autoswap  # noqa: F401
    except ImportError as error:
        message = (
            f"{_NAME}={os.environ[_NAME]}: {sys.executable} has no rl_posttrain.optim.autoswap ({error}); "
            "install rl_posttrain there, too"
        )
        folder = os.environ.get(_NOTES)
        if folder and os.path.isdir(folder):
            # As swapped.save_refusal does, which is not there.
            with contextlib.suppress(OSError):
                name = f"{time.time_ns()}-{os.getpid()}.refused"
                with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                    file.write(message)
        sys.stderr.write(f"rl-posttrain: {message}\n")
        raise SystemExit(2) from None


def _run_hidden():
    """Run the sitecustomize that this file hides, if there is one: the machine's, or that of the environment."""
    here = os.path.dirname(os.path.abspath(__file__))
    path = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", path)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        sys.modules["sitecustomize"] = module
        spec.loader.exec_module(module)


if os.environ.get(_NAME):
    sys.meta_path.insert(0, _AfterTrainer())
_run_hidden()
