"""Weights over the network, between two threads of this process."""

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from rl_posttrain.rollout import weight_group
from rl_posttrain.rollout.weight_group import Group, buckets, device_of, join, listen, own_address, receive

LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def pair(limit_s: float = 20.0):
    """The sender's group, and the receiver's."""
    store, port = listen(LOOPBACK, limit_s)
    with ThreadPoolExecutor(1) as threads:
        joined = threads.submit(join, "gloo", LOOPBACK, port, 1, 2, limit_s)
        sender = Group("gloo", store, 0, 2, LOOPBACK, limit_s, device_of("gloo"))
        receiver = joined.result()
    try:
        yield sender, receiver
    finally:
        for thread in (sender.close(), receiver.close()):
            thread.join(limit_s)
            assert not thread.is_alive()


def send(group: Group, weights, version="v", dtype=torch.bfloat16) -> int:
    """How many messages it took."""
    number = 0
    for messages in buckets(weights, version, dtype, group.device):
        for work in map(group.broadcast, messages):
            group.wait(work)
            number += 1
    return number


@pytest.mark.parametrize(("bucket", "num_messages"), [(2**26, 3 + 2), (64, 3 * 4 + 2)])
def test_what_arrives_is_what_was_sent_in_the_engines_dtype(monkeypatch, bucket, num_messages):
    monkeypatch.setattr(weight_group, "_BYTES_A_BUCKET", bucket)
    torch.manual_seed(0)
    weights = {
        "matrix": torch.randn(7, 5),
        "transposed": torch.randn(6, 4).t(),
        "one": torch.randn(1),
        "number": torch.tensor(1.5),
        "whole": torch.tensor([2**40, -1]),
        "large": torch.randn(100, dtype=torch.float64),
    }
    with pair() as (sender, receiver), ThreadPoolExecutor(1) as threads:
        sent = threads.submit(send, sender, weights.items())
        arrived = dict(receive(receiver, "v"))
        assert sent.result() == num_messages
    assert list(arrived) == list(weights)
    for name, tensor in weights.items():
        wanted = tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        assert arrived[name].dtype == wanted.dtype
        assert torch.equal(arrived[name], wanted)


def test_weights_of_another_version_are_refused():
    with pair(limit_s=1.0) as (sender, receiver), ThreadPoolExecutor(1) as threads:
        threads.submit(send, sender, [("a", torch.zeros(3))], "old")
        with pytest.raises(ValueError, match="the weights of version old, not of new"):
            list(receive(receiver, "new"))


def test_a_sender_that_leaves_or_says_nothing_is_not_waited_for_longer_than_the_limit():
    with pair(limit_s=1.0) as (_, receiver):
        started = time.monotonic()
        with pytest.raises(RuntimeError, match="timed out"):
            list(receive(receiver, "v"))
        assert time.monotonic() - started < 10
    with pair(limit_s=600.0) as (sender, receiver):
        threading.Timer(0.2, sender.close).start()
        with pytest.raises(RuntimeError, match="Connection closed by peer"):
            list(receive(receiver, "v"))


def test_it_listens_at_its_address_alone_and_one_that_is_not_there_is_found_out_at_once():
    store, port = listen(LOOPBACK, 5.0)
    socket.create_connection((LOOPBACK, port), 2).close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", port), 2)
    del store
    started = time.monotonic()
    with pytest.raises(OSError, match="refused"):
        join("gloo", LOOPBACK, port, 1, 2, 600.0)
    assert time.monotonic() - started < 10
    assert own_address("127.0.0.2") == "127.0.0.1"
    with pytest.raises(OSError, match="assign"):
        listen("192.0.2.1", 5.0)
