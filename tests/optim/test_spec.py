"""An optimizer by name: what is checked before there is a model, what is built for one, and where it does not run."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from rl_posttrain.errors import RecipeError
from rl_posttrain.optim import AdamS, build_optimizer, resolve_optimizer

WHOLE_MATRICES = ("muon", "torch.optim:Muon", "adam_mini", "galore", "fira", "apollo")


@pytest.mark.parametrize("name", ["adams", "adamw", "scale", "sgd"])
def test_a_name_takes_its_arguments_and_steps(name):
    options = {} if name == "sgd" else {"betas": [0.8, 0.9]}
    spec = resolve_optimizer(name, lr=0.1, weight_decay=0.01, options=options)
    own = {"momentum": 0.9} if name == "sgd" else {"betas": [0.8, 0.9] if name == "scale" else (0.8, 0.9)}
    assert spec.arguments == {"lr": 0.1, "weight_decay": 0.01, **own}
    layer = torch.nn.Linear(3, 2, bias=False)
    torch.nn.init.ones_(layer.weight).grad = torch.ones(2, 3)
    spec.build(layer).step()
    assert (layer.weight < 1).all()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adms", {}, "optimizer.name=adms: no built-in of that name; did you mean 'adams'?"),
        (
            "adams",
            {"bets": [0.9, 0.9]},
            "optimizer.bets=[0.9, 0.9]: AdamS takes no such argument; did you mean 'betas'?",
        ),
        ("adams", {"betas": [0.9]}, "optimizer.betas=[0.9]: "),
        (
            "adams",
            {"eps": 1e-6, "betas": [0.9, 1.5], "maximize": True},
            "optimizer.betas=(0.9, 1.5): adams refuses it (ValueError: Invalid beta2: betas[1]=1.5; it must be in "
            "[0, 1)); set a value that it takes",
        ),
        (
            "adams",
            {"foreach": True, "fused": True},
            "optimizer.fused=True: adams refuses it (ValueError: Invalid",
        ),
        (
            "scale",
            {"momentum": 0.5, "norm": "l1"},
            "optimizer.norm=l1: scale refuses it (ValueError: Invalid norm",
        ),
        ("torch.optim:SGD", {"nesterov": True}, "optimizer.nesterov=True: torch.optim:SGD refuses it (ValueError: "),
        ("adams", {"params": []}, "optimizer.params=[]: AdamS takes no such argument"),
        ("os:path", {}, "optimizer.name=os:path: it is not a subclass of torch.optim.Optimizer"),
        ("torch.nn:Linear", {}, "optimizer.name=torch.nn:Linear: it is not a subclass of torch.optim.Optimizer"),
    ],
)
def test_optimizers_that_cannot_be_built(name, options, message):
    with pytest.raises(RecipeError) as caught:
        resolve_optimizer(name, lr=0.1, options=options)
    assert str(caught.value).startswith(message)


def test_an_optimizer_of_ones_own_hands_its_keywords_on_and_a_wrong_one_is_seen_before_the_run(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\n"
        "class Mine(torch.optim.AdamW):\n"
        "    def __init__(self, params, warm: bool = False, **kwargs):\n"
        "        super().__init__(params, **kwargs)\n"
    )
    name = f"{path}:Mine"
    options = {"warm": True, "betas": (0.8, 0.9)}
    assert resolve_optimizer(name, lr=0.1, options=options).arguments == {"lr": 0.1, "weight_decay": 0.0, **options}
    with pytest.raises(RecipeError, match=r"optimizer.bets=\(0.8, 0.9\): .* refuses it \(TypeError: .*'bets'"):
        resolve_optimizer(name, lr=0.1, options={"bets": (0.8, 0.9)})


@pytest.mark.parametrize("name", ["lion", "sign_sgd", "adam_mini", "galore", "fira"])
def test_a_package_that_is_not_installed_is_one_line_with_the_fix(name, monkeypatch):
    monkeypatch.setattr("rl_posttrain.optim.spec.is_installed", lambda package: False)
    with pytest.raises(RecipeError) as caught:
        resolve_optimizer(name, lr=0.1)
    assert str(caught.value).endswith("is not installed; pip install 'rl_posttrain[optimizers]'")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lion", {"bets": [0.9, 0.99]}, "Lion takes no such argument; did you mean 'betas'?"),
        ("galore", {"ranks": 8}, "from_model takes no such argument; did you mean 'rank'?"),
        ("galore", {"rank": 0}, "Invalid rank: 0"),
        ("apollo", {"scale_type": "row"}, "optimizer.scale_type=row"),
        ("apollo", {"update_proj_gap": 0}, "Invalid update_proj_gap=0"),
        ("muon", {"momentum": -1.0}, "momentum should be >= 0"),
        ("adam_mini", {"betas": [0.9, 1.5]}, "Invalid beta parameter at index 1"),
    ],
    ids=str,
)
def test_a_wrong_argument_shows_before_a_model_is_loaded(name, options, message):
    with pytest.raises(RecipeError) as caught:
        resolve_optimizer(name, lr=0.1, options=options)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", WHOLE_MATRICES)
def test_what_needs_whole_matrices_is_refused_where_shards_are_flat(name):
    spec = resolve_optimizer(name, lr=1e-3)
    spec.refuse_shards(0)
    with pytest.raises(RecipeError) as caught:
        spec.refuse_shards(2)
    assert str(caught.value) == (
        f"optimizer.name={name} needs whole matrices, but distributed.zero_stage=2 hands the optimizer flat "
        "1-D shards; set zero_stage: 0 or optimizer.name: adams"
    )
    with pytest.raises(RecipeError) as caught:
        resolve_optimizer(name, lr=1e-3, key="--optimizers").refuse_shards(1, stage_key="--zero-stage")
    assert str(caught.value) == (
        f"--optimizers={name} needs whole matrices, but --zero-stage=1 hands the optimizer flat 1-D shards; "
        "set --zero-stage=0 or --optimizers=adams"
    )


@pytest.mark.parametrize("name", ["adams", "adamw", "scale", "sgd", "lion"])
def test_what_takes_flat_shards_is_refused_under_no_stage(name):
    for stage in (0, 1, 2, 3):
        resolve_optimizer(name, lr=1e-3).refuse_shards(stage)


def test_a_spec_is_read_only():
    options = {"betas": (0.8, 0.9)}
    spec = resolve_optimizer("adams", lr=1e-3, options=options, lr_by_role={"norms": 1e-4})
    options["betas"] = (0.5, 0.5)
    assert spec.arguments["betas"] == (0.8, 0.9)
    for mapping in (spec.arguments, spec.lr_by_role):
        with pytest.raises(TypeError):
            mapping["lr"] = 1.0
    with pytest.raises(AttributeError):
        spec.name = "adamw"


class TwoLayers(torch.nn.Module):
    """A model of plain PyTorch: 3 -> 4 -> 1."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.hidden = torch.nn.Linear(3, 4)
        self.lm_head = torch.nn.Linear(4, 1, bias=False)

    def forward(self, x):
        return self.lm_head(torch.tanh(self.hidden(x)))


