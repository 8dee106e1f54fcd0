"""Compile the kernels that encode before any model needs them.

Those of ModernBERT and decoder models in int8 are left to `Encoder.warmup`: few processes need them, and they take as long
again as a third of the others.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.architectures import read_architecture
from llmrec_fast.encoding.packed import PackedModel, float32_kernels, packed_arrays

_SIZES = {
    "hidden_size": 4,
    "num_attention_heads": 1,
    "num_hidden_layers": 1,
    "intermediate_size": 4,
    "hidden_act": "gelu",
    "vocab_size": 1,
    "max_position_embeddings": 8,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 0,
    "type_vocab_size": 1,
    "relative_attention_num_buckets": 32,
}
_NAMES = ("embeddings.word_embeddings.weight",)  # where it is shows the prefix of all others


class _Ones:
    """Parameters of any name and shape."""

    def names(self) -> frozenset[str]:
        return frozenset(_NAMES)

    def read(self, name: str, *shape: int | None) -> Float32Array:
        return np.ones([size or 1 for size in shape], np.float32)


def warmup() -> None:
    """Run a tiny model of either kind, without and with relative positions: in int8, and in float32 where its kernels run."""
    usable, _ = float32_kernels()
    for kind in ("bert", "mpnet"):
        architecture = read_architecture({"model_type": kind, **_SIZES}, _NAMES)
        for quantise in (True, False) if usable else (True,):
            model = PackedModel(architecture, packed_arrays(architecture, _Ones(), quantise=quantise))
            model.run(np.zeros((1, 2), np.int32), np.array([2], np.int32))
