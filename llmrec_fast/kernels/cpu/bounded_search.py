"""The bounded scan on the CPU: scan, seed, filter and rerank, slab by slab, for groups of queries. Returns the exact top k.

This file cuts the work and calls the compiled steps; BOUNDS.md shows why their answer is exact. A slab is a range of
panels of one segment that fits in the scratch memory; each slab starts from the best threshold of those before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.kernels.caches import last_cache_bytes
from llmrec_fast.kernels.codes import PANEL_ROWS, Codes, ScanCounts, ScanPlan, ScanSegment, no_exclusions, panels_of
from llmrec_fast.kernels.cpu.admission import admission
from llmrec_fast.kernels.cpu.exact_scores import known_scores, merge_heaps, score_every_row, sort_heaps
from llmrec_fast.kernels.cpu.finer_bounds import SEARCHABLE
from llmrec_fast.kernels.cpu.intrinsics import InstructionSet, instruction_set, scan_bytes
from llmrec_fast.kernels.cpu.scan_codes import TILE, scan_one, scan_tiles, spread_queries, tile_of
from llmrec_fast.kernels.cpu.scan_queries import QueryCodes, prepare_queries
from llmrec_fast.kernels.cpu.scratch import Scratch, borrowed_scratch
from llmrec_fast.kernels.cpu.seeding import seed
from llmrec_fast.kernels.cpu.survivors import SPARE, finish
from llmrec_fast.kernels.threads import available_cores, get_threads, run_parallel, split_range

SCRATCH_BYTES = 64 << 20
# Queries that share a pass, and panels that are finished at a time. On flat spectra nearly every int8 row is needed by
# some query of a group, so larger groups read them less often; with two stages, bounds that stay in the cache matter more.
# 64 on flat spectra took 1.02 times as long: fewer, longer passes, between which threads wait for one another.
_GROUP, _FLAT_GROUP = 16, 32
_CHUNK, _FLAT_CHUNK = 8, 2
# Handing work to another thread costs 20 to 40 microseconds; a panel and query take 0.2 to 1.
_LEAST_PANELS_A_THREAD = 64
_LEAST_BYTES_A_THREAD = 2 << 20
# Codes of more than so many last-level caches have left them before the next search. A search that does not put them there
# leaves room for everything else: 480,000 rows took .81 of the time.
_CACHES_FULL = 1.5


@dataclass
class _Heaps:
    """The best rows of a group of queries so far: a heap a query, and one a thread and query while a slab is worked on."""

    scores: Float64Array
    rows: Int64Array
    sizes: Int64Array
    thread_scores: Float64Array
    thread_rows: Int64Array
    thread_sizes: Int64Array

    def merge(self) -> None:
        merge_heaps(self.thread_scores, self.thread_rows, self.thread_sizes, self.scores, self.rows, self.sizes)


def bounded_search(
    segments: Sequence[ScanSegment],
    queries: Float32Array,
    k: int,
    *,
    euclidean: bool,
    excluded: tuple[Int64Array, Int64Array] | None = None,
    threads: int | None = None,
    scratch_bytes: int = SCRATCH_BYTES,
    counts: ScanCounts | None = None,
    isa: InstructionSet | None = None,
) -> tuple[Float64Array, Int64Array]:
    """Exact top k of `queries` over the allowed rows of `segments`.

    Parameters
    ----------
    segments : in order of position. Those with codes share one plan.
    queries : (q, d) float32, finite and C-contiguous.
    k : at least 1.
    euclidean : scores are minus distances; else q . x + bias.
    excluded : CSR pair (indptr, positions): positions in the index that query j must not return.
    threads : how many may take part (default: `get_threads()`).
    scratch_bytes : what the working memory should stay below, beside the results; a panel of 512 rows is the least unit.
    counts : filled if given.
    isa : instruction set (default: what the processor has).

    Returns
    -------
    (scores, positions) : (q, k) float64 and int64, best first, ties by smaller position; padded with -inf and -1.
    """
    threads = threads or get_threads()
    isa = isa or instruction_set()
    indptr, excluded_rows = excluded or no_exclusions(len(queries))
    scores = np.empty((len(queries), k))
    rows = np.empty((len(queries), k), np.int64)
    plan = next((segment.codes.plan for segment in segments if segment.codes is not None), None)
    # the longest segment first: its seeds give the others a good threshold
    ordered = sorted((segment for segment in segments if len(segment.rows)), key=lambda segment: -len(segment.rows))
    longest = len(ordered[0].rows) if ordered else 0
    together = _most_together(plan, longest, len(queries), k, threads, scratch_bytes)
    groups, side_by_side = _cut(len(queries), together, threads)

    def search(start: int, stop: int, most_threads: int, room: int) -> _GroupSearch:
        with admission.step(available_cores()) as running, borrowed_scratch() as scratch:
            share = max(1, most_threads // running)
            heaps = _Heaps(
                scores[start:stop],
                rows[start:stop],
                np.zeros(stop - start, np.int64),
                scratch.take("heap scores", (share, stop - start, k), np.float64),
                scratch.take("heap rows", (share, stop - start, k), np.int64),
                np.zeros((share, stop - start), np.int64),
            )
            own = indptr[start : stop + 1]
            group = _GroupSearch(isa, plan, queries[start:stop], euclidean, own, excluded_rows, heaps, share, scratch)
            for segment in ordered:
                group.visit(segment, room // 2)
            sort_heaps(heaps.scores, heaps.rows, heaps.sizes)
            return group

    if side_by_side:
        done = run_parallel(search, [(*cut, 1, scratch_bytes // threads) for cut in groups], threads)
    else:
        done = [search(*cut, threads, scratch_bytes) for cut in groups]
    if counts is not None:
        for group_search in done:
            group_search.report(counts)
    return scores, rows


def _most_together(plan: ScanPlan | None, longest: int, queries: int, k: int, threads: int, scratch_bytes: int) -> int:
    """How many queries may share a pass; `longest` is the number of rows of the longest segment."""
    widest = _GROUP
    if plan is not None and plan.second == 0:
        widest = _FLAT_GROUP
    elif queries >= 4 * _GROUP and longest * 2 * 2 * _GROUP <= scratch_bytes // 2 // threads:
        widest = 2 * _GROUP  # while the bounds of all rows still fit, half as many groups cost less: .92 of the time
    # at most half of the scratch memory for heaps, the rest for bounds
    most = max(1, min(widest, scratch_bytes // 2 // (16 * k * threads)))
    return most if most < TILE else most - most % TILE


def _cut(queries: int, most: int, threads: int) -> tuple[list[tuple[int, int]], bool]:
    """Cut the queries into groups of `most` or fewer, nearly equal ones; whether each thread is to take groups of its own.

    Then no thread waits for another between the steps of a group.
    """
    parts = -(-queries // most)
    side_by_side = threads > 1 and parts >= threads
    if side_by_side:
        parts = -(-parts // threads) * threads
    return split_range(queries, parts, TILE if most >= TILE else 1), side_by_side


class _GroupSearch:
    """One group of queries on its way through the segments."""

    def __init__(
        self,
        isa: InstructionSet,
        plan: ScanPlan | None,
        queries: Float32Array,
        euclidean: bool,
        indptr: Int64Array,
        excluded: Int64Array,
        heaps: _Heaps,
        threads: int,
        scratch: Scratch,
    ) -> None:
        self._isa, self._plan, self._euclidean, self._threads, self._scratch = isa, plan, euclidean, threads, scratch
        self._indptr, self._excluded, self._heaps = indptr, excluded, heaps
        self._count = len(queries)
        self._tile = tile_of(self._count)
        self._padded = -(-self._count // self._tile) * self._tile
        self._counts = np.zeros((threads + 1, self._count, 5), np.int64)
        self._scanned = self._scored = self._bytes = 0
        self._codes: QueryCodes | None = None
        if plan is None:
            self._wide = queries.astype(np.float64)
        else:
            self._codes = prepare_queries(queries, plan, self._padded)
            self._wide = self._codes.wide
            self._spread = scratch.take("spread", (self._padded * plan.first * 8,), np.int8)
            spread_queries(self._codes.first, self._tile, scan_bytes(isa), self._spread)

    def visit(self, segment: ScanSegment, bounds_bytes: int) -> None:
        """Offer the rows of a segment to the heaps."""
        panels = panels_of(len(segment.rows))
        if segment.codes is None or self._codes is None:
            self._score_all(segment, 0, panels, range(self._count))
            return
        slab = max(1, bounds_bytes // (2 * PANEL_ROWS * self._padded))
        pieces = -(-panels // slab)
        for start, stop in split_range(panels, pieces):
            self._search_slab(segment, segment.codes, self._codes, start, stop)

    def _search_slab(self, segment: ScanSegment, codes: Codes, queries: QueryCodes, start: int, stop: int) -> None:
        plan, panels = codes.plan, stop - start
        bounds = self._scratch.take("bounds", (panels * self._padded * PANEL_ROWS,), np.int16)
        best = self._scratch.take("best", (panels, self._padded, 8), np.float32)
        cuts = split_range(panels, self._threads if panels * self._count >= _LEAST_PANELS_A_THREAD else 1)
        shares = split_range(self._count, self._threads if self._count >= 4 else 1)
        heaps = self._heaps
        # one query's hot scan of codes that fit in the last cache would take 1.2 times as long; more queries' never does
        size = panels_of(len(segment.rows)) * PANEL_ROWS // 8 * plan.first_stride
        once = self._tile > 1 or size > _CACHES_FULL * last_cache_bytes()
        status = queries.status[: self._count].copy()
        least = np.empty(self._count, np.int16)
        finer = np.empty((self._count, 3), np.float32)
        largest = np.array([codes.largest_first, codes.largest_second, codes.largest_third])
        known = known_scores(heaps.scores, heaps.sizes)
        # all calls are made before the first, because the scan leaves nothing else in the caches
        scans = [
            (
                self._isa, codes.first, plan.first_stride, once, segment.allowed, self._spread, queries.offsets,
                queries.first_weights, start + first, start + last, start, bounds, best,
            )
            for first, last in cuts
        ]  # fmt: skip
        seeds = [
            (
                first, last, heaps.scores.shape[1], start * PANEL_ROWS, segment.base, panels, bounds, best,
                self._indptr, self._excluded, codes.first.view(np.uint16), plan.first_stride, queries.first_weights,
                segment.rows, segment.bias, self._euclidean, queries.wide, queries.numbers, largest, known, least,
                finer, status, self._counts[-1],
            )
            for first, last in shares
        ]  # fmt: skip
        chunk = _CHUNK if plan.second else _FLAT_CHUNK
        room = chunk * PANEL_ROWS
        waiting = 2 * room + 4096 if plan.second else room + 9
        ends = [
            (
                self._isa, start + first, start + last, chunk, start, segment.base, self._count, bounds, status, least,
                finer, plan.first, plan.second, codes.second, codes.second.view(np.float32), queries.second, queries.offsets,
                queries.second_weights, codes.third, codes.third_terms, plan.third, queries.third,
                queries.third_weights, segment.rows, segment.bias, self._euclidean, queries.wide,
                self._scratch.take(f"found {thread}", (room + SPARE,), np.int32),
                self._scratch.take(f"found bounds {thread}", (room + SPARE,), np.int16),
                self._scratch.take(f"found tails {thread}", (room + SPARE,), np.float32),
                self._scratch.take(f"waiting {thread}", (self._count, waiting), np.int32),
                self._scratch.take(f"tails {thread}", (self._count, waiting), np.float32),
                self._scratch.take(f"lengths {thread}", (self._count, 2), np.int64),
                heaps.thread_scores[thread], heaps.thread_rows[thread], heaps.thread_sizes[thread],
                self._counts[thread],
            )
            for thread, (first, last) in enumerate(cuts)
        ]  # fmt: skip
        run_parallel(scan_one if self._tile == 1 else scan_tiles, scans, self._threads)
        run_parallel(seed, seeds, self._threads)
        run_parallel(finish, ends, self._threads)
        heaps.merge()
        self._scanned += panels * PANEL_ROWS * self._count
        self._bytes += panels * PANEL_ROWS // 8 * plan.first_stride * (self._padded // self._tile)
        left = [query for query, how in enumerate(status.tolist()) if how != SEARCHABLE]
        if left:
            self._score_all(segment, start, stop, left)

    def _score_all(self, segment: ScanSegment, start: int, stop: int, wanted: Any) -> None:
        """Exact scores of every allowed row of some panels."""
        first, last = start * PANEL_ROWS, min(stop * PANEL_ROWS, len(segment.rows))
        size = (last - first) * segment.rows.shape[1] * 4 * len(wanted)
        parts = min(self._threads, max(1, size // _LEAST_BYTES_A_THREAD))
        cuts = split_range(last - first, parts, PANEL_ROWS)
        heaps = self._heaps

        def score(thread: int, begin: int, end: int) -> int:
            own_bits = np.empty((end - begin + 7) // 8, np.uint8)
            scored = 0
            for j in wanted:
                own = self._excluded[self._indptr[j] : self._indptr[j + 1]]
                heaps.thread_sizes[thread, j], count = score_every_row(
                    segment.rows, segment.bias, self._euclidean, first + begin, first + end, segment.base, segment.allowed,
                    self._wide, j, own, own_bits, heaps.thread_scores[thread, j], heaps.thread_rows[thread, j],
                    heaps.thread_sizes[thread, j],
                )  # fmt: skip
                scored += count
            return scored

        done = sum(run_parallel(score, [(thread, *cut) for thread, cut in enumerate(cuts)], self._threads))
        heaps.merge()
        self._scanned += done
        self._scored += done

    def report(self, counts: ScanCounts) -> None:
        """Add what this group did to `counts`."""
        first, second, third, seeds, mixed = (int(value) for value in self._counts.sum(axis=(0, 1)))
        counts.scanned += self._scanned
        counts.after_first += first + self._scored
        counts.after_second += second + self._scored
        counts.after_third += third + self._scored
        counts.reranked += third + seeds + self._scored
        row_bytes = self._wide.shape[1] * 4
        counts.bytes_read += self._bytes + (third + seeds + self._scored) * row_bytes
        if self._plan is not None:
            counts.bytes_read += first * self._plan.second_stride + second * (self._plan.first + 16)
            counts.bytes_read += mixed * self._plan.third + self._scanned * 2
