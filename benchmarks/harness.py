"""Time several contenders on the same work, fairly: check the answers, then take turns.

A suite builds `Contender`s, one of them ours, and calls `compare`. Nothing here knows what is being measured; reports
and plots are elsewhere. Rules:

- a contender whose answer does not pass the check is never timed; if it is ours, the run stops;
- everyone takes part in every round, in an order that rotates, and starts each turn on settled cores (`threads.Neutral`);
- *hot* calls follow an untimed one, back to back; before each *cold* call the caches are flushed;
- repetitions follow from a time budget, with a minimum for everyone who could be the fastest, and one for all others.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.threads import Neutral

Mode = Literal["hot", "cold"]
ROUNDS = 3
# a cold call costs the settling before it as well, so there are fewer of them
COLD_MAXIMUM, SETTLING_SECONDS = 15, 0.05
# a call this long streams its data through the caches many times over: warming up would change nothing
LONG_CALL_SECONDS = 1.0
# whoever needs this many times the fastest's time in the first call cannot become the fastest by luck: one call will do
HOPELESS_RATIO = 4.0


class Disagreement(Exception):
    """Our own answer failed the check, so timing it would be meaningless."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    `call(repetition)` does it once and returns the answer; the repetition number lets successive calls use other inputs
    (the same ones for all contenders). `check(answer of call(0))` returns what is wrong with it, or an empty string.
    """

    name: str
    call: Callable[[int], Any]
    check: Callable[[Any], str]
    ours: bool = False


@dataclass(frozen=True)
class Effort:
    """How much to measure: `seconds` for one contender in one mode, within the bounds on repetitions.

    `hopeless` are the repetitions of those who cannot be the fastest and whose first call took longer than `seconds`. Hot
    calls are shared out among `rounds` turns.
    """

    seconds: float = 2.0
    minimum: int = 3
    maximum: int = 31
    modes: tuple[Mode, ...] = ("hot", "cold")
    hopeless: int = 1
    rounds: int = ROUNDS

    def repetitions(self, expected_seconds: float, fastest_seconds: float) -> int:
        if expected_seconds > HOPELESS_RATIO * fastest_seconds and expected_seconds > self.seconds:
            return self.hopeless
        return max(self.minimum, min(self.maximum, int(self.seconds / max(expected_seconds, 1e-9))))

    def cold_repetitions(self, hot_repetitions: int, expected_seconds: float) -> int:
        if expected_seconds > LONG_CALL_SECONDS:
            return 1  # it flushes the caches itself: cold is hot
        affordable = int(self.seconds / (expected_seconds + SETTLING_SECONDS))
        return min(hot_repetitions, max(self.minimum, min(COLD_MAXIMUM, affordable)))


@dataclass
class Measurement:
    """The timed calls of one contender in one mode, in seconds."""

    contender: str
    mode: Mode
    seconds: list[float] = field(default_factory=list)
    ours: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """First and third quartile; of fewer than two calls, the call itself twice."""
        if len(self.seconds) < 2:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high


@dataclass
class Comparison:
    """What `compare` found: measurements, and a note for each contender that was left out."""

    measurements: list[Measurement]
    notes: list[str]

    def of(self, name: str, mode: Mode = "hot") -> Measurement:
        return next(m for m in self.measurements if m.contender == name and m.mode == mode)

    def ours(self, mode: Mode = "hot") -> Measurement:
        return next(m for m in self.measurements if m.ours and m.mode == mode)

    def fastest_peer(self, mode: Mode = "hot", among: Sequence[str] | None = None) -> Measurement | None:
        peers = [
            m for m in self.measurements if not m.ours and m.mode == mode and (among is None or m.contender in among)
        ]
        return min(peers, key=lambda m: m.median, default=None)

    def ratio(self, mode: Mode = "hot", among: Sequence[str] | None = None) -> float | None:
        """How many times faster ours is than the fastest peer (of `among`), by medians; None without a peer."""
        peer = self.fastest_peer(mode, among)
        return None if peer is None else peer.median / self.ours(mode).median


def compare(contenders: Sequence[Contender], neutral: Neutral, effort: Effort) -> Comparison:
    """Check every contender's answer, then time all of them in turn.

    Raises
    ------
    Disagreement : our own answer failed its check.
    """
    expected: dict[str, float] = {}
    notes: list[str] = []
    for contender in contenders:
        neutral.settle()
        seconds, answer = _timed(contender, 0)
        problem = contender.check(answer)
        if problem and contender.ours:
            raise Disagreement(f"{contender.name}: {problem}")
        if problem:
            notes.append(f"{contender.name} is not timed: {problem}")
            continue
        if contender.ours or seconds < effort.seconds:  # the first call may have compiled or allocated: look again
            seconds, _ = _timed(contender, 0)
        expected[contender.name] = seconds
    fastest = min(expected.values(), default=0.0)
    field_ = [c for c in contenders if c.name in expected]
    planned = {c.name: effort.repetitions(expected[c.name], fastest) for c in field_}
    measurements = []
    for mode in effort.modes:
        if mode == "hot":
            timed = _hot_rounds(field_, neutral, planned, expected, effort.rounds)
        else:
            cold = {name: effort.cold_repetitions(count, expected[name]) for name, count in planned.items()}
            timed = _cold_rounds(field_, neutral, cold)
        measurements += [Measurement(c.name, mode, timed[c.name], c.ours) for c in field_]
    return Comparison(measurements, notes)


def _hot_rounds(
    contenders: Sequence[Contender],
    neutral: Neutral,
    planned: dict[str, int],
    expected: dict[str, float],
    rounds: int,
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    for round_ in range(rounds):
        for contender in _rotated(contenders, round_):
            done, share = len(seconds[contender.name]), -(-planned[contender.name] * (round_ + 1) // rounds)
            if done >= share:
                continue
            neutral.settle()
            if expected[contender.name] < LONG_CALL_SECONDS:
                contender.call(done)
            seconds[contender.name] += [_timed(contender, repetition)[0] for repetition in range(done, share)]
    return seconds


def _cold_rounds(contenders: Sequence[Contender], neutral: Neutral, planned: dict[str, int]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    for repetition in range(max(planned.values(), default=0)):
        for contender in _rotated(contenders, repetition):
            if repetition < planned[contender.name]:
                neutral.settle()
                seconds[contender.name].append(_timed(contender, repetition)[0])
    return seconds


def _rotated(contenders: Sequence[Contender], by: int) -> list[Contender]:
    by %= max(len(contenders), 1)
    return [*contenders[by:], *contenders[:by]]


def _timed(contender: Contender, repetition: int) -> tuple[float, Any]:
    start = time.perf_counter()
    answer = contender.call(repetition)
    return time.perf_counter() - start, answer
