"""Linear layers after pooling, as some sentence-transformers models have them (LaBSE, distiluse): activation(x W' + b)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.model_files import DenseLayer
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput

_ACTIVATIONS: Mapping[str, Callable[[Float32Array], Float32Array]] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, np.float32(0)),
}


class DenseLayers:
    """The layers of a model, in order; false where there are none.

    Parameters
    ----------
    layers : where each layer's weights are.
    columns : columns of the vectors that go in.

    Attributes
    ----------
    columns : columns of the vectors that come out.
    """

    def __init__(self, layers: Sequence[DenseLayer], columns: int) -> None:
        self._layers: list[tuple[Float32Array, Float32Array | None, Callable[[Float32Array], Float32Array]]] = []
        for layer in layers:
            if layer.activation not in _ACTIVATIONS:
                raise InvalidInput(
                    f"{layer.weights.parent / 'config.json'} asks for the activation {layer.activation}; supported are "
                    f"{', '.join(_ACTIVATIONS)}"
                )
            with WeightFiles([layer.weights]) as weights:
                weight = weights.read("linear.weight", None, columns)
                bias = weights.read("linear.bias", len(weight)) if "linear.bias" in weights.names() else None
            self._layers.append((np.ascontiguousarray(weight.T), bias, _ACTIVATIONS[layer.activation]))
            columns = len(weight)
        self.columns = columns

    def __bool__(self) -> bool:
        return bool(self._layers)

    def apply(self, vectors: Float32Array) -> Float32Array:
        """(n, columns in) -> (n, columns out)."""
        for weight, bias, activation in self._layers:
            vectors = vectors @ weight
            if bias is not None:
                vectors += bias
            vectors = activation(vectors)
        return vectors
