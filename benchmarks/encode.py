"""Suite `encode`: texts per second against sentence-transformers, on the same model, with the same number of threads.

sentence-transformers runs as it comes: batches of 32, sorted by length in characters, PyTorch on the CPU. Before anything
is timed, both encode texts of 0 to 600 words in many scripts, and their vectors must agree within 1e-4.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.encode_texts import awkward, descriptions, item_texts
from benchmarks.harness import Contender, Disagreement, Effort, compare
from benchmarks.peers import import_peers
from benchmarks.plots import Bars, draw
from benchmarks.report import Cell, Report, Target
from benchmarks.threads import Neutral, use_threads
from llmrec_fast.encoding import Encoder
from llmrec_fast.encoding.model_files import find_model
from llmrec_fast.errors import InvalidInput

Array = npt.NDArray[np.float32]
OURS, INT8, PEER = "llmrec_fast", "llmrec_fast int8", "sentence-transformers"
TOLERANCE = 1e-4
WANTED_SPEEDUP, WANTED_INT8_SPEEDUP = 1.8, 2.5
# of the int8 vectors, against float32: mean and least cosine, and the share of the ten nearest that stay
WANTED_ACCURACY = {"mean cosine": 0.996, "least cosine": 0.985, "top-10 overlap": 0.92}
TIMED, QUICK_TIMED = 2000, 64
COMPARED, QUICK_COMPARED = 520, 40
LONE_TEXT = "This is an example sentence"
# published with the model's wheel: a check that does not need the peer
LONE_VECTOR = (0.067657, 0.063496, 0.048713, 0.079305, 0.037448, 0.002653)


class _Encodes(Protocol):
    def encode(self, texts: list[str]) -> Array: ...


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="minilm", help="known name or folder (default: %(default)s)")


def run(arguments: argparse.Namespace) -> Report:
    modules, missing = import_peers(["sentence_transformers", "torch"])
    report = Report("encode", "Encoding texts on the CPU", missing=missing)
    report.notes = [f"{arguments.threads} threads for everyone", *use_threads(arguments.threads)]
    encoders: dict[str, _Encodes] = {OURS: Encoder(arguments.model, threads=arguments.threads)}
    try:
        encoders[INT8] = Encoder(arguments.model, threads=arguments.threads, precision="int8")
    except InvalidInput as error:
        report.notes.append(f"int8: {error}")
    if (library := modules.get("sentence_transformers")) is not None:
        folder = str(find_model(arguments.model).folder)
        encoders[PEER] = library.SentenceTransformer(folder, device="cpu")
    _check_known_vector(arguments.model, encoders[OURS])
    if PEER in encoders:
        count = QUICK_COMPARED if arguments.quick else COMPARED
        difference = _largest_difference(encoders, awkward(count))
        report.figures[f"largest difference over {count} texts of 0 to 600 words"] = f"{difference:.1e}"
        report.targets.append(Target("largest difference", difference, TOLERANCE, at_least=False, unit=""))
    neutral = Neutral(arguments.threads)
    effort = Effort(
        seconds=arguments.seconds or (0.5 if arguments.quick else 20.0), minimum=3, maximum=9, modes=("hot",)
    )
    count = QUICK_TIMED if arguments.quick else TIMED
    for case, texts in {"descriptions": descriptions(count), "item texts": item_texts()[:count]}.items():
        if not texts:
            report.notes.append(f"{case}: the data set cannot be fetched, so they are not timed")
            continue
        report.cells.append(_measure(case, texts, encoders, neutral, effort))
    report.cells.append(_measure_one(encoders, neutral))
    if INT8 in encoders:
        accuracy = _accuracy(encoders, descriptions(count))
        report.figures |= {f"int8, {name}": f"{value:.4f}" for name, value in accuracy.items()}
    if PEER in encoders and not arguments.quick:
        for cell in report.cells:
            hot = {m.contender: m.median for m in cell.comparison.measurements}
            for name, wanted in ((OURS, WANTED_SPEEDUP), (INT8, WANTED_INT8_SPEEDUP)):
                if name in hot and PEER in hot:
                    case = f"{cell.labels['number']} {cell.labels['texts']}: {name} over {PEER}"
                    report.targets.append(Target(case, hot[PEER] / hot[name], wanted))
        if INT8 in encoders:
            report.targets += [
                Target(f"int8, {name}", accuracy[name], wanted, unit="") for name, wanted in WANTED_ACCURACY.items()
            ]
    path = arguments.output / "encode.svg"
    if problem := draw(
        [_bars(cell) for cell in report.cells[:-1]], path, f"{report.title}, {arguments.model}", columns=2
    ):
        report.notes.append(problem)
    else:
        report.plots.append(path)
    return report


def _check_known_vector(model: str, encoder: _Encodes) -> None:
    if model != "minilm":
        return
    found = encoder.encode([LONE_TEXT])[0, : len(LONE_VECTOR)]
    if np.abs(found - np.array(LONE_VECTOR)).max() > 1e-6:
        raise Disagreement(f"{LONE_TEXT!r} gives {found.tolist()}; expected {LONE_VECTOR}")


def _largest_difference(encoders: dict[str, _Encodes], texts: list[str]) -> float:
    difference = float(np.abs(encoders[OURS].encode(texts) - _encode_with_peer(encoders[PEER], texts)).max())
    if not difference <= TOLERANCE:
        raise Disagreement(f"{OURS} differs from {PEER} by {difference:.2e}, more than {TOLERANCE:g}")
    return difference


def _encode_with_peer(peer: Any, texts: Sequence[str]) -> Array:
    vectors: Array = peer.encode(list(texts), show_progress_bar=False)
    return vectors


def _measure(case: str, texts: list[str], encoders: dict[str, _Encodes], neutral: Neutral, effort: Effort) -> Cell:
    comparison = compare(_contenders(texts, encoders), neutral, effort)
    hot = {m.contender: m.median for m in comparison.measurements}
    rates: dict[str, float | str] = {f"{name}, texts/s": len(texts) / seconds for name, seconds in hot.items()}
    return Cell({"texts": case, "number": len(texts)}, comparison, rates, ratio_among=[PEER])


def _measure_one(encoders: dict[str, _Encodes], neutral: Neutral) -> Cell:
    """One short text at a time: what a service waits for."""
    effort = Effort(seconds=0.5, minimum=20, maximum=60, modes=("hot",))
    comparison = compare(_contenders([LONE_TEXT], encoders), neutral, effort)
    return Cell({"texts": "one alone", "number": 1}, comparison, ratio_among=[PEER])


def _accuracy(encoders: dict[str, _Encodes], texts: list[str]) -> dict[str, float]:
    """How near the int8 vectors are to the float32 ones, and whose ten nearest (of these texts) stay."""
    exact, rounded = (encoders[name].encode(texts) for name in (OURS, INT8))
    exact, rounded = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (exact, rounded))
    cosines = np.einsum("nd,nd->n", exact, rounded)
    nearest = []
    for vectors in (exact, rounded):
        products = vectors @ vectors.T
        np.fill_diagonal(products, -np.inf)
        nearest.append(np.argpartition(-products, 10, axis=1)[:, :10])
    overlap = np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(*nearest, strict=True)])
    return {
        "mean cosine": float(cosines.mean()),
        "least cosine": float(cosines.min()),
        "top-10 overlap": float(overlap),
    }


def _contenders(texts: list[str], encoders: dict[str, _Encodes]) -> list[Contender]:
    ours, peer = encoders[OURS], encoders.get(PEER)
    wanted = None if peer is None else _encode_with_peer(peer, texts[:64])
    found = [Contender(OURS, lambda _: ours.encode(texts), lambda answer: _problem(answer, texts, wanted), ours=True)]
    if peer is not None:
        peers = Contender(
            PEER, lambda _: _encode_with_peer(peer, texts), lambda answer: _problem(answer, texts, wanted)
        )
        found.append(peers)
    if (int8 := encoders.get(INT8)) is not None:
        # how far off its vectors are is reported beside the times
        found.append(Contender(INT8, lambda _: int8.encode(texts), lambda answer: _problem(answer, texts, None)))
    return found


def _problem(vectors: Array, texts: list[str], wanted: Array | None) -> str:
    """What is wrong with an answer, or ''; `wanted` are the first rows."""
    if len(vectors) != len(texts):
        return f"{len(vectors)} vectors for {len(texts)} texts"
    if wanted is None:
        return ""
    difference = float(np.abs(vectors[: len(wanted)] - wanted).max())
    return "" if difference <= TOLERANCE else f"differs from {PEER} by {difference:.2e}, more than {TOLERANCE:g}"


def _bars(cell: Cell) -> Bars:
    rates = {m.contender: float(cell.figures[f"{m.contender}, texts/s"]) for m in cell.comparison.measurements}
    return Bars(f"{cell.labels['number']} {cell.labels['texts']}", "texts per second (median)", rates)
