"""Ends connections that take too long to say what they want, or to take their answer, and refuses early when queues are full.

uvicorn bounds idle keep-alive connections, not slow headers, and an ASGI application hears of a request only when its headers
are whole. So connections are watched by a protocol class that derives from uvicorn's own and adds to three methods of
`asyncio.Protocol`; whether a request is under way the application says, by the client's address.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, TypeAlias

from llmrec_fast.serving.shedding import Shedding

_LOOKS = 4  # so many times within a limit

Address: TypeAlias = tuple[str, int]


@dataclass
class _Watched:
    transport: asyncio.Transport
    since: float
    under_way: int = 0
    # whether a request was handed to the server and is not answered yet, which may be before the application has it
    handed_on: bool = False
    # whether every request so far came whole and by itself, so that it is certain where one begins
    framed: bool = True


class Connections:
    """The open connections and since when each has been at what it does.

    Parameters
    ----------
    header_timeout : seconds that a connection may spend outside a request.
    request_timeout : seconds within one, until its answer is taken.
    shedding : what answers requests to full queues.
    """

    def __init__(self, header_timeout: float, request_timeout: float, shedding: Shedding) -> None:
        self._shedding = shedding
        self._header_timeout = header_timeout
        self._request_timeout = request_timeout
        self._open: dict[Address, _Watched] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, client: Address | None) -> None:
        """A request from this address reached the application."""
        self._change(client, 1)

    def end(self, client: Address | None) -> None:
        """It was answered, and the answer is written."""
        self._change(client, -1)

    def protocol(self, base: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
        """`base`, a server's protocol class, with its connections watched; `Config(http=...)` of uvicorn takes it."""
        connections = self

        class WatchedProtocol(base):  # type: ignore[misc, valid-type]
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                self.__address = connections._opened(transport)

            def data_received(self, data: bytes) -> None:
                refusal = connections._refusal(self.__address, data)
                if refusal is None:
                    super().data_received(data)
                else:
                    connections._open[self.__address].transport.write(refusal)

            def connection_lost(self, exc: Exception | None) -> None:
                connections._open.pop(self.__address, None)
                super().connection_lost(exc)

        return WatchedProtocol

    def _opened(self, transport: asyncio.Transport) -> Address:
        host, port = transport.get_extra_info("peername")[:2]
        self._open[host, port] = _Watched(transport, time.monotonic())
        if self._timer is None:
            self._look_later()
        return host, port

    def _change(self, client: Address | None, by: int) -> None:
        watched = self._open.get(tuple(client)) if client is not None else None  # type: ignore[arg-type]
        if watched is not None:
            watched.under_way += by
            watched.handed_on = watched.under_way > 0
            watched.since = time.monotonic()

    def _refusal(self, address: Address, data: bytes) -> bytes | None:
        """The answer to `data` where that is a request to a full queue and nothing comes before it; None hands it on."""
        watched = self._open[address]
        if not watched.framed:
            return None
        path = self._shedding.target(data)
        if path is None or watched.handed_on:
            watched.framed = False
            return None
        # now and then the server must see one, or it takes the connection for idle; and who does not read gets no more
        recent = time.monotonic() - watched.since < self._header_timeout / 2
        if recent and not watched.transport.get_write_buffer_size():
            refusal = self._shedding.refusal(path, data)
            if refusal is not None:
                return refusal
        watched.handed_on = True
        return None

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(min(self._header_timeout, self._request_timeout) / _LOOKS, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        for watched in self._open.values():
            limit = self._request_timeout if watched.under_way else self._header_timeout
            if now - watched.since >= limit:
                watched.transport.abort()
        self._timer = None
        if self._open:
            self._look_later()
