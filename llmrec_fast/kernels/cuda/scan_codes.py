"""Codes and segments on a device: their layout there, and lossless ways between it and the host's.

The first stage lies in tiles of 32 rows instead of blocks of 8, so that a warp reads 16 bytes a lane and 512 bytes in a row:
for every 32 columns, 16 bytes of each of the 32 rows; then step, rounding norm, tail norm and bias (bfloat16) of each row. Both
layouts hold the same 4-byte words, so converting is a permutation. The other stages are the same on every device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.codes import (
    BLOCK_ROWS,
    PANEL_ROWS,
    Codes,
    ScanPlan,
    ScanSegment,
    aligned_zeros,
    empty_codes,
    panels_of,
)
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import Runtime
from llmrec_fast.kernels.cuda.views import DeviceView

TILE_ROWS = 32
_BLOCKS = TILE_ROWS // BLOCK_ROWS
_WORDS = 4  # of a row in 32 columns


@dataclass(frozen=True)
class DevicePlan:
    """A plan with its mean and rotation on a device."""

    plan: ScanPlan
    mean: DeviceView
    rotation: DeviceView | None


@dataclass(frozen=True)
class DeviceCodes:
    """`Codes` on a device, the first stage in tiles.

    Attributes
    ----------
    described : rows and summary of the codes; its arrays are empty.
    capacity : rows that the arrays have room for.
    """

    described: Codes
    capacity: int
    plan: DevicePlan
    first: DeviceView
    second: DeviceView
    third: DeviceView
    third_terms: DeviceView

    @property
    def rows(self) -> int:
        """Rows that are encoded."""
        return self.described.rows


@dataclass(frozen=True)
class DeviceSegment:
    """A `ScanSegment` on a device; with `ids`, (n,) int64, a search returns these instead of positions."""

    device: int
    base: int
    count: int
    rows: DeviceView
    bias: DeviceView
    allowed: DeviceView
    codes: DeviceCodes | None
    ids: DeviceView | None = None


def tiles_of_blocks(first: npt.NDArray[np.uint8], plan: ScanPlan) -> npt.NDArray[np.uint8]:
    """The first stage of whole tiles, from the host's layout to the device's."""
    words = first.view(np.uint32).reshape(-1, _BLOCKS, plan.first_stride // 4)
    tiles = aligned_zeros(len(first), np.uint8)
    target = tiles.view(np.uint32).reshape(len(words), plan.first_stride)
    codes = words[:, :, : plan.first].reshape(len(words), _BLOCKS, -1, _WORDS, BLOCK_ROWS)
    target[:, : plan.first * 4] = codes.transpose(0, 2, 1, 4, 3).reshape(len(words), -1)
    terms = np.ascontiguousarray(words[:, :, plan.first :]).view(np.uint16).reshape(len(words), _BLOCKS, 4, BLOCK_ROWS)
    by_row = np.ascontiguousarray(terms.transpose(0, 1, 3, 2)).reshape(len(words), -1)
    target[:, plan.first * 4 :] = by_row.view(np.uint32)
    return tiles


def blocks_of_tiles(tiles: npt.NDArray[np.uint8], plan: ScanPlan) -> npt.NDArray[np.uint8]:
    """The inverse of `tiles_of_blocks`."""
    words = tiles.view(np.uint32).reshape(-1, plan.first_stride)
    first = aligned_zeros(len(tiles), np.uint8)
    target = first.view(np.uint32).reshape(len(words), _BLOCKS, plan.first_stride // 4)
    codes = words[:, : plan.first * 4].reshape(len(words), -1, _BLOCKS, BLOCK_ROWS, _WORDS)
    target[:, :, : plan.first] = codes.transpose(0, 2, 1, 4, 3).reshape(len(words), _BLOCKS, -1)
    terms = np.ascontiguousarray(words[:, plan.first * 4 :]).view(np.uint16).reshape(len(words), _BLOCKS, BLOCK_ROWS, 4)
    by_term = np.ascontiguousarray(terms.transpose(0, 1, 3, 2)).reshape(len(words), _BLOCKS, -1)
    target[:, :, plan.first :] = by_term.view(np.uint32)
    return first


def plan_to_device(plan: ScanPlan, here: Runtime, place: Place) -> DevicePlan:
    """`plan` with copies of its arrays on the device."""
    rotation = None if plan.rotation is None else here.on_device("rotation", plan.rotation, place)
    return DevicePlan(plan, here.on_device("mean", plan.mean, place), rotation)


def codes_to_device(codes: Codes | DeviceCodes, here: Runtime, place: Place) -> DeviceCodes:
    """A copy of `codes` on the device; as they are if they are there."""
    if isinstance(codes, DeviceCodes):
        return codes
    return DeviceCodes(
        described=described(codes),
        capacity=codes.capacity,
        plan=plan_to_device(codes.plan, here, place),
        first=here.on_device("codes.first", tiles_of_blocks(codes.first, codes.plan), place),
        second=here.on_device("codes.second", codes.second, place),
        third=here.on_device("codes.third", codes.third, place),
        third_terms=here.on_device("codes.third_terms", codes.third_terms, place),
    )


def codes_to_host(codes: DeviceCodes, here: Runtime, place: Place) -> Codes:
    """A copy of `codes` on the host. Waits for the stream."""
    return replace(
        codes.described,
        first=blocks_of_tiles(_download(codes.first, here, place), codes.plan.plan),
        second=_download(codes.second, here, place),
        third=_download(codes.third, here, place),
        third_terms=_download(codes.third_terms, here, place),
    )


def empty_device_codes(plan: ScanPlan, capacity: int, here: Runtime, place: Place) -> DeviceCodes:
    """Codes on the device with room for at least `capacity` rows, zero where nothing has been written."""
    rows = max(1, panels_of(capacity)) * PANEL_ROWS

    def zeros(name: str, size: int, dtype: npt.DTypeLike) -> DeviceView:
        array = here.new(name, (size,), dtype, place)
        size_in_bytes = size * np.dtype(dtype).itemsize
        here.extension.clear(device=place.device, stream=place.stream, memory=array.pointer, bytes=size_in_bytes)
        return array

    return DeviceCodes(
        described=described(empty_codes(plan, 0)),
        capacity=rows,
        plan=plan_to_device(plan, here, place),
        first=zeros("codes.first", rows // BLOCK_ROWS * plan.first_stride, np.uint8),
        second=zeros("codes.second", rows * plan.second_stride, np.uint8),
        third=zeros("codes.third", rows * plan.third, np.int8),
        third_terms=zeros("codes.third_terms", rows * 4, np.float32),
    )


def segment_to_device(segment: ScanSegment | DeviceSegment, here: Runtime, place: Place) -> DeviceSegment:
    """A copy of a segment's rows and codes on the device; as it is if it is there. `InvalidInput` if it is on another."""
    if isinstance(segment, DeviceSegment):
        if segment.device != place.device:
            raise InvalidInput(f"a segment is on device {segment.device}, the call runs on device {place.device}")
        return segment
    return DeviceSegment(
        device=place.device,
        base=segment.base,
        count=len(segment.rows),
        rows=here.on_device("rows", segment.rows, place),
        bias=here.on_device("bias", segment.bias, place),
        allowed=here.on_device("allowed", segment.allowed, place),
        codes=None if segment.codes is None else codes_to_device(segment.codes, here, place),
    )


def described(codes: Codes) -> Codes:
    """`codes` with empty arrays: their plan, rows and summary."""
    empty = np.zeros(0, np.uint8)
    return replace(codes, first=empty, second=empty, third=empty.view(np.int8), third_terms=np.zeros(0, np.float32))


def _download(view: DeviceView, here: Runtime, place: Place) -> npt.NDArray[Any]:
    array = here.memory.download(view.owner, place)
    copy = aligned_zeros(array.size, array.dtype)
    copy[:] = array
    return copy
