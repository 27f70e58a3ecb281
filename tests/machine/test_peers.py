"""Processes that hold on to each other: where one dies, those that wait for nobody end, too."""

import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import clean_environment, run_ranks, slowness, wait_until
from networks import ADDRESSES, cut, two_networks

# Processes 0 and 2 sleep, as one that samples for long; process 1 does as it is told.
SCRIPT = """
import os, signal, sys, time
from rl_posttrain.machine import peers, process
process.prepare_process(verbose=False)
peers._PATIENCE_S = 0.5
with peers.watched():
    if os.environ["RANK"] == os.environ["DIES"]:
        exec(sys.argv[1])
    else:
        time.sleep(float(sys.argv[2]))
print("left")
if os.environ["RANK"] != os.environ["DIES"]:
    time.sleep(2)
"""
# Once the others have come.
KILL = f"time.sleep(2); os.kill(os.getpid(), {int(signal.SIGKILL)})"


@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_waits_for_nobody_ends_when_another_has_died(dies):
    ends = run_ranks("-c", SCRIPT, KILL, "100000", processes=3, DIES=str(dies))
    assert ends.pop(dies)[0] == -signal.SIGKILL
    host = socket.gethostname() if dies else "127.0.0.1"
    ranks = [rank for rank in range(3) if rank != dies]
    assert ends == [
        (
            3,
            "",
            f"rl-posttrain: process {rank} of 3: process {dies} on {host} has ended, so this one ends, too; see what "
            "that one said\n",
        )
        for rank in ranks
    ]


def test_an_error_counts_as_an_end_and_a_way_out_does_not():
    failed = run_ranks("-c", SCRIPT, "sys.exit(5)", "100000", processes=2, DIES="1")
    assert [status for status, _, _ in failed] == [3, 5]
    left = run_ranks("-c", SCRIPT, "pass", "3", processes=2, DIES="1")
    assert left == [(0, "left\n", "")] * 2


def test_whoever_does_not_know_the_token_is_not_taken_for_a_process():
    stranger = (
        "import socket\n"
        "port = int(peers._store().get(f'rl_posttrain/peers/0').decode().split()[0])\n"
        "with socket.create_connection(('127.0.0.1', port)) as guest:\n"
        "    guest.sendall(b'0123 1 elsewhere\\n')\n"
        "    assert guest.recv(1) == b''\n"
    )
    assert run_ranks("-c", SCRIPT, stranger, "3", processes=2, DIES="1") == [(0, "left\n", "")] * 2


# Each says that it has come; then it works for long and waits for nobody.
APART = """
import os, sys, time
from rl_posttrain.machine import peers, process
process.prepare_process(verbose=False)
with peers.watched():
    time.sleep(3)
    open(sys.argv[1] + os.environ["RANK"], "w").close()
    time.sleep(100000)
"""


@pytest.mark.long
def test_where_the_network_is_lost_each_ends_within_a_minute_and_names_the_other(tmp_path):
    """Neither machine is told that the cable is gone: 35 seconds of silence and 15 of patience."""
    with two_networks() as names:
        told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": ADDRESSES[0], "MASTER_PORT": "29500"}
        started = []
        for rank, name in enumerate(names):
            command = ["ip", "netns", "exec", name, sys.executable, "-c", APART, f"{tmp_path}/come-"]
            environment = clean_environment(RANK=str(rank), LOCAL_RANK="0", **told)
            started.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment))
        wait_until(lambda: len(list(tmp_path.glob("come-*"))) == 2 or any(each.poll() is not None for each in started))
        assert [each.poll() for each in started] == [None, None], [each.communicate() for each in started]
        cut(names[1])
        lost = time.monotonic()
        wait_until(lambda: all(each.poll() is not None for each in started))
        took = time.monotonic() - lost
    assert 30 < took < 60 * slowness()
    assert [each.returncode for each in started] == [3, 3]
    places = [socket.gethostname(), ADDRESSES[0]]
    assert [each.stderr.read() for each in started] == [
        f"rl-posttrain: process {rank} of 2: process {1 - rank} on {place} has ended, so this one ends, too; see what "
        "that one said\n"
        for rank, place in enumerate(places)
    ]
