"""TensorRT's attention of packed texts in NumPy, as onnx-tensorrt's docs/TRT_custom_ops.md describes the operator."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from onnx.reference.op_run import OpRun

from llmrec_fast.encoding.plain_attention import TENSORRT


class TRT_Attention(OpRun):
    """For onnx's evaluator: a text after the other, softmax in float32, float16 in and out."""

    op_domain = TENSORRT

    def _run(
        self,
        query: np.ndarray,
        key: np.ndarray,
        value: np.ndarray,
        *optional: Any,
        query_form: str = "padded_bhnd",
        kv_form: str = "padded_bhnd",
        scale: float | None = None,
        is_causal: int = 0,
        causal_kind: str = "none",
    ) -> tuple[np.ndarray]:
        mask, past_key, past_value, query_lengths, key_lengths = optional
        assert query_form == kv_form == "packed_nhd"
        assert mask is past_key is past_value is None, "a mask is not supported with packed queries"
        assert query.dtype == key.dtype == value.dtype == np.float16, "the fused kernels' type"
        assert query.ndim == key.ndim == value.ndim == 3
        assert query_lengths.dtype == key_lengths.dtype == np.int32
        assert query_lengths[0] == 0
        assert query_lengths[-1] == len(query) == len(key)
        np.testing.assert_array_equal(query_lengths, key_lengths)
        assert bool(is_causal) == (causal_kind == "upper_left")
        assert query.shape[2] % 8 == 0
        assert 16 <= query.shape[2] <= 256
        factor = np.float32(1 / np.sqrt(query.shape[2]) if scale is None else scale)
        groups = query.shape[1] // key.shape[1]
        result = np.empty_like(query)
        for start, stop in pairwise(query_lengths):
            assert stop > start, "nothing says that a text may be empty"
            parts = (query[start:stop], key[start:stop].repeat(groups, 1), value[start:stop].repeat(groups, 1))
            q, k, v = (part.astype(np.float32).transpose(1, 0, 2) for part in parts)
            scores = q @ k.transpose(0, 2, 1) * factor
            if is_causal:
                scores += np.triu(np.full(scores.shape[1:], -np.inf, np.float32), 1)
            shares = np.exp(scores - scores.max(axis=2, keepdims=True))
            shares /= shares.sum(axis=2, keepdims=True)
            result[start:stop] = (shares.astype(np.float16).astype(np.float32) @ v).transpose(1, 0, 2)
        return (result,)
