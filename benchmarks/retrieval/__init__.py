"""Suite `retrieval`: exact top-k search over unit vectors, ours against every exact engine on the CPU.

Which part of it runs is chosen on the command line; by default the grid, the exclusions, the footprint, the first answer
and the threads. `--scale` runs the out-of-core part alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import Effort
from benchmarks.peers import import_peers
from benchmarks.report import Report
from benchmarks.retrieval import data, engines, exclusions, figures, first, footprint, grid, scale, stress
from benchmarks.threads import Neutral, use_threads

KINDS = ("real", "noise")
PARTS = ("grid", "exclusions", "footprint", "first", "threads")
QUERIES, K = (1, 4, 16, 64, 256, 1024), (10, 100)
REAL_SHAPES = (
    *((rows, 384) for rows in (100_000, 480_000, 1_000_000)),
    *((480_000, dimension) for dimension in (128, 768, 1024)),
)
NOISE_SHAPES = ((200_000, 384),)
QUICK_SHAPES, QUICK_QUERIES, QUICK_K = ((20_000, 128),), (1, 16), (10,)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("retrieval")
    group.add_argument("--data", type=_words_of(KINDS), default=KINDS, help="real,noise (default: both)")
    group.add_argument("--rows", type=_numbers, help="row counts, such as 100000,480000")
    group.add_argument("--dimensions", type=_numbers, help="dimensions; with --rows: every combination of the two")
    group.add_argument("--queries", type=_numbers, help=f"queries a call (default: {QUERIES})")
    group.add_argument("--k", type=_numbers, help=f"results a query (default: {K})")
    group.add_argument(
        "--peers", type=_words_of(engines.PEERS), default=engines.PEERS, help=f"default: {','.join(engines.PEERS)}"
    )
    group.add_argument("--parts", type=_words_of(PARTS), default=PARTS, help=f"default: {','.join(PARTS)}")
    group.add_argument(
        "--vectors", type=Path, help=f"real vectors, float16 or float32 .npy (or ${data.VECTORS_VARIABLE})"
    )
    group.add_argument("--approximate-rows", type=int, default=100_000, help="largest index that hnswlib builds")
    group.add_argument("--stress-seconds", type=float, help="seconds of searching beside a writer (default: 60)")
    group.add_argument("--scale", action="store_true", help="10 million rows on disk: out-of-core build, mapped search")
    group.add_argument("--scale-rows", type=int, default=10_000_000)
    group.add_argument(
        "--scale-noise", type=float, default=0.1, help="part of the rows' variance that is noise, 0 to 1"
    )
    group.add_argument("--scale-folder", type=Path, help="where the rows go (default: a temporary folder)")


def run(arguments: argparse.Namespace) -> Report:
    modules, missing = import_peers([engines.MODULES.get(n, n) for n in arguments.peers if n != "numpy"])
    report = Report("retrieval", "Exact top-k retrieval on the CPU", missing=missing)
    report.notes = [f"{arguments.threads} threads for everyone", *use_threads(arguments.threads)]
    neutral = Neutral(arguments.threads)
    report.figures["memory bandwidth, GB/s, all threads reading"] = round(neutral.bandwidth() / 1e9, 2)
    base = None
    if "real" in arguments.data or arguments.scale:
        base, source = data.load_real(arguments.vectors)
        report.notes.append(source)
    if arguments.scale:
        report.suite = "retrieval-scale"
        scale.run(report, arguments, base, neutral)
        return report
    effort = Effort(seconds=arguments.seconds or (0.3 if arguments.quick else 3.0), maximum=61)
    for kind, rows, dimension in _shapes(arguments) if set(arguments.parts) - {"first"} else []:
        settings = grid.Settings(
            queries=arguments.queries or (QUICK_QUERIES if arguments.quick else QUERIES),
            k=arguments.k or (QUICK_K if arguments.quick else K),
            peers=arguments.peers,
            threads=arguments.threads,
            approximate_rows=arguments.approximate_rows,
        )
        dataset = data.make(kind, rows, dimension, base, queries=max(settings.queries))
        index, seconds = engines.build_ours(dataset.rows, arguments.threads)
        report.figures[f"{dataset.name}: build in memory, s"] = round(seconds, 2)
        if "grid" in arguments.parts:
            grid.run(report, dataset, index, settings, modules, neutral, effort)
        if "exclusions" in arguments.parts:
            exclusions.run(report, dataset, index, neutral, effort)
        if "threads" in arguments.parts and _is_reference(kind, rows, dimension, arguments):
            seconds = arguments.stress_seconds or (2.0 if arguments.quick else 60.0)
            stress.run(report, dataset, index, arguments.threads, seconds)
        del index  # before the children that measure memory start
        if "footprint" in arguments.parts and _is_reference(kind, rows, dimension, arguments):
            footprint.run(report, dataset, arguments.threads)
        del dataset
    if "first" in arguments.parts:
        first.run(report)
    figures.finish(report, arguments.output)
    if arguments.quick:
        report.targets.clear()  # they are promised for sizes at which reading memory is what counts
    return report


def _shapes(arguments: argparse.Namespace) -> list[tuple[data.Kind, int, int]]:
    """The (kind, rows, dimension) to measure: every combination of what was asked for, else the suite's own choice."""
    shapes: list[tuple[data.Kind, int, int]] = []
    for kind in arguments.data:
        own = QUICK_SHAPES if arguments.quick else REAL_SHAPES if kind == "real" else NOISE_SHAPES
        if arguments.rows or arguments.dimensions:
            rows = arguments.rows or sorted({shape[0] for shape in own})
            dimensions = arguments.dimensions or (384,)
            own = tuple((n, d) for n in rows for d in dimensions)
        shapes += [(kind, n, d) for n, d in own]
    return shapes


def _is_reference(kind: str, rows: int, dimension: int, arguments: argparse.Namespace) -> bool:
    """Footprint and threads are measured once a run: on the shape of the promised figures if it is there, else the first."""
    shapes = _shapes(arguments)
    wanted = ("real", 480_000, 384)
    return (kind, rows, dimension) == (wanted if wanted in shapes else shapes[0])


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word.replace("_", "")) for word in text.split(","))


def _words_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def words(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if unknown := [word for word in found if word not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return found

    return words
