"""Results of other threads reach the tasks that wait for them, and an event loop is woken once for many."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from llmrec_fast.encoding.loop_delivery import LoopDelivery


def test_everyone_gets_their_own_and_the_loop_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    delivery: LoopDelivery[int] = LoopDelivery()
    futures: list[Future[int]] = [Future() for _ in range(50)]

    async def main() -> tuple[list[int], int]:
        loop = asyncio.get_running_loop()
        woken = []
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *given: woken.append(given) or wake(*given))
        tasks = [asyncio.create_task(delivery.result(future)) for future in futures]
        await asyncio.sleep(0)
        for number, future in enumerate(futures):  # on this thread: the loop cannot pick up anything in between
            future.set_result(number)
        return await asyncio.gather(*tasks), len(woken)

    assert asyncio.run(main()) == (list(range(50)), 1)


def test_an_error_reaches_its_own_caller_alone() -> None:
    delivery: LoopDelivery[int] = LoopDelivery()
    good, bad = Future[int](), Future[int]()

    async def main() -> list[object]:
        waiting = asyncio.gather(delivery.result(good), delivery.result(bad), return_exceptions=True)
        await asyncio.sleep(0)
        with ThreadPoolExecutor(1) as other:
            other.submit(lambda: (bad.set_exception(ValueError("bad")), good.set_result(1)))
        return await waiting

    number, error = asyncio.run(main())
    assert number == 1
    assert isinstance(error, ValueError)


def test_cancelling_either_side_cancels_the_other() -> None:
    delivery: LoopDelivery[int] = LoopDelivery()

    async def main() -> None:
        future = Future[int]()
        task = asyncio.create_task(delivery.result(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.cancelled()

        future = Future[int]()
        task = asyncio.create_task(delivery.result(future))
        await asyncio.sleep(0)
        assert future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_result_that_comes_too_late_for_a_cancelled_task_is_dropped() -> None:
    delivery: LoopDelivery[int] = LoopDelivery()

    async def main() -> int:
        running, other = Future[int](), Future[int]()
        running.set_running_or_notify_cancel()  # cannot be cancelled any more
        task = asyncio.create_task(delivery.result(running))
        waiting = asyncio.create_task(delivery.result(other))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        running.set_result(1)
        other.set_result(2)
        return await waiting

    assert asyncio.run(main()) == 2


def test_loops_do_not_get_in_each_others_way_and_may_be_closed() -> None:
    delivery: LoopDelivery[int] = LoopDelivery()
    forgotten = Future[int]()
    forgotten.set_running_or_notify_cancel()

    async def leave() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(delivery.result(forgotten), 0.01)

    async def wait(future: Future[int]) -> int:
        return await delivery.result(future)

    asyncio.run(leave())
    forgotten.set_result(0)  # its loop is closed
    futures = [Future[int]() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(asyncio.run, wait(future)) for future in futures]
        for number, future in enumerate(futures):
            future.set_result(number)
        assert [answer.result(10) for answer in answers] == [0, 1, 2, 3]
