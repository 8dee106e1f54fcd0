"""Answers of other threads reach the futures of threads and of event loops, and a loop is woken once for many."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from llmrec_fast.encoding.loop_delivery import begin, deliver, fail


def test_everyone_gets_their_own_and_the_loop_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    of_threads: list[Future[int]] = [Future() for _ in range(3)]

    async def main() -> tuple[list[int], int]:
        loop = asyncio.get_running_loop()
        woken = []
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *given: woken.append(given) or wake(*given))
        futures = [loop.create_future() for _ in range(50)]
        deliver((future, number) for number, future in enumerate([*futures, *of_threads]))
        return await asyncio.gather(*futures), len(woken)

    assert asyncio.run(main()) == (list(range(50)), 1)
    assert [future.result(0) for future in of_threads] == [50, 51, 52]


def test_an_error_reaches_its_own_caller_alone() -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        good, bad = loop.create_future(), loop.create_future()
        with ThreadPoolExecutor(1) as other:
            other.submit(lambda: (fail(bad, ValueError("bad")), deliver([(good, 1)]))).result(10)
        return await asyncio.gather(good, bad, return_exceptions=True)

    number, error = asyncio.run(main())
    assert number == 1
    assert isinstance(error, ValueError)
    of_a_thread = Future[int]()
    fail(of_a_thread, ValueError("bad"))
    with pytest.raises(ValueError, match="bad"):
        of_a_thread.result(0)


def test_work_begins_for_those_who_still_wait() -> None:
    kept, dropped = Future[int](), Future[int]()
    assert dropped.cancel()
    assert begin(kept)
    assert not begin(dropped)
    assert not kept.cancel()  # it has begun

    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        kept, dropped = loop.create_future(), loop.create_future()
        task = asyncio.create_task(_wait_for(dropped))
        await asyncio.sleep(0)
        task.cancel()
        return begin(kept), begin(dropped)

    assert asyncio.run(main()) == (True, False)


def test_a_result_that_comes_too_late_for_a_cancelled_task_is_dropped() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        late, failed, other = (loop.create_future() for _ in range(3))
        assert begin(late)
        reported: list[Any] = []
        loop.set_exception_handler(lambda _, context: reported.append(context))
        late.cancel()
        failed.cancel()
        fail(failed, ValueError("bad"))
        deliver([(late, 1), (other, 2)])
        result = await other
        assert not reported
        return result

    assert asyncio.run(main()) == 2


def test_loops_do_not_get_in_each_others_way_and_may_be_closed() -> None:
    async def forgotten() -> asyncio.Future[int]:
        return asyncio.get_running_loop().create_future()

    gone = asyncio.run(forgotten())
    fail(gone, ValueError("nobody waits"))
    loops = [asyncio.new_event_loop() for _ in range(4)]
    futures = [loop.create_future() for loop in loops]
    with ThreadPoolExecutor(4) as threads:
        answers = [threads.submit(loop.run_until_complete, future) for loop, future in zip(loops, futures, strict=True)]
        deliver((future, number) for number, future in enumerate([gone, *futures]))
        assert [answer.result(10) for answer in answers] == [1, 2, 3, 4]
    for loop in loops:
        loop.close()


async def _wait_for(future: asyncio.Future[int]) -> int:
    return await future
