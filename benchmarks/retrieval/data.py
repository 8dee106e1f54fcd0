"""Vectors to search: real ones, tiled to any number of rows and cast to any dimension, and isotropic noise.

Real vectors come from a file or are encoded on the spot from texts that every machine has. Queries are real vectors held
out before tiling, so no query has a copy of itself among the rows.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Kind = Literal["real", "noise"]
VECTORS_VARIABLE = "LLMREC_BENCH_VECTORS"
MOST_QUERIES, HELD_OUT = 1024, 1100
# Euclidean length of the noise that tells the copies of a row apart: their cosine is about 0.98, as of near-duplicates
TILE_NOISE = 0.196
_ROWS_AT_A_TIME = 32_768


@dataclass(frozen=True)
class Dataset:
    """Rows and queries of unit length, so that inner product, cosine and Euclidean distance rank alike."""

    kind: Kind
    rows: Float32Array
    queries: Float32Array

    @property
    def name(self) -> str:
        return f"{self.kind} {len(self.rows)} x {self.rows.shape[1]}"


def make(kind: Kind, rows: int, dimension: int, base: Float32Array | None, queries: int = MOST_QUERIES) -> Dataset:
    """`rows` vectors and `queries` queries; `base` holds the real vectors and is needed for kind "real" only."""
    rng = np.random.default_rng(0)
    if kind == "noise":
        everything = rng.standard_normal((rows + queries, dimension), dtype=np.float32)
        _normalise(everything)
        return Dataset(kind, everything[:rows], everything[rows:].copy())
    if base is None:
        raise ValueError("real data needs base vectors")
    kept, held = hold_out(cast_dimension(base, dimension), rng)
    # where few are held out, the queries are repeated with noise, like the rows
    return Dataset(kind, tile(kept, rows, rng), tile(held, queries, rng))


def hold_out(base: Float32Array, rng: np.random.Generator) -> tuple[Float32Array, Float32Array]:
    """(rows, queries): the base vectors without those that serve as queries, and those; the same ones in every run."""
    chosen = rng.choice(len(base), min(HELD_OUT, len(base) // 5), replace=False)
    return np.delete(base, chosen, 0), base[chosen]


def tile(base: Float32Array, rows: int, rng: np.random.Generator) -> Float32Array:
    """Repeat `base` until there are `rows` unit vectors; every copy but the first gets its own Gaussian noise."""
    result = np.empty((rows, base.shape[1]), np.float32)
    scale = np.float32(TILE_NOISE / np.sqrt(base.shape[1]))
    for start in range(0, rows, len(base)):
        piece = result[start : start + len(base)]
        piece[:] = base[: len(piece)]
        if start:
            piece += rng.standard_normal(piece.shape, dtype=np.float32) * scale
    _normalise(result)
    return result


def cast_dimension(base: Float32Array, dimension: int) -> Float32Array:
    """Real vectors in another dimension than their own.

    Fewer columns: the leading principal axes. More: a fixed random layer `tanh(W x)`, which keeps who is near whom and
    spreads a part of the variance over all the new columns, as a wider model does; a linear map would leave them empty.
    """
    own = base.shape[1]
    if dimension == own:
        return base
    if dimension < own:
        centred = base - base.mean(0)
        axes = np.linalg.eigh(np.cov(centred[:60_000].T))[1][:, ::-1][:, :dimension].astype(np.float32)
        return np.asarray(base @ axes)
    weights = np.random.default_rng(1).standard_normal((own, dimension), dtype=np.float32)
    return np.asarray(np.tanh(base @ weights))


def load_real(path: Path | None) -> tuple[Float32Array, str]:
    """The real vectors and a note on where they come from: `path`, else the environment variable, else encoded here.

    Raises
    ------
    ValueError : the file does not hold a matrix of float16 or float32.
    """
    path = path or (Path(os.environ[VECTORS_VARIABLE]) if os.environ.get(VECTORS_VARIABLE) else None)
    if path is None:
        vectors, source = _encode()
    else:
        loaded = np.load(path, mmap_mode="r")
        if loaded.ndim != 2 or loaded.dtype not in (np.float16, np.float32):
            raise ValueError(f"{path} must hold a float16 or float32 matrix; got {loaded.dtype} {loaded.shape}")
        vectors, source = np.array(loaded, np.float32), path.name
    _normalise(vectors)
    return vectors, f"real vectors: {len(vectors)} x {vectors.shape[1]} from {source}"


def _encode() -> tuple[Float32Array, str]:
    """Encode one-line descriptions of the installed packages and, where it can be had, MovieLens titles."""
    import importlib.metadata

    from llmrec_fast import Encoder, datasets

    summaries = (package.metadata["Summary"] for package in importlib.metadata.distributions())
    texts = [text for text in summaries if text]
    texts += datasets.load("ml-100k").item_text()
    texts = sorted(set(texts))
    return Encoder("minilm").encode(texts), f"{len(texts)} texts (package summaries, film titles) encoded by minilm"


class Spectrum:
    """A source of any number of distinct rows with the mean and the covariance, hence the spectrum, of real vectors.

    A row is a random real vector, shrunk towards the mean, plus Gaussian noise with the real covariance that makes up `noise`
    of its variance (a smoothed bootstrap). With noise = 1 rows are Gaussian and no row has neighbours, which no catalogue
    looks like and which is harder for every bound; towards 0 they are near copies of the real vectors.
    """

    def __init__(self, base: Float32Array, noise: float) -> None:
        self._mean = base.mean(0)
        self._centred = base - self._mean
        values, axes = np.linalg.eigh(np.cov(self._centred.T))
        self._factor = (np.sqrt(np.maximum(noise * values, 0))[:, None] * axes.T).astype(np.float32)
        self._share = np.float32(np.sqrt(1 - noise))

    def draw(self, rows: int, rng: np.random.Generator) -> Float32Array:
        """`rows` unit vectors."""
        result = rng.standard_normal((rows, len(self._mean)), dtype=np.float32) @ self._factor
        result += self._share * self._centred[rng.integers(0, len(self._centred), rows)]
        result += self._mean
        _normalise(result)
        return result


def _normalise(rows: npt.NDArray[Any]) -> None:
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        piece = rows[start : start + _ROWS_AT_A_TIME]
        piece /= np.maximum(np.linalg.norm(piece, axis=1, keepdims=True), 1e-12)
