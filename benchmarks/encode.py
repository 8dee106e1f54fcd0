"""Suite `encode`: texts and tokens per second, and the latency of one query, on the same model with as many threads.

Everyone runs with their defaults (`encode_peers`). Before anything is timed, float32 and sentence-transformers encode texts of
0 to 600 words in many scripts, and their vectors must agree within 1e-4. Beside the speed stand what int8 costs in accuracy,
and the share that float32 reaches of the machine's own matrix products (`encode_limit`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.encode_limit import TokenCounter, matrix_rate, operations
from benchmarks.encode_peers import PEER, Array, Encodes, load_peers
from benchmarks.encode_texts import awkward, descriptions, passages
from benchmarks.harness import Contender, Disagreement, Effort, compare
from benchmarks.nearest import nearest_overlap
from benchmarks.plots import Bars, draw
from benchmarks.report import Cell, Report, Target
from benchmarks.threads import Neutral, use_threads
from llmrec_fast.encoding import Encoder
from llmrec_fast.encoding.model_files import ModelFiles, find_model
from llmrec_fast.errors import InvalidInput

OURS, INT8 = "llmrec_fast", "llmrec_fast, int8"
SHORT, MIXED, LONG, ALONE = "short", "mixed", "long", "one alone"
TOLERANCE = 1e-4
# far below what int8 is held to: a check that the vectors are those of these texts
LEAST_COSINE = 0.9
NEIGHBOURS = 10
COUNTS, QUICK_COUNTS = {SHORT: 2000, MIXED: 100, LONG: 40}, {SHORT: 64, MIXED: 16, LONG: 8}
COMPARED, QUICK_COMPARED = 520, 40
MIXED_TOKENS, LONG_TOKENS = (3, 250), 250
# everyone's calls in each case, however slow: a ratio to a single call is luck
LEAST_CALLS = 5
LONE_TEXT = "This is an example sentence"
# published with the model's wheel: a check that does not need the peer
LONE_VECTOR = (0.067657, 0.063496, 0.048713, 0.079305, 0.037448, 0.002653)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="minilm", help="known name or folder (default: %(default)s)")


def run(arguments: argparse.Namespace) -> Report:
    files = find_model(arguments.model)
    peers, missing = load_peers(arguments.model, files.folder, arguments.threads)
    report = Report("encode", "Encoding texts on the CPU", missing=missing)
    report.notes = [f"{arguments.threads} threads for everyone", *use_threads(arguments.threads)]
    encoders: dict[str, Encodes] = {OURS: Encoder(arguments.model, threads=arguments.threads)}
    try:
        encoders[INT8] = Encoder(arguments.model, threads=arguments.threads, precision="int8")
    except InvalidInput as error:
        report.missing[INT8] = str(error)
    encoders |= peers
    _check_known_vector(arguments.model, encoders[OURS])
    if PEER in encoders:
        count = QUICK_COMPARED if arguments.quick else COMPARED
        difference = _largest_difference(encoders, awkward(count))
        report.figures[f"largest difference over {count} texts of 0 to 600 words"] = f"{difference:.1e}"
        report.targets.append(Target("largest difference", difference, TOLERANCE, at_least=False, unit=""))
    counter, counts = TokenCounter(files), QUICK_COUNTS if arguments.quick else COUNTS
    cases = _cases(counter, counts)
    if INT8 in encoders:
        _add_accuracy(report, *(encoders[name].encode(cases[SHORT]) for name in (OURS, INT8)))
    neutral = Neutral(arguments.threads)
    seconds = arguments.seconds or (0.5 if arguments.quick else 6.0)
    effort = Effort(
        seconds=seconds, minimum=LEAST_CALLS, maximum=15, modes=("hot",), hopeless=LEAST_CALLS, rounds=LEAST_CALLS
    )
    rates = [matrix_rate(arguments.threads, sys.modules.get("torch"))]
    for case, texts in cases.items():
        report.cells.append(_measure(case, texts, counter(texts), encoders, neutral, effort))
        rates.append(matrix_rate(arguments.threads, sys.modules.get("torch")))  # other processes come and go
    report.cells.append(_measure_one(cases[SHORT], encoders, neutral, seconds))
    _add_limit(report, files, counter(cases[SHORT]), max(rates))
    _add_speeds(report)
    if arguments.quick:
        report.targets = [target for target in report.targets if target.name == "largest difference"]
    path = arguments.output / "encode.svg"
    bars = [_bars(cell) for cell in report.cells[:-1]]
    if problem := draw(bars, path, f"{report.title}, {arguments.model}", columns=3):
        report.notes.append(problem)
    else:
        report.plots.append(path)
    return report


def _cases(counter: TokenCounter, counts: Mapping[str, int]) -> dict[str, list[str]]:
    mixed = np.random.default_rng(1).permutation(np.linspace(*MIXED_TOKENS, counts[MIXED], dtype=np.int64)).tolist()
    return {
        SHORT: descriptions(counts[SHORT]),
        MIXED: passages(mixed, counter),
        LONG: passages([LONG_TOKENS] * counts[LONG], counter),
    }


def accuracy(exact: Array, found: Array) -> tuple[float, float, float]:
    """Mean and least cosine of `found` to `exact`, and the share of each row's nearest ten (by cosine) that they share."""
    cosines = _cosines(exact, found)
    return float(cosines.mean()), float(cosines.min()), nearest_overlap(_unit(exact), _unit(found), NEIGHBOURS)


def _cosines(exact: Array, found: Array) -> Array:
    cosines: Array = (_unit(exact) * _unit(found)).sum(axis=1)
    return cosines


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Array = vectors / np.where(lengths > 0, lengths, 1)
    return unit


