"""How an engine takes a batch: padded to one length, or packed end to end; and which engines may be packed.

A packed batch has no padding to compute, and its attention is one fused kernel without a matrix of scores in memory. Its
texts and tokens are both free, so a shape is (texts, tokens).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from llmrec_fast.arrays import Int64Array
from llmrec_fast.encoding.batching import pad_to_shape
from llmrec_fast.encoding.engine_profiles import (
    FEW_TEXTS,
    TIME_STEP,
    Profile,
    Shape,
    plan_packed_profiles,
    plan_profiles,
    round_up,
)
from llmrec_fast.encoding.graph_builder import IDS, LENGTHS
from llmrec_fast.encoding.plain_attention import OFFSETS, PLACES, LayoutName
from llmrec_fast.encoding.plain_builder import Precision
from llmrec_fast.encoding.plain_families import AnyArchitecture, has_masks, heads_of
from llmrec_fast.encoding.tokens import Int32Array

PACKED_SINCE = (11, 1)  # of TensorRT
_WIDTHS = range(16, 257, 8)  # columns of a head that its fused kernels take in float16


@dataclass(frozen=True)
class Arranged:
    """A batch for an engine.

    Attributes
    ----------
    shape : of the engine.
    inputs : by name.
    starts : (texts,) the row of the output that each text begins at.
    few : whether so few texts spend more time on launches than on the device; their shapes come from a grid.
    """

    shape: Shape
    inputs: dict[str, Int32Array]
    starts: Int64Array
    few: bool


class Layout(Protocol):
    """One of the two."""

    name: LayoutName

    def plan(self, longest: int, tokens_per_batch: int) -> tuple[Profile, ...]:
        """The profiles of an engine for texts of up to `longest` tokens."""

    def dimensions(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """Of each input."""

    def rows(self, shape: Shape) -> int:
        """Of the output."""

    def arrange(self, ids: Int32Array, lengths: Int32Array, longest: int, padding_id: int | None) -> Arranged:
        """A batch of right-padded `ids` (batch, time) of a model whose texts have up to `longest` tokens.

        `padding_id` : the token that positions are counted without, of a model that counts so (RoBERTa).
        """


class Padded:
    """Inputs (batch, time) and lengths (batch,); the shape is of the grid of `round_up`."""

    name: LayoutName = "padded"

    def plan(self, longest: int, tokens_per_batch: int) -> tuple[Profile, ...]:
        """As `plan_profiles`."""
        return plan_profiles(longest, tokens_per_batch)

    def dimensions(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """Ids and lengths."""
        return {IDS: shape, LENGTHS: shape[:1]}

    def rows(self, shape: Shape) -> int:
        """One a token and a place of padding."""
        return shape[0] * shape[1]

    def arrange(self, ids: Int32Array, lengths: Int32Array, longest: int, padding_id: int | None) -> Arranged:
        """Padding goes on; the graph counts positions."""
        shape = round_up(ids.shape[0], ids.shape[1], longest)
        padded, counts = pad_to_shape(ids, lengths, shape)
        starts = np.arange(len(ids), dtype=np.int64) * shape[1]
        return Arranged(shape, {IDS: padded, LENGTHS: counts}, starts, shape[0] <= FEW_TEXTS)


class Packed:
    """Ids and places (tokens,) and offsets (texts + 1,), the first 0 and the last the number of tokens.

    Few texts come with others of padding behind them, so that their shapes are few too and their CUDA graphs replayed; many
    have the shape they have.
    """

    name: LayoutName = "packed"

    def plan(self, longest: int, tokens_per_batch: int) -> tuple[Profile, ...]:
        """As `plan_packed_profiles`."""
        return plan_packed_profiles(longest, tokens_per_batch)

    def dimensions(self, shape: Shape) -> dict[str, tuple[int, ...]]:
        """Ids, places and offsets."""
        texts, tokens = shape
        return {IDS: (tokens,), PLACES: (tokens,), OFFSETS: (texts + 1,)}

    def rows(self, shape: Shape) -> int:
        """One a token."""
        return shape[1]

    def arrange(self, ids: Int32Array, lengths: Int32Array, longest: int, padding_id: int | None) -> Arranged:
        """The texts end to end."""
        real = np.arange(ids.shape[1]) < lengths[:, None]
        sizes = lengths.astype(np.int64)
        starts = np.cumsum(sizes) - sizes
        few = len(ids) <= FEW_TEXTS
        if few:
            sizes = np.concatenate([sizes, _filling(len(ids), int(sizes.sum()))])
        tokens = int(sizes.sum())
        packed, places = np.zeros(tokens, np.int32), np.zeros(tokens, np.int32)
        flat = ids[real]
        packed[: len(flat)] = flat
        places[: len(flat)] = _places(ids, padding_id)[real]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        return Arranged((len(sizes), tokens), {IDS: packed, PLACES: places, OFFSETS: offsets}, starts, few)


def _filling(texts: int, tokens: int) -> Int64Array:
    """Tokens of the texts of padding, one at least, that round a batch up: to one more than a power of two texts.

    Tokens are rounded up to a multiple of 16, and beyond 256 of an eighth of the power of two below.
    """
    more = (1 << (texts - 1).bit_length()) + 1 - texts
    step = max(TIME_STEP, 1 << max((tokens + more).bit_length() - 4, 0))
    total = -(-(tokens + more) // step) * step - tokens
    return np.full(more, total // more, np.int64) + (np.arange(more) < total % more)


def _places(ids: Int32Array, padding_id: int | None) -> Int32Array:
    """The row of the table of positions for each token: counted from 0, or as `Architecture.padding_id` says."""
    if padding_id is None:
        return np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    counted = (ids != padding_id).astype(np.int32)
    return np.asarray(np.cumsum(counted, axis=1, dtype=np.int32) * counted + np.int32(padding_id), np.int32)


def allowed_layouts(
    architecture: AnyArchitecture, precision: Precision, longest: int, tensorrt: str
) -> Sequence[Layout]:
    """The layouts that an engine of a version of TensorRT may have, the best one first.

    Packed attention takes no masks (onnx-tensorrt, docs/TRT_custom_ops.md), and its fused kernels take float16 and heads of 16
    to 256 columns, a multiple of 8 (NVIDIA: TensorRT, "Fused Attention"); the ONNX parser knows it since 11.1.
    """
    version = tuple(int(part) for part in tensorrt.split(".")[:2])
    packed = (
        version >= PACKED_SINCE
        and precision != "float32"
        and heads_of(architecture).width in _WIDTHS
        and not has_masks(architecture, longest)
    )
    return (Packed(), Padded()) if packed else (Padded(),)
