"""What `encode_rows` makes and `bounded_search` reads: the plan of an encoding and the codes of a segment of rows.

Plain arrays and numbers, shared by every device; BOUNDS.md beside this file derives what each of them must satisfy.

Layout of a segment (rows are padded to panels of 512, so that no kernel needs a remainder loop):

- `first`: blocks of 8 rows. A block holds, for every 8 columns, 32 bytes: 4 bytes a row, the low nibbles for columns 0..3, the
  high nibbles for columns 4..7; then four lines of 8 bfloat16: step, rounding norm, tail norm, bias.
- `second`: a record a row: for every 64 columns 32 bytes (low nibbles columns 0..31, high nibbles 32..63), then float32
  step, rounding norm, norm of the columns after the second stage, tail norm of the first stage.
- `third`: int8 codes of all columns, row by row; `third_terms`: float32 step, rounding norm, bias, 0 a row.

A 4-bit code c stands for (c - 7.5) * step, an int8 code c for c * step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array

BLOCK_ROWS = 8
PANEL_ROWS = 512
# A row further than this many radii from the mean (or with such a bias) is "wild": every stage lets it pass. In the first stage
# this norm saturates the bound, whatever the query; in the int8 stage, whose bounds do not saturate, it is infinite.
WILD_RADII = 4.0
WILD_NORM = 1e30
# Unit roundoff of float32.
ROUNDOFF = 2.0**-24
# The rotation sums this many products in float32 before it adds them to the result: it keeps the error bound small.
ROTATION_DEPTH = 128
# Norms never go below this, so that products with weights stay normal float32 numbers even where denormals are flushed.
LEAST_NORM = 1e-34


@dataclass(frozen=True)
class ScanPlan:
    """How rows are centred, scaled, rotated and cut in stages. None of it affects what a search returns, only its speed.

    Attributes
    ----------
    dim : columns of a row.
    euclidean : whether scores are minus distances; else inner products plus a bias.
    first, second : columns of the two 4-bit stages, multiples of 32 and 64; second may be 0.
    mean : (dim,) subtracted from every row.
    rotation : (dim, dim) orthogonal but for float32 rounding, or None for the identity.
    departure : an upper bound of the spectral norm of rotation @ rotation.T - 1.
    scale : a power of two that brings the norms of centred rows near 1.
    bias_centre, bias_radius : subtracted from every bias; the largest usual distance from it. For Euclidean distance
    the bias of a
        row is -|y|^2 / 2 of its centred and scaled vector y, in that unit.
    """

    dim: int
    euclidean: bool
    first: int
    second: int
    mean: Float32Array
    rotation: Float32Array | None
    departure: float
    scale: float
    bias_centre: float
    bias_radius: float

    @property
    def third(self) -> int:
        """Bytes of a row's int8 codes: the columns, padded to a multiple of 32."""
        return -(-self.dim // 32) * 32

    @property
    def first_stride(self) -> int:
        """Bytes of a block of 8 rows in the first stage."""
        return self.first * 4 + 64

    @property
    def second_stride(self) -> int:
        """Bytes of a row in the second stage; 0 without one."""
        return self.second // 2 + 16 if self.second else 0

    @property
    def bytes_a_row(self) -> int:
        """Bytes of codes and norms of a row, all stages."""
        return self.first_stride // BLOCK_ROWS + self.second_stride + self.third + 16

    @property
    def row_slack(self) -> float:
        """Float32 error of a bound, relative to the norm of the centred row: see BOUNDS.md, "The slack"."""
        if self.rotation is None:
            rotating = 2 * ROUNDOFF
        else:
            pieces = -(-self.dim // ROTATION_DEPTH)
            rotating = (min(self.dim, ROTATION_DEPTH) + pieces + 3) * ROUNDOFF * self.dim**0.5
        return 1.02 * (rotating + 2 * self.departure + 32 * ROUNDOFF)


@dataclass(frozen=True)
class Codes:
    """The codes of rows 0 .. rows of one segment, in arrays that may hold more.

    `largest_*` bound the norms of the decoded rows that are not wild, stage by stage; `mean_rounding` and `mean_tail`
    are averages of the
    first stage's norms, which only guide guesses and advice; `wild` counts rows that every stage lets pass.
    """

    plan: ScanPlan
    rows: int
    first: npt.NDArray[np.uint8]
    second: npt.NDArray[np.uint8]
    third: npt.NDArray[np.int8]
    third_terms: Float32Array
    largest_first: float = 0.0
    largest_second: float = 0.0
    largest_third: float = 0.0
    mean_rounding: float = 0.0
    mean_tail: float = 0.0
    wild: int = 0

    @property
    def capacity(self) -> int:
        """Rows that the arrays have room for."""
        return len(self.third) // self.plan.third

    def grown(self, rows: int, summary: Float64Array) -> Codes:
        """These codes with `rows` more rows whose `summary` (see `SUMMARY`) an encoder has measured."""
        total = self.rows + rows
        old, new = self.rows / max(total, 1), 1 / max(total, 1)
        return replace(
            self,
            rows=total,
            largest_first=max(self.largest_first, float(summary[0])),
            largest_second=max(self.largest_second, float(summary[1])),
            largest_third=max(self.largest_third, float(summary[2])),
            mean_rounding=self.mean_rounding * old + float(summary[3]) * new,
            mean_tail=self.mean_tail * old + float(summary[4]) * new,
            wild=self.wild + int(summary[5]),
        )


@dataclass(frozen=True)
class ScanSegment:
    """Consecutive rows of an index, as a search sees them: nothing in here changes while a search holds it.

    Attributes
    ----------
    base : position of the first row in the index.
    rows : (n, d) float32, in memory or mapped from disk.
    bias : (n,) float32.
    allowed : a bit a row, see `allowed_bits`; what is not set is never returned and never raises a threshold.
    codes : of these rows; None for rows that are always scored exactly.
    """

    base: int
    rows: Float32Array
    bias: Float32Array
    allowed: npt.NDArray[np.uint8]
    codes: Codes | None


@dataclass
class ScanCounts:
    """What a search did, summed over queries: rows left after each step, and the bytes that the steps touched, by shape."""

    scanned: int = 0
    after_first: int = 0
    after_second: int = 0
    after_third: int = 0
    reranked: int = 0
    bytes_read: int = 0


# What an encoder measures over the rows it encodes: three maxima of decoded norms, two sums of norms, a count of wild rows.
SUMMARY = 6


def panels_of(rows: int) -> int:
    """Number of panels of 512 rows that hold `rows` rows."""
    return -(-rows // PANEL_ROWS)


def empty_codes(plan: ScanPlan, capacity: int) -> Codes:
    """Codes with room for at least `capacity` rows. Memory is zeroed lazily by the system, so unused room costs none."""
    rows = max(1, panels_of(capacity)) * PANEL_ROWS
    return Codes(
        plan=plan,
        rows=0,
        first=aligned_zeros(rows // BLOCK_ROWS * plan.first_stride, np.uint8),
        second=aligned_zeros(rows * plan.second_stride, np.uint8),
        third=aligned_zeros(rows * plan.third, np.int8),
        third_terms=aligned_zeros(rows * 4, np.float32),
    )


def aligned_zeros(size: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A zeroed vector that starts at a cache line (64 bytes)."""
    dtype = np.dtype(dtype)
    buffer = np.zeros(size * dtype.itemsize + 64, np.uint8)
    offset = -buffer.ctypes.data % 64
    return buffer[offset : offset + size * dtype.itemsize].view(dtype)


def allowed_bits(rows: int, panels: int, allowed: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.uint8]:
    """A bit a row (bit r % 8 of byte r // 8), set where a row may be returned; 64 bytes a panel, zero past the last row."""
    bits = np.zeros(panels * PANEL_ROWS // 8, np.uint8)
    flags = np.ones(rows, bool) if allowed is None else allowed
    packed = np.packbits(flags, bitorder="little")
    bits[: len(packed)] = packed
    return bits


def no_exclusions(queries: int) -> tuple[Int64Array, Int64Array]:
    """The CSR pair that excludes nothing."""
    return np.zeros(queries + 1, np.int64), np.zeros(0, np.int64)
