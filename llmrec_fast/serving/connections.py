"""Ends connections that take too long to say what they want. uvicorn bounds idle keep-alive connections, not slow headers."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def limited_protocol(header_timeout: float, request_timeout: float) -> type[asyncio.Protocol]:
    """uvicorn's own protocol, with connections closed that spend `header_timeout` seconds outside a request, or
    `request_timeout` within one (a client that does not read its answer).
    """

    class LimitedProtocol(AutoHTTPProtocol):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._timer: asyncio.TimerHandle | None = None
            self._since = time.monotonic()
            self._seen: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._since = time.monotonic()
            self._look_later()

        def connection_lost(self, exc: Exception | None) -> None:
            if self._timer is not None:
                self._timer.cancel()
            super().connection_lost(exc)

        def _look_later(self) -> None:
            self._timer = self.loop.call_later(header_timeout / 2, self._look)

        def _look(self) -> None:
            now = time.monotonic()
            state = (self.cycle, self.cycle is not None and self.cycle.response_complete)
            if state != self._seen:
                self._seen, self._since = state, now
            within = self.cycle is not None and not self.cycle.response_complete
            if now - self._since >= (request_timeout if within else header_timeout):
                self.transport.abort()
            else:
                self._look_later()

    return LimitedProtocol
