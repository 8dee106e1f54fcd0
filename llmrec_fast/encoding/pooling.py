"""How a transformer's token embeddings become one vector a text: pooling, optional dense layers, normalisation.

The sums themselves are the `pool` kernel's. This file knows which modes a model may ask for and in which order the steps go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.checks import POOL_MODES, PoolMode

# sentence-transformers' names, in the order in which it concatenates several modes (Pooling.forward)
_NAMES: Mapping[str, PoolMode] = {"cls": "first", "max": "max", "mean": "mean", "lasttoken": "last"}
_OLD_KEYS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class Pooling:
    """Modes of the `pool` kernel whose results are concatenated; nearly every model has one."""

    modes: tuple[PoolMode, ...]

    def apply(
        self, token_embeddings: Float32Array, lengths: Int64Array, *, normalize: bool, threads: int
    ) -> Float32Array:
        """(batch, time, d) token embeddings with `lengths` real tokens each -> (batch, modes * d), normalised on request."""
        batch, time, width = token_embeddings.shape
        starts = np.arange(batch, dtype=np.int64) * time
        table = token_embeddings.reshape(batch * time, width)
        return self.apply_packed(table, starts, lengths, normalize=normalize, threads=threads)

    def apply_packed(
        self, table: Float32Array, starts: Int64Array, lengths: Int64Array, *, normalize: bool, threads: int
    ) -> Float32Array:
        """The same for (tokens, d) embeddings, those of a text from its start on."""
        from llmrec_fast.kernels.cpu import pool

        if len(self.modes) == 1:
            return pool(table, starts, lengths, mode=self.modes[0], normalize=normalize, threads=threads)
        parts = [pool(table, starts, lengths, mode=mode, threads=threads) for mode in self.modes]
        vectors = np.concatenate(parts, axis=1)
        return normalize_rows(vectors, threads) if normalize else vectors


def normalize_rows(vectors: Float32Array, threads: int) -> Float32Array:
    """Each row scaled to length 1; zero rows stay zero."""
    from llmrec_fast.kernels.cpu import fuse

    return fuse([vectors], [1.0], threads=threads)


def pooling_from_name(name: str) -> Pooling:
    """`Pooling` from what a caller wrote: a mode of the kernel or sentence-transformers' name of one."""
    if name in POOL_MODES and name != "sum":
        return Pooling((name,))
    if name in _NAMES:
        return Pooling((_NAMES[name],))
    raise InvalidInput(f"pooling must be one of mean, max, first (or cls), last (or lasttoken); got {name!r}")


def pooling_from_config(config: Mapping[str, Any], folder: Path) -> Pooling:
    """`Pooling` from the config.json of a sentence-transformers Pooling module, in the old or the new form."""
    if config.get("include_prompt") is False:
        raise InvalidInput(f"{folder / 'config.json'} leaves the prompt out of the pooling, which is not supported")
    chosen = config.get("pooling_mode")
    if chosen is None:
        chosen = [name for key, name in _OLD_KEYS.items() if config.get(key)] or ["mean"]
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    unknown = [name for name in names if name not in _NAMES]
    if unknown:
        raise InvalidInput(
            f"{folder / 'config.json'} asks for the pooling mode {unknown[0]!r}; supported are {', '.join(_NAMES)}. "
            "Pass pooling= to choose one of them"
        )
    return Pooling(tuple(_NAMES[name] for name in names))
