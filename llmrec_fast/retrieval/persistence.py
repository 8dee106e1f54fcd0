"""Snapshots on disk: save, load, and build where the rows are larger than memory. `store` does the atomic writing."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array, as_matrix
from llmrec_fast.folders import FolderWriter, header_bytes, map_array, read_folder
from llmrec_fast.kernels.codes import PANEL_ROWS, Codes, ScanPlan, allowed_bits, empty_codes, panels_of
from llmrec_fast.kernels.cpu.encode_rows import encode_rows
from llmrec_fast.retrieval.building import LEAST_FITTED_ROWS
from llmrec_fast.retrieval.fitting import fit_plan, sample_positions
from llmrec_fast.retrieval.ids import IdMap
from llmrec_fast.retrieval.result import Metric
from llmrec_fast.retrieval.searching import normalised
from llmrec_fast.retrieval.segments import Fit, Segment, Snapshot

_PIECE_BYTES = 64 << 20
_SAMPLE_PIECE = 512  # rows of the sample read before mapped pages are given back
_CODE_ARRAYS = ("first", "second", "third", "third_terms")
_CODE_NUMBERS = (
    "rows",
    "largest_first",
    "largest_second",
    "largest_third",
    "mean_rounding",
    "mean_tail",
    "wild",
)  # fmt: skip


def save(path: Path, snapshot: Snapshot, dim: int, metric: Metric, next_id: int) -> None:
    """Write a snapshot to a folder, atomically."""
    writer = FolderWriter(path)
    for number, segment in enumerate(snapshot.segments):
        writer.write(f"rows-{number}", segment.rows[: segment.count])
        _write_codes(writer, number, segment)
    _commit(writer, snapshot, dim, metric, next_id)


def load(path: Path, *, mmap: bool, verify: bool | None) -> tuple[Snapshot, int, Metric, int]:
    """(snapshot, dim, metric, next id) of a folder; `mmap` leaves the rows on disk."""
    numbers = range(10_000) if mmap else range(0)
    header, arrays = read_folder(path, mapped={f"rows-{number}" for number in numbers}, verify=verify)
    fit = None
    if header["fit"] is not None:
        plan = ScanPlan(mean=arrays["mean"], rotation=arrays.get("rotation"), **header["plan"])
        fit = Fit(plan=plan, **header["fit"])
    segments = []
    id_map = IdMap()
    for number, entry in enumerate(header["segments"]):
        codes = None
        if fit is not None:
            parts: dict[str, Any] = {name: arrays[f"{name}-{number}"] for name in _CODE_ARRAYS}
            codes = Codes(plan=fit.plan, **parts, **entry["codes"])
        ids = arrays[f"ids-{number}"]
        segments.append(
            Segment(
                base=entry["base"],
                count=entry["count"],
                rows=arrays[f"rows-{number}"],
                bias=arrays[f"bias-{number}"],
                ids=ids,
                live=arrays[f"live-{number}"],
                live_count=entry["live_count"],
                codes=codes,
            )
        )
        id_map = id_map.added(ids, entry["base"])
    return Snapshot(tuple(segments), id_map, fit), header["dim"], header["metric"], header["next_id"]


def _rows_apart(vectors: np.ndarray[Any, Any], chosen: Int64Array) -> np.ndarray[Any, Any]:
    """`vectors[chosen]`, in pieces: the system maps far more than the rows asked for, and must give it back in between."""
    sample = np.empty((len(chosen), vectors.shape[1]), vectors.dtype)
    for start in range(0, len(chosen), _SAMPLE_PIECE):
        piece = slice(start, start + _SAMPLE_PIECE)
        sample[piece] = vectors[chosen[piece]]
        _forget_pages(vectors)
    return sample


def build_on_disk(
    path: Path,
    vectors: np.ndarray[Any, Any],
    ids: Int64Array,
    bias: Float32Array | None,
    metric: Metric,
    next_id: int,
    threads: int | None,
) -> Snapshot:
    """Write `vectors` to a folder as an index stores them, encode them on the way, and commit; the snapshot maps the rows.

    Reads `vectors` once and a sample of them before. Memory: the codes, the sample, and some pieces of 64 MiB.
    """
    writer = FolderWriter(path)
    count, dim = vectors.shape
    biases = np.zeros(count, np.float32) if bias is None else bias.copy()
    codes = None
    if count >= LEAST_FITTED_ROWS:
        chosen = sample_positions(count, dim)
        sample = _prepared(_rows_apart(vectors, chosen), metric)
        plan = fit_plan(sample, None if bias is None else bias[chosen], rows=count, euclidean=metric == "euclidean")
        codes = empty_codes(plan, count)
    filled: list[Codes | None] = [codes]

    def pieces() -> Iterator[Float32Array]:
        rows_at_a_time = max(1, _PIECE_BYTES // (4 * dim))
        for start in range(0, count, rows_at_a_time):
            stop = min(start + rows_at_a_time, count)
            piece = _prepared(vectors[start:stop], metric, first_row=start)
            if filled[0] is not None:
                own = filled[0]
                filled[0] = encode_rows(piece, own.plan, bias=biases[start:stop], out=own, threads=threads)
            _forget_pages(vectors)
            yield piece

    rows_path = writer.stream("rows-0", np.float32, (count, dim), pieces())
    rows = (
        map_array(rows_path, header_bytes(rows_path), np.float32, (count, dim))
        if count
        else np.zeros((0, dim), np.float32)
    )
    live = allowed_bits(count, panels_of(count))
    segment = Segment(0, count, rows, biases, ids.copy(), live, count, filled[0])
    segments = (segment,) if count else ()
    fit = None if filled[0] is None else Fit.of(filled[0].plan, segments)
    snapshot = Snapshot(segments, IdMap().added(ids, 0), fit)
    if count:
        _write_codes(writer, 0, segment)
    _commit(writer, snapshot, dim, metric, next_id)
    return snapshot


def _prepared(piece: np.ndarray[Any, Any], metric: Metric, first_row: int = 0) -> Float32Array:
    rows = as_matrix(piece, f"vectors[{first_row}:]" if first_row else "vectors")
    return normalised(rows) if metric == "cosine" else np.array(rows)


def _forget_pages(array: np.ndarray[Any, Any]) -> None:
    """Tell the system that the pages of a mapped array are not needed again, so that they do not count as ours."""
    source = getattr(array, "_mmap", None)
    if isinstance(source, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        source.madvise(mmap.MADV_DONTNEED)


def _write_codes(writer: FolderWriter, number: int, segment: Segment) -> None:
    writer.write(f"bias-{number}", segment.bias[: segment.count])
    writer.write(f"ids-{number}", segment.ids[: segment.count])
    writer.write(f"live-{number}", segment.live)
    codes = segment.codes
    if codes is not None:
        part = panels_of(segment.count) * PANEL_ROWS / codes.capacity
        for name in _CODE_ARRAYS:
            array = getattr(codes, name)
            writer.write(f"{name}-{number}", array[: round(len(array) * part)])


def _commit(writer: FolderWriter, snapshot: Snapshot, dim: int, metric: Metric, next_id: int) -> None:
    header: dict[str, Any] = {"dim": dim, "metric": metric, "next_id": next_id, "fit": None, "plan": None}
    header["segments"] = [
        {
            "base": segment.base,
            "count": segment.count,
            "live_count": segment.live_count,
            "codes": None
            if segment.codes is None
            else {name: cast(float, getattr(segment.codes, name)) for name in _CODE_NUMBERS},
        }
        for segment in snapshot.segments
    ]
    if snapshot.fit is not None:
        plan = snapshot.fit.plan
        header["fit"] = {"rows": snapshot.fit.rows, "loss": snapshot.fit.loss}
        names = ("dim", "euclidean", "first", "second", "departure", "scale", "bias_centre", "bias_radius")
        header["plan"] = {name: getattr(plan, name) for name in names}
        writer.write("mean", plan.mean)
        if plan.rotation is not None:
            writer.write("rotation", plan.rotation)
    writer.commit(header)
