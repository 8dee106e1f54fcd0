"""An open-loop client in a process of its own: requests leave at their time whether or not earlier ones were answered.

Latency counts from the moment a request was meant to leave, so that a stalled server (or client) cannot hide its stall
(no coordinated omission). Raw HTTP over connections that are kept and reused.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MOST_CONNECTIONS = 2000
LOST = 0  # the status of a request that got no answer


@dataclass(frozen=True)
class Run:
    """What became of every request, in the order in which they were meant to leave."""

    meant: npt.NDArray[np.float64]  # seconds since the start
    seconds: npt.NDArray[np.float64]  # from then to the whole answer
    status: npt.NDArray[np.int64]

    def part(self, start: float, end: float) -> Run:
        inside = (self.meant >= start) & (self.meant < end)
        return Run(self.meant[inside], self.seconds[inside], self.status[inside])

    @property
    def good(self) -> npt.NDArray[np.float64]:
        return self.seconds[self.status == 200]

    def quantile(self, share: float) -> float:
        return float(np.quantile(self.good, share)) if len(self.good) else float("nan")


def load(
    port: int,
    segments: Sequence[tuple[float, float]],
    users: int,
    path: str = "/recommend",
    started: Callable[[], None] | None = None,
) -> Run:
    """Send at each segment's (requests a second, seconds), one after another; `started` is called as the first one leaves."""
    command = [sys.executable, "-m", "benchmarks.serve.load", str(port), json.dumps(segments), str(users), path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        client.stdout.readline()
        if started is not None:
            started()
        answer = client.stdout.read()
    meant, seconds, status = json.loads(answer)
    return Run(np.array(meant), np.array(seconds), np.array(status, np.int64))


def throughput(port: int, connections: int, seconds: float, users: int) -> float:
    """Answers a second to this many clients that each send the next request upon the answer to the last."""
    command = [sys.executable, "-m", "benchmarks.serve.load", str(port), "closed", str(connections)]
    done = subprocess.run([*command, str(seconds), str(users)], capture_output=True, text=True, check=True)
    return float(done.stdout)


class _Connection(asyncio.Protocol):
    def __init__(self, client: _Client) -> None:
        self.client = client
        self.place = -1
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, place: int, request: bytes) -> None:
        self.place = place
        self.transport.write(request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, found, body = self.received.partition(b"\r\n\r\n")
        if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]):
            self.received = b""
            self.client.finished(self, int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.client.lost(self)


class _Client:
    def __init__(self, port: int, users: int, path: str, count: int) -> None:
        self.port, self.path = port, path
        self.users = np.random.default_rng(0).integers(users, size=4096).tolist()
        self.idle: list[_Connection] = []
        self.opened = 0
        self.seconds = [0.0] * count
        self.status = [LOST] * count
        self.meant: list[float] = []
        self.start = 0.0
        self.left = count
        self.done = asyncio.Event()
        self.again = None

    def request(self, place: int) -> bytes:
        body = b'{"users":[%d],"k":10}' % self.users[place % len(self.users)]
        if self.path == "/events":
            body = b'{"events":[{"user":"e%d-%d","item":%d}]}' % (self.port, place, place % 1000)
        return (
            b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (self.path.encode(), len(body))
        ) + body

    async def connection(self) -> _Connection | None:
        while self.idle:
            found = self.idle.pop()
            if not found.transport.is_closing():
                return found
        if self.opened >= MOST_CONNECTIONS:
            return None
        self.opened += 1
        try:
            _, made = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(self), "127.0.0.1", self.port
            )
        except OSError:
            self.opened -= 1
            return None
        return made

    async def send(self, place: int) -> None:
        connection = await self.connection()
        if connection is None:
            self.record(place, LOST)
        else:
            connection.send(place, self.request(place))

    def finished(self, connection: _Connection, status: int) -> None:
        self.record(connection.place, status)
        connection.place = -1
        self.idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        self.opened -= 1
        if connection.place >= 0:
            self.record(connection.place, LOST)
            connection.place = -1

    def record(self, place: int, status: int) -> None:
        self.seconds[place] = time.perf_counter() - self.start - self.meant[place]
        self.status[place] = status
        self.left -= 1
        if not self.left:
            self.done.set()


async def _open(port: int, segments: Sequence[tuple[float, float]], users: int, path: str) -> str:
    meant: list[float] = []
    start = 0.0
    for rate, seconds in segments:
        meant += (start + np.arange(int(rate * seconds)) / rate).tolist()
        start += seconds
    client = _Client(port, users, path, len(meant))
    client.idle = [made for _ in range(32) if (made := await client.connection()) is not None]
    print("started", flush=True)
    client.meant, client.start = meant, time.perf_counter()
    tasks = set()
    for place, moment in enumerate(meant):
        wait = client.start + moment - time.perf_counter()
        if wait > 0 or place % 64 == 0:
            await asyncio.sleep(max(wait, 0))
        if client.idle:
            await client.send(place)
        else:
            task = asyncio.create_task(client.send(place))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.done.wait(), 10)
    return json.dumps([meant, client.seconds, client.status])


async def _closed(port: int, connections: int, seconds: float, users: int) -> str:
    answered = 0
    end = time.perf_counter() + seconds

    async def one(place: int) -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        client = _Client(port, users, "/recommend", 1)
        while time.perf_counter() < end:
            place += connections
            writer.write(client.request(place))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0]))
            answered += head[9:12] == b"200"
        writer.close()

    await asyncio.gather(*(one(place) for place in range(connections)))
    return str(answered / seconds)


if __name__ == "__main__":
    if sys.argv[2] == "closed":
        print(asyncio.run(_closed(int(sys.argv[1]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))))
    else:
        print(asyncio.run(_open(int(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