def _add_accuracy(report: Report, exact: Array, found: Array) -> None:
    wanted = {"mean cosine to float32": 0.996, "least cosine to float32": 0.985, "top-10 overlap with float32": 0.92}
    for (name, least), reached in zip(wanted.items(), accuracy(exact, found), strict=True):
        report.figures[f"int8: {name}, {len(exact)} short texts"] = f"{reached:.5f}"
        report.targets.append(Target(f"int8: {name}", reached, least, unit=""))


def _add_limit(report: Report, files: ModelFiles, lengths: Sequence[int], rate: float) -> None:
    """The share of the matrix products' rate that float32 reaches on the short texts, each at its best."""
    if not files.weights:
        report.notes.append("the machine's limit is not computed: it needs the sizes of a model given as weights")
        return
    reached = operations(files, lengths) / report.cells[0].comparison.of(OURS).minimum
    report.figures["float32 matrix products"] = f"{rate / 1e9:.0f} GFLOP/s"
    report.figures["float32 on short texts"] = f"{reached / 1e9:.0f} GFLOP/s"
    report.targets.append(Target("short: share of the matrix products' rate", 100 * reached / rate, 85, unit="%"))


def _add_speeds(report: Report) -> None:
    """Targets of speed over sentence-transformers' defaults, for what was timed beside it."""
    cells = {str(cell.labels["texts"]): cell.comparison for cell in report.cells}
    for name, case, wanted in ((OURS, SHORT, 1.8), (OURS, MIXED, 2.2), (INT8, SHORT, 2.5)):
        medians = {m.contender: m.median for m in cells[case].measurements}
        if {name, PEER} <= medians.keys():
            report.targets.append(Target(f"{name}, {case}: over {PEER}", medians[PEER] / medians[name], wanted))
    medians = {m.contender: m.median for m in cells[ALONE].measurements}
    if PEER in medians:
        share = medians[OURS] / medians[PEER]
        report.targets.append(Target(f"{OURS}, {ALONE}: p50 over {PEER}", share, 0.5, at_least=False))


def _check_known_vector(model: str, encoder: Encodes) -> None:
    if model != "minilm":
        return
    found = encoder.encode([LONE_TEXT])[0, : len(LONE_VECTOR)]
    if np.abs(found - np.array(LONE_VECTOR)).max() > 1e-6:
        raise Disagreement(f"{LONE_TEXT!r} gives {found.tolist()}; expected {LONE_VECTOR}")


def _largest_difference(encoders: Mapping[str, Encodes], texts: list[str]) -> float:
    difference = float(np.abs(encoders[OURS].encode(texts) - encoders[PEER].encode(texts)).max())
    if not difference <= TOLERANCE:
        raise Disagreement(f"{OURS} differs from {PEER} by {difference:.2e}, more than {TOLERANCE:g}")
    return difference


def _measure(
    case: str,
    texts: list[str],
    lengths: Sequence[int],
    encoders: Mapping[str, Encodes],
    neutral: Neutral,
    effort: Effort,
) -> Cell:
    wanted = encoders[OURS].encode(texts[:64])
    contenders = [_contender(name, encoder, [texts], wanted) for name, encoder in encoders.items()]
    comparison = compare(contenders, neutral, effort)
    figures: dict[str, float | str] = {"tokens, mean": sum(lengths) / len(lengths)}
    figures["tokens, range"] = f"{min(lengths)} to {max(lengths)}"
    for m in comparison.measurements:
        figures[f"{m.contender}, texts/s"] = len(texts) / m.median
        figures[f"{m.contender}, tokens/s"] = sum(lengths) / m.median
    return Cell({"texts": case, "number": len(texts)}, comparison, figures)


def _measure_one(texts: list[str], encoders: Mapping[str, Encodes], neutral: Neutral, seconds: float) -> Cell:
    """One short text at a time, another one each time: what a query waits for."""
    calls = [[text] for text in texts]
    wanted = encoders[OURS].encode(calls[0])
    contenders = [_contender(name, encoder, calls, wanted) for name, encoder in encoders.items()]
    comparison = compare(contenders, neutral, Effort(seconds=seconds, minimum=60, maximum=600, modes=("hot",)))
    figures: dict[str, float | str] = {}
    for m in comparison.measurements:
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            figures[f"{m.contender}, {name} ms"] = 1e3 * float(np.quantile(m.seconds, share))
    return Cell({"texts": ALONE, "number": 1}, comparison, figures)


def _contender(name: str, encoder: Encodes, calls: Sequence[list[str]], wanted: Array) -> Contender:
    """Encodes the lists of `calls` in turn; `wanted` are the first rows of the first one."""

    def check(vectors: Array) -> str:
        return _problem(vectors, len(calls[0]), wanted, quantised=name == INT8)

    return Contender(name, lambda number: encoder.encode(calls[number % len(calls)]), check, name in (OURS, INT8))


def _problem(vectors: Array, count: int, wanted: Array, *, quantised: bool) -> str:
    """What is wrong with an answer of `count` vectors, or ''."""
    if len(vectors) != count:
        return f"{len(vectors)} vectors for {count} texts"
    if quantised:
        least = float(_cosines(wanted, vectors[: len(wanted)]).min())
        return "" if least >= LEAST_COSINE else f"has a cosine of {least:.3f} to float32, less than {LEAST_COSINE:g}"
    difference = float(np.abs(vectors[: len(wanted)] - wanted).max())
    return "" if difference <= TOLERANCE else f"differs from {OURS} by {difference:.2e}, more than {TOLERANCE:g}"


def _bars(cell: Cell) -> Bars:
    rates = {m.contender: float(cell.figures[f"{m.contender}, texts/s"]) for m in cell.comparison.measurements}
    return Bars(f"{cell.labels['number']} {cell.labels['texts']}", "texts per second (median)", rates)
