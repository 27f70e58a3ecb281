"""States of other optimizers in AdamS and SCALE, against the rules written out from what the file holds."""

import copy
import warnings

import pytest
import torch
from conformance import CASES, Model, train, weights
from torch import nn

from rl_posttrain.optim import SCALE, AdamS, build_optimizer, parameter_groups

SETTINGS = {"lr": 0.03, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.2}


def groups_of(model, kind):
    """One group; those of transformers, with and without weight decay; or by role."""
    if kind == "one":
        return list(model.parameters())
    if kind == "named":
        return list(model.named_parameters())
    if kind == "two":
        return [{"params": [p for p in model.parameters() if (p.ndim < 2) is vectors]} for vectors in (False, True)]
    return parameter_groups(model, lr=0.03, weight_decay=0.2)


def trained_by(cls, kind="two", **options):
    """A model after three steps of another optimizer, and that optimizer."""
    model = Model()
    optimizer = cls(groups_of(model, kind), **{"lr": 0.05} | options)
    train(model, optimizer, range(3))
    return model, optimizer


@pytest.mark.parametrize("ours", ["one", "two", "roles"])
@pytest.mark.parametrize("theirs", ["one", "two"])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam])
def test_adams_goes_on_from_adams_kin_with_its_own_settings(kind, theirs, ours):
    model, other = trained_by(kind, theirs, betas=(0.9, 0.999), amsgrad=True)
    momenta = [other.state[parameter]["exp_avg"].double() for parameter in model.parameters()]
    optimizer = AdamS(groups_of(model, ours), **SETTINGS)
    with pytest.warns(UserWarning, match=r"momentum of 7 of 7 .* own \(lr=0.03, betas=\(0.8, 0.9\).*file's.*0.999\)\)"):
        optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.9)}
    before = weights(model)
    train(model, optimizer, range(3, 4))
    assert all(list(state) == ["exp_avg"] for state in optimizer.state.values())
    for parameter, old, momentum in zip(model.parameters(), before, momenta, strict=True):
        decay = 0.0 if ours == "roles" and parameter.ndim < 2 else 0.2
        gradient = parameter.grad.double()
        normalizer = (0.9 * momentum**2 + 0.1 * gradient**2).sqrt() + 1e-6
        expected = (1 - 0.03 * decay) * old.double() - 0.03 * (0.8 * momentum + 0.2 * gradient) / normalizer
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_the_authors_correction_goes_on_from_adamws_count():
    model, other = trained_by(torch.optim.AdamW)
    optimizer = AdamS(groups_of(model, "two"), **SETTINGS, bias_correction=True)
    with pytest.warns(UserWarning, match="takes over"):
        optimizer.load_state_dict(other.state_dict())
    train(model, optimizer, range(3, 4))
    assert {state["step"].item() for state in optimizer.state.values()} == {4}
    assert {state["step"].item() for state in other.state.values()} == {3}  # nothing is shared


def test_parameters_are_matched_by_name_where_there_are_names():
    model, other = trained_by(torch.optim.AdamW, "named")
    reverse = AdamS(list(model.named_parameters())[::-1], **SETTINGS)
    with pytest.warns(UserWarning, match="7 of 7"):
        reverse.load_state_dict(other.state_dict())
    for parameter in model.parameters():
        assert torch.equal(reverse.state[parameter]["exp_avg"], other.state[parameter]["exp_avg"])


def test_lions_momentum_is_one_too():
    model = Model()
    other = CASES["lion"].build(model)
    train(model, other, range(3))
    optimizer = build_optimizer(model, "adams", **SETTINGS)
    with pytest.warns(UserWarning, match=r"another optimizer \(exp_avg\)"):
        optimizer.load_state_dict(other.state_dict())
    for parameter in model.parameters():
        assert torch.equal(optimizer.state[parameter]["exp_avg"], other.state[parameter]["exp_avg"])
    assert {group["lr"] for group in optimizer.param_groups} == {0.03}


def test_scale_takes_the_heads_momentum_and_the_vectors_adam():
    model, other = trained_by(torch.optim.AdamW)
    optimizer = SCALE.from_model(model, lr=0.03)
    with pytest.warns(UserWarning, match="SCALE takes over .* momentum of 4 of 7 parameters"):
        optimizer.load_state_dict(other.state_dict())
    adam = {"step", "exp_avg", "exp_avg_sq"}
    for name, parameter in model.named_parameters():
        kept = set(optimizer.state.get(parameter, {}))
        assert kept == ({"exp_avg"} if name == "lm_head.weight" else set() if parameter.ndim == 2 else adam)
        for key in kept:
            assert torch.equal(optimizer.state[parameter][key], other.state[parameter][key])
    train(model, optimizer, range(3, 5))
    assert optimizer.state[model.norm.weight]["step"].item() == 5


