"""A ModernBERT or a decoder model on the package's own kernels: texts packed end to end, no padding; int8 products.

The int8 form is `packed.py`'s: one scale an output channel of every weight matrix, a scale and a zero point a row of
activations. Attention, norms, gates and rotations stay in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.encoding.gated_parameters import GatedLayer, GatedParameters, Pair
from llmrec_fast.encoding.packed import PackedSession, pack_linear
from llmrec_fast.encoding.session import check_vocabulary
from llmrec_fast.encoding.tokens import Int32Array

if TYPE_CHECKING:
    from llmrec_fast.kernels.cpu.gated_transformer import GatedLayers
    from llmrec_fast.kernels.cpu.scratch import Scratch
    from llmrec_fast.kernels.cpu.transformer import Linear

_LINEARS = ("projections", "attention_output", "gate_up", "down")
_NORMS = ("attention_norm", "feed_forward_norm")


class PackedGatedModel(PackedSession):
    """A ModernBERT or a decoder.

    Parameters
    ----------
    parameters : where they are read from, layer by layer, so that never more than one is held in float32 besides.
    quantise : whether the products are int8; else float32.

    Raises
    ------
    CorruptFile : a parameter is missing or has the wrong shape.
    """

    def __init__(self, parameters: GatedParameters, *, quantise: bool) -> None:
        from llmrec_fast.kernels.cpu.gated_transformer import GatedSizes, Rotary

        shape = parameters.shape
        self._shape = shape
        self._words = parameters.words()
        self._layers = _pack_layers(parameters, quantise=quantise)
        tables = [rotation.tables(shape.max_length, shape.head_width) for rotation in shape.rotations]
        self._rotary = Rotary(*(np.stack(part) for part in zip(*tables, strict=True)))
        self._sizes = GatedSizes(
            shape.heads, shape.key_value_heads, shape.head_width, shape.intermediate, shape.spread_block
        )
        self.hidden = shape.hidden
        self.max_length = shape.max_length

    def run_packed(self, windows: Sequence[Int32Array], scratch: Scratch) -> tuple[Float32Array, Int64Array]:
        """See `PackedSession.run_packed`."""
        from llmrec_fast.kernels.cpu.gated_transformer import encode_gated

        lengths = np.array([len(window) for window in windows], np.int64)
        ids = np.concatenate(windows)
        check_vocabulary(ids, self._shape.vocabulary)
        embeddings = encode_gated(
            ids,
            lengths,
            self._words,
            self._layers,
            self._rotary,
            self._sizes,
            activation=self._shape.activation,
            epsilon=self._shape.epsilon,
            centred=self._shape.centred,
            normed_words=self._shape.normed_words,
            scratch=scratch,
        )
        return embeddings, lengths


def _pack_layers(parameters: GatedParameters, *, quantise: bool) -> GatedLayers:
    from llmrec_fast.kernels.cpu.gated_transformer import GatedLayers
    from llmrec_fast.kernels.cpu.transformer import Norm

    shape = parameters.shape
    packed: dict[str, list[dict[str, npt.NDArray[Any]]]] = {name: [] for name in _LINEARS}
    norms: dict[str, list[Pair]] = {name: [] for name in _NORMS}
    head_norms: list[Float32Array] = []
    for number in range(shape.layers):
        layer: GatedLayer = parameters.layer(number)
        for name in _LINEARS:
            packed[name].append(pack_linear(*getattr(layer, name), quantise=quantise))
        for name in _NORMS:
            norms[name].append(getattr(layer, name))
        if layer.head_norm is not None:
            head_norms.append(layer.head_norm)

    def linear(name: str) -> Linear:
        return _stack(packed.pop(name))

    def norm(pairs: Sequence[Pair]) -> Norm:
        return Norm(*(np.stack(part) for part in zip(*pairs, strict=True)))

    return GatedLayers(
        norm(norms["attention_norm"]),
        linear("projections"),
        np.stack(head_norms) if head_norms else None,
        linear("attention_output"),
        norm(norms["feed_forward_norm"]),
        linear("gate_up"),
        linear("down"),
        norm([parameters.final_norm()]),
        _final(parameters),
        np.array(shape.reaches, np.int64),
        np.array(shape.tables, np.int64),
    )


def _final(parameters: GatedParameters) -> Linear | None:
    """In float32, whatever the layers are in: it is a small part of the work, and nothing after it evens its rounding out."""
    linear = parameters.final_linear()
    return None if linear is None else _stack([pack_linear(*linear, quantise=False)])


def _stack(layers: Sequence[Mapping[str, npt.NDArray[Any]]]) -> Linear:
    from llmrec_fast.kernels.cpu.transformer import Linear

    parts = {part: np.stack([layer[part] for layer in layers]) for part in layers[0]}
    return Linear(parts["weights"], parts["bias"], parts.get("scales"), parts.get("sums"))
