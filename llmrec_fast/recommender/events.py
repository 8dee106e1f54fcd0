"""What one event's value and time mean, in plain Python: an event comes alone, and a NumPy call costs more than the event."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np

from llmrec_fast.errors import InvalidInput
from llmrec_fast.recommender.fitting import Settings
from llmrec_fast.recommender.histories import NO_TIME

_LARGEST = float(np.finfo(np.float32).max)
_LATEST = int(np.iinfo(np.int64).max)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def strength_of(settings: Settings, value: Any) -> float:
    """How much an event with this value (None for none) counts, as `fitting.strengths_of` has it for columns."""
    if value is None:
        if settings.liked_from is not None:
            raise InvalidInput(
                f"an event here needs a value: what is liked was fitted with liked_from={settings.liked_from:g}"
            )
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InvalidInput(f"the value of an event must be a number; got {value!r}")
    number = float(value)
    if not math.isfinite(number) or abs(number) > _LARGEST:
        raise InvalidInput(f"the value of an event must be finite; got {value!r}")
    number = float(np.float32(number))
    if settings.liked_from is not None:
        return 1.0 if number >= settings.liked_from else settings.others
    if number < 0:
        raise InvalidInput(f"the value of an event weighs a history and must not be negative; got {value!r}")
    return number


def time_of(timestamp: Any) -> int | None:
    """A time as histories keep it: integers as they are, datetimes (UTC if they say nothing) in microseconds since 1970."""
    if timestamp is None:
        return None
    if isinstance(timestamp, np.datetime64):
        if np.isnat(timestamp):
            raise InvalidInput("timestamp is not a time (NaT)")
        timestamp = timestamp.astype("datetime64[us]").astype(np.int64)
    if isinstance(timestamp, datetime):
        aware = timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=UTC)
        elapsed = aware - _EPOCH
        return (elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | np.integer):
        raise InvalidInput(f"timestamp must be an integer, a datetime or None; got {timestamp!r}")
    if not NO_TIME < timestamp <= _LATEST:
        raise InvalidInput(f"timestamp must fit in 64 bits; got {timestamp!r}")
    return int(timestamp)