def test_scale_starts_vectors_anew_where_their_second_moment_is_missing():
    model = Model()
    other = CASES["lion"].build(model)
    train(model, other, range(3))
    optimizer = SCALE.from_model(model, lr=0.03)
    with pytest.warns(UserWarning, match="SCALE takes over"):
        optimizer.load_state_dict(other.state_dict())
    train(model, optimizer, range(3, 5))
    assert optimizer.state[model.norm.weight]["step"].item() == 2


@pytest.mark.parametrize("ours", ["adams", "scale"])
@pytest.mark.parametrize("theirs", ["sgd", "muon", "adam_mini", "galore"])
def test_states_of_another_kind_are_refused_in_one_line(theirs, ours):
    model = Model()
    other = CASES[theirs].build(model)
    train(model, other, range(3))
    optimizer = build_optimizer(model, ours, lr=0.03)
    before = copy.deepcopy(optimizer.param_groups)
    with pytest.raises(ValueError, match="loaded state dict is of another optimizer") as raised:
        optimizer.load_state_dict(other.state_dict())
    assert "\n" not in str(raised.value)
    assert str(optimizer.param_groups) == str(before)
    train(model, optimizer, range(3, 4))


def test_before_the_first_step_there_is_nothing_to_take_over():
    model = Model()
    optimizer = AdamS(groups_of(model, "one"), lr=0.03)
    with pytest.warns(UserWarning, match=r"another optimizer \(empty\): the momentum of 0 of 7 parameters"):
        optimizer.load_state_dict(torch.optim.AdamW(groups_of(model, "two")).state_dict())
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
    train(model, optimizer, range(1))


def test_a_state_of_another_model_is_refused():
    _, other = trained_by(torch.optim.AdamW)
    wider = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 5), nn.LayerNorm(5), nn.LayerNorm(5))
    with pytest.raises(ValueError, match=r"groups of \[4, 3\] parameters, and AdamS's groups of \[8\] do not match"):
        AdamS(wider.parameters()).load_state_dict(other.state_dict())


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("theirs", [AdamS, torch.optim.AdamW])
def test_a_state_of_other_shapes_is_refused_at_load_by_name_and_both_shapes(theirs, named):
    def parameters(layer):
        return list(layer.named_parameters()) if named else list(layer.parameters())

    small, large = (nn.Linear(300, size, bias=False) for size in (300, 600))
    other = theirs(parameters(small))
    small.weight.grad = torch.ones_like(small.weight)
    other.step()
    optimizer = AdamS(parameters(large))
    name = "weight" if named else "parameter 0 of group 0"
    reason = rf"^{name}=\(600, 300\): the loaded state has exp_avg of shape \(300, 300\)"
    if theirs is not AdamS and not named:
        reason = "do not match them in order and shape"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=reason) as raised:
            optimizer.load_state_dict(other.state_dict())
    assert "\n" not in str(raised.value)
    assert not optimizer.state


