import threading
import time

import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels import threads


@pytest.fixture(autouse=True)
def _restore_threads():
    yield
    threads.set_threads(None)


def test_results_come_in_the_order_of_the_calls():
    assert threads.run_parallel(lambda x, y: x + y, [(i, 1) for i in range(50)], threads=4) == list(range(1, 51))


def test_no_calls_give_no_results():
    assert threads.run_parallel(lambda: 1, []) == []


def test_the_first_error_reaches_the_caller_and_the_pool_survives():
    def fail(x):
        raise ValueError(f"call {x}")

    with pytest.raises(ValueError, match="call"):
        threads.run_parallel(fail, [(1,), (2,), (3,)], threads=3)
    assert threads.run_parallel(abs, [(-1,), (-2,)], threads=2) == [1, 2]


def test_a_call_finishes_while_every_pool_thread_is_busy():
    threads.set_threads(2)
    release, started = threading.Event(), threading.Event()

    def block(_):
        started.set()
        assert release.wait(20)

    other = threading.Thread(target=threads.run_parallel, args=(block, [(1,), (2,)]))
    other.start()
    assert started.wait(20)
    time.sleep(0.05)  # lets the pool's only thread take the other call
    assert threads.run_parallel(abs, [(-1,), (-2,)], threads=2) == [1, 2]
    release.set()
    other.join(20)
    assert not other.is_alive()


def test_many_callers_share_the_pool():
    results = {}

    def caller(n):
        results[n] = threads.run_parallel(pow, [(n, 2)] * 20, threads=3)

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(16)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(30)
    assert results == {n: [n * n] * 20 for n in range(16)}


@pytest.mark.parametrize("bad", [0, -1, 1.5, True, "2"])
def test_a_wrong_number_of_threads_is_refused(bad):
    with pytest.raises(InvalidInput, match="threads must be"):
        threads.set_threads(bad)


def test_the_default_is_the_affinity_mask_and_can_be_set():
    assert threads.get_threads() == threads.available_cores()
    threads.set_threads(3)
    assert threads.get_threads() == 3


@pytest.mark.parametrize(("count", "parts", "multiple"), [(0, 4, 1), (1, 4, 1), (10, 3, 1), (1000, 7, 64), (63, 2, 64)])
def test_ranges_are_cut_without_gaps_at_multiples(count, parts, multiple):
    pieces = threads.split_range(count, parts, multiple)
    assert [x for start, stop in pieces for x in range(start, stop)] == list(range(count))
    assert len(pieces) <= parts
    assert all(start % multiple == 0 and stop > start for start, stop in pieces)
