"""How a transformer's token embeddings become one vector a text: pooling, optional dense layers, normalisation.

The sums themselves are the `pool` kernel's. This file knows which modes a model may ask for and in which order the steps go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.checks import PoolMode

PoolingMode = Literal["mean", "max", "first", "last", "weighted_mean", "mean_sqrt_len"]
POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)
# sentence-transformers' names, in the order in which it concatenates the modes of its old files (Pooling)
_NAMES: Mapping[str, PoolingMode] = {
    "cls": "first",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_OLD_KEYS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class KernelPooling:
    """One call of the `pool` kernel: the segments it reduces, its mode, and a weight for each position or None."""

    starts: Int64Array
    lengths: Int64Array
    mode: PoolMode
    weights: Float32Array | None


@dataclass(frozen=True)
class Pooling:
    """How token embeddings become one vector.

    Attributes
    ----------
    modes : what is concatenated; nearly every model has one. `weighted_mean` weights the token at position t (from 1) by t;
        `mean_sqrt_len` is the sum divided by the square root of the number of tokens.
    include_prompt : whether a prompt's tokens take part.
    """

    modes: tuple[PoolingMode, ...]
    include_prompt: bool = True

    def apply(
        self,
        token_embeddings: Float32Array,
        lengths: Int64Array,
        *,
        normalize: bool,
        threads: int,
        skipped: Int64Array | None = None,
    ) -> Float32Array:
        """(batch, time, d) token embeddings with `lengths` real tokens each -> (batch, modes * d), normalised on request.

        The first `skipped` (batch,) tokens of each text take no part; a text that has no others gives zeros.
        """
        batch, time, width = token_embeddings.shape
        starts = np.arange(batch, dtype=np.int64) * time
        table = token_embeddings.reshape(batch * time, width)
        return self.apply_packed(table, starts, lengths, normalize=normalize, threads=threads, skipped=skipped)

    def apply_packed(
        self,
        table: Float32Array,
        starts: Int64Array,
        lengths: Int64Array,
        *,
        normalize: bool,
        threads: int,
        skipped: Int64Array | None = None,
    ) -> Float32Array:
        """The same for (tokens, d) embeddings, those of a text from its start on."""
        from llmrec_fast.kernels.cpu import pool

        alone = len(self.modes) == 1
        parts = [
            pool(
                table,
                call.starts,
                call.lengths,
                weights=call.weights,
                mode=call.mode,
                normalize=normalize and alone,
                threads=threads,
            )
            for call in self.kernel_calls(len(table), starts, lengths, skipped)
        ]
        if alone:
            return parts[0]
        vectors = np.concatenate(parts, axis=1)
        return normalize_rows(vectors, threads) if normalize else vectors

    def kernel_calls(
        self, positions: int, starts: Int64Array, lengths: Int64Array, skipped: Int64Array | None
    ) -> list[KernelPooling]:
        """What the kernel is to do, a call for each mode, on a table of `positions` token embeddings."""
        if skipped is None:
            skipped = np.zeros_like(lengths)
        skipped = np.minimum(skipped, lengths)
        kept_starts, kept = starts + skipped, lengths - skipped
        calls = []
        for mode in self.modes:
            if mode == "weighted_mean":
                # a token keeps the weight that it has beside the prompt
                weights = _by_position(positions, kept_starts, kept, lambda text, place: place + skipped[text] + 1)
                calls.append(KernelPooling(kept_starts, kept, "mean", weights))
            elif mode == "mean_sqrt_len":
                weights = _by_position(positions, kept_starts, kept, lambda text, _: kept[text] ** -0.5)
                calls.append(KernelPooling(kept_starts, kept, "sum", weights))
            else:
                calls.append(KernelPooling(kept_starts, kept, mode, None))
        return calls


def _by_position(
    positions: int,
    starts: Int64Array,
    lengths: Int64Array,
    weigh: Callable[[Int64Array, Int64Array], npt.NDArray[Any]],
) -> Float32Array:
    """(positions,) weights of the tokens of texts that do not overlap: `weigh(text, place in the text)`; 0 elsewhere."""
    texts = np.repeat(np.arange(len(lengths)), lengths)
    places = np.arange(len(texts)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    weights = np.zeros(positions, np.float32)
    weights[starts[texts] + places] = weigh(texts, places)
    return weights


def normalize_rows(vectors: Float32Array, threads: int) -> Float32Array:
    """Each row scaled to length 1; zero rows stay zero."""
    from llmrec_fast.kernels.cpu import fuse

    return fuse([vectors], [1.0], threads=threads)


def pooling_from_name(name: str) -> Pooling:
    """`Pooling` from what a caller wrote: one of `POOLING_MODES` or sentence-transformers' name of one."""
    for mode in POOLING_MODES:
        if name == mode or _NAMES.get(name) == mode:
            return Pooling((mode,))
    raise InvalidInput(
        "pooling must be one of mean, max, first (or cls), last (or lasttoken), weighted_mean (or weightedmean), "
        f"mean_sqrt_len (or mean_sqrt_len_tokens); got {name!r}"
    )


def pooling_from_config(config: Mapping[str, Any], folder: Path) -> Pooling:
    """`Pooling` from the config.json of a sentence-transformers Pooling module, in the old or the new form."""
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
    return Pooling(tuple(_NAMES[name] for name in names), config.get("include_prompt") is not False)
