"""Gathering tensors for updates of many at once: which share a list, and when a list is handed over."""

import torch

from rl_posttrain.optim.batches import Batches


def tensors(size, dtype=torch.float32):
    return torch.zeros(size, dtype=dtype), torch.zeros(size), None


def gathered(first_size, *added):
    """The sizes in each list, in the order in which the lists were handed over, with the step of their kind."""
    lists = []
    batches = Batches(
        lambda first, step: (lambda given, at: lists.append((at, [w.numel() for w, *_ in given])), step),
        first_size=first_size,
    )
    for one in added:
        batches.add(*one)
    before = len(lists)
    batches.finish()
    return lists[:before], lists[before:]


def test_each_list_is_twice_as_large_as_the_one_before():
    early, late = gathered(10, *((tensors(4), None) for _ in range(10)))
    assert early == [(None, [4, 4, 4]), (None, [4] * 5)]  # 12 of 10, 20 of 20
    assert late == [(None, [4, 4])]


def test_a_list_has_one_kind_whatever_the_order():
    half = torch.bfloat16
    early, late = gathered(
        100, (tensors(1), 1.0), (tensors(2, half), 1.0), (tensors(3), 1.0), (tensors(4), 2.0), (tensors(5), 1.0)
    )
    assert early == []
    assert late == [(1.0, [1, 3, 5]), (1.0, [2]), (2.0, [4])]


def test_a_step_on_a_device_is_told_by_its_identity():
    """Comparing values would wait for the device."""
    one, other = torch.tensor(1.0), torch.tensor(1.0)
    _, late = gathered(100, (tensors(1), one), (tensors(2), other), (tensors(3), one))
    assert [sizes for _, sizes in late] == [[1, 3], [2]]


def test_empty_tensors_are_left_out():
    assert gathered(10, (tensors(0), None)) == ([], [])
