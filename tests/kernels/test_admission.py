"""Steps wait in order, hand their slot on, and survive errors, interrupted waits and forks."""

from __future__ import annotations

import os
import threading
import time

import pytest

from llmrec_fast.kernels.cpu.admission import Admission


def wait_until(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_slots_bound_how_many_run_and_the_first_come_are_first_served() -> None:
    admission = Admission()
    finished: list[int] = []
    release = threading.Event()
    running: list[int] = []

    def step(number: int) -> None:
        with admission.step(2) as count:
            running.append(count)
            release.wait(10)
            finished.append(number)

    threads = []
    for number in range(2):
        threads.append(threading.Thread(target=step, args=(number,)))
        threads[-1].start()
    wait_until(lambda: len(running) == 2)
    for number in range(2, 8):
        threads.append(threading.Thread(target=step, args=(number,)))
        threads[-1].start()
        wait_until(lambda: len(admission._waiting) == len(threads) - 2)
    assert sorted(running) == [1, 2]
    release.set()
    for thread in threads:
        thread.join(10)
    assert sorted(finished) == list(range(8))
    assert max(running) == 2
    with admission.step(2) as count:
        assert count == 1


def test_an_error_gives_the_slot_back() -> None:
    admission = Admission()
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), admission.step(1):
            raise ValueError("broken")
    with admission.step(1) as count:
        assert count == 1


def test_an_interrupted_wait_loses_no_slot() -> None:
    admission = Admission()
    turn = threading.Lock()
    turn.acquire()
    with admission.step(1):
        admission._waiting.append(turn)
        admission._abandon(turn)  # still in the queue: it just leaves
        admission._waiting.append(turn)
    admission._abandon(turn)  # the slot had been handed over: it goes on
    with admission.step(1) as count:
        assert count == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_starts_with_all_slots() -> None:
    admission = Admission()
    with admission.step(1):
        admission.reset()  # what a fork does in the child
        with admission.step(1) as count:
            assert count == 1
        admission._running = 1
