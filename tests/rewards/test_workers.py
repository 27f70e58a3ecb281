"""Worker processes: killed at the deadline wherever the caller is, replaced, bounded, and gone with their parent."""

import asyncio
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import slowness, wait_until

from rl_posttrain.errors import RewardError
from rl_posttrain.rewards import countdown_equation, math_accuracy, think_answer_format
from rl_posttrain.rewards.accuracy import _pool, judge
from rl_posttrain.rewards.workers import WorkerPool

ENDLESS = r"\boxed{(9^9)^{9^9}}"  # sympy computes 9^(9 * 9^9) in C, where no signal handler of Python's runs


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool("in_workers:misbehave", memory_bytes=2**30, num_workers=2)
    yield pool
    pool.close()


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(processes: list[int]) -> None:
    wait_until(lambda: not any(map(is_alive, processes)))


def mixed_batch(which: str) -> tuple[list[str], list[str], list[float]]:
    """64 completions of 8 golds, the 20th without an end; new expressions for each `which`, which no cache knows."""
    completions = [rf"\boxed{{{place % 2 + 1}{which}+x}}" for place in range(64)]
    completions[20] = ENDLESS
    rewards = [float(place % 2 == 0) for place in range(64)]
    rewards[20] = 0.0
    return completions, [f"x+1{which}+{place // 8}-{place // 8}" for place in range(64)], rewards


def in_another_thread(score):
    rewards = []
    thread = threading.Thread(target=lambda: rewards.extend(score()))
    thread.start()
    thread.join()
    return rewards


def under_asyncio(score):
    async def both():
        in_thread = asyncio.create_task(asyncio.to_thread(score))
        return score(), await in_thread

    directly, in_thread = asyncio.run(both())
    assert directly == in_thread
    return directly


@pytest.mark.parametrize("where", [in_another_thread, under_asyncio])
def test_an_endless_expression_costs_its_deadline_and_no_other_reward(where):
    completions, golds, rewards = mixed_batch({in_another_thread: "a", under_asyncio: "b"}[where])
    decided = []

    def score():
        verdicts = judge(completions, golds, timeout_s=slowness())
        decided.append([place for place, verdict in enumerate(verdicts) if verdict.decided == "timeout"])
        return [verdict.reward for verdict in verdicts]

    assert where(score) == rewards
    assert all(places == [20] for places in decided)
    assert len(_pool().process_ids) == _pool().num_workers


