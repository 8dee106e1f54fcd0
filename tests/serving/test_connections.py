"""What `connections` takes for granted of uvicorn: if this fails, uvicorn has changed and slow clients are not cut off."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

pytest.importorskip("uvicorn")

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from llmrec_fast.serving.connections import Connections

CLIENT = ("127.0.0.1", 4711)


async def nothing(scope: object, receive: object, send: object) -> None:
    pass


def test_uvicorn_takes_a_protocol_class_that_derives_from_its_own() -> None:
    assert issubclass(AutoHTTPProtocol, asyncio.Protocol)
    watched = Connections(1, 2, Mock()).protocol(AutoHTTPProtocol)
    config = uvicorn.Config(nothing, http=watched, log_config=None)
    config.load()
    assert config.http_protocol_class is watched


def test_a_connection_has_one_limit_outside_a_request_and_another_within() -> None:
    async def watch() -> None:
        connections = Connections(0.1, 5, Mock())
        protocol = connections.protocol(asyncio.Protocol)()
        transport = Mock(**{"get_extra_info.return_value": CLIENT})
        protocol.connection_made(transport)
        connections.begin(CLIENT)
        connections.begin(None)  # an application that is served otherwise
        connections.begin(("127.0.0.1", 1))
        await asyncio.sleep(0.2)
        transport.abort.assert_not_called()
        connections.end(CLIENT)
        await asyncio.sleep(0.2)
        transport.abort.assert_called()
        protocol.connection_lost(None)
        transport.abort.reset_mock()
        await asyncio.sleep(0.2)
        transport.abort.assert_not_called()

    asyncio.run(watch())
