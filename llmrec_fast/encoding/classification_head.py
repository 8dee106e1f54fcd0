"""What a `...ForSequenceClassification` model has on top of its encoder: the vector of the first token to a number a label.

dense, activation, perhaps a norm, and a last linear layer; families differ in where these are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput


@dataclass(frozen=True)
class _Places:
    """Where a family's head is: the dense layer, the last one, and the norm between them; {} is the encoder's prefix."""

    dense: str
    last: str
    activation: str
    norm: str | None = None


_TANH_HEAD = _Places("classifier.dense", "classifier.out_proj", "tanh")
_PLACES: Mapping[str, _Places] = {
    "bert": _Places("{}pooler.dense", "classifier", "tanh"),
    "roberta": _TANH_HEAD,
    "xlm-roberta": _TANH_HEAD,
    "camembert": _TANH_HEAD,
    "mpnet": _TANH_HEAD,
    "distilbert": _Places("pre_classifier", "classifier", "relu"),
    "modernbert": _Places("head.dense", "classifier", "gelu", "head.norm"),
}
HEAD_TYPES = tuple(_PLACES)


@dataclass(frozen=True)
class ClassificationHead:
    """A loaded head.

    Attributes
    ----------
    dense, dense_bias : (hidden, hidden) and (hidden,).
    activation : after the dense layer.
    norm : scale, shift and epsilon of a layer norm after that; None: there is none.
    last, last_bias : (hidden, labels) and (labels,).
    mean : whether the mean of the tokens goes in, instead of the first.
    """

    dense: Float32Array
    dense_bias: Float32Array
    activation: Callable[[Float32Array], NDArray[Any]]
    norm: tuple[Float32Array, Float32Array, float] | None
    last: Float32Array
    last_bias: Float32Array
    mean: bool

    @property
    def labels(self) -> int:
        """Numbers that come out."""
        return int(self.last.shape[1])

    def apply(self, vectors: Float32Array) -> Float32Array:
        """(n, hidden) of the first token, or of the mean -> (n, labels) logits."""
        inner = np.asarray(self.activation(vectors @ self.dense + self.dense_bias), np.float32)
        if self.norm is not None:
            scale, shift, epsilon = self.norm
            centred = inner - inner.mean(axis=1, keepdims=True)
            inner = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + np.float32(epsilon)) * scale + shift
        return np.asarray(inner @ self.last + self.last_bias, np.float32)


def read_head(config: Mapping[str, Any], weights: WeightFiles, prefix: str, hidden: int) -> ClassificationHead:
    """The head of a model.

    Parameters
    ----------
    config : config.json.
    prefix : what the encoder's parameter names begin with.
    hidden : columns of the encoder's vectors.

    Raises
    ------
    InvalidInput : a family or an activation that is not supported, or weights without a head.
    CorruptFile : a part of the head is missing or has the wrong shape.
    """
    kind = str(config.get("model_type", "unknown"))
    if kind not in _PLACES:
        raise InvalidInput(
            f"a classification head of architecture {kind!r} is not read; read are {', '.join(HEAD_TYPES)}"
        )
    places = _PLACES[kind]
    if f"{places.last}.weight" not in weights.names():
        raise InvalidInput(
            f"the weights have no {places.last}.weight: they are not those of a {kind} model with a classification head "
            "(...ForSequenceClassification), such as a cross-encoder"
        )
    mean = False
    activation = places.activation
    if kind == "modernbert":
        mean = config.get("classifier_pooling", "cls") == "mean"
        activation = str(config.get("classifier_activation", activation))
    if activation not in _ACTIVATIONS:
        raise InvalidInput(
            f"config.json asks for the head's activation {activation!r}; supported are {', '.join(_ACTIVATIONS)}"
        )
    dense = places.dense.format(prefix)
    last = weights.read(f"{places.last}.weight", None, hidden)
    norm = None
    if places.norm is not None:
        scale = weights.read(f"{places.norm}.weight", hidden)
        norm = (scale, _bias(weights, places.norm, hidden), float(config.get("norm_eps", 1e-5)))
    return ClassificationHead(
        np.ascontiguousarray(weights.read(f"{dense}.weight", hidden, hidden).T),
        _bias(weights, dense, hidden),
        _ACTIVATIONS[activation],
        norm,
        np.ascontiguousarray(last.T),
        _bias(weights, places.last, len(last)),
        mean,
    )


def _bias(weights: WeightFiles, place: str, size: int) -> Float32Array:
    """ModernBERT's configuration leaves some out."""
    name = f"{place}.bias"
    return weights.read(name, size) if name in weights.names() else np.zeros(size, np.float32)


def _gelu(x: Float32Array) -> NDArray[Any]:
    from scipy.special import erf

    return np.asarray(x * (1 + erf(x * np.float32(np.sqrt(0.5)))) / 2)


_ACTIVATIONS: Mapping[str, Callable[[Float32Array], NDArray[Any]]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, np.float32(0)),
    "gelu": _gelu,
}
