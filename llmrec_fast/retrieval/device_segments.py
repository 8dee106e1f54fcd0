"""One segment of an index on a GPU: its rows, ids and codes, in room of the same size as on the host. No searching here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.kernels.codes import Codes
from llmrec_fast.kernels.cuda.encode_rows import encode_views
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime
from llmrec_fast.kernels.cuda.scan_codes import (
    TILE_ROWS,
    DeviceCodes,
    DeviceSegment,
    blocks_of_tiles,
    described,
    empty_device_codes,
    tiles_of_blocks,
)
from llmrec_fast.kernels.cuda.views import DeviceView
from llmrec_fast.retrieval.segments import Segment


@dataclass(frozen=True)
class DeviceRows:
    """New rows (n, d) that are on the device: what is written for the positions base .. base + n of an index."""

    view: DeviceView
    base: int


class SegmentCopy:
    """One segment's arrays on the device, with the room that they have on the host."""

    def __init__(self, segment: Segment, here: Runtime, place: Place) -> None:
        self._device, self._source, self._codes_source = place.device, segment.rows, segment.codes
        self._count = 0
        capacity, dim = segment.rows.shape
        self._rows = here.new("rows", (capacity, dim), np.float32, place)
        self._bias = here.new("bias", (capacity,), np.float32, place)
        self._ids = here.new("ids", (capacity,), np.int64, place)
        codes = segment.codes
        self._codes = None if codes is None else empty_device_codes(codes.plan, codes.capacity, here, place)
        self._live: list[tuple[npt.NDArray[np.uint8], DeviceView]] = []
        self._extend(segment, here, place)

    def is_of(self, segment: Segment) -> bool:
        """Whether this is a copy of the segment, or of an earlier or later state of it."""
        mine, its = self._codes_source, segment.codes
        same_codes = mine is its if mine is None or its is None else mine.first is its.first
        return self._source is segment.rows and same_codes

    def shown(self, segment: Segment, here: Runtime, place: Place) -> DeviceSegment:
        """The segment on the device; copies what is not there yet."""
        if segment.count > self._count:
            self._extend(segment, here, place)
        live = next((view for source, view in self._live if source is segment.live), None)
        if live is None:
            live = here.on_device("allowed", segment.live, place)
            self._live.append((segment.live, live))
            here.extension.synchronize(place.device, place.stream)  # other threads may read on other streams
        codes = self._codes
        if codes is not None and segment.codes is not None:
            codes = _describing(codes, segment.codes)
        return DeviceSegment(
            self._device, segment.base, segment.count, self._rows, self._bias, live, codes, ids=self._ids
        )

    def keep(self, segment: Segment) -> list[DeviceView]:
        """Forget rows, and bits of live rows, that are not the segment's; returns the memory that this leaves unused."""
        self._count = min(self._count, segment.count)
        dropped = [view for source, view in self._live if source is not segment.live]
        self._live = [(source, view) for source, view in self._live if source is segment.live]
        return dropped

    def encode(self, segment: Segment, codes: Codes, source: DeviceRows | None, here: Runtime, place: Place) -> Codes:
        """The segment's codes, to be written where `codes` has room for them, on both sides."""
        if self._codes is None:
            raise RuntimeError("a copy without codes cannot be encoded")
        start, stop = codes.rows, segment.count
        self._count = min(self._count, start)  # what a write left behind that failed is written anew
        self._write_rows(segment, start, stop, source, here, place)
        made = encode_views(
            here, place, _part(self._rows, start, stop), _part(self._bias, start, stop), _describing(self._codes, codes)
        )
        for own, array, width in _row_wise(self._codes, codes):
            here.read(own.pointer + start * width * array.itemsize, array[start * width : stop * width], place)
        first, last = _tiles(start, stop, codes)
        tiles = np.empty(last - first, np.uint8)
        here.read(self._codes.first.pointer + first, tiles, place)
        codes.first[first:last] = blocks_of_tiles(tiles, codes.plan)
        self._count = stop
        return replace(
            made.described,
            first=codes.first,
            second=codes.second,
            third=codes.third,
            third_terms=codes.third_terms,
        )

    def _extend(self, segment: Segment, here: Runtime, place: Place) -> None:
        start, stop = self._count, segment.count
        if start == stop:
            return
        self._write_rows(segment, start, stop, None, here, place)
        codes = segment.codes
        if self._codes is not None and codes is not None:
            first, last = _tiles(start, stop, codes)
            write = here.memory.write
            write(self._codes.first.owner, first, tiles_of_blocks(codes.first[first:last], codes.plan), place)
            for own, array, width in _row_wise(self._codes, codes):
                write(own.owner, start * width, array[start * width : stop * width], place)
        self._count = stop
        here.extension.synchronize(place.device, place.stream)  # other threads may read on other streams

    def _write_rows(
        self, segment: Segment, start: int, stop: int, source: DeviceRows | None, here: Runtime, place: Place
    ) -> None:
        write = here.memory.write
        if source is not None and (source.base, source.view.shape[0]) == (segment.base + start, stop - start):
            part = _part(self._rows, start, stop)
            here.copy(part.pointer, source.view.pointer, (stop - start) * part.shape[1] * 4, place)
        else:
            write(self._rows.owner, start, np.asarray(segment.rows[start:stop]), place)
        write(self._bias.owner, start, segment.bias[start:stop], place)
        write(self._ids.owner, start, segment.ids[start:stop], place)


def _describing(codes: DeviceCodes, host: Codes) -> DeviceCodes:
    return replace(codes, described=described(host))


def _row_wise(device: DeviceCodes, host: Codes) -> list[tuple[DeviceView, npt.NDArray[Any], int]]:
    """The stages that are stored row by row, here and there, with the number of values a row."""
    plan = host.plan
    stages = (
        (device.second, host.second, plan.second_stride),
        (device.third, host.third, plan.third),
        (device.third_terms, host.third_terms, 4),
    )
    return [stage for stage in stages if stage[2]]


def _tiles(start: int, stop: int, codes: Codes) -> tuple[int, int]:
    """Bytes of the first stage that hold these rows: whole tiles."""
    size = codes.plan.first_stride * TILE_ROWS // 8
    return start // TILE_ROWS * size, -(-stop // TILE_ROWS) * size


def _part(view: DeviceView, start: int, stop: int) -> DeviceView:
    """Rows start .. stop of a view of float32."""
    width = 4 * int(np.prod(view.shape[1:], dtype=np.int64))
    return replace(view, pointer=view.pointer + start * width, shape=(stop - start, *view.shape[1:]))
