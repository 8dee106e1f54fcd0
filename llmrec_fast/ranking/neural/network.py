"""The network of a neural scorer as plain arrays, as an ONNX model, and taken apart into what each feature adds.

    z_i = clip((asinh(x_i / scale_i) - mean_i) / deviation_i, -8, 8)        f = output . relu(hidden z + bias) + offset

The inverse hyperbolic sine is linear near zero and logarithmic far from it, on both sides: counts and scores with long tails
come to one scale with cosines.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array
from llmrec_fast.errors import CorruptFile
from llmrec_fast.ranking.onnx_models import INPUT, constants, serialise

# standard deviations beyond which a feature says no more
_LARGEST = 8.0
# mean sizes of a feature where the sine turns from linear to logarithmic
_TURN = 1 / 3


@dataclass(frozen=True)
class Standardisation:
    """Moves features to a common scale; see the module.

    Attributes
    ----------
    scale, mean, factor : (f,) float32; `factor` is 1 / deviation, 0 for a feature that never varied but by rounding.
    """

    scale: Float32Array
    mean: Float32Array
    factor: Float32Array

    @classmethod
    def fit(cls, rows: Float32Array) -> Standardisation:
        """Learn from (n, f) training rows."""
        size = np.abs(rows).mean(axis=0, dtype=np.float64)
        # cosines and other scores are sums of terms of order 1: what is smaller than their rounding is nothing else
        there = size > np.finfo(np.float32).eps
        scale = np.where(there, size * _TURN, 1.0).astype(np.float32)
        squeezed = np.arcsinh(rows / scale)
        mean = squeezed.mean(axis=0, dtype=np.float64)
        deviation = squeezed.std(axis=0, dtype=np.float64)
        varies = there & (deviation > 1e-6 * (1 + np.abs(mean)))
        factor = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
        return cls(scale, mean.astype(np.float32), factor.astype(np.float32))

    def __call__(self, rows: Float32Array) -> Float32Array:
        """(n, f) float32."""
        moved: Float32Array = np.clip((np.arcsinh(rows / self.scale) - self.mean) * self.factor, -_LARGEST, _LARGEST)
        return moved


@dataclass(frozen=True)
class Network:
    """Standardised features, one hidden layer, one score.

    Attributes
    ----------
    scale, mean, factor : as in `Standardisation`.
    hidden, bias : (h, f) and (h,) float32.
    output, offset : (1, h) and (1,) float32.
    """

    scale: Float32Array
    mean: Float32Array
    factor: Float32Array
    hidden: Float32Array
    bias: Float32Array
    output: Float32Array
    offset: Float32Array

    @classmethod
    def joined(cls, before: Standardisation, members: list[tuple[Float32Array, ...]]) -> Network:
        """The mean of several networks (hidden, bias, output, offset): one whose hidden layer is theirs side by side."""
        hidden, bias, output, offset = zip(*members, strict=True)
        return cls(
            before.scale,
            before.mean,
            before.factor,
            np.concatenate(hidden),
            np.concatenate(bias),
            (np.concatenate(output, axis=1) / len(members)).astype(np.float32),
            np.mean(offset, axis=0).astype(np.float32),
        )

    def contributions(self, rows: Float32Array) -> Float64Array:
        """(n, f + 1) float64: integrated gradients by feature, and in the last column the score they start from.

        Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", 2017, along the straight line from the mean of
        the standardised features (zeros) to the row. With one hidden layer the integral of a unit's derivative along it is the
        slope of the secant between the unit's two ends, so that nothing is approximated and a row sums to its score.
        """
        end = Standardisation(self.scale, self.mean, self.factor)(rows).astype(np.float64)
        start, hidden = self.bias.astype(np.float64), self.hidden.astype(np.float64)
        moved = end @ hidden.T
        rise = np.maximum(start + moved, 0) - np.maximum(start, 0)
        # where a unit's input ends where it began, its derivative there
        slope = np.divide(rise, moved, out=np.tile(start > 0, (len(rows), 1)).astype(np.float64), where=moved != 0)
        shares = end * ((slope * self.output[0]) @ hidden)
        begin = float(np.maximum(start, 0) @ self.output[0].astype(np.float64) + self.offset[0])
        return np.concatenate([shares, np.full((len(rows), 1), begin)], axis=1)

    def to_onnx(self) -> bytes:
        """The model: `rows` (n, f) float32 -> `scores` (n, 1)."""
        from onnx import helper

        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"lowest": np.float32(-_LARGEST), "highest": np.float32(_LARGEST)}
        nodes = [
            helper.make_node("Div", [INPUT, "scale"], ["scaled"]),
            helper.make_node("Asinh", ["scaled"], ["squeezed"]),
            helper.make_node("Sub", ["squeezed", "mean"], ["centred"]),
            helper.make_node("Mul", ["centred", "factor"], ["standard"]),
            helper.make_node("Clip", ["standard", "lowest", "highest"], ["clipped"]),
            helper.make_node("Gemm", ["clipped", "hidden", "bias"], ["sums"], transB=1),
            helper.make_node("Relu", ["sums"], ["active"]),
            helper.make_node("Gemm", ["active", "output", "offset"], ["scores"], transB=1),
        ]
        return serialise(nodes, values, self.hidden.shape[1], ("scores", ["n", 1]))

    @classmethod
    def from_onnx(cls, model: bytes) -> Network:
        """Read a model of `to_onnx`; raises `CorruptFile` for another one."""
        values = constants(model)
        try:
            return cls(**{field.name: values[field.name] for field in fields(cls)})
        except KeyError as error:
            raise CorruptFile(f"the model of a neural reranker has no {error}") from error
