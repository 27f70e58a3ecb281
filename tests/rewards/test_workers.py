"""Worker processes: killed at the deadline wherever the caller is, replaced, bounded, and gone with their parent."""

import asyncio
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import slowness, wait_until

from rl_posttrain.errors import RewardError
from rl_posttrain.rewards import countdown_equation, math_accuracy, think_answer_format
from rl_posttrain.rewards.accuracy import judge, unread_golds
from rl_posttrain.rewards.batches import Rounds
from rl_posttrain.rewards.by_workers import judge_all
from rl_posttrain.rewards.by_workers import pool as math_verify_pool
from rl_posttrain.rewards.processes import ForkServer, Worker
from rl_posttrain.rewards.workers import WorkerPool

ENDLESS = "(9^9)^{9^9}"  # sympy computes 9^(9 * 9^9) in C, where no signal handler of Python's runs


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool("in_workers:misbehave", memory_bytes=2**30, num_workers=2)
    yield pool
    pool.close()


def compare_all(questions: list[tuple[str, str]], **limits: float) -> list[str]:
    """What workers say of pairs of answer and gold, in one word."""
    words = {1.0: "right", 0.0: "wrong"}
    verdicts = judge_all(questions, **limits)
    return ["timeout" if verdict.decided == "timeout" else words[verdict.reward] for verdict in verdicts]


def is_alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits to be collected does not."""
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(processes: list[int]) -> None:
    wait_until(lambda: not any(map(is_alive, processes)))


def mixed_batch(which: str) -> tuple[list[tuple[str, str]], list[str]]:
    """64 answers to 8 golds, the 20th without an end; new expressions for each `which`, which no cache knows."""
    questions = [(f"{place % 2 + 1}{which}+x", f"x+1{which}+{place // 8}-{place // 8}") for place in range(64)]
    questions[20] = ENDLESS, questions[20][1]
    results = ["wrong" if place % 2 else "right" for place in range(64)]
    results[20] = "timeout"
    return questions, results


def in_another_thread(compare):
    results = []
    thread = threading.Thread(target=lambda: results.extend(compare()))
    thread.start()
    thread.join()
    return results


def under_asyncio(compare):
    async def both():
        in_thread = asyncio.create_task(asyncio.to_thread(compare))
        return compare(), await in_thread

    directly, in_thread = asyncio.run(both())
    assert directly == in_thread
    return directly


@pytest.mark.parametrize("where", [in_another_thread, under_asyncio])
def test_an_endless_expression_costs_its_deadline_and_no_other_answer(where):
    questions, results = mixed_batch({in_another_thread: "a", under_asyncio: "b"}[where])
    assert where(lambda: compare_all(questions, timeout_s=1.0, batch_timeout_s=600)) == results
    assert len(math_verify_pool().process_ids) == math_verify_pool().num_workers


def test_many_threads_at_once_each_get_their_own_results():
    results = {}

    def compare(number: int) -> None:
        questions = [(found, f"x+{number}") for found in (f"{number}+x", "x", f"x+{number}+0")] * 4
        results[number] = compare_all(questions, timeout_s=600, batch_timeout_s=600)

    threads = [threading.Thread(target=compare, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: ["right", "wrong", "right"] * 4 for number in range(1, 9)}


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


def test_quick_calls_are_made_whatever_slow_ones_stand_before_them(pool):
    """Each slow call could take all of the batch's time; those that do not end are told from those that are out."""
    calls = [(how,) for how in ("spin", "loop") * 5] + [("", place) for place in range(10)]
    limit_s = 3 * slowness()
    started = time.monotonic()
    outcomes = pool.run(calls, timeout_s=limit_s, batch_timeout_s=limit_s)
    assert time.monotonic() - started < limit_s + 2 * slowness()
    assert [outcome.value for outcome in outcomes[10:]] == list(range(10))
    assert {outcome.status for outcome in outcomes[:10]} == {"unfinished"}
    outcomes = pool.run(calls[:4], timeout_s=0.1, batch_timeout_s=600)
    assert {outcome.status for outcome in outcomes} == {"timeout"}
    assert len(pool.process_ids) == 2


def test_calls_have_long_limits_until_some_prove_slow():
    """8 s on 2 workers are a quarter of a second for each of 64 slow calls. A call that is ended must begin anew."""
    worker = Worker(ForkServer("in_workers:misbehave", 2**30))

    def limits(are_slow: bool) -> list[float]:
        rounds = Rounds(range(64), 600.0, 2, time.monotonic() + 8)
        turns = []
        for _ in range(64):
            turns.append(rounds.next_for(worker))
            assert not (are_slow and rounds.is_over_after(turns[-1]))
        return [turn.limit_s for turn in turns]

    quick, slow = limits(are_slow=False), limits(are_slow=True)
    assert quick[0] == pytest.approx(0.125, rel=0.1)
    assert quick[1] == pytest.approx(0.25, rel=0.1)
    assert quick[32] > 2
    assert slow[32] == pytest.approx(0.125, rel=0.1)


