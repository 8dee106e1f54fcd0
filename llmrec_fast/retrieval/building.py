"""Write steps that need kernels: append rows, fit the encoding when there are enough of them, fit it again. No search here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array, writable_view
from llmrec_fast.kernels.codes import Codes, ScanPlan, allowed_bits, empty_codes, panels_of
from llmrec_fast.kernels.cpu.encode_rows import encode_rows
from llmrec_fast.kernels.threads import run_parallel, split_range
from llmrec_fast.retrieval.fitting import fit_plan, sample_positions
from llmrec_fast.retrieval.ids import IdMap
from llmrec_fast.retrieval.searching import normalise_into
from llmrec_fast.retrieval.segments import EncodeRest, Fit, Segment, Snapshot, empty_segment

# Below this, scoring every row takes less time than preparing a query for the scan.
LEAST_FITTED_ROWS = 4096
# Rows are stored by several threads, so much at a time: the first write to new memory costs more than the copying.
_STORE_BYTES = 8 << 20


def append(
    snapshot: Snapshot,
    rows: Float32Array,
    bias: Float32Array | None,
    ids: Int64Array,
    normalise: bool,
    encode_rest: EncodeRest,
    threads: int | None,
) -> Snapshot:
    """`snapshot` with more rows, encoded if the index has been fitted."""
    biases = np.zeros(len(rows), np.float32) if bias is None else bias
    store = normalise_into if normalise else _copy_into

    def store_in_parallel(source: Float32Array, out: Float32Array) -> None:
        cuts = split_range(len(source), -(-source.nbytes // _STORE_BYTES))
        run_parallel(store, [(source[start:stop], out[start:stop]) for start, stop in cuts], threads)

    return snapshot.appended(rows, biases, ids, store_in_parallel, encode_rest)


def keep(
    rows: Float32Array, bias: Float32Array | None, ids: Int64Array, euclidean: bool, encode_rest: EncodeRest
) -> Snapshot:
    """A snapshot that holds `rows` itself rather than a copy. Nothing is ever written to them: rows that are added later go to
    another segment."""
    count = len(rows)
    rows = writable_view(rows)
    biases = np.zeros(count, np.float32) if bias is None else bias.copy()
    live = allowed_bits(count, panels_of(count))
    segment = Segment(0, count, rows, biases, ids.copy(), live, count, None)
    return refit(Snapshot((segment,) if count else (), IdMap().added(ids, 0), None), euclidean, encode_rest)


def refit(snapshot: Snapshot, euclidean: bool, encode_rest: EncodeRest) -> Snapshot:
    """`snapshot`, fitted and encoded if it has become large enough for the first time."""
    if snapshot.fit is not None or snapshot.live_count < LEAST_FITTED_ROWS:
        return snapshot
    return encoded(snapshot, euclidean, encode_rest)


def encoded(snapshot: Snapshot, euclidean: bool, encode_rest: EncodeRest) -> Snapshot:
    """`snapshot` with a fresh plan and codes for the rows as they lie."""
    sample, bias = _sample(snapshot)
    plan = fit_plan(sample, bias, rows=snapshot.live_count, euclidean=euclidean)
    segments = tuple(_encode(segment, plan, encode_rest) for segment in snapshot.segments)
    return Snapshot(segments, snapshot.id_map, Fit.of(plan, segments))


def compact(snapshot: Snapshot, euclidean: bool, encode_rest: EncodeRest) -> Snapshot:
    """`snapshot` without its removed rows, in one segment, freshly fitted; rows mapped from disk stay where they are."""
    if any(isinstance(segment.rows, np.memmap) for segment in snapshot.segments):
        return encoded(snapshot, euclidean, encode_rest)
    count = snapshot.live_count
    if count == 0:
        return Snapshot((), IdMap(), None)
    if len(snapshot.segments) == 1 and len(snapshot.segments[0].rows) == count:  # nothing to reclaim: nothing is moved
        return refit(Snapshot(snapshot.segments, snapshot.id_map, None), euclidean, encode_rest)
    segment = empty_segment(0, count, snapshot.segments[0].rows.shape[1], None)
    start = 0
    for old in snapshot.segments:
        live = np.flatnonzero(old.live_mask())
        stop = start + len(live)
        np.take(old.rows, live, axis=0, out=segment.rows[start:stop])
        segment.bias[start:stop], segment.ids[start:stop] = old.bias[live], old.ids[live]
        start = stop
    segment = replace(segment, count=count, live=allowed_bits(count, panels_of(count)), live_count=count)
    compacted = Snapshot((segment,), IdMap().added(segment.ids, 0), None)
    return refit(compacted, euclidean, encode_rest)


def encode_on_cpu(threads: int | None) -> EncodeRest:
    """The encoder of the CPU."""

    def encode_rest(segment: Segment, codes: Codes) -> Codes:
        rows, bias = segment.rows[codes.rows : segment.count], segment.bias[codes.rows : segment.count]
        return encode_rows(rows, codes.plan, bias=bias, out=codes, threads=threads)

    return encode_rest


def _encode(segment: Segment, plan: ScanPlan, encode_rest: EncodeRest) -> Segment:
    return replace(segment, codes=encode_rest(segment, empty_codes(plan, len(segment.rows))))


def _sample(snapshot: Snapshot) -> tuple[Float32Array, Float32Array]:
    """Some live rows, chosen at random, and their biases."""
    rows, biases = [], []
    positions = sample_positions(snapshot.live_count, snapshot.segments[0].rows.shape[1])
    start = 0
    for segment in snapshot.segments:
        own = positions[(positions >= start) & (positions < start + segment.live_count)] - start
        start += segment.live_count
        chosen = np.flatnonzero(segment.live_mask())[own]
        rows.append(np.asarray(segment.rows[chosen]))
        biases.append(segment.bias[chosen])
    return rows[0] if len(rows) == 1 else np.concatenate(rows), np.concatenate(biases)


def _copy_into(rows: Float32Array, out: Float32Array) -> None:
    np.copyto(out, rows)