def test_many_threads_at_once_each_get_their_own_rewards():
    results = {}

    def score(number: int) -> None:
        completions = [rf"\boxed{{{number}+x}}", r"\boxed{x}", rf"\boxed{{x+{number}+0}}"] * 4
        results[number] = math_accuracy(completions, [f"x+{number}"] * 12)

    threads = [threading.Thread(target=score, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [1.0, 0.0, 1.0] * 4 for number in range(1, 9)}


def test_a_worker_that_dies_is_replaced_and_takes_no_other_call_with_it(pool):
    calls = [
        ("", 1),
        ("crash",),
        ("", 2),
        ("exit",),
        ("raise",),
        ("object",),
        ("allocate",),
        ("print", 3),
        ("swallow",),
    ]
    outcomes = pool.run(calls, timeout_s=2 * slowness())
    assert [outcome.status for outcome in outcomes] == [
        "done", "died", "done", "died", "failed", "failed", "failed", "done", "timeout",
    ]  # fmt: skip
    assert [outcome.value for outcome in outcomes if outcome.status == "done"] == [1, 2, 3]
    assert outcomes[4].value == "KeyError: 'two\\nlines'"
    assert outcomes[6].value.startswith("MemoryError")
    assert [outcome.value for outcome in pool.run([("", place) for place in range(9)], timeout_s=600)] == list(range(9))
    assert len(pool.process_ids) == 2


def test_workers_killed_while_idle_are_replaced(pool):
    pool.run([("",)] * 4, timeout_s=600)
    killed = pool.process_ids
    for process in killed:
        os.kill(process, signal.SIGKILL)
    wait_until_gone(killed)
    assert [outcome.value for outcome in pool.run([("", place) for place in range(4)], timeout_s=600)] == list(range(4))


def test_a_large_parent_does_not_wear_its_workers_out():
    """A trainer holds gigabytes; a worker is given back for its own memory only."""
    held = bytearray(b"x") * 2**28
    pool = WorkerPool("in_workers:echo", memory_bytes=2**28, num_workers=1)
    try:
        processes = {pool.run([(place,)], timeout_s=600)[0].value[1] for place in range(4)}
    finally:
        pool.close()
    assert len(held) == 2**28
    assert len(processes) == 1


def test_what_a_reward_starts_ends_with_its_worker(pool):
    (outcome,) = pool.run([("child",)], timeout_s=600)
    assert is_alive(outcome.value)
    pool.close()
    wait_until_gone([outcome.value])


def test_calls_of_a_key_meet_the_same_worker_and_others_overlap(tmp_path):
    """Calls of the two keys wait for each other in pairs: one after the other, none would return."""
    pool = WorkerPool("in_workers:meet", memory_bytes=2**30, num_workers=2)
    try:
        calls = [(str(tmp_path), place // 2, place % 2) for place in range(8)]
        workers = [outcome.value for outcome in pool.run(calls, timeout_s=60 * slowness(), keys=[0, 1] * 4)]
        assert len(set(workers[::2])) == len(set(workers[1::2])) == 1
        assert workers[0] != workers[1]
    finally:
        pool.close()


def test_what_cannot_be_sent_or_started_is_named(pool):
    with pytest.raises(RewardError, match="cannot be handed to a worker"):
        pool.run([(lambda: 1,)], timeout_s=1)
    missing = WorkerPool("in_workers:no_such_function", memory_bytes=2**30, num_workers=1)
    with pytest.raises(RewardError, match="ended while it started"):
        missing.run([()], timeout_s=1)


PARENT = """
import sys, threading
from rl_posttrain.rewards.workers import WorkerPool
pool = WorkerPool("in_workers:misbehave", memory_bytes=2**30, num_workers=2)
pool.run([("",), ("",)], timeout_s=600)
if sys.argv[1] == "busy":
    call = ("spin", sys.argv[2])
    threading.Thread(target=pool.run, args=([call],), kwargs={"timeout_s": 5}, daemon=True).start()
    while not os.path.exists(sys.argv[2]):
        pass
print(*pool.process_ids, flush=True)
if sys.argv[1] != "done":
    threading.Event().wait()
"""


@pytest.mark.parametrize("how", ["done", "killed", "busy"])
def test_no_worker_outlives_its_parent(how, tmp_path):
    """Not even one in the middle of C code, which sees its parent's end no sooner than its own time limit."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", "import os" + PARENT, how, tmp_path / "spinning"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert workers
        if how != "done":
            assert all(map(is_alive, workers))
            parent.kill()
        parent.wait()
        wait_until_gone(workers)


def score_in_child(queue) -> None:
    queue.put((math_accuracy([r"\boxed{3+x}"], ["x+3"]), _pool().process_ids))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_of_the_callers_have_workers_of_their_own(start):
    math_accuracy([r"\boxed{4+x}"], ["x+4"])
    ours = _pool().process_ids
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    child = context.Process(target=score_in_child, args=(queue,))
    child.start()
    rewards, theirs = queue.get()
    child.join()
    assert rewards == [1.0]
    assert not set(theirs) & set(ours)
    assert math_accuracy([r"\boxed{5+x}"], ["x+5"]) == [1.0]
    assert _pool().process_ids == ours
    wait_until_gone(theirs)


def test_rewards_can_be_pickled():
    for reward in (math_accuracy, countdown_equation, think_answer_format):
        assert pickle.loads(pickle.dumps(reward)) is reward


def test_verdicts_are_kept_by_gold_and_answer():
    question = [r"\boxed{6+x}"], ["x+6"]
    assert math_accuracy(*question) == [1.0]
    _pool().close()
    assert math_accuracy(*question) == [1.0]
    assert _pool().process_ids == []  # nobody had to be asked


def test_how_answers_were_decided_is_told():
    told = {}
    completions = ["7", r"\boxed{8+x}", "<answer>?</answer>", "nothing", ENDLESS, "7", "7", "8"]
    golds = ["7", "x+8", "7", "7", "x+9", None, "7", "7"]
    math_accuracy(completions, golds, timeout_s=slowness(), log_metric=told.__setitem__)
    assert told == {
        "math_accuracy/exact": 3 / 8,
        "math_accuracy/symbolic": 1 / 8,
        "math_accuracy/timeout": 1 / 8,
        "math_accuracy/unparseable": 1 / 8,
        "math_accuracy/missing": 1 / 8,
    }
