"""How fast each kernel can be at best on known GPUs: bytes and operations a row against the data sheets. Predictions only.

A kernel that moves `bytes` and executes `operations` on one unit takes at least the longer of both times (Williams,
Waterman and Patterson, "Roofline", CACM 2009). Nothing here is measured: launches, latency, imperfect occupancy and
survivors come on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Unit = Literal["float32", "float64", "DP4A", "IMMA"]


@dataclass(frozen=True)
class Device:
    """Peak rates by NVIDIA's data sheets: bytes/s, and operations/s (a multiply-add is two) without sparsity."""

    name: str
    bandwidth: float
    float32: float
    float64: float
    imma: float
    multiprocessors: int
    clock: float

    def rate(self, unit: Unit) -> float:
        # DP4A: the data sheets do not give it; assumed to have the rate of 32-bit integers, 64 a clock and multiprocessor
        dp4a = self.multiprocessors * self.clock * 64 * 8
        return {"float32": self.float32, "float64": self.float64, "DP4A": dp4a, "IMMA": self.imma}[unit]


DEVICES = (
    # float64 of T4 and A10: 1/32 and 1/64 of float32 (CUDA C++ Programming Guide, arithmetic instructions)
    Device("T4", 320e9, 8.1e12, 8.1e12 / 32, 130e12, 40, 1.59e9),
    Device("A10", 600e9, 31.2e12, 31.2e12 / 64, 250e12, 72, 1.695e9),
    Device("A100", 2039e9, 19.5e12, 9.7e12, 624e12, 108, 1.41e9),
    Device("H100", 3350e9, 67e12, 34e12, 1979e12, 132, 1.98e9),
    Device("H200", 4800e9, 67e12, 34e12, 1979e12, 132, 1.98e9),
)


@dataclass(frozen=True)
class Work:
    """What one kernel does with one row."""

    kernel: str
    case: str
    bytes: float
    operations: float
    unit: Unit

    def seconds(self, device: Device) -> float:
        return max(self.bytes / device.bandwidth, self.operations / device.rate(self.unit))

    def limit(self, device: Device) -> str:
        memory = self.bytes / device.bandwidth
        return "memory" if memory >= self.operations / device.rate(self.unit) else self.unit


def works(dimension: int = 384, first: int = 160, rows_a_segment: int = 64) -> list[Work]:
    """The kernels at the sizes of a sentence encoder: `first` is the width of stage 0 of the bounded scan."""
    result = []
    for name, size in (("float32", 4), ("float16", 2)):
        moved = dimension * (size + 4 / rows_a_segment)
        case = f"{name}, {dimension} columns, {rows_a_segment} rows a segment"
        result.append(Work("pool", case, moved, 2 * dimension, "float32"))
        # squares are summed in float64: one conversion and one multiply-add an element
        result.append(Work("fuse", f"{name}, {dimension} columns", dimension * (size + 4), 3 * dimension, "float64"))
    # a conversion, a multiply-add and a division (assumed to take 20 operations) an element, all in float64
    result.append(Work("unit_rows", f"{dimension} columns", dimension * 8, 23 * dimension, "float64"))
    # rows in, rotated rows out and in again, codes out: rotation takes 2 d^2
    result.append(Work("encode_rows", f"{dimension} columns", dimension * (4 + 8 + 1.5), 2 * dimension**2, "float32"))
    for queries in (1, 8, 64, 1024):
        unit, group = ("DP4A", 8) if queries <= 8 else ("IMMA", 64)
        # codes and two half-precision terms a row and group of queries, one bit of the allow bitmap
        moved = (first / 2 + 8 + 1 / 8) * math.ceil(queries / group)
        case = f"{first} columns at 4 bits, Q={queries}"
        result.append(
            Work("bounded_search, stage 0", case, moved, 2 * first * queries, "DP4A" if unit == "DP4A" else "IMMA")
        )
    return result
