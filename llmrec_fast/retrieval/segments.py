"""What an index holds: immutable snapshots of segments of rows, and the steps from one snapshot to the next.

A segment owns arrays with room for more rows than a snapshot shows. Rows are appended behind those that any snapshot
has seen, and deletion copies a bit a row, so a reader's snapshot never changes and readers need no lock. Only one
writer at a time may call these functions. Segments double in size, so there are few of them however rows arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import BoolArray, Float32Array, Int64Array
from llmrec_fast.kernels.codes import Codes, ScanPlan, ScanSegment, aligned_zeros, allowed_bits, empty_codes, panels_of
from llmrec_fast.kernels.cpu.positions import take_ids
from llmrec_fast.retrieval.ids import IdMap

StoreRows: TypeAlias = Callable[[Float32Array, Float32Array], None]
# (segment, codes of its first rows) -> the codes of all its rows, the others' written behind those
EncodeRest: TypeAlias = "Callable[[Segment, Codes], Codes]"

_LEAST_CAPACITY = 1024


@dataclass(frozen=True)
class Segment:
    """Rows base .. base + count of the index, in arrays that may have room for more.

    Attributes
    ----------
    rows, bias, ids : (capacity, d) float32, (capacity,) float32 and int64; the first `count` are filled.
    live : a bit a row (see `allowed_bits`) that is cleared when the row is removed.
    live_count : number of set bits.
    codes : of the first `count` rows, or None before the index has been fitted.
    """

    base: int
    count: int
    rows: Float32Array
    bias: Float32Array
    ids: Int64Array
    live: npt.NDArray[np.uint8]
    live_count: int
    codes: Codes | None

    def live_mask(self) -> BoolArray:
        """Which rows are live, one bool a row."""
        return np.unpackbits(self.live, count=self.count, bitorder="little").view(np.bool_)

    def has_room(self, rows: int) -> bool:
        """Whether `rows` more fit into every array."""
        room = len(self.rows) if self.codes is None else min(len(self.rows), self.codes.capacity)
        return self.count + rows <= room

    def searchable(self, allowed: BoolArray | None) -> ScanSegment:
        """The segment as a kernel takes it; `allowed` restricts its live rows."""
        bits = self.live
        if allowed is not None:
            bits = bits & allowed_bits(self.count, panels_of(self.count), allowed)
        # as a plain array: Numba takes long to look at a subclass such as memmap
        rows = np.asarray(self.rows[: self.count])
        return ScanSegment(self.base, rows, self.bias[: self.count], bits, self.codes)


@dataclass(frozen=True)
class Fit:
    """The plan in use and what it was like when it was fresh, to tell when it no longer fits.

    rows : number of rows it was fitted to; loss : mean norm that the first stage did not represent.
    """

    plan: ScanPlan
    rows: int
    loss: float

    @classmethod
    def of(cls, plan: ScanPlan, segments: tuple[Segment, ...]) -> Fit:
        """A fit that is fresh for these segments."""
        return cls(plan, sum(segment.count for segment in segments), mean_loss(segments))


@dataclass(frozen=True)
class Snapshot:
    """All that a search needs, unchanging."""

    segments: tuple[Segment, ...]
    id_map: IdMap
    fit: Fit | None

    @property
    def plan(self) -> ScanPlan | None:
        """How the codes were made; None while rows are too few to encode."""
        return None if self.fit is None else self.fit.plan

    @property
    def code_bytes(self) -> int:
        """Bytes of codes and norms of the rows held, removed ones included."""
        return 0 if self.fit is None else self.fit.plan.bytes_a_row * self.rows

    @property
    def advice(self) -> str | None:
        """Why fitting anew would make searches faster, or None."""
        if self.rows and self.live_count < 0.75 * self.rows:
            return f"{self.rows - self.live_count} of {self.rows} rows are removed but still scanned"
        if self.fit is None:
            return None
        wild = sum(segment.codes.wild for segment in self.segments if segment.codes is not None)
        if wild > 0.01 * self.rows:
            return f"{wild} of {self.rows} rows lie so far from those that the index was fitted to that no stage can skip them"
        if self.rows > 8 * self.fit.rows:
            return f"the index was fitted to {self.fit.rows} rows and now holds {self.rows}"
        loss = mean_loss(self.segments)
        if loss > 1.2 * self.fit.loss:
            return f"the first stage leaves {loss / self.fit.loss:.2f} times as much of a row unexplained as when it was fitted"
        return None

    @cached_property
    def live_count(self) -> int:
        """Number of live rows."""
        return sum(segment.live_count for segment in self.segments)

    @cached_property
    def rows(self) -> int:
        """Number of positions, those of removed rows included."""
        return self.segments[-1].base + self.segments[-1].count if self.segments else 0

    def ids(self) -> Int64Array:
        """Ids of the live rows, in position order."""
        parts = [segment.ids[: segment.count][segment.live_mask()] for segment in self.segments]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def ids_at(self, positions: Int64Array) -> Int64Array:
        """Ids at `positions`, (q, k) and C-contiguous; -1 stays -1."""
        result = np.full(positions.shape, -1, np.int64)
        for segment in self.segments:
            take_ids(positions, segment.base, segment.ids[: segment.count], result)
        return result

    def find(self, ids: Int64Array) -> Int64Array:
        """Positions of ids; -1 where an id is unknown or removed."""
        positions = self.id_map.find(ids)
        for segment in self.segments:
            inside = np.flatnonzero((positions >= segment.base) & (positions < segment.base + segment.count))
            local = positions[inside] - segment.base
            dead = (segment.live[local >> 3] >> (local & 7).astype(np.uint8)) & 1 == 0
            positions[inside[dead]] = -1
        return positions

    def gather(self, positions: Int64Array) -> Float32Array:
        """The stored rows at valid positions."""
        dim = self.segments[0].rows.shape[1] if self.segments else 0
        result = np.empty((len(positions), dim), np.float32)
        for segment in self.segments:
            inside = (positions >= segment.base) & (positions < segment.base + segment.count)
            result[inside] = segment.rows[positions[inside] - segment.base]
        return result

    def removed(self, positions: Int64Array) -> Snapshot:
        """This snapshot without the live rows at `positions`, which are distinct."""
        segments = []
        for segment in self.segments:
            local = positions[(positions >= segment.base) & (positions < segment.base + segment.count)] - segment.base
            if len(local):
                live = segment.live.copy()
                np.bitwise_and.at(live, local >> 3, ~(np.uint8(1) << (local & 7).astype(np.uint8)))
                segment = replace(segment, live=live, live_count=segment.live_count - len(local))  # noqa: PLW2901
            segments.append(segment)
        return Snapshot(tuple(segments), self.id_map, self.fit)

    def appended(
        self, rows: Float32Array, bias: Float32Array, ids: Int64Array, store_rows: StoreRows, encode_rest: EncodeRest
    ) -> Snapshot:
        """This snapshot with more rows, which `store_rows(rows, out)` writes, and their codes if the index has been fitted."""
        count = len(rows)
        if count == 0:
            return self
        segments = list(self.segments)
        if segments and segments[-1].has_room(count):
            last = segments.pop()
        else:
            capacity = max(count, self.rows, _LEAST_CAPACITY) if self.segments else count
            last = empty_segment(self.rows, capacity, rows.shape[1], self.plan)
        start, stop = last.count, last.count + count
        store_rows(rows, last.rows[start:stop])
        last.bias[start:stop], last.ids[start:stop] = bias, ids
        live = allowed_bits(stop, panels_of(stop))
        live[: len(last.live)] = last.live
        live |= allowed_bits(stop, panels_of(stop), np.arange(stop) >= start)
        grown = replace(last, count=stop, live=live, live_count=last.live_count + count)
        if last.codes is not None:
            grown = replace(grown, codes=encode_rest(grown, last.codes))
        return Snapshot((*segments, grown), self.id_map.added(ids, self.rows), self.fit)


def mean_loss(segments: tuple[Segment, ...]) -> float:
    """Mean over rows of the norms that the first stage leaves: of the rounding and of the columns after it."""
    coded = [segment.codes for segment in segments if segment.codes is not None]
    rows = sum(codes.rows for codes in coded)
    return sum((codes.mean_rounding + codes.mean_tail) * codes.rows for codes in coded) / max(rows, 1)


def empty_segment(base: int, capacity: int, dim: int, plan: ScanPlan | None) -> Segment:
    """A segment without rows."""
    return Segment(
        base=base,
        count=0,
        rows=aligned_zeros(capacity * dim, np.float32).reshape(capacity, dim),
        bias=np.zeros(capacity, np.float32),
        ids=np.zeros(capacity, np.int64),
        live=np.zeros(0, np.uint8),
        live_count=0,
        codes=None if plan is None else empty_codes(plan, capacity),
    )
