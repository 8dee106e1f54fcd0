"""Answers of another thread for futures of threads and of event loops alike: however many come together, a loop is woken once.

`asyncio.wrap_future` makes two futures a call and wakes the loop once a result, and each time both threads want the
interpreter: of 64 callers the last one waited milliseconds longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

Result = TypeVar("Result")
AnyFuture: TypeAlias = Future[Result] | asyncio.Future[Result]


def begin(future: AnyFuture[Any]) -> bool:
    """Whether anybody still waits for `future`: to be asked once, when the work on its result begins.

    From then on a future of threads cannot be cancelled, and what one of an event loop gets after it was is dropped.
    """
    return future.set_running_or_notify_cancel() if isinstance(future, Future) else not future.cancelled()


def deliver(answers: Iterable[tuple[AnyFuture[Result], Result]]) -> None:
    """Give each future its result, from any thread."""
    of_loops: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Result], Result]]] = {}
    for future, result in answers:
        if isinstance(future, Future):
            future.set_result(result)
        else:
            of_loops.setdefault(future.get_loop(), []).append((future, result))
    for loop, arrived in of_loops.items():
        _call_in(loop, _settle, arrived)


def fail(future: AnyFuture[Any], error: BaseException) -> None:
    """Raise `error` in whoever waits for `future`, from any thread."""
    if isinstance(future, Future):
        future.set_exception(error)
    else:
        _call_in(future.get_loop(), _settle_error, future, error)


def _call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *arguments: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if not loop.is_closed():  # nobody waits in a closed loop
            raise


def _settle(arrived: list[tuple[asyncio.Future[Result], Result]]) -> None:
    for future, result in arrived:
        if not future.done():  # its task was cancelled
            future.set_result(result)


def _settle_error(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
