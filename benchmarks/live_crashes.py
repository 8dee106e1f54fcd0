"""Kill a process that records events and look whether everything that was acknowledged is there.

Run as a script it is that process: several threads record at a fixed rate together, each event on disk before it is said to be
recorded. Threads that write at once share a flush, which is how a disk that flushes a few hundred times a second takes a
thousand events a second.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.report import Report, Target
from llmrec_fast import Recommender

ITEMS, WRITERS = 1000, 32
_OPENED = "open"


def crashes(report: Report, folder: Path, rate: float, rounds: int) -> None:
    """Add to `report` what `rounds` kills at random moments lost, and how many events a second were acknowledged before."""
    rows = np.random.default_rng(0).standard_normal((ITEMS, 16)).astype(np.float32)
    table = {"id": np.arange(ITEMS), "text": ["-"] * ITEMS}
    Recommender(None, weights={"text": 1.0}, rank=None).fit(table, vectors={"text": rows}).save(folder)
    moments = np.random.default_rng(1).uniform(0.5, 1.5, rounds)
    acknowledged, lost, rates = 0, 0, []
    for number, moment in enumerate(moments.tolist()):
        said = _killed(folder, number, rate, moment)
        acknowledged += len(said)
        rates.append(len(said) / moment)
        with Recommender.open(folder) as again:
            histories = {
                user: set(again.history(user)) for user in {user for user, _ in said} if again.knows_user(user)
            }
            lost += sum(item not in histories.get(user, ()) for user, item in said)
            again.compact()
    report.figures |= {
        "kills": rounds,
        "events acknowledged before kills": acknowledged,
        "events acknowledged a second, median over kills": round(statistics.median(rates)),
        "acknowledged events lost": lost,
    }
    report.targets.append(Target("acknowledged events lost in crashes", lost, 0, at_least=False, unit=""))


def _killed(folder: Path, number: int, rate: float, moment: float) -> list[tuple[str, int]]:
    """(user, item) of the events that a process acknowledged before it was killed."""
    command = [sys.executable, "-m", "benchmarks.live_crashes", str(folder), str(number), str(rate)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == _OPENED
        killer = threading.Timer(moment, process.kill)
        killer.start()
        lines = process.stdout.readlines()
        killer.join()
    # the last line may be torn
    return [(user, int(item)) for user, item in (line.split() for line in lines if line.endswith("\n"))]


def _write_for_ever(folder: Path, number: int, rate: float) -> None:
    recommender = Recommender.open(folder, fsync="always")
    said = threading.Lock()
    print(_OPENED, flush=True)
    start = time.monotonic()

    def write(thread: int) -> None:
        for place in range(thread, sys.maxsize, WRITERS):
            time.sleep(max(0.0, start + place / rate - time.monotonic()))
            user, item = f"{number}-{place // 100}", place % ITEMS
            recommender.record(user, item)
            with said:
                sys.stdout.write(f"{user} {item}\n")
                sys.stdout.flush()

    writers = [threading.Thread(target=write, args=(thread,)) for thread in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()


if __name__ == "__main__":
    _write_for_ever(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
