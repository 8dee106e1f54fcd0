"""The oracle: one text through a BERT-family encoder in float64, written from the papers, without padding or fusing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf, expit

Float64Array = npt.NDArray[np.float64]
_BERT_REST = ("attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm")
_MPNET_REST = ("attention.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm")
_DISTILBERT_REST = ("sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm")
# layers; pattern and names of the four attention projections; first norm, both linear layers, second norm
_NAMES = {
    "bert": ("encoder.layer", "attention.{}", ("self.query", "self.key", "self.value", "output.dense"), _BERT_REST),
    "mpnet": ("encoder.layer", "attention.attn.{}", ("q", "k", "v", "o"), _MPNET_REST),
    "distilbert": ("transformer.layer", "attention.{}_lin", ("q", "k", "v", "out"), _DISTILBERT_REST),
}


def token_embeddings(
    config: Mapping[str, Any],
    parameters: Mapping[str, npt.NDArray[Any]],
    ids: Sequence[int],
    types: Sequence[int] | None = None,
) -> Float64Array:
    """(tokens, hidden) of one text; `ids` with its special tokens, `types` of each, all 0 if None."""
    kind = config["model_type"]
    p = {name: np.asarray(array, np.float64) for name, array in parameters.items()}
    epsilon = config.get("layer_norm_eps", 1e-12)
    heads = config.get("num_attention_heads", config.get("n_heads"))
    layers = config.get("num_hidden_layers", config.get("n_layers"))
    activation = _ACTIVATIONS[config.get("hidden_act", config.get("activation"))]
    time = len(ids)
    places = np.arange(time)
    if kind not in ("bert", "distilbert"):
        pad = config["pad_token_id"]
        places = np.array([pad if i == pad else pad + sum(j != pad for j in ids[: n + 1]) for n, i in enumerate(ids)])
    x = p["embeddings.word_embeddings.weight"][list(ids)] + p["embeddings.position_embeddings.weight"][places]
    if "embeddings.token_type_embeddings.weight" in p:
        x = x + p["embeddings.token_type_embeddings.weight"][[0] * time if types is None else list(types)]
    x = _norm(x, p, "embeddings.LayerNorm", epsilon)
    bias = np.zeros((heads, time, time))
    if kind == "mpnet":
        table = p["encoder.relative_attention_bias.weight"]
        for query in range(time):
            for key in range(time):
                bias[:, query, key] = table[_bucket(key - query, len(table))]
    place, attention, projections, (norm1, linear1, linear2, norm2) = _NAMES.get(kind, _NAMES["bert"])
    for layer in range(layers):
        at = f"{place}.{layer}."
        q, k, v = (_heads(_linear(x, p, at + attention.format(name)), heads) for name in projections[:3])
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[2]) + bias
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        context = (shares @ v).transpose(1, 0, 2).reshape(x.shape)
        x = _norm(x + _linear(context, p, at + attention.format(projections[3])), p, at + norm1, epsilon)
        x = _norm(x + _linear(activation(_linear(x, p, at + linear1)), p, at + linear2), p, at + norm2, epsilon)
    return x


def pooled(tokens: Float64Array, mode: str, start: int = 0) -> Float64Array:
    """One vector of token vectors, those before `start` left out."""
    kept = tokens[start:]
    weights = np.arange(1, len(tokens) + 1)[start:, None]
    return {
        "mean": lambda: kept.mean(axis=0),
        "max": lambda: kept.max(axis=0),
        "first": lambda: kept[0],
        "last": lambda: kept[-1],
        "weighted_mean": lambda: (kept * weights).sum(axis=0) / weights.sum(),
        "mean_sqrt_len": lambda: kept.sum(axis=0) / np.sqrt(len(kept)),
    }[mode]()


_ACTIVATIONS = {
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_new": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * expit(x),
}


def _linear(x: Float64Array, p: Mapping[str, Float64Array], name: str) -> Float64Array:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def _norm(x: Float64Array, p: Mapping[str, Float64Array], name: str, epsilon: float) -> Float64Array:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]


def _heads(x: Float64Array, heads: int) -> Float64Array:
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _bucket(distance: int, buckets: int, furthest: int = 128) -> int:
    """T5's buckets, one distance at a time: halves for before and after, exact up to a quarter, then logarithmic."""
    half = buckets // 2
    exact = half // 2
    size = abs(distance)
    if size >= exact:
        size = min(half - 1, exact + int(math.log(size / exact) / math.log(furthest / exact) * (half - exact)))
    return size + (half if distance > 0 else 0)
