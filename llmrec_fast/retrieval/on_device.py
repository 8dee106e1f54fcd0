"""Copies of an index's segments on a GPU, and searches over them. The host's snapshot stays the truth; writes go there.

A segment is copied when a search first needs it. Rows that were appended since are copied behind those that are there, so that
adding to a large index moves what was added. Removing rows moves a bit a row. Any number of threads may search.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from llmrec_fast.errors import DeviceUnavailable
from llmrec_fast.kernels.codes import Codes, ScanCounts
from llmrec_fast.kernels.cuda.bounded_search import bounded_search
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime, why_unavailable
from llmrec_fast.kernels.cuda.scan_codes import (
    TILE_ROWS,
    DeviceCodes,
    DeviceSegment,
    codes_to_device,
    described,
    tiles_of_blocks,
)
from llmrec_fast.kernels.cuda.views import DeviceView
from llmrec_fast.retrieval.segments import Segment, Snapshot


def copies_for(device: str) -> DeviceCopies | None:
    """What searches on `device` ("cpu", "cuda" or "auto": a GPU if there is one) need; None for the CPU.

    Raises `DeviceUnavailable` if a GPU is asked for and cannot be used; the message says why.
    """
    if device == "cpu":
        return None
    reason = why_unavailable()
    if reason is None:
        return DeviceCopies()
    if device == "cuda":
        raise DeviceUnavailable(reason)
    return None


class DeviceCopies:
    """The copies of one index."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[_Copy] = []

    def search(
        self,
        snapshot: Snapshot,
        masks: Sequence[BoolArray] | None,
        queries: Float32Array,
        k: int,
        *,
        euclidean: bool,
        excluded: tuple[Int64Array, Int64Array] | None,
        counts: ScanCounts | None,
    ) -> tuple[Float64Array, Int64Array]:
        """Exact top k, as `kernels.cuda.bounded_search`; `masks` restrict the live rows of each segment."""
        here = runtime()
        place = here.memory.current_place()
        segments = self._segments(snapshot, masks, here, place)
        scores, positions = bounded_search(segments, queries, k, euclidean=euclidean, excluded=excluded, counts=counts)
        return scores, positions

    def _segments(
        self, snapshot: Snapshot, masks: Sequence[BoolArray] | None, here: Runtime, place: Place
    ) -> list[DeviceSegment]:
        with self._lock:
            copies = [self._copy_of(segment, here, place) for segment in snapshot.segments]
            # a reader of an older snapshot makes its copies again; there is room for one set
            self._held = copies
            plain = [copy.shown(segment, here, place) for copy, segment in zip(copies, snapshot.segments, strict=True)]
        if masks is None:
            return plain
        return [
            _restricted(segment, own, mask, here, place)
            for segment, own, mask in zip(plain, snapshot.segments, masks, strict=True)
        ]

    def _copy_of(self, segment: Segment, here: Runtime, place: Place) -> _Copy:
        held = next((copy for copy in self._held if copy.is_of(segment, place)), None)
        return held or _Copy(segment, here, place)


class _Copy:
    """One segment's arrays on the device, with the room that they have on the host."""

    def __init__(self, segment: Segment, here: Runtime, place: Place) -> None:
        self._device, self._source, self._codes_source = place.device, segment.rows, segment.codes
        self._count = segment.count
        self._rows = here.on_device("rows", segment.rows, place)
        self._bias = here.on_device("bias", segment.bias, place)
        self._codes = None if segment.codes is None else codes_to_device(segment.codes, here, place)
        self._live_source: npt.NDArray[Any] | None = None
        self._live: DeviceView | None = None
        here.extension.synchronize(place.device, place.stream)  # other threads may read on other streams

    def is_of(self, segment: Segment, place: Place) -> bool:
        """Whether this is a copy of the segment, or of an earlier or later state of it."""
        mine, its = self._codes_source, segment.codes
        same_codes = mine is its if mine is None or its is None else mine.first is its.first
        return self._source is segment.rows and same_codes and self._device == place.device

    def shown(self, segment: Segment, here: Runtime, place: Place) -> DeviceSegment:
        """The segment on the device; copies what is not there yet."""
        if segment.count > self._count:
            self._extend(segment, here, place)
        if self._live is None or self._live_source is not segment.live:
            self._live, self._live_source = here.on_device("allowed", segment.live, place), segment.live
            here.extension.synchronize(place.device, place.stream)
        codes = self._codes
        if codes is not None and segment.codes is not None:
            codes = _describing(codes, segment.codes)
        return DeviceSegment(self._device, segment.base, segment.count, self._rows, self._bias, self._live, codes)

    def _extend(self, segment: Segment, here: Runtime, place: Place) -> None:
        start, stop, write = self._count, segment.count, here.memory.write
        write(self._rows.owner, start, segment.rows[start:stop], place)
        write(self._bias.owner, start, segment.bias[start:stop], place)
        if self._codes is not None and segment.codes is not None:
            plan, codes = segment.codes.plan, segment.codes
            tile, stride = start // TILE_ROWS, plan.first_stride * TILE_ROWS // 8
            last = -(-stop // TILE_ROWS)
            tiles = tiles_of_blocks(codes.first[tile * stride : last * stride], plan)
            write(self._codes.first.owner, tile * stride, tiles, place)
            for own, array, width in (
                (self._codes.second, codes.second, plan.second_stride),
                (self._codes.third, codes.third, plan.third),
                (self._codes.third_terms, codes.third_terms, 4),
            ):
                if width:
                    write(own.owner, start * width, array[start * width : stop * width], place)
        self._count = stop
        here.extension.synchronize(place.device, place.stream)


def _describing(codes: DeviceCodes, host: Codes) -> DeviceCodes:
    return DeviceCodes(
        described(host), codes.capacity, codes.plan, codes.first, codes.second, codes.third, codes.third_terms
    )


def _restricted(segment: DeviceSegment, host: Segment, mask: BoolArray, here: Runtime, place: Place) -> DeviceSegment:
    bits = here.on_device("allowed", host.searchable(mask).allowed, place)
    return DeviceSegment(segment.device, segment.base, segment.count, segment.rows, segment.bias, bits, segment.codes)
