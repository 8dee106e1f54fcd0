"""Suite `gpu`: run the kernel and index tests on this machine's GPU, then time retrieval and pooling against their peers.

One command, complete in itself: data are made here (or read from a file that is given), nothing is fetched. Every contender
gets device arrays and leaves its answer on the device; a call ends when the device has finished. Answers are checked first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.gpu import checks, pooling, retrieval
from benchmarks.gpu.device import CuPyDevice, Device, DeviceNeutral
from benchmarks.harness import Effort
from benchmarks.peers import import_peers
from benchmarks.plots import draw
from benchmarks.report import Report

PEERS = ("cuvs.neighbors.brute_force", "faiss", "torch", "cupy")
QUERIES, K = (1, 8, 64, 256, 1024), (10, 100)
SHAPES = ((480_000, 384), (1_000_000, 384), (4_000_000, 384), (1_000_000, 128), (1_000_000, 768))
QUICK_SHAPES, QUICK_QUERIES, QUICK_K = ((50_000, 128),), (1, 64), (10,)
POOL_SHAPES = ((256, 128, 384), (1024, 128, 768))
QUICK_POOL_SHAPES = ((64, 32, 64),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("gpu")
    group.add_argument("--rows", type=_numbers, help="row counts, such as 480000,4000000")
    group.add_argument("--dimensions", type=_numbers, help="dimensions; with --rows: every combination of the two")
    group.add_argument("--queries", type=_numbers, help=f"queries a call (default: {QUERIES})")
    group.add_argument("--k", type=_numbers, help=f"results a query, at most 1024 (default: {K})")
    group.add_argument(
        "--vectors", type=Path, help="real vectors (.npy); otherwise rows with the spectrum of text vectors"
    )
    group.add_argument("--without-tests", action="store_true", help="do not run the tests on the GPU first")


def run(arguments: argparse.Namespace) -> Report:
    """Everything, on this machine's GPU; ends with the reason where there is none."""
    from llmrec_fast.kernels.cuda import why_unavailable

    if (reason := why_unavailable()) is not None:
        raise SystemExit(
            f"this suite needs a GPU: {reason}. It runs from a checkout, so build the extension in it: "
            'LLMREC_CUDA=1 pip install -e ".[gpu,bench-gpu]"'
        )
    modules, missing = import_peers(PEERS)
    return measure(CuPyDevice(), modules, arguments, [] if arguments.without_tests else checks.run(), missing)


def measure(
    device: Device,
    modules: retrieval.Modules,
    arguments: argparse.Namespace,
    notes: list[str],
    missing: dict[str, str] | None = None,
) -> Report:
    """The benchmarks alone, on any device. The report is written after every shape: a machine may be lent for minutes only."""
    report = Report("gpu", "Retrieval and pooling on a GPU", notes=[f"device: {device.name}", *notes])
    report.missing = missing or {}
    neutral = DeviceNeutral(device)
    report.figures["device memory bandwidth, copying, GB/s"] = round(device.bandwidth() / 1e9, 1)
    effort = Effort(seconds=arguments.seconds or (0.2 if arguments.quick else 2.0), minimum=5, maximum=201)
    for rows, dimension in _shapes(arguments):
        settings = retrieval.Settings(
            queries=arguments.queries or (QUICK_QUERIES if arguments.quick else QUERIES),
            k=arguments.k or (QUICK_K if arguments.quick else K),
            vectors=arguments.vectors,
        )
        retrieval.run(report, rows, dimension, settings, device, modules, neutral, effort)
        report.write(arguments.output)
    for shape in QUICK_POOL_SHAPES if arguments.quick else POOL_SHAPES:
        pooling.run(report, shape, device, modules, neutral, effort)
    path = arguments.output / "gpu.svg"
    if problem := draw([*retrieval.panels(report), *pooling.bars(report)], path, report.title):
        report.notes.append(problem)
    else:
        report.plots.append(path)
    return report


def _shapes(arguments: argparse.Namespace) -> list[tuple[int, int]]:
    if arguments.rows:
        return [(rows, dimension) for rows in arguments.rows for dimension in arguments.dimensions or (384,)]
    return list(QUICK_SHAPES if arguments.quick else SHAPES)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))
