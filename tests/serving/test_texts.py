"""Requests with texts: encoded together, and not at all for those who have gone."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from llmrec_fast import Recommender
from llmrec_fast.errors import InvalidInput, Overloaded
from llmrec_fast.serving.batching import Refused
from llmrec_fast.serving.texts import Texts
from tests.serving.conftest import Running


class AsyncEncoder:
    """Has `encode_async`, as `Encoder` does, and answers when `free` is set."""

    def __init__(self) -> None:
        self.started: list[list[str]] = []
        self.withdrawn: list[list[str]] = []
        self.free = asyncio.Event()
        self.error: Exception | None = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.ones((len(texts), 3), np.float32)

    async def encode_async(self, texts: Sequence[str]) -> np.ndarray:
        self.started.append(list(texts))
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.withdrawn.append(list(texts))
            raise
        if self.error is not None:
            raise self.error
        return self.encode(texts)


class Stub(Recommender):
    """A recommender of which only the encoder is asked for."""

    def __init__(self, encoder: AsyncEncoder) -> None:
        self.encoder = encoder

    @property
    def text_encoder(self) -> AsyncEncoder:  # type: ignore[override]
        return self.encoder


def test_the_encoder_s_own_batching_is_used_and_limits_hold() -> None:
    async def ask() -> None:
        encoder, texts = AsyncEncoder(), Texts("text", capacity=2, timeout=0.2)
        recommender = Stub(encoder)
        first, second = (asyncio.create_task(texts.vectors(recommender, [word])) for word in ("a", "b"))
        while len(encoder.started) < 2:
            await asyncio.sleep(0)
        assert texts.full
        with pytest.raises(Refused) as refused:
            await texts.vectors(recommender, ["c"])
        assert refused.value.status == 429
        # a request that is cancelled cancels its share, and nobody else's
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert encoder.withdrawn == [["b"]]
        encoder.free.set()
        assert (await first).shape == (1, 3)
        encoder.free.clear()
        with pytest.raises(Refused) as refused:
            await texts.vectors(recommender, ["late"])
        assert refused.value.status == 504
        assert encoder.withdrawn[-1] == ["late"]
        encoder.free.set()
        for error, status in ((Overloaded("many"), 429), (RuntimeError("holds text"), 500)):
            encoder.error = error
            with pytest.raises(Refused) as refused:
                await texts.vectors(recommender, ["d"])
            assert (refused.value.status, "holds text" in refused.value.reason) == (status, False)
        texts.close()
        with pytest.raises(Refused) as refused:
            await texts.vectors(recommender, ["e"])
        assert refused.value.status == 503
        assert texts.figures() == {"queue_depth": 0, "shed_total": 2, "batched_requests_total": 1}

    asyncio.run(ask())


def test_the_encoder_is_loaded_before_the_first_request(caplog: pytest.LogCaptureFixture) -> None:
    class Counting(Stub):
        loads = 0

        @property
        def text_encoder(self) -> AsyncEncoder:  # type: ignore[override]
            self.loads += 1
            return self.encoder

    class Without(Stub):
        @property
        def text_encoder(self) -> AsyncEncoder:  # type: ignore[override]
            raise self.error

        error: Exception = InvalidInput("this recommender has no encoder")

    async def ask() -> None:
        encoder, texts = AsyncEncoder(), Texts("text", capacity=2, timeout=0.2)
        encoder.free.set()
        recommender = Counting(encoder)
        await texts.warm(recommender)
        assert recommender.loads == 1
        await texts.vectors(recommender, ["a"])
        assert recommender.loads == 1
        without = Without(encoder)
        await texts.warm(without)
        assert not caplog.records
        with pytest.raises(Refused) as refused:
            await texts.vectors(without, ["a"])
        assert refused.value.status == 422
        without.error = RuntimeError("a secret place")
        await texts.warm(without)
        assert [record.getMessage() for record in caplog.records] == ["the encoder cannot be loaded: RuntimeError"]

    asyncio.run(ask())


def test_texts_that_wait_are_encoded_together_and_those_of_who_has_gone_are_not(serve: Callable[..., Running]) -> None:
    service = serve()
    assert service.client.post("/search", json={"texts": ["item 7 first"], "k": 1}).status_code == 200

    def wait_for(number: int) -> None:
        while f'queue_depth{{queue="text"}} {number}' not in service.client.get("/metrics").text:
            time.sleep(0.005)

    def search(words: str) -> int:
        return service.client.post("/search", json={"texts": [words], "k": 1}).status_code

    with ThreadPoolExecutor(8) as pool:
        begun = pool.submit(search, "slow 0.7 begun")
        service.wait_for_log("encoding 1 begun")
        gone = HTTPConnection("127.0.0.1", service.port)
        body = b'{"texts":["slow 5 gone"],"k":1}'
        gone.request("POST", "/search", body, {"Content-Type": "application/json"})
        wait_for(2)
        gone.close()
        wait_for(1)
        together = [pool.submit(search, "item 3 together") for _ in range(5)]
        assert [future.result() for future in [begun, *together]] == [200] * 6
    log = service.log.read_text()
    assert "gone" not in log
    # what came while one was encoded was taken by the next call, or by two if one of the threads was late
    assert len(re.findall(r"encoding \d together", log)) <= 2
    assert 'route="/search",status="499"' in service.client.get("/metrics").text
