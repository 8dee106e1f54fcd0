"""A recommender inside a service: one user's recommendations while events are recorded, against the bare index search.

One process, 100,000 items, d = 384, every user's history filtered. Three measurements, the first two alternating call by call:
the index's own search with the very query that the recommender makes, `recommend` for the same user, and `recommend` beside
a writer that records events at a fixed rate (open loop: a late event is caught up, never skipped).
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.retrieval.data import VECTORS_VARIABLE, load_real, make
from llmrec_fast import Recommender
from llmrec_fast.arrays import Float32Array, Float64Array


@dataclass(frozen=True)
class LiveLatencies:
    """Milliseconds of single calls, and how fast the writer really was."""

    search: Float64Array
    recommend: Float64Array
    beside_writer: Float64Array
    events_per_second: float

    def lines(self) -> list[str]:
        """The figures and the two ratios that matter, for people."""
        rows = []
        for name in ("search", "recommend", "beside_writer"):
            p50, p99, p999 = np.percentile(getattr(self, name), [50, 99, 99.9])
            rows.append(f"{name:14} p50 {p50:.3f} ms  p99 {p99:.3f}  p99.9 {p999:.3f}")
        beside = np.percentile(self.beside_writer, [50, 99])
        rows.append(f"recommend / search, p50: {np.median(self.recommend) / np.median(self.search):.2f}")
        rows.append(f"p99 / p50 beside {self.events_per_second:.0f} events a second: {beside[1] / beside[0]:.2f}")
        return rows


def make_recommender(vectors: Float32Array, users: int, history: int, threads: int | None, seed: int) -> Recommender:
    """Items described by `vectors` alone; each user chose `history` items."""
    generator = np.random.default_rng(seed)
    items = len(vectors)
    chosen = np.concatenate([generator.choice(items, history, replace=False) for _ in range(users)])
    interactions = {
        "user": np.repeat(np.arange(users), history),
        "item": chosen,
        "timestamp": np.tile(np.arange(history), users),
    }
    catalogue = {"id": np.arange(items), "text": ["-"] * items}
    model = Recommender(None, weights={"text": 1.0, "popularity": 0.1}, rank=None, threads=threads)
    return model.fit(catalogue, interactions, vectors={"text": vectors})


def measure(recommender: Recommender, calls: int, rate: float, k: int = 10, seed: int = 0) -> LiveLatencies:
    """Time `calls` single calls of each kind; events come at `rate` a second during the last kind."""
    generator = np.random.default_rng(seed)
    users, items = recommender.user_ids, recommender.item_ids
    asked = generator.integers(len(users), size=calls)
    state = recommender._fitted()
    queries = []
    for user in asked:
        history = state.histories.take(np.array([user]))
        queries.append((state.space.queries(state.space.profiles(history), state.weights, 1), history.items))
    for user in asked[:50]:
        recommender.recommend([users[user]], k)
    search, recommend = np.empty(calls), np.empty(calls)
    for place, user in enumerate(asked):
        query, seen = queries[place]
        # who comes second finds in the caches what the first has read: they take turns at it
        for turn in (place, place + 1):
            start = time.perf_counter()
            if turn % 2:
                state.index.search(query, k, exclude=[seen])
                search[place] = time.perf_counter() - start
            else:
                recommender.recommend([users[user]], k)
                recommend[place] = time.perf_counter() - start
    beside, events = _beside_writer(recommender, [users[user] for user in asked], items, rate, k, generator)
    return LiveLatencies(search * 1e3, recommend * 1e3, beside * 1e3, events)


def _beside_writer(
    recommender: Recommender,
    asked: list[object],
    items: list[object],
    rate: float,
    k: int,
    generator: np.random.Generator,
) -> tuple[Float64Array, float]:
    stop, written = threading.Event(), 0
    writers, chosen = generator.integers(len(asked), size=1 << 16), generator.integers(len(items), size=1 << 16)

    def write() -> None:
        nonlocal written
        start = time.perf_counter()
        while not stop.is_set():
            due = start + written / rate
            wait = due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            place = written % len(writers)
            recommender.record(asked[writers[place]], items[chosen[place]])
            written += 1

    writer = threading.Thread(target=write)
    latencies = np.empty(len(asked))
    begin = time.perf_counter()
    writer.start()
    try:
        for place, user in enumerate(asked):
            start = time.perf_counter()
            recommender.recommend([user], k)
            latencies[place] = time.perf_counter() - start
    finally:
        stop.set()
        elapsed = time.perf_counter() - begin
        writer.join()
    return latencies, written / elapsed


def main() -> None:
    """`python -m benchmarks.live`: print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--history", type=int, default=50)
    parser.add_argument("--calls", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--vectors", type=Path, help=f"a .npy file (default: ${VECTORS_VARIABLE}, or encoded now)")
    parser.add_argument("--folder", type=Path, help="keep a log there, flushed at every event")
    arguments = parser.parse_args()
    base, _ = load_real(arguments.vectors)
    vectors = make("real", arguments.items, 384, base).rows
    recommender = make_recommender(vectors, arguments.users, arguments.history, arguments.threads, seed=0)
    if arguments.folder is not None:
        recommender = Recommender.open(arguments.folder, create_from=recommender, threads=arguments.threads)
    with recommender:
        print("\n".join(measure(recommender, arguments.calls, arguments.rate).lines()))


if __name__ == "__main__":
    main()
