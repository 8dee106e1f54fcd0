"""Suite `live`: one user's recommendations inside a service, while events are recorded, against the bare index search.

One process, 100,000 items, d = 384, every user's history filtered. Three measurements, the first two alternating call by call:
the index's own search with the very query that the recommender makes, `recommend` for the same user, and `recommend` beside
a writer that records events at a fixed rate (open loop: a late event is caught up, never skipped).
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness import Comparison
from benchmarks.live_crashes import crashes
from benchmarks.report import Cell, Report, Target
from benchmarks.retrieval.data import VECTORS_VARIABLE, load_real, make
from llmrec_fast import Recommender
from llmrec_fast.arrays import Float32Array, Float64Array

ITEMS, QUICK_ITEMS, USERS, HISTORY, CALLS = 100_000, 2_000, 2_000, 50, 3_000
DURABLE_WRITERS = 32  # one thread can record no more events than the disk flushes; threads share a flush


@dataclass(frozen=True)
class LiveLatencies:
    """Milliseconds of single calls, and how fast the writer really was."""

    search: Float64Array
    recommend: Float64Array
    beside_writer: Float64Array
    events_per_second: float


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


def measure(
    recommender: Recommender, calls: int, rate: float, k: int = 10, seed: int = 0, writers: int = 1
) -> LiveLatencies:
    """Time `calls` single calls of each kind; `writers` threads record `rate` events a second during the last kind."""
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
    beside, events = _beside_writer(recommender, [users[user] for user in asked], items, rate, k, generator, writers)
    return LiveLatencies(search * 1e3, recommend * 1e3, beside * 1e3, events)


def _beside_writer(
    recommender: Recommender,
    asked: list[object],
    items: list[object],
    rate: float,
    k: int,
    generator: np.random.Generator,
    writers: int,
) -> tuple[Float64Array, float]:
    stop, written = threading.Event(), [0] * writers
    by, chosen = generator.integers(len(asked), size=1 << 16), generator.integers(len(items), size=1 << 16)
    begin = time.perf_counter()

    def write(thread: int) -> None:
        for place in range(thread, sys.maxsize, writers):
            wait = begin + place / rate - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            if stop.is_set():
                return
            recommender.record(asked[by[place % len(by)]], items[chosen[place % len(chosen)]])
            written[thread] += 1

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(writers)]
    latencies = np.empty(len(asked))
    for thread in threads:
        thread.start()
    try:
        for place, user in enumerate(asked):
            start = time.perf_counter()
            recommender.recommend([user], k)
            latencies[place] = time.perf_counter() - start
    finally:
        stop.set()
        events, elapsed = sum(written), time.perf_counter() - begin
        for thread in threads:
            thread.join()
    return latencies, events / elapsed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vectors", type=Path, help=f"real vectors, .npy (default: ${VECTORS_VARIABLE}, or encoded)")
    parser.add_argument("--items", type=int, help=f"items of the catalogue (default: {ITEMS})")
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second (default: %(default)g)")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; figures are their medians")
    parser.add_argument(
        "--durable", action="store_true", help=f"on disk before it counts, by {DURABLE_WRITERS} threads"
    )
    parser.add_argument(
        "--crash-rounds", type=int, default=0, help="kill a process this often while it writes (default: 0)"
    )


def run(arguments: argparse.Namespace) -> Report:
    report = Report("live", "A recommender inside a service, beside a writer")
    base, source = load_real(arguments.vectors)
    items = arguments.items or (QUICK_ITEMS if arguments.quick else ITEMS)
    users, calls, rounds = (50, 100, 1) if arguments.quick else (USERS, CALLS, arguments.rounds)
    report.notes = [source, f"{items} items, {users} users with {HISTORY} items each; seen items filtered; k = 10"]
    vectors = make("real", items, base.shape[1], base, queries=1).rows
    model = make_recommender(vectors, users, HISTORY, arguments.threads, seed=0)
    # what a service does once it has loaded: collections that walk through the catalogue would stop readers for their time
    gc.collect()
    gc.freeze()
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "recommender"
            if arguments.durable:
                report.notes.append(f"{DURABLE_WRITERS} threads write, and no event counts before it is on the disk")
                model = Recommender.open(folder, create_from=model, threads=arguments.threads)
            with model:
                writers = DURABLE_WRITERS if arguments.durable else 1
                found = [measure(model, calls, arguments.rate, seed=seed, writers=writers) for seed in range(rounds)]
                _latencies(report, found)
            if arguments.crash_rounds:
                crashes(report, Path(place) / "crashed", arguments.rate, arguments.crash_rounds)
    finally:
        gc.unfreeze()
    return report


def _latencies(report: Report, found: list[LiveLatencies]) -> None:
    names = {"search": "the index's search", "recommend": "recommend", "beside_writer": "recommend beside the writer"}
    for name, shown in names.items():
        quantiles = np.median([np.percentile(getattr(each, name), [50, 99, 99.9]) for each in found], axis=0)
        figures = dict(zip(("p50 ms", "p99 ms", "p99.9 ms"), quantiles.tolist(), strict=True))
        report.cells.append(Cell({"call": shown}, Comparison([], []), dict(figures)))
    overhead = float(np.median([np.median(each.recommend) / np.median(each.search) for each in found]))
    tails = [np.percentile(each.beside_writer, [50, 99]) for each in found]
    report.figures["events a second"] = round(float(np.median([each.events_per_second for each in found])))
    report.targets += [
        Target("recommend over the bare search, p50", overhead, 1.5, at_least=False),
        Target(
            "p99 over p50 beside the writer", float(np.median([p99 / p50 for p50, p99 in tails])), 4, at_least=False
        ),
    ]
