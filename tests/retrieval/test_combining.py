"""Searches that are gathered get what they would have got alone; errors, interrupts and forks of one caller touch no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.retrieval import Index, combining
from llmrec_fast.retrieval.combining import Combiner, _combiners, _forget_callers


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


class Gate:
    """Doubles numbers, once it is open; remembers the batches. A negative number is an error."""

    def __init__(self, most: int = 4) -> None:
        self.open, self.batches = threading.Event(), list[list[int]]()
        self.combiner: Combiner[int, int] = Combiner(self.compute, most)
        self.results: dict[int, int | BaseException] = {}
        self.threads: list[threading.Thread] = []

    def compute(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        assert self.open.wait(10)
        if min(items) < 0:
            raise ValueError("negative")
        return [2 * item for item in items]

    def start(self, item: int, key: str = "same", size: int = 1) -> None:
        """Start a caller and wait until it computes or queues."""
        before = len(self.batches) + len(self.combiner._waiting)
        self.threads.append(threading.Thread(target=self._call, args=(item, key, size)))
        self.threads[-1].start()
        wait_until(lambda: len(self.batches) + len(self.combiner._waiting) > before)

    def finish(self) -> None:
        self.open.set()
        for thread in self.threads:
            thread.join(10)
            assert not thread.is_alive()
        assert self.combiner._running == 0
        assert not self.combiner._waiting

    def _call(self, item: int, key: str, size: int) -> None:
        try:
            self.results[item] = self.combiner.run(key, size, item)
        except Exception as error:
            self.results[item] = error


def test_callers_that_wait_for_the_same_are_gathered_in_order() -> None:
    gate = Gate()
    for item, key in ((1, "same"), (2, "same"), (3, "other"), (4, "same"), (5, "other")):
        gate.start(item, key)
    gate.finish()
    assert gate.batches == [[1], [2, 4], [3, 5]]
    assert gate.results == {item: 2 * item for item in range(1, 6)}


def test_a_batch_has_a_largest_size() -> None:
    gate = Gate(most=4)
    for item, size in ((1, 1), (2, 2), (3, 3), (4, 1), (5, 1)):
        gate.start(item, size=size)
    gate.finish()
    assert gate.batches == [[1], [2, 4, 5], [3]]


def test_a_leader_waits_for_callers_that_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Callers in a loop end up in one batch, not in two that take turns."""
    monkeypatch.setattr(combining, "_GATHER_SECONDS", 0.5)
    monkeypatch.setattr(combining, "_SOON_SECONDS", 0.5)
    batches: list[int] = []

    def compute(items: list[int]) -> list[int]:
        batches.append(len(items))
        time.sleep(0.002)
        return items

    combiner: Combiner[int, int] = Combiner(compute, 16)
    calls, stop = 30, threading.Event()

    def call(caller: int) -> None:
        for _ in range(calls):
            assert combiner.run("same", 1, caller) == caller
        stop.wait(0.2)

    threads = [threading.Thread(target=call, args=(caller,)) for caller in range(4)]
    for thread in threads:
        thread.start()
    # a leader that waits in vain at the end, because the others have had all their answers, must not wait for ever
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert sum(batches) == 4 * calls
    assert batches.count(4) > 0.8 * calls
    assert combiner._running == 0


def test_leaders_stop_waiting_where_nobody_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    gather = Combiner._take_along
    monkeypatch.setattr(combining, "_GATHER_SECONDS", 0.05)
    gate = Gate()
    gate.open.set()
    monkeypatch.setattr(Combiner, "_take_along", lambda self, batch: (waits.append(1), gather(self, batch))[1])
    start = time.monotonic()
    for number in range(16):
        gate.open.clear()
        gate.start(2 * number)
        gate.start(2 * number + 1)  # queues, is handed the lead, and waits for a caller that is gone
        gate.finish()
    assert time.monotonic() - start < 0.05 * 16
    assert len(waits) == 36  # two looks a pair, and one more after each of the four waits


