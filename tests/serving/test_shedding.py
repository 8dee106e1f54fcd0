"""Which bytes are answered before they are parsed, and that nothing else is."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

pytest.importorskip("fastapi")

from llmrec_fast.serving.connections import Connections
from llmrec_fast.serving.entry import Entry
from llmrec_fast.serving.metrics import Metrics
from llmrec_fast.serving.settings import ServeSettings
from llmrec_fast.serving.shedding import Shedding

CLIENT = ("127.0.0.1", 4711)
PLAIN = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


TOKEN = "a-Token-of-enough-length"


def made(full: bool = True, token: str | None = None) -> tuple[Shedding, Mock]:
    queue = Mock(full=full, shed=0)
    return Shedding({"/recommend": queue}, Metrics(), Entry(ServeSettings(token=token))), queue


def with_header(line: bytes) -> bytes:
    return PLAIN.replace(b"Content-Length", line + b"\r\nContent-Length")


def test_one_whole_plain_request_is_known() -> None:
    shedding, queue = made()
    assert shedding.target(PLAIN) == b"/recommend"
    answer = shedding.refusal(b"/recommend", PLAIN)
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 ")
    assert b"retry-after: 1" in head
    assert b"content-length: %d" % len(body) in head
    assert queue.shed == 1
    queue.full = False
    assert shedding.refusal(b"/recommend", PLAIN) is None
    assert queue.shed == 1


@pytest.mark.parametrize(
    "data",
    [
        b"",
        PLAIN[:-1],
        PLAIN + b" ",
        PLAIN + PLAIN,
        PLAIN.replace(b"POST", b"GET"),
        PLAIN.replace(b"/recommend", b"/healthz"),
        PLAIN.replace(b"/recommend", b"/recommend?x"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b": 2", b": +2"),
        PLAIN.replace(b": 2", b": 0x2"),
        PLAIN.replace(b": 2", b": " + b"0" * 20 + b"2"),
        PLAIN.replace(b": 2\r\n", b": 2\r\nContent-Length: 2\r\n"),
        PLAIN.replace(b": 2\r\n", b": 2\r\nContent-Length : 20\r\nTransfer-Encoding: chunked\r\n"),
        PLAIN.replace(b": 2\r\n", b": 2\r\nTRANSFER-ENCODING: chunked\r\n"),
        PLAIN.replace(b": 2\r\n", b": 2\r\n 0\r\n"),
        PLAIN.replace(b": 2\r\n", b": 2\r\nExpect: 100-continue\r\n"),
        PLAIN.replace(b": 2\r\n", b": 2\r\nConnection: close\r\n"),
        PLAIN.replace(b"Content-Length: 2\r\n", b""),
    ],
)
def test_everything_else_is_left_to_the_server(data: bytes) -> None:
    assert made()[0].target(data) is None


class TestWhoMayKnow:
    """A full queue is nobody's business who would not be answered otherwise: the guard refuses them as always."""

    @pytest.mark.parametrize("line", [b"Authorization: Bearer %s", b"AUTHORIZATION:bearer  %s "])
    def test_the_token_lets_in(self, line: bytes) -> None:
        shedding, queue = made(token=TOKEN)
        assert shedding.refusal(b"/recommend", with_header(line % TOKEN.encode())) is not None
        assert queue.shed == 1

    @pytest.mark.parametrize(
        "line",
        [
            b"X: y",
            b"Authorization: Bearer",
            b"Authorization: Bearer %s" % TOKEN.lower().encode(),
            b"Authorization: Bearer %sx" % TOKEN.encode(),
            b"Authorization: Basic %s" % TOKEN.encode(),
            b"X-Authorization: Bearer %s" % TOKEN.encode(),
            b"Authorization: Bearer %s\r\nAuthorization: Bearer wrong" % TOKEN.encode(),
        ],
    )
    def test_nobody_else(self, line: bytes) -> None:
        shedding, queue = made(token=TOKEN)
        assert shedding.refusal(b"/recommend", with_header(line)) is None
        assert queue.shed == 0

    def test_a_token_in_the_body_is_none(self) -> None:
        body = b"\r\nAuthorization: Bearer %s\r\n" % TOKEN.encode()
        data = PLAIN.replace(b": 2", b": %d" % len(body)).replace(b"{}", body)
        shedding = made(token=TOKEN)[0]
        assert shedding.target(data) == b"/recommend"
        assert shedding.refusal(b"/recommend", data) is None

    @pytest.mark.parametrize("host", [b"evil.example", b"localhost\r\nHost: localhost", b""])
    def test_on_loopback_only_its_own_names(self, host: bytes) -> None:
        assert made()[0].refusal(b"/recommend", PLAIN.replace(b"localhost", host)) is None
        assert made()[0].refusal(b"/recommend", PLAIN.replace(b"localhost", b"127.0.0.1:80")) is not None


class TestOnAConnection:
    def run(self, steps: list[object], full: bool = True, buffered: int = 0, header_timeout: float = 60) -> list[bool]:
        """Whether each piece of data was refused here; an int is added to the requests under way."""

        async def take() -> list[bool]:
            received: list[bytes] = []

            class Server(asyncio.Protocol):
                def data_received(self, data: bytes) -> None:
                    received.append(data)

            connections = Connections(header_timeout, 60, made(full)[0])
            protocol = connections.protocol(Server)()
            transport = Mock(**{"get_extra_info.return_value": CLIENT, "get_write_buffer_size.return_value": buffered})
            protocol.connection_made(transport)
            refused = []
            for step in steps:
                if isinstance(step, bytes):
                    before = len(received)
                    protocol.data_received(step)
                    refused.append(len(received) == before)
                elif step == 1:
                    connections.begin(CLIENT)
                else:
                    connections.end(CLIENT)
            assert transport.write.call_count == sum(refused)
            protocol.connection_lost(None)
            return refused

        return asyncio.run(take())

    def test_full_queues_refuse(self) -> None:
        assert self.run([PLAIN, PLAIN]) == [True, True]
        assert self.run([PLAIN, 1, -1, PLAIN], full=False) == [False, False]

    def test_answers_stay_in_the_order_of_requests(self) -> None:
        # the first is handed on because who does not read gets nothing more from here
        assert self.run([PLAIN], buffered=1) == [False]
        other = PLAIN.replace(b"/recommend", b"/healthz")
        # once it is unclear where a request begins, the server has the connection for good
        assert self.run([other, 1, -1, PLAIN]) == [False, False]
        assert self.run([PLAIN[:40], PLAIN[40:], PLAIN]) == [False] * 3

    def test_the_server_sees_one_now_and_then(self) -> None:
        assert self.run([PLAIN, 1, -1, PLAIN], header_timeout=0) == [False, False]
