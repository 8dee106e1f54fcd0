"""A lane bounds its queue by number and by time, and comes back by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from llmrec_fast.serving.batching import Lane, Refused


def test_a_queue_that_would_outlast_the_time_limit_is_full_and_empties_again() -> None:
    free, slow = threading.Event(), threading.Event()
    slow.set()

    def answer(requests: list[str]) -> Sequence[bytes]:
        if slow.is_set():
            free.wait(0.2)
        return [request.encode() for request in requests]

    async def ask() -> None:
        lane = Lane("test", answer, capacity=1000, most=1, timeout=0.5)
        # each takes 0.2 s, so that fewer than five can be answered within half a second
        tasks = [asyncio.create_task(lane.ask(str(place))) for place in range(4)]
        await asyncio.wait(tasks)
        assert not lane.full
        tasks = []
        while not lane.full:
            tasks.append(asyncio.create_task(lane.ask("more")))
            await asyncio.sleep(0)
            assert len(tasks) < 100
        with pytest.raises(Refused) as refused:
            await lane.ask("one more")
        assert refused.value.status == 429
        assert lane.figures()["shed_total"] == 1
        slow.clear()
        free.set()
        await asyncio.wait(tasks)
        assert await lane.ask("again") == b"again"
        assert not lane.full
        await asyncio.to_thread(lane.close)
        with pytest.raises(Refused) as refused:
            await lane.ask("late")
        assert refused.value.status == 503

    asyncio.run(ask())
