"""The examples with an optimizer in somebody else's loop: each trains as the plain loop does."""

import importlib.util
import re
from pathlib import Path

import pytest
from conftest import run_python

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "optimizers"


def losses(name: str) -> list[float]:
    done = run_python(FOLDER / f"{name}.py", OMP_NUM_THREADS="1", ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-3000:]
    return [float(loss) for loss in re.findall(r"^step \d+: loss (\S+)$", done.stdout, re.MULTILINE)]


@pytest.fixture(scope="module")
def plain() -> list[float]:
    return losses("plain")


def test_the_plain_loop_learns(plain):
    assert len(plain) == 30
    assert plain[-1] < plain[0] / 2


@pytest.mark.parametrize(
    ("name", "package"), [("with_accelerate", "accelerate"), ("with_lightning", "lightning")], ids=str
)
def test_others_train_as_the_plain_loop_does(name, package, plain):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed; `pip install {package}` runs this example")
    assert losses(name) == plain


def test_torchtune_makes_the_optimizer_that_its_configuration_names():
    """`tune run full_finetune_single_device --config ...` makes its optimizer by these calls."""
    config = pytest.importorskip("torchtune.config")
    omegaconf, torch = pytest.importorskip("omegaconf"), pytest.importorskip("torch")
    from rl_posttrain.optim import AdamS

    section = omegaconf.OmegaConf.load(FOLDER / "torchtune.yaml").optimizer
    optimizer = config.instantiate(section, torch.nn.Linear(3, 2).parameters())
    assert type(optimizer) is AdamS
    (group,) = optimizer.param_groups
    assert (group["lr"], tuple(group["betas"]), group["weight_decay"]) == (1e-5, (0.9, 0.95), 0.1)
