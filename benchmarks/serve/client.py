"""The load generator: a process of its own with one thread, one epoll and requests that are built beforehand.

It shares the machine with the service, so it does as little as it can for each request. Not a general HTTP client: it knows
answers with a Content-Length over connections that are kept. Run by its path, not as a module: the package around it would load
the whole project.
"""

from __future__ import annotations

import json
import random
import select
import socket
import sys
import time
from collections.abc import Sequence

MOST_CONNECTIONS = 900
OPENED_BEFOREHAND = 64
LOST = 0  # the status of a request that got no answer
_PATIENCE = 5.0  # seconds for the last answers
_AT_A_TIME = 16  # overdue requests that are sent before answers are looked at again
_DISTINCT = 4096


class _Connection:
    """A socket that carries one request at a time."""

    def __init__(self, port: int, epoll: select.epoll) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.place = -1
        self.received = b""
        epoll.register(self.socket.fileno(), select.EPOLLIN)

    def answer(self) -> int | None:
        """The status of a whole answer; None while more is to come. Raises `ConnectionError` if none will."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError
        self.received = self.received + data if self.received else data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return None
        at = self.received.find(b"content-length: ") + 16
        if len(self.received) < end + 4 + int(self.received[at : self.received.find(b"\r", at)]):
            return None
        status = int(self.received[9:12])
        self.received = b""
        return status


class Client:
    """Sends requests to one path of the service."""

    def __init__(self, port: int, path: str, users: int, count: int) -> None:
        self._port = port
        self._requests = _requests(port, path, users, count)
        self._epoll = select.epoll()
        self._idle: list[_Connection] = []
        self._by_file: dict[int, _Connection] = {}
        self._left = 0

    def open_loop(self, segments: Sequence[tuple[float, float]]) -> dict[str, list[float]]:
        """Send at each segment's (requests a second, seconds), whatever becomes of earlier requests.

        Times are in seconds: when each request was meant to leave, how late it left, and how long after the moment that it was
        meant to leave its answer was whole.
        """
        meant = _schedule(segments)
        self._idle = [self._opened() for _ in range(OPENED_BEFOREHAND)]
        status, took, late = [LOST] * len(meant), [0.0] * len(meant), [0.0] * len(meant)
        print("started", flush=True)
        begin, place, self._left = time.perf_counter(), 0, len(meant)
        end = meant[-1] + _PATIENCE
        while self._left:
            now = time.perf_counter() - begin
            if now > end:
                break
            overdue = place
            while place < min(len(meant), overdue + _AT_A_TIME) and meant[place] <= now:
                late[place] = now - meant[place]
                self._send(place)
                place += 1
            wait = 0.0 if place == overdue + _AT_A_TIME else (meant[place] - now if place < len(meant) else 0.1)
            for done, code in self._answers(wait):
                status[done], took[done] = code, time.perf_counter() - begin - meant[done]
        return {"meant": meant, "late": late, "seconds": took, "status": status}

    def closed_loop(self, connections: int, seconds: float) -> float:
        """Answers a second, to so many clients that each send the next request upon the answer to the last."""
        self._idle = [self._opened() for _ in range(connections)]
        print("started", flush=True)
        for place in range(connections):
            self._send(place)
        begin, answered, place = time.perf_counter(), 0, connections
        while time.perf_counter() - begin < seconds:
            for _, code in self._answers(0.1):
                answered += code == 200
                self._send(place)
                place += 1
        return answered / (time.perf_counter() - begin)

    def _opened(self) -> _Connection:
        connection = _Connection(self._port, self._epoll)
        self._by_file[connection.socket.fileno()] = connection
        return connection

    def _send(self, place: int) -> None:
        try:
            if not self._idle:
                if len(self._by_file) >= MOST_CONNECTIONS:
                    self._left -= 1
                    return
                self._idle.append(self._opened())
            connection = self._idle.pop()
            connection.place = place
            connection.socket.send(self._requests[place % len(self._requests)])
        except OSError:
            self._left -= 1

    def _answers(self, wait: float) -> list[tuple[int, int]]:
        """(request, status) of the answers that came within `wait` seconds; returns at the first."""
        # epoll itself waits whole milliseconds
        if wait > 0:
            select.select([self._epoll.fileno()], [], [], wait)
        found = []
        for file, _ in self._epoll.poll(0):
            connection = self._by_file[file]
            try:
                status = connection.answer()
            except OSError:
                del self._by_file[file]
                self._epoll.unregister(file)
                connection.socket.close()
                if connection in self._idle:
                    self._idle.remove(connection)
                else:
                    self._left -= 1
                continue
            if status is not None:
                found.append((connection.place, status))
                self._idle.append(connection)
                self._left -= 1
        return found


def _schedule(segments: Sequence[tuple[float, float]]) -> list[float]:
    meant: list[float] = []
    start = 0.0
    for rate, seconds in segments:
        meant += [start + place / rate for place in range(int(rate * seconds))]
        start += seconds
    return meant


def _requests(port: int, path: str, users: int, count: int) -> list[bytes]:
    """Random users; events are all different, so that each can be looked for afterwards."""
    if path == "/events":
        bodies = [b'{"events":[{"user":"e%d-%d","item":%d}]}' % (port, place, place % 1000) for place in range(count)]
    else:
        chosen = random.Random(0)
        bodies = [b'{"users":[%d],"k":10}' % chosen.randrange(users) for _ in range(_DISTINCT)]
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return [head % (path.encode(), len(body)) + body for body in bodies]


def main() -> None:
    order = json.loads(sys.argv[1])
    port, path, users = order["port"], order["path"], order["users"]
    if "segments" in order:
        count = len(_schedule(order["segments"]))
        print(json.dumps(Client(port, path, users, count).open_loop(order["segments"])))
    else:
        print(Client(port, path, users, 1).closed_loop(order["connections"], order["seconds"]))


if __name__ == "__main__":
    main()
