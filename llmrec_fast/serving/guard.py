"""What stands before the routes: who may come in, how large and how slow a body may be, and what is counted.

An ASGI application around the one that answers. A full queue is answered here, before a body is read or a route is sought, so
that shedding load costs a small part of what answering does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

from llmrec_fast.serving.batching import BUSY, STOPPING, Queue
from llmrec_fast.serving.connections import Connections
from llmrec_fast.serving.entry import Entry
from llmrec_fast.serving.metrics import Metrics
from llmrec_fast.serving.settings import ServeSettings

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
# what answers a body: gives an ASGI application that sends the answer
Answerer: TypeAlias = Callable[[bytes], Awaitable[Application]]

# as nginx counts it; nobody is there to receive it
_CLIENT_GONE = 499
_BODIES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """The outermost application.

    Parameters
    ----------
    application : what answers.
    settings : the limits.
    entry : who may ask.
    lanes : path -> the queue that a request to it joins.
    metrics : where requests are counted.
    connections : learns when a request begins and ends.
    direct : (method, path) -> what answers a body there, to be called without the way through `application`: routing and
        middleware would cost more than the rest of a request.
    """

    def __init__(
        self,
        application: Application,
        settings: ServeSettings,
        entry: Entry,
        lanes: Mapping[str, Queue],
        metrics: Metrics,
        connections: Connections,
        direct: Mapping[tuple[str, str], Answerer],
    ) -> None:
        self._application = application
        self._settings = settings
        self._lanes = lanes
        self._metrics = metrics
        self._connections = connections
        self._direct = direct
        self._entry = entry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        start = time.perf_counter()
        client = scope.get("client")
        self._connections.begin(client)
        path: str = scope["path"]
        status = 500
        begun = False

        async def counted(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                took = 1e3 * (time.perf_counter() - start)
                message["headers"] = [*message.get("headers", ()), (b"server-timing", b"app;dur=%.3f" % took)]
            await send(message)

        try:
            refusal = self._refusal(scope)
            if refusal is not None:
                await _refuse(counted, *refusal)
            elif scope["method"] in _BODIES:
                body = await self._body(receive, counted)
                if body is not None:
                    answering = self._answer(scope, body, receive, counted)
                    lane = self._lanes.get(path)
                    if lane is None or not lane.withdraws:
                        await answering
                    elif not await _while_there(answering, receive):
                        status = _CLIENT_GONE
            else:
                await self._application(scope, receive, counted)
        except asyncio.CancelledError:
            # the server stops and has waited long enough: whoever still waits learns that it was not done
            if not begun:
                await _refuse(counted, 503, STOPPING, True)
        finally:
            self._connections.end(client)
            # after routing a known route has a template; what was asked for otherwise is no label
            route = scope.get("route")
            name = path if path in self._lanes else getattr(route, "path", "other")
            self._metrics.count(name, status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        answer = self._direct.get((scope["method"], scope["path"]))
        if answer is None:
            await self._application(scope, _once(body, receive), send)
        else:
            response = await answer(body)
            await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str, bool] | None:
        """Status, reason, and whether the connection must end; None lets the request in."""
        headers = dict(scope["headers"])
        path, method = scope["path"], scope["method"]
        unwanted = self._entry.refusal(path, headers.get(b"host", b""), headers.get(b"authorization", b""))
        if unwanted is not None:
            return *unwanted, True
        lane = self._lanes.get(path)
        if lane is not None and lane.full:
            lane.shed += 1
            # small bodies have come along with the headers: the connection stays
            return 429, BUSY, int(headers.get(b"content-length", b"0")) > 16_384
        if method in _BODIES:
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            has_body = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
            # other types may be sent by any page in a browser without asking us first
            if (has_body or method != "POST") and kind != b"application/json":
                return 415, "the body must be application/json", True
            if int(headers.get(b"content-length", b"0")) > self._settings.body_limit:
                return 413, "the body is too large", True
        return None

    async def _body(self, receive: Receive, send: Send) -> bytes | None:
        """The whole body; None once a refusal has been sent, or nobody is there any more."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._settings.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    part = message.get("body", b"")
                    size += len(part)
                    if size > self._settings.body_limit:
                        break
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            await _refuse(send, 408, "the body came too slowly", True)
            return None
        await _refuse(send, 413, "the body is too large", True)
        return None


async def _while_there(answering: Awaitable[None], receive: Receive) -> bool:
    """Answer for as long as the client is connected; whether it was to the end."""
    work = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finished = work.done()
        if finished:
            work.result()
        return finished
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait((work,))


async def _gone(receive: Receive) -> None:
    """Return once the client has disconnected; its whole body has been received."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _once(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Send, status: int, reason: str, close: bool) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in (429, 503):
        headers.append((b"retry-after", b"1"))
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if close:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
