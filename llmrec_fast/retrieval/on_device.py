"""Copies of an index's segments on a GPU: searches over them, and rows encoded there. The host's snapshot stays the truth.

Writers bring the copies up to date before they show a new snapshot, so searches find everything in place and wait for
nothing. Rows that are appended go behind those that are there; removing rows moves a bit a row. Rows are encoded on the GPU
and their codes copied to the host, so that saving, loading and other devices see the same bits; rows that are on the GPU
already are copied within it, and to the host once. What the encoding is fitted to is a sample on the host, which fits it on the
CPU. Any number of threads may search.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import BoolArray, Int64Array
from llmrec_fast.errors import DeviceUnavailable, InvalidInput
from llmrec_fast.kernels.codes import Codes, ScanCounts
from llmrec_fast.kernels.cuda.bounded_search import WORKSPACE_BYTES, Search, exclusion_views
from llmrec_fast.kernels.cuda.fixed_search import FixedSearch
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime, why_unavailable
from llmrec_fast.kernels.cuda.scan_codes import DeviceSegment
from llmrec_fast.kernels.cuda.unit_rows import unit_rows
from llmrec_fast.kernels.cuda.views import DeviceView
from llmrec_fast.retrieval.device_segments import DeviceRows, SegmentCopy
from llmrec_fast.retrieval.segments import EncodeRest, Segment, Snapshot


def copies_for(device: str) -> DeviceCopies | None:
    """What an index on `device` ("cpu", "cuda" or "auto": a GPU if there is one) needs; None for the CPU.

    Raises `DeviceUnavailable` if a GPU is asked for and cannot be used; the message says why.
    """
    if device == "cpu":
        return None
    reason = why_unavailable()
    if reason is None:
        return DeviceCopies(runtime().memory.current_place().device)
    if device == "cuda":
        raise DeviceUnavailable(reason)
    return None


def device_shape(name: str, array: Any) -> tuple[int, ...]:
    """The shape of a device array."""
    here = runtime()
    place, _ = here.find_place({name: array})
    return here.on_device(name, array, place).shape


@dataclass(frozen=True)
class DeviceMatrix:
    """Float32 rows on the device, and the stream on which they are ready."""

    view: DeviceView
    place: Place

    def __len__(self) -> int:
        return self.view.shape[0]

    def download(self) -> npt.NDArray[np.float32]:
        """A copy on the host. Waits for the stream."""
        copy = np.empty(self.view.shape, np.float32)
        runtime().read(self.view.pointer, copy, self.place)
        return copy


class DeviceCopies:
    """The copies of one index, on one device."""

    def __init__(self, device: int) -> None:
        self.device = device
        self._lock = threading.Lock()
        self._ended = threading.Condition(self._lock)
        self._held: list[SegmentCopy] = []
        self._launching: set[object] = set()

    # -- reading ----------------------------------------------------------------------------------------------------------

    def read(self, name: str, array: Any, dim: int, cosine: bool) -> DeviceMatrix:
        """A device array of (n, `dim`) float32 rows as kernels take it, for cosines divided by their norms."""
        here = runtime()
        place = self._place_of(here, name, array)
        rows = here.on_device(name, array, place).expect(["float32"], [None, dim])
        return DeviceMatrix(unit_rows(here, place, rows) if cosine else rows, place)

    def search(
        self,
        snapshot: Snapshot,
        masks: Sequence[BoolArray] | None,
        queries: Any,
        k: int,
        *,
        euclidean: bool,
        excluded: tuple[Int64Array, Int64Array] | None,
        counts: ScanCounts | None,
    ) -> tuple[Any, Any]:
        """(scores, ids) of the exact top k, on the device if `queries` are a `DeviceMatrix`; `masks` restrict the live rows
        of each segment."""
        here = runtime()
        on_device = isinstance(queries, DeviceMatrix)
        place = queries.place if on_device else self._own_place(here)
        with self._segments(snapshot, masks, here, place) as segments:
            search = Search(here, place, segments, euclidean, k, WORKSPACE_BYTES)
            view = queries.view if on_device else here.on_device("queries", queries, place)
            pair = exclusion_views(here, excluded, len(queries), place)
            scores = here.new("scores", (len(queries), k), np.float64, place)
            ids = here.new("ids", (len(queries), k), np.int64, place)
            search.run(view, pair, (scores, ids), counts)
            if on_device:
                return scores.owner, ids.owner
            return here.memory.download(scores.owner, place), here.memory.download(ids.owner, place)

    def fixed_search(
        self,
        snapshot: Snapshot,
        masks: Sequence[BoolArray] | None,
        queries: tuple[int, int],
        k: int,
        *,
        euclidean: bool,
        cosine: bool,
        excluded: tuple[Int64Array, Int64Array] | None,
    ) -> FixedSearch:
        """A search for `queries` (number, columns) a call."""
        here = runtime()
        place = self._own_place(here)
        with self._segments(snapshot, masks, here, place) as segments:
            return FixedSearch(here, place, segments, queries, k, euclidean=euclidean, cosine=cosine, excluded=excluded)

    # -- writing ----------------------------------------------------------------------------------------------------------

    def to_host(self, name: str, array: Any, dtype: str) -> npt.NDArray[Any]:
        """A copy of a device array. Waits for the device."""
        here = runtime()
        place = self._place_of(here, name, array)
        view = here.on_device(name, array, place)
        copy: npt.NDArray[Any] = np.empty(view.shape, dtype)
        here.read(view.expect([dtype], view.shape).pointer, copy, place)
        return copy

    def encoder(self, new: DeviceMatrix | None, base: int) -> EncodeRest:
        """Encodes rows on the device and brings the codes to the host.

        new : the rows of the positions from `base` on, where they are on the device already; others are copied from the host.
        """
        source = None if new is None else DeviceRows(new.view, base)

        def encode_rest(segment: Segment, codes: Codes) -> Codes:
            here = runtime()
            place = self._own_place(here)
            with self._lock:
                copy = self._copy_of(replace(segment, count=codes.rows, codes=codes), here, place)
            return copy.encode(segment, codes, source, here, place)

        return encode_rest

    def update(self, snapshot: Snapshot, before: Snapshot) -> None:
        """Copy what a new snapshot holds that is not there yet; if that fails, all is as `before`."""
        here = runtime()
        try:
            with self._segments(snapshot, None, here, self._own_place(here)):
                pass
        except BaseException:
            self.keep(before)
            raise

    def keep(self, snapshot: Snapshot) -> None:
        """Give back what only other snapshots need, when every search that may still read it has ended."""
        with self._lock:
            kept = [(copy, segment) for copy in self._held for segment in snapshot.segments if copy.is_of(segment)]
            own = [copy for copy, _ in kept]
            dropped: list[object] = [copy for copy in self._held if copy not in own]
            dropped += [bits for copy, segment in kept for bits in copy.keep(segment)]
            self._held = own
            if dropped:
                earlier = set(self._launching)  # these may give the device more to read
                self._ended.wait_for(lambda: not earlier & self._launching)
                runtime().extension.synchronize_device(self.device)

    # ---------------------------------------------------------------------------------------------------------------------

    def _own_place(self, here: Runtime) -> Place:
        """The caller's stream, or the default one if the caller works on another device."""
        current = here.memory.current_place()
        return current if current.device == self.device else Place(self.device, 0)

    def _place_of(self, here: Runtime, name: str, array: Any) -> Place:
        place, _ = here.find_place({name: array})
        if place.device != self.device:
            raise InvalidInput(f"{name} must be on device {self.device}, like the index; got device {place.device}")
        return place

    @contextmanager
    def _segments(
        self, snapshot: Snapshot, masks: Sequence[BoolArray] | None, here: Runtime, place: Place
    ) -> Iterator[list[DeviceSegment]]:
        """The segments on the device; launch what reads them inside."""
        token = object()
        with self._lock:
            segments = [self._copy_of(own, here, place).shown(own, here, place) for own in snapshot.segments]
            self._launching.add(token)
        try:
            if masks is not None:
                segments = [
                    replace(segment, allowed=here.on_device("allowed", own.searchable(mask).allowed, place))
                    for segment, own, mask in zip(segments, snapshot.segments, masks, strict=True)
                ]
            yield segments
        finally:
            with self._lock:
                self._launching.discard(token)
                self._ended.notify_all()

    def _copy_of(self, segment: Segment, here: Runtime, place: Place) -> SegmentCopy:
        copy = next((copy for copy in self._held if copy.is_of(segment)), None)
        if copy is None:
            copy = SegmentCopy(segment, here, place)
            self._held.append(copy)
        return copy
