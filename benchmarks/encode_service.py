"""Suite `encode-service`: asyncio callers with one short query each, sharing batches, against the same calls in turn."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Contender, Effort, compare
from benchmarks.report import Cell, Report, Target
from benchmarks.threads import Neutral, use_threads
from llmrec_fast.encoding import BatchingPolicy, Encoder

CALLERS = 64
WANTED_RATIO = 3.0
TOLERANCE = 1e-5
TOGETHER, IN_TURN, ONE_CALL = "asyncio callers together", "the same calls in turn", "one call with all texts"
_WORDS = (
    "wireless headphones for running",
    "a film about a heist that goes wrong",
    "cheap laptop with a good keyboard",
    "space opera with strong characters",
    "gift for a ten year old",
    "waterproof boots size {}",
    "songs to work to",
    "introduction to machine learning",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="minilm", help="known name or folder (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=CALLERS, help="callers at once (default: %(default)s)")
    parser.add_argument("--precision", choices=("float32", "int8"), default="float32", help="default: %(default)s")


def run(arguments: argparse.Namespace) -> Report:
    report = Report("encode-service", f"{arguments.callers} callers with one short query each")
    report.notes = [f"{arguments.threads} threads, {arguments.precision}", *use_threads(arguments.threads)]
    policy = BatchingPolicy(texts_per_batch=max(arguments.callers, BatchingPolicy().texts_per_batch))
    encoder = Encoder(arguments.model, precision=arguments.precision, threads=arguments.threads, batching=policy)
    encoder.warmup()
    texts = [f"{_WORDS[number % len(_WORDS)]} {number}" for number in range(arguments.callers)]
    wanted = encoder.encode(texts)
    # the latencies of each time that all call together; the timed one comes after the untimed one of its number
    rounds: dict[int, list[float]] = {}

    async def call(text: str, remembered: list[float]) -> npt.NDArray[np.float32]:
        start = time.perf_counter()
        vectors = await encoder.encode_async([text])
        remembered.append(time.perf_counter() - start)
        return vectors

    async def together(number: int) -> Any:
        latencies = rounds[number] = []
        return np.concatenate(await asyncio.gather(*(call(text, latencies) for text in texts)))

    async def in_turn() -> Any:
        return np.concatenate([await call(text, []) for text in texts])

    def check(answer: Any) -> str:
        difference = float(np.abs(answer - wanted).max())
        return "" if difference <= TOLERANCE else f"differs from one call by {difference:.1e}, more than {TOLERANCE:g}"

    contenders = [
        Contender(TOGETHER, lambda number: asyncio.run(together(number)), check, ours=True),
        Contender(IN_TURN, lambda _: asyncio.run(in_turn()), check),
        Contender(ONE_CALL, lambda _: encoder.encode(texts, show_progress=False), check),
    ]
    seconds = arguments.seconds or (0.3 if arguments.quick else 5.0)
    effort = Effort(seconds=seconds, minimum=3, maximum=101, modes=("hot",))
    comparison = compare(contenders, Neutral(arguments.threads), effort)
    ratio = comparison.of(IN_TURN).median / comparison.of(TOGETHER).median
    # among the callers of one round, then the median round
    p50, p99 = (float(value) for value in np.median(np.quantile(list(rounds.values()), [0.5, 0.99], axis=1), axis=1))
    allowed = policy.latency_budget + comparison.of(ONE_CALL).median
    figures: dict[str, float | str] = {
        "together over in turn": ratio,
        "calls/s together": len(texts) / comparison.of(TOGETHER).median,
        "p50, ms": 1e3 * p50,
        "p99, ms": 1e3 * p99,
        "budget plus a batch, ms": 1e3 * allowed,
    }
    report.cells.append(Cell({"callers": arguments.callers}, comparison, figures, ratio_among=[IN_TURN]))
    if not arguments.quick:
        report.targets = [
            Target("throughput over the same calls in turn", ratio, WANTED_RATIO),
            Target("p99", 1e3 * p99, 1e3 * allowed, at_least=False, unit=" ms"),
        ]
    return report
