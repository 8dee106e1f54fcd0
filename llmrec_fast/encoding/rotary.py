"""Rotary positions (RoPE, arXiv 2104.09864): by which angles a model turns queries and keys at each position.

A config.json gives them as `rope_parameters`, or in its older form as `rope_theta` and `rope_scaling`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.errors import InvalidInput

_TYPES = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3.1's: slow frequencies are divided by `factor`, fast ones kept, those between interpolated."""

    factor: float
    low: float
    high: float
    trained_positions: int


@dataclass(frozen=True)
class Rotation:
    """The frequencies of one kind of layer.

    Attributes
    ----------
    theta : base of the frequencies theta^(-2 i / width).
    stretch : positions are divided by it.
    llama3 : how the frequencies are changed on top, if they are.
    """

    theta: float
    stretch: float = 1.0
    llama3: Llama3Scaling | None = None

    def tables(self, positions: int, width: int) -> tuple[Float32Array, Float32Array]:
        """Cosines and sines, (positions, width / 2) each. Angles are rounded to float32, as those of training were."""
        exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
        frequencies = (1.0 / np.power(np.float32(self.theta), exponents)).astype(np.float64) / self.stretch
        if self.llama3 is not None:
            frequencies = _llama3(frequencies, self.llama3)
        angles = np.arange(positions, dtype=np.float32)[:, None] * frequencies.astype(np.float32)
        wide = angles.astype(np.float64)
        return np.cos(wide).astype(np.float32), np.sin(wide).astype(np.float32)


def read_rotation(config: Mapping[str, Any], given: Mapping[str, Any], theta: float) -> Rotation:
    """The `Rotation` of one kind of layer.

    Parameters
    ----------
    config : config.json, for the positions that a model was trained with.
    given : `rope_parameters` or `rope_scaling` of this kind of layer; may be empty.
    theta : the base where `given` has none.

    Raises
    ------
    InvalidInput : another scheme than default, linear and llama3, or one that turns a part of the columns only.
    """
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in _TYPES:
        raise InvalidInput(
            f"config.json asks for rotary positions of the type {kind!r}; supported are {', '.join(_TYPES)}"
        )
    share = given.get("partial_rotary_factor", config.get("partial_rotary_factor")) or 1.0
    if share != 1:
        raise InvalidInput(f"config.json turns a share of {share} of the columns only, which is not supported")
    base = float(given.get("rope_theta", theta))
    if kind == "default":
        return Rotation(base)
    try:
        factor = float(given["factor"])
        if kind == "linear":
            return Rotation(base, stretch=factor)
        trained = given.get("original_max_position_embeddings") or config["max_position_embeddings"]
        scaling = Llama3Scaling(factor, float(given["low_freq_factor"]), float(given["high_freq_factor"]), int(trained))
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"config.json: rotary positions of the type {kind!r} need {error}") from error
    return Rotation(base, llama3=scaling)


def _llama3(frequencies: np.ndarray[Any, np.dtype[np.float64]], scaling: Llama3Scaling) -> Any:
    turns = scaling.trained_positions * frequencies / (2 * math.pi)  # within the positions of training
    share = ((turns - scaling.low) / (scaling.high - scaling.low)).clip(0, 1)
    return (1 - share) * frequencies / scaling.factor + share * frequencies
