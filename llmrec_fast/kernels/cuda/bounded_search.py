"""The bounded scan on a GPU: prepare, seed, scan, select, all launched at once and never waited for in between.

This file checks, finds memory and launches; csrc/bounded_search.cu has the steps. Cost of few queries: first / 2 + 16 bytes
for a row that fails the first bound (seeds included); nothing of the size queries x rows is ever written.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from llmrec_fast.arrays import Int64Array, device_of
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.codes import ScanCounts, ScanPlan, ScanSegment
from llmrec_fast.kernels.cuda.encode_rows import plan_view, shape_of
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime
from llmrec_fast.kernels.cuda.scan_codes import DevicePlan, DeviceSegment, segment_to_device
from llmrec_fast.kernels.cuda.views import DeviceView

LARGEST_K = 1024
WORKSPACE_BYTES = 512 << 20
# As in csrc/bounded_search.cu: how many queries a block serves. Of those that serve few, four fit on a multiprocessor, of the
# others one or two. A slice of fewer rows than a block scans in a step is not worth a block.
_FEW_QUERIES, _MANY_QUERIES = 8, 64
_FEW_BLOCKS, _MANY_BLOCKS, _LEAST_ROWS = 4, 2, 256


def bounded_search(
    segments: Sequence[ScanSegment | DeviceSegment],
    queries: Any,
    k: int,
    *,
    euclidean: bool,
    excluded: tuple[Any, Any] | None = None,
    threads: int | None = None,
    workspace_bytes: int = WORKSPACE_BYTES,
    counts: ScanCounts | None = None,
    out: tuple[Any, Any] | None = None,
    workspace: Any = None,
) -> tuple[Any, Any]:
    """Exact top k of `queries` over the allowed rows of `segments`; see `llmrec_fast.kernels.cpu.bounded_search`.

    Parameters
    ----------
    segments : in order of position. Those on the host are copied to the device first.
    queries : (q, d) float32, finite and C-contiguous, on the host or on the device.
    k : 1 to 1024.
    excluded : CSR pair (indptr, positions) of int64. On the device, positions must ascend within a query.
    threads : has no effect.
    workspace_bytes : what the working memory should stay below; queries are searched in groups that keep to it.
    counts : filled if given; the call then waits for the device.
    out : (scores, positions), (q, k) float64 and int64 arrays on the device to write to.
    workspace : uint8 array on the device, used instead of the memory that calls share; its size takes the place of
        `workspace_bytes`. Only one call at a time may use it. With `out`, `workspace` and all else on the device, a call
        allocates nothing and waits for nothing, so a CUDA graph may capture it: see `FixedSearch`.

    Returns
    -------
    (scores, positions) : (q, k) float64 and int64, best first, ties by smaller position; padded with -inf and -1. On the device
        if queries are, or `out` was given. Rows of a segment on the device that has ids are named by these.

    Raises
    ------
    InvalidInput : k outside its range, other shapes or dtypes, arrays on different devices, a workspace too small for a
        single query.
    DeviceUnavailable, MissingDependency : there is no usable GPU.
    """
    here = runtime()
    arrays: dict[str, object] = {"queries": queries}
    if excluded is not None:
        arrays |= {"excluded indptr": excluded[0], "excluded positions": excluded[1]}
    if out is not None:
        arrays |= {"out scores": out[0], "out positions": out[1]}
    if workspace is not None:
        arrays |= {"workspace": workspace}
    place, on_device = here.find_place(arrays)
    moved = [segment_to_device(segment, here, place) for segment in segments]
    dim = moved[0].rows.shape[1] if moved else queries.shape[1]
    query_view = here.on_device("queries", queries, place).expect(["float32"], [None, dim])
    count = query_view.shape[0]
    pair = exclusion_views(here, excluded, count, place)
    scores, positions = _results(here, out, (count, k), place)
    room = None
    if workspace is not None:
        room = here.on_device("workspace", workspace, place).expect(["uint8"], [None])
    search = Search(here, place, moved, euclidean, k, workspace_bytes if room is None else room.shape[0])
    search.run(query_view, pair, (scores, positions), counts, room)
    if on_device:
        return (scores.owner, positions.owner) if out is None else out
    return here.memory.download(scores.owner, place), here.memory.download(positions.owner, place)


class Search:
    """One shape of search: the segments and sizes as the extension takes them, all of them on the device."""

    def __init__(
        self, here: Runtime, place: Place, segments: Sequence[DeviceSegment], euclidean: bool, k: int, limit: int
    ) -> None:
        if not 1 <= k <= LARGEST_K:
            raise InvalidInput(f"k must be 1 to {LARGEST_K} on a GPU; got {k}")
        self._here, self._place, self._k, self._limit = here, place, k, limit
        # the longest segment first: its seeds give the others a good threshold
        self._segments = sorted(segments, key=lambda segment: -segment.count)
        self._views = [_segment_view(here, segment) for segment in self._segments]
        coded = next((segment.codes for segment in segments if segment.codes is not None), None)
        self._plan = None if coded is None else coded.plan.plan
        if self._plan is not None and self._plan.euclidean != euclidean:
            kinds = {True: "Euclidean distance", False: "inner products"}
            raise InvalidInput(f"the codes were made for {kinds[self._plan.euclidean]}, not for {kinds[euclidean]}")
        dim = segments[0].rows.shape[1] if segments else 1
        self._shape = _shape(here, self._plan, dim, euclidean)
        self._plan_view = _plan_view(here, None if coded is None else coded.plan)
        self._multiprocessors = int(here.extension.multiprocessors(place.device))
        self._rows = max((segment.count for segment in segments), default=0)

    def group(self, queries: int) -> tuple[int, int]:
        """How many queries go into one launch, so that the workspace keeps to its limit, and the bytes that they need."""
        size = max(1, queries)
        while (needed := self._cut(size)[1]) > self._limit and size > 1:
            size = -(-size // 2)
        return size, needed

    def run(
        self,
        queries: DeviceView,
        excluded: tuple[DeviceView, DeviceView] | None,
        out: tuple[DeviceView, DeviceView],
        counts: ScanCounts | None = None,
        workspace: DeviceView | None = None,
        place: Place | None = None,
    ) -> None:
        """Search `queries`, all of whose arguments are on the device and of the right shapes.

        workspace : its own memory; None for that of the runtime. place : where the call runs, if not where this was made.
        """
        here, place = self._here, place or self._place
        count, dim = queries.shape
        group, needed = self.group(count)
        if workspace is not None and workspace.shape[0] < needed:
            raise InvalidInput(f"workspace must have at least {needed} bytes; got {workspace.shape[0]}")
        measured = None if counts is None else here.on_device("counts", np.zeros(4, np.uint64), place)
        for start in range(0, count, group):
            self._launch(
                place,
                queries.pointer + start * dim * 4,
                min(group, count - start),
                (0, 0) if excluded is None else (excluded[0].pointer + start * 8, excluded[1].pointer),
                0 if measured is None else measured.pointer,
                (out[0].pointer + start * self._k * 8, out[1].pointer + start * self._k * 8),
                workspace,
            )
        if counts is not None and measured is not None:
            self.report(counts, here.memory.download(measured.owner, place), count)

    def _launch(
        self,
        place: Place,
        queries: int,
        count: int,
        excluded: tuple[int, int],
        counts: int,
        out: tuple[int, int],
        own: DeviceView | None,
    ) -> None:
        slices, needed = self._cut(count)
        with self._room(own, needed, place) as (workspace, size):
            self._here.extension.search(
                device=place.device,
                stream=place.stream,
                shape=self._shape,
                plan=self._plan_view,
                segments=self._views,
                queries=queries,
                query_count=count,
                k=self._k,
                slices=slices,
                excluded_starts=excluded[0],
                excluded_rows=excluded[1],
                counts=counts,
                out_scores=out[0],
                out_rows=out[1],
                workspace=workspace,
                workspace_bytes=size,
            )

    def _room(self, own: DeviceView | None, needed: int, place: Place) -> AbstractContextManager[tuple[int, int]]:
        if own is None:
            return self._here.workspace(needed, place)
        return nullcontext((own.pointer, own.shape[0]))

    def report(self, counts: ScanCounts, measured: Any, queries: int) -> None:
        """Add what the device counted to `counts`, and the bytes that follow from it by shape."""
        first, second, third, scored = (int(value) for value in measured)
        plan, dim = self._plan, self._segments[0].rows.shape[1] if self._segments else 0
        total = sum(segment.count for segment in self._segments)
        counts.scanned += total * queries
        counts.after_first += first
        counts.after_second += second if plan is not None else first
        counts.after_third += third if plan is not None else first
        counts.reranked += scored
        counts.bytes_read += scored * dim * 4
        if plan is not None:
            passes = 1 if queries <= _FEW_QUERIES else -(-queries // _MANY_QUERIES)
            counts.bytes_read += total * passes * plan.first_stride // 8
            counts.bytes_read += first * plan.second_stride + second * (plan.third + 16)

    def _cut(self, queries: int) -> tuple[int, int]:
        """Slices of the rows, and the workspace they need: as many as keep to the limit, but a block a multiprocessor."""
        few = queries <= _FEW_QUERIES
        groups = 1 if few else -(-queries // _MANY_QUERIES)
        blocks = _FEW_BLOCKS if few else _MANY_BLOCKS
        while True:
            slices = max(1, min(-(-blocks * self._multiprocessors // groups), -(-self._rows // _LEAST_ROWS)))
            size = self._here.extension.search_workspace_bytes(
                shape=self._shape, segments=self._views, queries=queries, k=self._k, slices=slices
            )
            if blocks == 1 or size <= self._limit:
                return slices, int(size)
            blocks //= 2


def _shape(here: Runtime, plan: ScanPlan | None, dim: int, euclidean: bool) -> Any:
    if plan is not None:
        return shape_of(here, plan)
    return here.extension.ScanShape(dim=dim, first=0, second=0, third=0, euclidean=euclidean)


def _plan_view(here: Runtime, plan: DevicePlan | None) -> Any:
    if plan is not None:
        return plan_view(here, plan)
    return here.extension.PlanView(mean=0, rotation=0, scale=1.0, bias_centre=0.0, bias_radius=0.0)


def _segment_view(here: Runtime, segment: DeviceSegment) -> Any:
    codes = segment.codes
    described = None if codes is None else codes.described
    return here.extension.SegmentView(
        first=0 if codes is None else codes.first.pointer,
        second=0 if codes is None else codes.second.pointer,
        third=0 if codes is None else codes.third.pointer,
        third_terms=0 if codes is None else codes.third_terms.pointer,
        rows=segment.rows.pointer,
        bias=segment.bias.pointer,
        allowed=segment.allowed.pointer,
        ids=0 if segment.ids is None else segment.ids.pointer,
        base=segment.base,
        count=segment.count,
        largest=[0.0, 0.0, 0.0]
        if described is None
        else [described.largest_first, described.largest_second, described.largest_third],
    )


def exclusion_views(
    here: Runtime, excluded: tuple[Any, Any] | None, queries: int, place: Place
) -> tuple[DeviceView, DeviceView] | None:
    """A CSR pair on the device; positions of a pair from the host are put in order."""
    if excluded is None:
        return None
    starts, rows = excluded
    if isinstance(starts, np.ndarray) and isinstance(rows, np.ndarray):
        rows = _sorted_within(starts, rows)
    return (
        here.on_device("excluded indptr", starts, place).expect(["int64"], [queries + 1]),
        here.on_device("excluded positions", rows, place).expect(["int64"], [None]),
    )


def _sorted_within(starts: Int64Array, rows: Int64Array) -> Int64Array:
    """Positions of each query in ascending order."""
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    if ((np.diff(rows) >= 0) | (np.diff(owner) > 0)).all():
        return rows
    order: Int64Array = np.lexsort((rows, owner))
    return rows[order]


def _results(
    here: Runtime, out: tuple[Any, Any] | None, shape: tuple[int, int], place: Place
) -> tuple[DeviceView, DeviceView]:
    if out is None:
        return here.new("scores", shape, np.float64, place), here.new("positions", shape, np.int64, place)
    if any(device_of(array) is None for array in out):
        raise InvalidInput("out must be two arrays on the device; for results on the host leave it out")
    return (
        here.on_device("out scores", out[0], place).expect(["float64"], shape),
        here.on_device("out positions", out[1], place).expect(["int64"], shape),
    )
