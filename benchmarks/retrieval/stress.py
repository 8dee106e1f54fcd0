"""Many Python threads on one index: throughput and tail latency of single queries, then correctness beside a writer.

Beside the writer every answer must be right for some state the index was in during the search: the writer notes each state
before it makes it visible, and the reader compares its answer with the oracle of every state that could have been seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.report import Report, Target
from benchmarks.retrieval import oracle
from benchmarks.retrieval.data import Dataset

CALLERS, K, MOST_QUERIES = 8, 10, 64
WANTED_THROUGHPUT, TAIL_FACTOR = 0.9, 2.0
MEASURED_SECONDS_SHARE, ROUNDS = 0.1, 5  # of the stress, for each of the two throughput measurements; they take turns
_EXTRA_ROWS, _EXTRA_AT_ONCE, _REMOVED_AT_ONCE = 256, 24, 8


def run(report: Report, dataset: Dataset, index: Any, cores: int, seconds: float) -> None:
    """Measure one caller, `CALLERS` callers, then `CALLERS` callers beside a writer for `seconds`."""
    answers = _answers_without_ties(dataset)
    queries = answers.queries
    window = max(1.0, seconds * MEASURED_SECONDS_SHARE)

    def check(query: int, ids: Any) -> None:
        if not np.array_equal(ids, answers.ids[query, :K]):
            raise RuntimeError(f"wrong answer under threads for query {query}")

    rounds = [
        tuple(np.array(_search_for(window / ROUNDS, callers, queries, index, check)) for callers in (1, CALLERS))
        for _ in range(ROUNDS)
    ]
    # round by round, so that a change of the machine's speed between two rounds is not taken for ours
    throughput = float(np.median([len(together) / len(alone) for alone, together in rounds]))
    p99 = float(np.median([np.quantile(together, 0.99) for _, together in rounds]))
    bound = TAIL_FACTOR * max(1.0, CALLERS / cores) * float(np.median([np.median(alone) for alone, _ in rounds]))
    alone, together = (np.concatenate([pair[place] for pair in rounds]) for place in (0, 1))
    name = f"{dataset.name}, {CALLERS} threads"
    report.figures |= {
        f"{dataset.name}, 1 thread: queries a second, p50 and p99 ms": [
            round(len(alone) / window),
            round(1e3 * float(np.median(alone)), 3),
            round(1e3 * float(np.quantile(alone, 0.99)), 3),
        ],
        f"{name}: queries a second, p50 and p99 ms": [
            round(len(together) / window),
            round(1e3 * float(np.median(together)), 3),
            round(1e3 * p99, 3),
        ],
    }
    report.targets += [
        Target(f"{name}: throughput against one caller's", throughput, WANTED_THROUGHPUT),
        Target(f"{name}: p99", 1e3 * p99, round(1e3 * bound, 3), at_least=False, unit="ms"),
    ]
    states = _States(dataset, answers, index)
    writer = threading.Thread(target=states.write_until, args=(stop := threading.Event(),))
    writer.start()
    try:
        beside = _search_for(seconds, CALLERS, queries, index, states.check, states.before)
    finally:
        stop.set()
        writer.join()
    states.restore()
    if states.error is not None:
        raise states.error
    report.figures[f"{name} beside a writer: searches checked, states written, p50 and p99 ms"] = [
        len(beside),
        states.committed,
        round(1e3 * float(np.median(beside)), 3),
        round(1e3 * float(np.quantile(beside, 0.99)), 3),
    ]


def _answers_without_ties(dataset: Dataset) -> oracle.Oracle:
    """The oracle of the queries whose best rows all score differently: a row that leaves and returns moves to the end, which
    would reorder ties."""
    found = oracle.find(dataset.rows, dataset.queries[:MOST_QUERIES], K + _REMOVED_AT_ONCE)
    clear = (np.diff(found.scores, axis=1) < -oracle.FLOAT64_TOLERANCE).all(axis=1)
    return oracle.Oracle(found.rows, found.queries[clear], found.ids[clear], found.scores[clear])


def _search_for(
    seconds: float,
    callers: int,
    queries: Any,
    index: Any,
    check: Callable[..., None],
    before: Callable[[], Any] | None = None,
) -> list[float]:
    """Latencies of single queries from `callers` threads; the first failure of any of them is raised."""
    latencies: list[list[float]] = [[] for _ in range(callers)]
    errors: list[BaseException] = []
    end = time.perf_counter() + seconds

    def search(caller: int) -> None:
        position = caller * len(queries) // callers
        try:
            while time.perf_counter() < end and not errors:
                query = position % len(queries)
                context = () if before is None else (before(),)
                start = time.perf_counter()
                ids = index.search(queries[query : query + 1], K).ids[0]
                latencies[caller].append(time.perf_counter() - start)
                check(query, ids, *context)
                position += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [latency for each in latencies for latency in each]


class _States:
    """The states a writer takes an index through, and which answers each of them allows.

    Extra rows, most of them near some query, come and go; so do the best rows of some queries. Scores are known beforehand,
    so the right answer of any state is a small merge.
    """

    def __init__(self, dataset: Dataset, answers: oracle.Oracle, index: Any) -> None:
        rng = np.random.default_rng(0)
        queries = answers.queries
        noise = rng.standard_normal((_EXTRA_ROWS, queries.shape[1]), dtype=np.float32) / np.sqrt(queries.shape[1])
        extra = queries[rng.integers(0, len(queries), _EXTRA_ROWS)] + noise * rng.uniform(0.1, 2, (_EXTRA_ROWS, 1))
        self._extra = np.asarray(extra / np.linalg.norm(extra, axis=1, keepdims=True), np.float32)
        self._extra_scores = np.stack([oracle.exact_scores(self._extra, query) for query in queries])
        self._first = len(dataset.rows)  # the id of the first extra row
        self._rows, self._answers, self._index = dataset.rows, answers, index
        self._removable = np.unique(answers.ids[:, :2])
        self._rng = rng
        self.states: list[tuple[frozenset[int], frozenset[int]]] = [(frozenset(), frozenset())]
        self.committed = 0
        self.error: BaseException | None = None

    def before(self) -> int:
        """The earliest state a search that starts now can see."""
        return self.committed

    def check(self, query: int, ids: Any, earliest: int) -> None:
        """Raise if no state between `earliest` and now explains the answer."""
        seen = ids.tolist()
        for state in range(earliest, len(self.states)):
            if seen == self._right(query, *self.states[state]):
                return
        raise RuntimeError(f"query {query}: {seen} is right for no state from {earliest} to {len(self.states) - 1}")

    def write_until(self, stop: threading.Event) -> None:
        """Take the index from state to state: each write is one call, hence one state."""
        try:
            while not stop.is_set():
                live, gone = self.states[-1]
                if not live:
                    chosen = self._rng.choice(_EXTRA_ROWS, _EXTRA_AT_ONCE, replace=False)
                    ids = frozenset(self._first + chosen)
                    self._commit((ids, gone), self._index.add, self._extra[chosen], self._first + chosen)
                    removed = self._rng.choice(
                        self._removable, min(_REMOVED_AT_ONCE, len(self._removable)), replace=False
                    )
                    self._commit((ids, frozenset(removed.tolist())), self._index.remove, removed)
                else:
                    back = np.array(sorted(gone))
                    self._commit((live, frozenset()), self._index.upsert, self._rows[back], back)
                    self._commit((frozenset(), frozenset()), self._index.remove, np.array(sorted(live)))
        except BaseException as error:
            self.error = error

    def restore(self) -> None:
        """Bring the index back to the rows it had."""
        live, gone = self.states[-1]
        if gone:
            self._index.add(self._rows[sorted(gone)], np.array(sorted(gone)))
        if live:
            self._index.remove(np.array(sorted(live)))

    def _commit(self, state: tuple[frozenset[int], frozenset[int]], write: Callable[..., None], *words: Any) -> None:
        self.states.append(state)  # from here on a search may see it
        write(*words)
        self.committed = len(self.states) - 1  # from here on every new search must

    def _right(self, query: int, live: frozenset[int], gone: frozenset[int]) -> list[int]:
        scored = zip(self._answers.scores[query].tolist(), self._answers.ids[query].tolist(), strict=True)
        pairs = [(score, item) for score, item in scored if item not in gone]
        pairs += [(float(self._extra_scores[query, item - self._first]), int(item)) for item in live]
        # equal scores: the base rows come first; extra rows were drawn at random and do not tie
        return [item for _, item in sorted(pairs, key=lambda pair: -pair[0])[:K]]
