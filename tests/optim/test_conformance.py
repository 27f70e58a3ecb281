"""Every optimizer of the table through every check; conformance.py says how a new one enters."""

import inspect

import conformance_files
import conformance_steps
import pytest
import torch
from conformance import CASES, CHECKS, skip_where_missing

from rl_posttrain.optim import OPTIMIZERS


@pytest.fixture(autouse=True)
def eager():
    """torchao compiles its step for each shape anew, which takes minutes and changes nothing else."""
    with torch.compiler.set_stance("force_eager"):
        yield


def test_every_name_of_the_table_has_a_case():
    assert {function.__module__ for function in CHECKS.values()} == {
        conformance_files.__name__,
        conformance_steps.__name__,
    }
    assert {case.name for case in CASES.values()} == set(OPTIMIZERS)
    for case in CASES.values():
        assert set(case.own) <= set(CHECKS)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("check", CHECKS)
def test_conformance(check, name, tmp_path):
    case = CASES[name]
    skip_where_missing(case.name)
    function = case.own[check].check if check in case.own else CHECKS[check]
    function(case, tmp_path) if "folder" in inspect.signature(function).parameters else function(case)