def losses_of_a_loop(model, optimizer, backward=torch.Tensor.backward):
    inputs = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(60):
        loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return losses


def by_names(model, optimizer):
    """Settings of each group by the parameters in it."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        tuple(names[parameter] for parameter in group["params"]): (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
    }


def test_a_plain_loop_trains_with_groups_by_role():
    model = TwoLayers()
    optimizer = build_optimizer(model, "adams", lr=0.02, weight_decay=0.1, lr_by_role={"output_layer": 0.01})
    assert type(optimizer) is AdamS
    assert by_names(model, optimizer) == {
        ("hidden.weight",): (0.02, 0.1),
        ("lm_head.weight",): (0.01, 0.1),
        ("hidden.bias",): (0.02, 0.0),
    }
    losses = losses_of_a_loop(model, optimizer)
    assert losses[-1] < 0.2 * losses[0], losses


def test_a_loop_of_accelerate_makes_the_same_steps():
    model, prepared = TwoLayers(), TwoLayers()
    settings = {"lr": 0.02, "weight_decay": 0.1, "no_decay": ["biases", "output_layer"]}
    expected = losses_of_a_loop(model, build_optimizer(model, "scale", **settings))
    AcceleratorState._reset_state(reset_partial_state=True)  # of a test before, which may have trained in bf16
    accelerator = Accelerator(cpu=True)
    wrapped, optimizer = accelerator.prepare(prepared, build_optimizer(prepared, "scale", **settings))
    assert losses_of_a_loop(wrapped, optimizer, accelerator.backward) == expected


def test_a_class_that_refuses_the_model_is_one_line():
    with pytest.raises(RecipeError, match=r"^optimizer.name=torch.optim:Muon: Muon refuses the model \(ValueError"):
        build_optimizer(TwoLayers(), "torch.optim:Muon", lr=0.1)
