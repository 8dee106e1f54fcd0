"""Suite `serve`: latency of the HTTP service against the rate of requests, overload, recovery, and crashes under writes.

An open loop at fixed rates (`load`), the service and the client in processes of their own on one machine. 100% is what
the service answers to as many clients as its queue holds that each wait for their answer.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks.harness import Comparison
from benchmarks.plots import Panel, draw
from benchmarks.report import Cell, Report, Target
from benchmarks.retrieval import data
from benchmarks.serve.load import load, throughput
from benchmarks.serve.process import Served
from llmrec_fast import Recommender

ITEMS, QUICK_ITEMS, USERS, HISTORY = 100_000, 2_000, 2_000, 20
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0, 1.5, 2.0)
CLIENTS = 64
EVENTS_A_SECOND = 1000
RECOVERED_RATIO = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vectors", type=Path, help=f"real vectors, .npy (default: ${data.VECTORS_VARIABLE}, or encoded)"
    )
    parser.add_argument("--items", type=int, help=f"items of the catalogue (default: {ITEMS})")
    parser.add_argument(
        "--crash-rounds", type=int, default=0, help="kill the service this often under writes (default: 0)"
    )


def run(arguments: argparse.Namespace) -> Report:
    report = Report("serve", "The HTTP service under load")
    base, source = data.load_real(arguments.vectors)
    items = arguments.items or (QUICK_ITEMS if arguments.quick else ITEMS)
    report.notes = [source, f"{items} items, {USERS} users with {HISTORY} items each; seen items filtered; k = 10"]
    seconds = arguments.seconds or (0.5 if arguments.quick else 4.0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "recommender"
        _recommender(data.make("real", items, base.shape[1], base, queries=1).rows).save(folder)
        with Served(folder, "--threads", str(arguments.threads)) as service:
            _rates(report, service.port, seconds, arguments.output)
        if arguments.crash_rounds:
            _crashes(report, folder, arguments.crash_rounds)
    return report


def _recommender(rows: np.ndarray) -> Recommender:
    rng = np.random.default_rng(0)
    ids = np.arange(len(rows))
    items = {"id": ids, "text": [f"item {place}" for place in ids]}
    chosen = np.concatenate([rng.choice(len(rows), HISTORY, replace=False) for _ in range(USERS)])
    interactions = {"user": np.repeat(np.arange(USERS), HISTORY), "item": chosen, "timestamp": np.arange(len(chosen))}
    return Recommender(None, rank=None, weights={"text": 1.0}).fit(items, interactions, vectors={"text": rows})


def _rates(report: Report, port: int, seconds: float, output: Path) -> None:
    throughput(port, CLIENTS, min(1.0, seconds), USERS)  # warms up both sides
    saturation = throughput(port, CLIENTS, seconds, USERS)
    idle = load(port, [(20, max(2.0, seconds))], USERS).quantile(0.5)
    goodputs, lines = {}, {"p50": [], "p99": [], "p99.9": []}
    tail = 2.0
    for share in SHARES:
        # the time after the overload shows the recovery
        run_ = load(port, [(share * saturation, seconds), (0.3 * saturation, tail)], USERS)
        during, after = run_.part(0, seconds), run_.part(seconds, seconds + tail)
        goodputs[share] = len(during.good) / seconds
        slow = (after.status != 200) | (after.seconds > RECOVERED_RATIO * idle)
        recovery = float((after.meant + after.seconds)[slow].max() - seconds) if slow.any() else 0.0
        figures: dict[str, float | str] = {
            "answered /s": goodputs[share],
            "429": f"{np.mean(during.status == 429):.1%}",
            "other": f"{np.mean((during.status != 200) & (during.status != 429)):.2%}",
            "p50 ms": 1e3 * during.quantile(0.5),
            "p99 ms": 1e3 * during.quantile(0.99),
            "p99.9 ms": 1e3 * during.quantile(0.999),
            "quiet after s": recovery,
        }
        for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
            lines[name].append((share * saturation, 1e3 * during.quantile(quantile)))
        report.cells.append(
            Cell({"of saturation": f"{share:.0%}", "rate /s": round(share * saturation)}, Comparison([], []), figures)
        )
        if share == 0.7:
            ratio = during.quantile(0.99) / idle
            report.targets.append(
                Target("p99 at 70% of saturation over the p50 of an idle call", ratio, 10, at_least=False)
            )
        if share == 2.0:
            report.targets.append(Target("goodput at 200% over the best", goodputs[2.0] / max(goodputs.values()), 0.8))
            report.targets.append(Target("recovery after 200%", recovery, 2.0, at_least=False, unit="s"))
    report.figures |= {
        "saturation, answers a second": round(saturation),
        "p50 of an idle call, ms": round(1e3 * idle, 3),
    }
    picture = output / "serve.svg"
    note = draw([Panel("latency", "requests a second", "milliseconds", lines)], picture, report.title)
    report.notes += [note] if note else []
    report.plots += [] if note else [picture]


def _crashes(report: Report, folder: Path, rounds: int) -> None:
    """Kill the service at a random moment of a steady stream of events; what was acknowledged must be there."""
    rng = np.random.default_rng(1)
    acknowledged = lost = 0
    for _ in range(rounds):
        service = Served(folder, "--fsync", "always", "--timeout", "5")
        moment = 0.2 + rng.random()
        timer = threading.Timer(moment, service.process.send_signal, [signal.SIGKILL])
        sent = load(service.port, [(EVENTS_A_SECOND, moment + 0.6)], USERS, "/events", timer.start)
        timer.join()
        service.stop()
        label = f"e{service.port}"
        good = np.flatnonzero(sent.status == 200)
        with Recommender.open(folder) as again:
            for place in good.tolist():
                user = f"{label}-{place}"
                lost += not (again.knows_user(user) and place % 1000 in again.history(user))
        acknowledged += len(good)
    report.figures |= {
        "events acknowledged before kills": acknowledged,
        "kills": rounds,
        "acknowledged events lost": lost,
    }
    report.targets.append(Target("acknowledged events lost in crashes", lost, 0, at_least=False, unit=""))