def test_a_calls_limit_is_of_cpu_time_where_the_batch_has_one_and_else_of_real_time(pool):
    """A worker that has to wait for a core of a busy machine has not used its time."""
    outcomes = pool.run([("sleep",), ("loop",)], timeout_s=0.1, batch_timeout_s=slowness())
    assert [outcome.status for outcome in outcomes] == ["unfinished", "timeout"]
    assert [outcome.status for outcome in pool.run([("sleep",)], timeout_s=0.1)] == ["timeout"]


def test_a_call_that_is_ended_leaves_nothing_behind():
    """The next call of the worker finds what every new worker has, and a call that ends by itself can cache."""
    pool = WorkerPool("in_workers:hold", memory_bytes=2**30, num_workers=1)
    try:
        calls = [(1,), (2,), (3, "loop"), (4,), (5, "raise"), (6,)]
        outcomes = pool.run(calls, timeout_s=0.5, batch_timeout_s=600)
        assert [outcome.value for outcome in outcomes if outcome.status == "done"] == [[], [1], [], [4, 5]]
    finally:
        pool.close()


def test_workers_killed_while_idle_are_replaced(pool):
    pool.run([("",)] * 4, timeout_s=600)
    killed = pool.process_ids
    for process in killed:
        os.kill(process, signal.SIGKILL)
    wait_until_gone(killed)
    assert [outcome.value for outcome in pool.run([("", place) for place in range(4)], timeout_s=600)] == list(range(4))