def test_an_interrupt_while_gathering_passes_the_lead_on(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    gate.start(1)
    gate.start(2)

    def interrupted(self: object, batch: object, returning: int) -> None:
        raise InterruptedError

    monkeypatch.setattr(Combiner, "_gather", interrupted)
    gate.finish()
    assert gate.results[1] == 2
    assert isinstance(gate.results[2], InterruptedError)


@pytest.mark.parametrize("order", [(1, -2, 3), (1, 3, -2)])
def test_an_error_reaches_its_own_caller_only(order: tuple[int, ...]) -> None:
    gate = Gate()
    for item in order:
        gate.start(item)
    gate.finish()
    assert (gate.results[1], gate.results[3]) == (2, 6)
    assert isinstance(gate.results[-2], ValueError)
    assert gate.combiner.run("same", 1, 4) == 8


def test_an_interrupted_leader_leaves_its_batch_to_the_members() -> None:
    opened = threading.Event()
    batches: list[list[int]] = []

    def compute(items: list[int]) -> list[int]:
        batches.append(items)
        assert opened.wait(10)
        if items == [2, 3]:
            raise KeyboardInterrupt
        return [2 * item for item in items]

    combiner: Combiner[int, int] = Combiner(compute, 4)
    results: dict[int, object] = {}

    def call(item: int) -> None:
        try:
            results[item] = combiner.run("same", 1, item)
        except KeyboardInterrupt:
            results[item] = "interrupted"

    threads = []
    for item in (1, 2, 3):
        threads.append(threading.Thread(target=call, args=(item,)))
        threads[-1].start()
        wait_until(lambda: len(batches) + len(combiner._waiting) == len(threads))
    opened.set()
    for thread in threads:
        thread.join(10)
    assert results == {1: 2, 2: "interrupted", 3: 6}
    assert combiner._running == 0


def test_an_interrupted_wait_holds_up_nobody() -> None:
    gate = Gate()
    for item in (1, 2, 3):
        gate.start(item)
    second, third = gate.combiner._waiting
    gate.combiner._abandon(second)  # while it queues
    assert list(gate.combiner._waiting) == [third]
    gate.combiner._waiting.appendleft(second)
    with gate.combiner._lock:  # as if the lead had come just before the interrupt
        gate.combiner._waiting.clear()
        gate.combiner._running += 1
        second.batch = [second, third]
    gate.combiner._abandon(second)
    assert third.batch == [third]
    second.answer = 4  # lets the test's own thread end
    second.batch = None
    second.turn.release()
    gate.finish()
    assert gate.results[3] == 6


def test_a_forked_child_starts_free() -> None:
    gate = Gate()
    gate.start(1)
    stuck = gate.combiner._lock
    assert gate.combiner in _combiners
    stuck.acquire()  # what a child may inherit
    _forget_callers()
    assert gate.combiner._lock is not stuck
    assert gate.combiner._running == 0
    gate.open.set()
    gate.combiner._running = 1  # the parent's caller is still there
    gate.finish()


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_gathered_searches_equal_separate_ones(coded: None, processor: str, metric: str) -> None:
    """Different k, exclusions and numbers of queries together; scores bit for bit; wrong queries fail alone."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((4000, 24)).astype(np.float32)
    rows[2000:2600] = rows[:600]  # ties
    index = Index.build(rows, metric=metric)  # type: ignore[arg-type]
    asked = []
    for number in range(48):
        queries = generator.standard_normal((1 + number % 3, 24)).astype(np.float32)
        excluded = [generator.integers(0, 4100, 30 * (number % 4)) for _ in queries] if number % 2 else None
        k = (1, 3, 10, 30, 60)[number % 5]
        asked.append((queries, k, excluded, index.search(queries, k, exclude=excluded, stats=True)))
    failures: list[str] = []
    sizes: list[int] = []
    combiner = index._searches._combiner
    compute = combiner._compute
    combiner._compute = lambda requests: (sizes.append(len(requests)), compute(requests))[1]

    def search(caller: int) -> None:
        try:
            for number in np.random.default_rng(caller).permutation(len(asked)):
                queries, k, excluded, expected = asked[number]
                found = index.search(queries, k, exclude=excluded)
                if not (np.array_equal(found.ids, expected.ids) and np.array_equal(found.scores, expected.scores)):
                    failures.append(f"search {number} by caller {caller}")
                if number % 8 == 0:
                    with pytest.raises(InvalidInput):
                        index.search(np.full((1, 24), np.nan, np.float32), k)
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=search, args=(caller,)) for caller in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert failures == []
    assert max(sizes) > 1
    assert combiner._running == 0
