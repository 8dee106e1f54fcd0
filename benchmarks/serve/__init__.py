"""Suite `serve`: latency of the HTTP service against the rate of requests, overload, recovery, and crashes under writes.

An open loop at fixed rates (`load`), the service and the client in processes of their own on one machine. 100% is what the
service answers in a closed loop, at the best of several numbers of clients. Everything is done in several rounds, and the
figures are the medians over them. For comparison the same calls in one process, without the service.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import Comparison
from benchmarks.plots import Panel, draw
from benchmarks.report import Cell, Report, Target
from benchmarks.retrieval import data
from benchmarks.serve.load import Run, load, throughput
from benchmarks.serve.process import Served
from llmrec_fast import Recommender

ITEMS, QUICK_ITEMS, USERS, HISTORY = 100_000, 2_000, 2_000, 20
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.5, 2.0)
QUICK_SHARES = (0.1, 0.7, 2.0)
CLIENTS, QUICK_CLIENTS = (8, 16, 32, 64, 120), (16, 64)
ROUNDS = 3
IDLE_RATE = 50
EVENTS_A_SECOND = 1000
RECOVERED_RATIO = 10
TOGETHER = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vectors", type=Path, help=f"real vectors, .npy (default: ${data.VECTORS_VARIABLE}, or encoded)"
    )
    parser.add_argument("--items", type=int, help=f"items of the catalogue (default: {ITEMS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="repetitions of everything (default: %(default)s)")
    parser.add_argument(
        "--crash-rounds", type=int, default=0, help="kill the service this often under writes (default: 0)"
    )


def run(arguments: argparse.Namespace) -> Report:
    report = Report("serve", "The HTTP service under load")
    base, source = data.load_real(arguments.vectors)
    items = arguments.items or (QUICK_ITEMS if arguments.quick else ITEMS)
    report.notes = [source, f"{items} items, {USERS} users with {HISTORY} items each; seen items filtered; k = 10"]
    seconds = arguments.seconds or (0.5 if arguments.quick else 3.0)
    rounds = 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "recommender"
        recommender = _recommender(data.make("real", items, base.shape[1], base, queries=1).rows, arguments.threads)
        recommender.save(folder)
        with Served(folder, "--threads", str(arguments.threads)) as service:
            saturation = _saturation(
                report, service.port, seconds, rounds, QUICK_CLIENTS if arguments.quick else CLIENTS
            )
            shares = QUICK_SHARES if arguments.quick else SHARES
            idle = _rates(report, service.port, saturation, shares, seconds, rounds, arguments.output)
        _in_process(report, recommender, idle, seconds)
        if arguments.crash_rounds:
            _crashes(report, folder, arguments.crash_rounds)
    return report


def _recommender(rows: np.ndarray, threads: int | None = None) -> Recommender:
    rng = np.random.default_rng(0)
    ids = np.arange(len(rows))
    items = {"id": ids, "text": [f"item {place}" for place in ids]}
    chosen = np.concatenate([rng.choice(len(rows), HISTORY, replace=False) for _ in range(USERS)])
    interactions = {"user": np.repeat(np.arange(USERS), HISTORY), "item": chosen, "timestamp": np.arange(len(chosen))}
    model = Recommender(None, rank=None, weights={"text": 1.0}, threads=threads)
    return model.fit(items, interactions, vectors={"text": rows})


def _saturation(report: Report, port: int, seconds: float, rounds: int, numbers: Sequence[int]) -> float:
    """Answers a second at the best number of clients, by the median round of each."""
    throughput(port, max(numbers), min(1.0, seconds), USERS)  # warms up both sides
    rates: dict[int, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for clients in numbers:
            rates[clients].append(throughput(port, clients, min(1.0, seconds), USERS))
    medians = {clients: statistics.median(found) for clients, found in rates.items()}
    best = max(medians, key=lambda clients: medians[clients])
    report.figures |= {
        f"answers a second to {clients} clients": f"{medians[clients]:.0f} ({min(found):.0f} to {max(found):.0f})"
        for clients, found in rates.items()
    }
    report.notes.append(
        f"100% is the median rate of {best} clients, each with one request at a time: {medians[best]:.0f}/s"
    )
    return medians[best]


def _rates(
    report: Report, port: int, saturation: float, shares: Sequence[float], seconds: float, rounds: int, output: Path
) -> float:
    """Fill in the cells and targets; returns the p50 of an idle call in seconds."""
    found: dict[float, list[dict[str, float]]] = defaultdict(list)
    idles = []
    for _ in range(rounds):
        idle = load(port, [(IDLE_RATE, seconds)], USERS).quantile(0.5)
        idles.append(idle)
        for share in shares:
            # the time after an overload shows the recovery
            tail = max(seconds, 1.0) if share > 1 else 0.3
            sent = load(port, [(share * saturation, seconds), (0.3 * saturation, tail)], USERS)
            found[share].append(_figures(sent, seconds, idle))
    medians = {
        share: {name: statistics.median(each[name] for each in parts) for name in parts[0]}
        for share, parts in found.items()
    }
    for share, figures in medians.items():
        labels = {"of saturation": f"{share:.0%}", "rate /s": round(share * saturation)}
        report.cells.append(Cell(labels, Comparison([], []), dict(figures)))
    best = max(figures["answered /s"] for figures in medians.values())
    report.targets += [
        Target(
            "p99 at 70% of saturation over the p50 of an idle call",
            medians[0.7]["p99 over idle p50"],
            10,
            at_least=False,
        ),
        Target("goodput at 200% over the best", medians[2.0]["answered /s"] / best, 0.8),
        Target("recovery after 200%", medians[2.0]["quiet after s"], 2.0, at_least=False, unit="s"),
    ]
    idle = statistics.median(idles)
    report.figures |= {
        "p50 of an idle call, ms": f"{1e3 * idle:.3f} ({1e3 * min(idles):.3f} to {1e3 * max(idles):.3f})"
    }
    lines = {
        name: [(share * saturation, figures[f"{name} ms"]) for share, figures in medians.items()]
        for name in ("p50", "p99", "p99.9")
    }
    picture = output / "serve.svg"
    note = draw([Panel("latency", "requests a second", "milliseconds", lines)], picture, report.title)
    report.notes += [note] if note else []
    report.plots += [] if note else [picture]
    return idle


def _figures(sent: Run, seconds: float, idle: float) -> dict[str, float]:
    during = sent.part(0, seconds)
    return {
        "answered /s": len(during.good) / seconds,
        "429, %": 100 * float(np.mean(during.status == 429)),
        "other, %": 100 * float(np.mean((during.status != 200) & (during.status != 429))),
        "p50 ms": 1e3 * during.quantile(0.5),
        "p99 ms": 1e3 * during.quantile(0.99),
        "p99.9 ms": 1e3 * during.quantile(0.999),
        "p99 over idle p50": during.quantile(0.99) / idle,
        "quiet after s": sent.quiet_after(seconds, RECOVERED_RATIO * idle),
        # what the client itself adds
        "sent late, p99 ms": 1e3 * float(np.quantile(during.late, 0.99)),
    }


def _in_process(report: Report, recommender: Recommender, idle: float, seconds: float) -> None:
    """The same calls without the service: one user at a time, and as many together as a batch of the service holds."""
    users = np.random.default_rng(0).integers(USERS, size=4096).tolist()
    took = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        recommender.recommend([users[len(took) % len(users)]], 10)
        took.append(time.perf_counter() - start)
    end, answered, start = time.perf_counter() + seconds, 0, time.perf_counter()
    while time.perf_counter() < end:
        recommender.recommend(users[:TOGETHER], 10)
        answered += TOGETHER
    p50, p99 = np.quantile(took, [0.5, 0.99])
    report.figures |= {
        "in one process, one user a call: p50, ms": round(1e3 * p50, 3),
        "in one process, one user a call: p99, ms": round(1e3 * p99, 3),
        "p50 of an idle call over HTTP, over that": round(idle / p50, 2),
        f"in one process, {TOGETHER} users a call: users a second": round(answered / (time.perf_counter() - start)),
    }


def _crashes(report: Report, folder: Path, rounds: int) -> None:
    """Kill the service at a random moment of a steady stream of events; what was acknowledged must be there."""
    rng = np.random.default_rng(1)
    acknowledged, lost, rates = 0, 0, []
    for _ in range(rounds):
        service = Served(folder, "--fsync", "always", "--timeout", "5")
        moment = 0.2 + rng.random()
        timer = threading.Timer(moment, service.process.send_signal, [signal.SIGKILL])
        sent = load(service.port, [(EVENTS_A_SECOND, moment + 0.6)], USERS, "/events", timer.start)
        timer.join()
        service.stop()
        label = f"e{service.port}"
        good = np.flatnonzero(sent.status == 200)
        rates.append(len(good) / moment)
        with Recommender.open(folder) as again:
            for place in good.tolist():
                user = f"{label}-{place}"
                lost += not (again.knows_user(user) and place % 1000 in again.history(user))
        acknowledged += len(good)
    report.figures |= {
        "events acknowledged before kills": acknowledged,
        "events acknowledged a second, median over kills": round(statistics.median(rates)),
        "kills": rounds,
        "acknowledged events lost": lost,
    }
    report.targets.append(Target("acknowledged events lost in crashes", lost, 0, at_least=False, unit=""))