def test_a_fork_server_that_is_killed_takes_its_workers_with_it_and_is_replaced(pool):
    pool.run([("",)] * 4, timeout_s=600)
    killed = [pool.server_id, *pool.process_ids]
    os.kill(pool.server_id, signal.SIGKILL)
    wait_until_gone(killed)
    assert [outcome.value for outcome in pool.run([("", place) for place in range(4)], timeout_s=600)] == list(range(4))
    assert not {pool.server_id, *pool.process_ids} & set(killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_what_asks_a_whole_job_to_end_leaves_the_workers_to_the_trainer(pool, number):
    pool.run([("",)] * 4, timeout_s=600)
    before = [pool.server_id, *pool.process_ids]
    for process in before:
        os.kill(process, number)
    assert [outcome.value for outcome in pool.run([("", place) for place in range(4)], timeout_s=600)] == list(range(4))
    assert [pool.server_id, *pool.process_ids] == before


def test_a_pool_starts_in_the_background():
    pool = WorkerPool("in_workers:misbehave", memory_bytes=2**30, num_workers=2)
    try:
        pool.start()
        server = pool.server_id
        assert is_alive(server)
        assert pool.process_ids == []
        pool.start()
        assert [outcome.value for outcome in pool.run([("", 1)], timeout_s=600)] == [1]
        assert pool.server_id == server
    finally:
        pool.close()
    wait_until_gone([server])


def test_a_batch_that_waits_for_its_workers_has_half_of_its_time_afterwards():
    pool = WorkerPool("slow_to_import:echo", memory_bytes=2**30, num_workers=2)
    limit_s = slowness()
    started = time.monotonic()
    try:
        outcomes = pool.run([(3,), (None,), (None,)], timeout_s=600, batch_timeout_s=limit_s)
        assert [outcome.status for outcome in outcomes] == ["done", "unfinished", "unfinished"]
        assert 1 + limit_s / 2 <= time.monotonic() - started < 1 + limit_s / 2 + 4 * slowness()
    finally:
        pool.close()


def test_workers_share_the_memory_of_the_libraries():
    compare_all([("x+17", "x+17"), ("17+x", "x+17")], timeout_s=600, batch_timeout_s=600)
    assert len(math_verify_pool().process_ids) == math_verify_pool().num_workers
    for process in math_verify_pool().process_ids:
        with open(f"/proc/{process}/smaps_rollup") as file:
            kib = {line.split()[0]: int(line.split()[1]) for line in file.readlines()[1:]}
        assert kib["Private_Dirty:"] < kib["Rss:"] / 2


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
    with pytest.raises(RewardError, match="importing failed: AttributeError: module 'in_workers' has no attribute"):
        missing.run([()], timeout_s=1)


PARENT = """
import sys, threading
from rl_posttrain.rewards.workers import WorkerPool
pool = WorkerPool("in_workers:misbehave", memory_bytes=2**30, num_workers=2)
child = pool.run([("child",), ("",)], timeout_s=600)[0].value
if sys.argv[1] == "busy":
    call = ("spin", sys.argv[2])
    threading.Thread(target=pool.run, args=([call],), kwargs={"timeout_s": 9999}, daemon=True).start()
    while not os.path.exists(sys.argv[2]):
        pass
print(child, pool.server_id, *pool.process_ids, flush=True)
if sys.argv[1] != "done":
    threading.Event().wait()
"""


@pytest.mark.parametrize("how", ["done", "killed", "busy"])
def test_no_worker_outlives_its_parent(how, tmp_path):
    """Nor what a reward has started, nor the fork server, nor a worker in the middle of C code, which sees no end."""
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


def compare_one(number: int) -> list[str]:
    return compare_all([(f"{number}+x", f"x+{number}")], timeout_s=600, batch_timeout_s=600)


def compare_in_child(queue) -> None:
    queue.put((compare_one(3), math_verify_pool().process_ids))


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_of_the_callers_have_workers_of_their_own(start):
    compare_one(4)
    ours = math_verify_pool().process_ids
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    child = context.Process(target=compare_in_child, args=(queue,))
    child.start()
    results, theirs = queue.get()
    child.join()
    assert results == ["right"]
    assert ours
    assert not set(theirs) & set(ours)
    assert compare_one(5) == ["right"]
    assert math_verify_pool().process_ids == ours
    wait_until_gone(theirs)


def test_rewards_can_be_pickled():
    for reward in (math_accuracy, countdown_equation, think_answer_format):
        assert pickle.loads(pickle.dumps(reward)) is reward


def test_verdicts_and_time_outs_are_kept_by_gold_and_answer():
    questions = [r"\boxed{\nabla g}", rf"\boxed{{{ENDLESS}}}"], [r"\nabla g + 0", "x+61"]
    decided = judge(*questions, timeout_s=0.2)
    assert [verdict.decided for verdict in decided] == ["symbolic", "timeout"]
    math_verify_pool().close()
    for limit_s in (0.2, 0.1):
        assert judge(*questions, timeout_s=limit_s) == decided
    assert math_verify_pool().process_ids == []  # nobody had to be asked
    assert judge(*questions, timeout_s=0.3) == decided
    assert math_verify_pool().process_ids  # a longer limit than that of the first time


def test_a_turn_that_was_lost_is_no_verdict():
    """With the time of the batch over, a right answer gets nothing; with more time it is asked for again."""
    hanging = [(ENDLESS.replace("9", str(number)), "x+72") for number in range(50, 60)]
    right = ("71+x", "x+71")
    assert set(compare_all([*hanging, right], timeout_s=600, batch_timeout_s=1e-6)) == {"timeout"}
    assert compare_all([right], timeout_s=600, batch_timeout_s=600) == ["right"]


def test_a_batch_ends_in_its_time_also_when_all_of_it_hangs():
    """In C code and in sympy's. No worker is left with a call of the batch."""
    questions = [(ENDLESS.replace("9", str(number)), "y+z") for number in range(9, 21)]
    sums = (rf"\sum_{{k=1}}^{{{number}}} k^k x^k" for number in range(9000, 9012))
    questions += [(text.replace("k", "i"), text) for text in sums]
    compare_one(18)  # starts the server
    limit_s = 2 * slowness()
    started = time.monotonic()
    results = compare_all(questions, timeout_s=600, batch_timeout_s=limit_s)
    assert time.monotonic() - started < limit_s + 2 * slowness()
    assert results.count("timeout") >= 12
    assert compare_one(19) == ["right"]


def test_golds_that_take_too_long_are_told_from_those_that_cannot_be_read():
    slow = r"\nabla \binom{10000000}{5000000}"
    assert unread_golds([slow, r"\nabla f", r"\frac{"], timeout_s=0.3) == ([r"\frac{"], [slow], [])
    assert unread_golds([slow, r"\nabla f", r"\frac{"], timeout_s=600, batch_timeout_s=0.1) == ([r"\frac{"], [], [slow])


def test_how_answers_were_decided_is_told():
    told = {}
    completions = ["7", r"\boxed{8+x}", "<answer>?</answer>", "I do not know", rf"\boxed{{{ENDLESS}}}", "7", "7", "8"]
    golds = ["7", "x+8", "7", "7", "x+9", None, "7", "7"]
    math_accuracy(completions, golds, timeout_s=slowness(), log_metric=told.__setitem__)
    assert told == {
        "math_accuracy/exact": 3 / 8,
        "math_accuracy/symbolic": 1 / 8,
        "math_accuracy/timeout": 1 / 8,
        "math_accuracy/unparseable": 1 / 8,
        "math_accuracy/missing": 1 / 8,
    }
