"""Load in an open loop (requests leave at their time, whether or not earlier ones were answered) and in a closed one.

Latency counts from the moment a request was meant to leave, so that a stalled server (or client) cannot hide its stall
(no coordinated omission). How late requests really left is kept too: a client that cannot keep up measures itself.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Run:
    """What became of every request, in the order in which they were meant to leave.

    Attributes
    ----------
    meant : seconds since the start.
    late : seconds from then until it left.
    seconds : from `meant` to the whole answer.
    status : of the answer; 0 if there was none.
    """

    meant: npt.NDArray[np.float64]
    late: npt.NDArray[np.float64]
    seconds: npt.NDArray[np.float64]
    status: npt.NDArray[np.int64]

    def part(self, start: float, end: float) -> Run:
        inside = (self.meant >= start) & (self.meant < end)
        return Run(self.meant[inside], self.late[inside], self.seconds[inside], self.status[inside])

    @property
    def good(self) -> npt.NDArray[np.float64]:
        return self.seconds[self.status == 200]

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.good, share)) if len(self.good) else float("nan")

    def quiet_after(self, start: float, limit: float, window: float = 0.1) -> float:
        """Seconds from `start` until everything is answered again, and nine in ten within `limit` seconds, in every window."""
        restless = 0.0
        for place in range(int((self.meant[-1] - start) / window) + 1):
            part = self.part(start + place * window, start + (place + 1) * window)
            if len(part.meant) and (np.mean(part.status == 200) < 0.99 or part.quantile(0.9) > limit):
                restless = (place + 1) * window
        return restless


def load(
    port: int,
    segments: Sequence[tuple[float, float]],
    users: int,
    path: str = "/recommend",
    started: Callable[[], None] | None = None,
) -> Run:
    """Send at each segment's (requests a second, seconds), one after another; `started` is called as the first one leaves."""
    answer = json.loads(_ordered({"port": port, "users": users, "path": path, "segments": segments}, started))
    return Run(*(np.array(answer[name]) for name in ("meant", "late", "seconds")), np.array(answer["status"], np.int64))


def throughput(port: int, connections: int, seconds: float, users: int) -> float:
    """Answers a second to this many clients that each send the next request upon the answer to the last."""
    order = {"port": port, "users": users, "path": "/recommend", "connections": connections, "seconds": seconds}
    return float(_ordered(order, None))


def _ordered(order: dict[str, object], started: Callable[[], None] | None) -> str:
    command = [sys.executable, str(Path(__file__).with_name("client.py")), json.dumps(order)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()
        if started is not None:
            started()
        return client.stdout.read()
