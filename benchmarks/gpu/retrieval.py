"""Retrieval of the suite `gpu`: exact top-k by inner product over unit vectors, ours against every exact engine of a GPU."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.gpu.device import Device
from benchmarks.harness import Contender, Effort, compare
from benchmarks.plots import Panel
from benchmarks.report import Cell, Report
from benchmarks.retrieval import data, oracle
from benchmarks.threads import Neutral

Float32Array = npt.NDArray[np.float32]
Modules = Mapping[str, ModuleType]
Search = Callable[[Any, Float32Array, int], Any]  # (queries on the device, the same on the host, k) -> ids
OURS, RECORDED, SECTION = "llmrec_fast", "llmrec_fast, CUDA graph", "retrieval"
SCORE_BYTES = 1 << 30  # what engines that write out scores may use for them


@dataclass(frozen=True)
class Settings:
    queries: Sequence[int]
    k: Sequence[int]
    vectors: Path | None


def run(
    report: Report,
    count: int,
    dimension: int,
    settings: Settings,
    device: Device,
    modules: Modules,
    neutral: Neutral,
    effort: Effort,
) -> None:
    """Add one cell to `report` for every (queries, k) over `count` rows."""
    dataset = make(count, dimension, max(settings.queries), settings.vectors)
    answers = oracle.find(dataset.rows, dataset.queries, max(settings.k))
    shared = device.upload(dataset.rows)  # one copy for all who can work on it
    ours, recorded, statistics = _ours(dataset.rows, shared, device)
    engines = _peers(dataset.rows, shared, modules, report.notes)
    one_pass = 2 * dataset.rows.nbytes / device.bandwidth()
    for k in settings.k:
        for asked in settings.queries:
            notes: list[str] = []
            contenders = [_contender(OURS, ours, dataset.queries, asked, k, answers, device)]
            for name, search in {RECORDED: recorded(asked, k), **engines}.items():
                contender = _contender(name, search, dataset.queries, asked, k, answers, device)
                if works(contender, notes):
                    contenders.append(contender)
            comparison = compare(contenders, neutral, effort)
            comparison.notes += notes
            labels = {"data": _kind(settings), "N": count, "d": dimension, "Q": asked, "k": k}
            figures = statistics(dataset.queries[:asked], k)
            figures["one float32 pass, ms"] = 1e3 * one_pass
            figures["ours / one pass"] = comparison.ours().median / one_pass
            report.cells.append(Cell(labels, comparison, figures, section=SECTION))


def make(count: int, dimension: int, queries: int, vectors: Path | None) -> data.Dataset:
    """Real vectors tiled to `count` rows, or made ones whose variance decays over the columns like that of text vectors."""
    if vectors is not None:
        return data.make("real", count, dimension, data.load_real(vectors)[0], queries)
    rng = np.random.default_rng(0)
    spectrum = (np.exp(-np.arange(dimension) / (0.15 * dimension + 1)) + 0.05).astype(np.float32)
    everything = rng.standard_normal((count + queries, dimension), dtype=np.float32)
    everything *= spectrum
    everything /= np.linalg.norm(everything, axis=1, keepdims=True)
    return data.Dataset("real", everything[:count], everything[count:].copy())


def panels(report: Report) -> list[Panel]:
    """One plot a data set and k: milliseconds by the number of queries."""
    cells = [cell for cell in report.cells if cell.section == SECTION]
    groups = dict.fromkeys((cell.labels["N"], cell.labels["d"], cell.labels["k"]) for cell in cells)
    return [
        Panel(f"{n} x {d}, k = {k}", "queries a call", "milliseconds (median)", _lines(cells, n, d, k))
        for n, d, k in groups
    ]


def _lines(cells: Sequence[Cell], n: object, d: object, k: object) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for cell in cells:
        if (cell.labels["N"], cell.labels["d"], cell.labels["k"]) == (n, d, k):
            for m in cell.comparison.measurements:
                if m.mode == "hot":
                    lines.setdefault(m.contender, []).append((float(cell.labels["Q"]), 1e3 * m.median))
    return lines


def _kind(settings: Settings) -> str:
    return "made" if settings.vectors is None else settings.vectors.name


def _contender(
    name: str, search: Search, queries: Float32Array, asked: int, k: int, answers: oracle.Oracle, device: Device
) -> Contender:
    """The engine with its own queries for each repetition, the same ones for everybody, on the device beforehand."""
    starts = range(0, max(1, len(queries) - asked + 1), max(1, asked))
    batches = [(device.upload(queries[start : start + asked]), queries[start : start + asked]) for start in starts]

    def call(repetition: int) -> Any:
        ids = search(*batches[repetition % len(batches)], k)
        device.synchronize()
        return ids

    def check(answer: Any) -> str:
        ids = device.download(answer).astype(np.int64)
        return answers.wrong_order(ids, k) if name in (OURS, RECORDED) else answers.too_far(ids, k)

    return Contender(name, call, check, ours=name in (OURS, RECORDED))


def works(contender: Contender, notes: list[str]) -> bool:
    """Whether a first call ends without an error, such as of memory; else a note says which."""
    try:
        contender.call(0)
    except Exception as error:  # peers fail in ways of their own, such as CuPy without NVRTC
        notes.append(f"{contender.name} is left out: {error}")
        return False
    return True


def _ours(
    rows: Float32Array, shared: Any, device: Device
) -> tuple[Search, Callable[[int, int], Search], Callable[[Float32Array, int], dict[str, float | str]]]:
    """The kernels over device arrays, where positions are ids and nothing is copied; the same recorded once and replayed, for
    a number of queries and k, on queries that are copied to where the graph reads them; and what a search skips."""
    from llmrec_fast.kernels import cuda
    from llmrec_fast.kernels.codes import ScanCounts, ScanSegment, allowed_bits, panels_of
    from llmrec_fast.kernels.cuda.fixed_search import FixedSearch
    from llmrec_fast.kernels.cuda.runtime import runtime
    from llmrec_fast.kernels.cuda.scan_codes import segment_to_device
    from llmrec_fast.retrieval.fitting import fit_plan, sample_positions

    plan = fit_plan(rows[sample_positions(*rows.shape)], None, rows=len(rows), euclidean=False)
    here = runtime()
    place = here.memory.current_place()
    bits = allowed_bits(len(rows), panels_of(len(rows)))
    host = ScanSegment(0, rows[:0], np.zeros(len(rows), np.float32), bits, None)
    segment = replace(
        segment_to_device(host, here, place),
        count=len(rows),
        rows=here.on_device("rows", shared, place),
        codes=cuda.encode_rows(shared, plan),
    )

    def search(queries: Any, _: Float32Array, k: int) -> Any:
        return cuda.bounded_search([segment], queries, k, euclidean=False)[1]

    def recorded(asked: int, k: int) -> Search:
        fixed = FixedSearch(here, place, [segment], (asked, rows.shape[1]), k, euclidean=False, cosine=False)
        graph, own = fixed.record(), here.on_device("own queries", fixed.queries, place)

        def search(queries: Any, _: Float32Array, k: int) -> Any:
            given = here.on_device("queries", queries, place).expect(["float32"], own.shape)
            here.copy(own.pointer, given.pointer, asked * rows.shape[1] * 4, place)
            graph.replay(place)
            return fixed.ids

        return search

    def statistics(queries: Float32Array, k: int) -> dict[str, float | str]:
        counts, pairs = ScanCounts(), len(queries) * len(rows)
        cuda.bounded_search([segment], device.upload(queries), k, euclidean=False, counts=counts)
        return {
            "columns of the stages": f"{plan.first} + {plan.second}",
            "after stage 0, %": 100 * counts.after_first / pairs,
            "after stage 1, %": 100 * counts.after_second / pairs,
            "reranked a query": counts.reranked / len(queries),
        }

    return search, recorded, statistics


def _peers(rows: Float32Array, shared: Any, modules: Modules, notes: list[str]) -> dict[str, Search]:
    """The engines that can be had; `notes` gets a line for each that fails on these rows."""
    builders: dict[str, tuple[str, Callable[[Any, Float32Array, Any, Modules], Search]]] = {
        "cuvs": ("cuvs.neighbors.brute_force", _cuvs),
        "faiss": ("faiss", _faiss),
        "torch": ("torch", _torch),
        "cupy": ("cupy", _cupy),
    }
    engines: dict[str, Search] = {}
    for name, (module, build) in builders.items():
        if module not in modules:
            continue  # the report names it as missing
        try:
            engines[name] = build(modules[module], rows, shared, modules)
        except Exception as error:  # built without CUDA, no room, or in a way of the peer's own
            notes.append(f"{name} is left out at {rows.shape}: {error}")
    return engines


def _cuvs(brute_force: Any, rows: Float32Array, shared: Any, modules: Modules) -> Search:
    index = brute_force.build(shared, metric="inner_product")
    return lambda queries, _, k: brute_force.search(index, queries, k)[1]


def _faiss(faiss: Any, rows: Float32Array, shared: Any, modules: Modules) -> Search:
    """`GpuIndexFlatIP`. Given Torch tensors where its adapter can be had, else host arrays, which it copies itself."""
    resources = faiss.StandardGpuResources()  # AttributeError: this faiss was built without CUDA
    flat = faiss.GpuIndexFlatIP(resources, rows.shape[1])
    flat.add(rows)
    if "torch" not in modules:
        return lambda _, queries, k: flat.search(queries, k)[1]
    importlib.import_module("faiss.contrib.torch_utils")  # teaches indexes to take tensors
    torch = modules["torch"]
    return lambda queries, _, k: flat.search(torch.from_dlpack(queries), k)[1]


def _torch(torch: Any, rows: Float32Array, shared: Any, modules: Modules) -> Search:
    tensor = torch.from_dlpack(shared)  # RuntimeError: this torch was built without CUDA

    def search(queries: Any, _: Float32Array, k: int) -> Any:
        wanted = torch.from_dlpack(queries)
        with torch.inference_mode():
            parts = [torch.topk(block @ tensor.T, k)[1] for block in wanted.split(_block(len(rows)))]
            return torch.cat(parts)

    return search


def _cupy(cupy: Any, rows: Float32Array, shared: Any, modules: Modules) -> Search:
    def search(queries: Any, _: Float32Array, k: int) -> Any:
        size, parts = _block(len(rows)), []
        for start in range(0, len(queries), size):
            scores = queries[start : start + size] @ shared.T
            top = cupy.argpartition(-scores, k - 1, axis=1)[:, :k]
            order = cupy.argsort(-cupy.take_along_axis(scores, top, axis=1), axis=1)
            parts.append(cupy.take_along_axis(top, order, axis=1))
        return cupy.concatenate(parts)

    return search


def _block(rows: int) -> int:
    return max(1, SCORE_BYTES // (4 * rows))