@pytest.mark.parametrize("key", ["exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("name", ["adams", "scale"])
def test_a_state_that_changes_its_shape_after_the_load_makes_no_step(name, key):
    model = Model()
    optimizer = build_optimizer(model, name, lr=0.03)
    train(model, optimizer, range(1))
    chosen = [parameter for parameter, state in optimizer.state.items() if key in state]
    for parameter in chosen:
        optimizer.state[parameter][key] = torch.zeros(1)
        before = parameter.detach().clone()
        with pytest.raises(ValueError, match=rf"{key} of shape"):
            train(model, optimizer, range(1, 2))
        assert torch.equal(parameter, before)
        optimizer.state[parameter][key] = torch.zeros_like(parameter)
    assert chosen or (name, key) == ("adams", "exp_avg_sq")


def test_a_file_of_ones_own_class_brings_its_settings_as_in_torch():
    for cls, mark in ((AdamS, {"eps_inside_sqrt": True}), (SCALE, {"norm": "l2"})):
        model = Model()
        build = SCALE.from_model if cls is SCALE else lambda model, **options: AdamS(model.parameters(), **options)
        first = build(model, lr=0.02, **mark)
        train(model, first, range(2))
        again = build(model, lr=0.5)
        (name, value), (asked,) = *mark.items(), (again.param_groups[0][key] for key in mark)
        with pytest.warns(UserWarning, match=f"asked for: {name}={asked} becomes {value}; set") as caught:
            again.load_state_dict(copy.deepcopy(first.state_dict()))
        assert [one.filename for one in caught] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            again.load_state_dict(copy.deepcopy(first.state_dict()))
        assert again.param_groups[0].items() >= ({"lr": 0.02} | mark).items()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        AdamS(groups_of(model, "two")).load_state_dict(AdamS(groups_of(model, "one")).state_dict())


def test_lion_of_its_authors_is_not_taken_for_adams():
    model = Model()
    saved = {
        "state": {number: {"exp_avg": torch.ones_like(value)} for number, value in enumerate(model.parameters())},
        "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0, "params": list(range(7))}],
    }
    optimizer = AdamS(model.parameters(), **SETTINGS)
    with pytest.warns(UserWarning, match=r"takes over .* of 7 parameters is kept; the settings are") as caught:
        optimizer.load_state_dict(saved)
    assert [one.filename for one in caught] == [__file__]
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"]) == (0.03, (0.8, 0.9))


def test_names_that_differ_and_an_order_that_groups_may_have_changed_are_refused():
    layers = nn.ModuleList([nn.Linear(4, 4, bias=False) for _ in range(3)])
    weights = [layer.weight for layer in layers]

    def load(theirs, ours):
        other = torch.optim.AdamW(theirs)
        for number, weight in enumerate(weights):
            weight.grad = torch.full_like(weight, number + 1.0)
        other.step()
        optimizer = AdamS(ours)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.load_state_dict(other.state_dict())
        return [optimizer.state[weight]["exp_avg"][0, 0].item() for weight in weights]

    with pytest.raises(ValueError, match=r"^d: the loaded .* has no parameter of this name"):
        load(list(zip("abc", weights, strict=True)), list(zip("abd", weights, strict=True)))
    with pytest.raises(ValueError, match=r"which of the parameters of shape \(4, 4\) is which") as raised:
        load(weights, [{"params": weights[1:]}, {"params": weights[:1]}])
    assert "\n" not in str(raised.value)
    assert load(weights, weights) == pytest.approx([0.1, 0.2, 0.3])


def test_what_is_no_average_of_gradients_is_refused_or_told():
    model, other = trained_by(torch.optim.Adam, weight_decay=0.1)
    with pytest.warns(UserWarning, match=r"Adam's L2 weight decay \(0.1\) in it"):
        AdamS(groups_of(model, "two")).load_state_dict(other.state_dict())
    saved = copy.deepcopy(other.state_dict())
    for state in saved["state"].values():
        state["exp_avg"] = state["exp_avg"].to(torch.int8)
    with pytest.raises(ValueError, match=r"exp_avg in torch.int8, which is no momentum as it stands; AdamS cannot go"):
        AdamS(groups_of(model, "two")).load_state_dict(saved)


@pytest.mark.parametrize("name", ["sgd", "lion", "sign_sgd", "muon", "apollo", "galore", "fira", "adam_mini"])
def test_others_refuse_adamws_state_in_one_line(name):
    _, other = trained_by(torch.optim.AdamW)
    with pytest.raises(ValueError, match=r"of another optimizer .* cannot go on from; start anew") as raised:
        CASES[name].build(Model()).load_state_dict(other.state_dict())
    assert "\n" not in str(raised.value)


def test_a_correction_without_a_count_is_refused():
    model = Model()
    optimizer = AdamS(model.parameters())
    train(model, optimizer, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    corrected = AdamS(model.parameters(), bias_correction=True)
    with pytest.raises(ValueError, match="bias_correction: True; the state was saved without it and counts no steps"):
        corrected.load_state_dict(saved)
    authors = AdamS(model.parameters(), variant="authors")
    with pytest.raises(ValueError, match=r"variant: authors; the state was .* go on with variant='paper'"):
        authors.load_state_dict(saved)
    optimizer.param_groups[0]["bias_correction"] = True
    with pytest.raises(ValueError, match="bias_correction: True; the state was saved without it"):
        optimizer.step()
    # Nothing was counted before the first step either, but then nothing is needed.
    corrected.load_state_dict(AdamS(model.parameters(), bias_correction=True).state_dict())
