"""The Triton kernels that handle many tensors in one launch: in Triton's interpreter here, and on a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from conftest import clean_environment

packed = pytest.importorskip("packed", reason="no Triton here", exc_type=ImportError)


def test_in_tritons_interpreter():
    """The same kernels, their instructions carried out one by one on the CPU."""
    done = subprocess.run(
        [sys.executable, packed.__file__, "cpu"],
        capture_output=True,
        text=True,
        env=clean_environment(TRITON_INTERPRET="1", PYTHONPATH=os.environ.get("PYTHONPATH", "")),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"agreed: {check.__name__}" for check in packed.CHECKS]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("check", [*packed.CHECKS, *packed.GPU_CHECKS], ids=lambda check: check.__name__)
def test_on_a_gpu(check):
    check("cuda")
