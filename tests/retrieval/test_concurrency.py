"""Many threads search while one writes: every answer is that of some state the index was in during the search."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from llmrec_fast.kernels.threads import set_threads
from llmrec_fast.retrieval import Index

SECONDS = 5.0
K = 10


@pytest.mark.slow
def test_answers_are_consistent_beside_a_writer() -> None:
    """The writer moves through states that are all known beforehand; a reader notes which states its search may have seen."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((6000, 32)).astype(np.float32)
    extra = (generator.standard_normal((40, 300, 32)) * 1.2).astype(np.float32)
    queries = generator.standard_normal((6, 32)).astype(np.float32)
    base = rows.astype(np.float64) @ queries.T

    index = Index.build(rows, metric="dot")
    live: dict[int, np.ndarray] = {-1: np.zeros((0, 32), np.float32)}
    states: list[tuple[int, ...]] = [()]  # the extra batches that each state holds
    version = [0]
    errors: list[str] = []
    stop = threading.Event()

    def answer(state: tuple[int, ...], query: int) -> np.ndarray:
        parts = [base[:, query], *(extra[batch].astype(np.float64) @ queries[query] for batch in state)]
        ids = np.concatenate([np.arange(6000), *(10_000 + 300 * batch + np.arange(300) for batch in state)])
        return ids[np.argsort(-np.concatenate(parts), kind="stable")[:K]]

    def write() -> None:
        held: tuple[int, ...] = ()
        while not stop.is_set():
            if len(held) < 8 and generator.random() < 0.6:
                batch = int(generator.choice([b for b in range(len(extra)) if b not in held]))
                states.append((*held, batch))
                index.add(extra[batch], ids=10_000 + 300 * batch + np.arange(300))
                held = (*held, batch)
            elif held:
                gone = held[int(generator.integers(len(held)))]
                states.append(tuple(batch for batch in held if batch != gone))
                index.remove(10_000 + 300 * gone + np.arange(300))
                held = states[-1]
            if generator.random() < 0.05:
                index.optimize()
            version[0] = len(states) - 1

    def read(seed: int) -> None:
        own = np.random.default_rng(seed)
        while not stop.is_set():
            query = int(own.integers(len(queries)))
            excluded = [own.choice(6000, 5, replace=False)] if own.random() < 0.3 else None
            before = version[0]
            ids = index.search(queries[query : query + 1], K, exclude=excluded).ids[0]
            after = len(states)
            if excluded is not None:
                if np.isin(excluded[0], ids).any():
                    errors.append("an excluded id came back")
                continue
            if not any((answer(state, query) == ids).all() for state in states[before:after]):
                errors.append(f"states {before} to {after} do not explain {ids}")

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)] + [threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS)
    stop.set()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert errors == []
    assert len(states) > 20
    assert live


def test_the_number_of_threads_never_changes_an_answer() -> None:
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((40_000, 32)).astype(np.float32)
    queries = generator.standard_normal((40, 32)).astype(np.float32)
    index = Index.build(rows, threads=1)
    expected = index.search(queries, 15)
    try:
        for threads in (1, 2, 5):
            set_threads(threads)
            other = Index.build(rows)
            for result in (other.search(queries, 15), other.search(queries[:1], 15)):
                np.testing.assert_array_equal(result.ids, expected.ids[: len(result.ids)])
                np.testing.assert_array_equal(result.scores, expected.scores[: len(result.ids)])
    finally:
        set_threads(None)
