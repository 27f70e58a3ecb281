"""Who hears a signal: the first raises where it may, a second ends, and what others set of them is taken back."""

import os
import signal
import threading
import time

import pytest
from conftest import run_python

from rl_posttrain.errors import Interrupted
from rl_posttrain.machine.signals import HEARD, handled


def hit_and_sleep(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


@pytest.mark.parametrize("number", HEARD)
def test_a_signal_raises_at_once_or_where_it_is_looked_at(number):
    before = {each: signal.getsignal(each) for each in HEARD}
    with handled() as stop, pytest.raises(Interrupted) as stopped:
        hit_and_sleep(number)
    assert stopped.value.status == 128 + number
    with handled() as stop:
        with stop.deferred("later"):
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            assert stop.number == number
        with pytest.raises(Interrupted):
            stop.check()
    assert {each: signal.getsignal(each) for each in HEARD} == before


def test_inside_of_deferred_what_may_be_dropped_is():
    with handled() as stop, stop.deferred("later"):
        with pytest.raises(Interrupted), stop.interruptible():
            hit_and_sleep(signal.SIGTERM)
        time.sleep(0.01)  # nothing raises here
        with pytest.raises(Interrupted), stop.interruptible():
            raise AssertionError("a signal from before does not count")


def test_what_a_library_takes_is_taken_back():
    with handled() as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        with stop.deferred("later"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            assert stop.number == signal.SIGTERM


def test_a_handler_of_the_callers_stays():
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with handled() as stop:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.01)
            assert (heard, stop.number) == ([signal.SIGUSR1], None)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_in_another_thread_none_is_heard():
    found = []

    def in_thread() -> None:
        with handled() as stop:
            found.append(stop.heard)

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert found == [()]


TWICE = """
import os, signal, time
from rl_posttrain.machine.signals import handled
with handled() as stop, stop.deferred("going on"):
    stop.last_acts.append(lambda: print("cleaned", flush=True))
    for pause in ({pause}, 1):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(pause)
    print("went on", flush=True)
"""


TORCHRUN = {"TORCHELASTIC_RUN_ID": "1"}


@pytest.mark.parametrize(
    ("launcher", "pause", "status", "said"),
    [({}, 0.2, 143, "cleaned\n"), (TORCHRUN, 0.2, 0, "went on\n"), (TORCHRUN, 2.5, 143, "cleaned\n")],
)
def test_a_second_one_ends_the_process_but_not_the_one_that_a_launcher_passes_on(launcher, pause, status, said):
    done = run_python("-c", TWICE.format(pause=pause), **launcher)
    assert (done.returncode, done.stdout) == (status, said)
    assert "SIGTERM: going on; a second signal exits at once" in done.stderr
