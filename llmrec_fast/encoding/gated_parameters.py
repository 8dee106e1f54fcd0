"""The parameters of ModernBERT and of decoder models in one form: what the package's kernels need of either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.encoding.architectures import Activation
from llmrec_fast.encoding.decoder import DecoderArchitecture
from llmrec_fast.encoding.modernbert import ModernBertArchitecture
from llmrec_fast.encoding.packed import Parameters
from llmrec_fast.encoding.rotary import Rotation

Pair: TypeAlias = tuple[Float32Array, Float32Array]
_EVERYWHERE = 1 << 30  # tokens: no text is as long


@dataclass(frozen=True)
class GatedShape:
    """One model's shape.

    Attributes
    ----------
    layers, hidden, intermediate, vocabulary : sizes.
    heads, key_value_heads, head_width : query heads, the heads of keys and values that groups of them share, columns of each.
    max_length : the most tokens of a text.
    epsilon : of the norms.
    activation : of the gate.
    centred : whether norms subtract the mean (layer norm), or not (RMS norm).
    normed_words : whether the first layer takes words as they are, without its attention norm.
    reaches : (layers,) how far before and behind itself a token attends.
    rotations : the rotary positions of the layers, each once.
    tables : (layers,) which of the rotations a layer uses.
    spread_block : what `spread_blocks` takes of the rows that a gate lets through; 0: they go on as they are.
    """

    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    heads: int
    key_value_heads: int
    head_width: int
    max_length: int
    epsilon: float
    activation: Activation
    centred: bool
    normed_words: bool
    reaches: tuple[tuple[int, int], ...]
    rotations: tuple[Rotation, ...]
    tables: tuple[int, ...]
    spread_block: int = 0


@dataclass(frozen=True)
class GatedLayer:
    """One layer. Norms are (scale, shift), linear layers a (depth, columns) matrix and its bias.

    Attributes
    ----------
    projections : queries, with the factor 1 / sqrt(head width) unless `head_norm` has it, keys and values side by side.
    head_norm : (2, head width) scales of queries and keys; None: they are not normalised.
    gate_up : gates and what they let through side by side.
    """

    attention_norm: Pair
    projections: Pair
    head_norm: Float32Array | None
    attention_output: Pair
    feed_forward_norm: Pair
    gate_up: Pair
    down: Pair


class GatedParameters(Protocol):
    """A model's parameters, read when they are asked for. Methods raise `CorruptFile` for one that is missing or misshapen."""

    shape: GatedShape

    def words(self) -> Float32Array:
        """(vocabulary, hidden): what the first layer takes for each token."""

    def layer(self, number: int) -> GatedLayer:
        """The parameters of one layer."""

    def final_norm(self) -> Pair:
        """The norm after the last layer."""

    def final_linear(self) -> Pair | None:
        """A (hidden, hidden) linear layer after that norm, if there is one."""


class _Files:
    """Reads below a prefix."""

    def __init__(self, weights: Parameters, prefix: str) -> None:
        self._weights = weights
        self._prefix = prefix

    def _read(self, name: str, *shape: int | None) -> Float32Array:
        return self._weights.read(self._prefix + name, *shape)

    def _linear(self, places: Sequence[tuple[str, int]], depth: int, *, bias: bool) -> Pair:
        """The matrices at `places` side by side, each with so many rows of `depth` in the file, and their biases or zeros."""
        matrix = np.concatenate([self._read(f"{place}.weight", rows, depth).T for place, rows in places], axis=1)
        if not bias:
            return matrix, np.zeros(matrix.shape[1], np.float32)
        return matrix, np.concatenate([self._read(f"{place}.bias", rows) for place, rows in places])

    def _norm(self, place: str, columns: int, *, bias: bool = False) -> Pair:
        shift = self._read(f"{place}.bias", columns) if bias else np.zeros(columns, np.float32)
        return self._read(f"{place}.weight", columns), shift

    def final_linear(self) -> None:
        """See `GatedParameters`."""


class ModernBertParameters(_Files):
    """Those of a ModernBERT."""

    def __init__(self, architecture: ModernBertArchitecture, weights: Parameters) -> None:
        super().__init__(weights, architecture.prefix)
        self._architecture = architecture
        near, everywhere = (architecture.reach, architecture.reach), (_EVERYWHERE, _EVERYWHERE)
        self.shape = GatedShape(
            layers=architecture.layers,
            hidden=architecture.hidden,
            intermediate=architecture.intermediate,
            vocabulary=architecture.vocabulary,
            heads=architecture.heads,
            key_value_heads=architecture.heads,
            head_width=architecture.hidden // architecture.heads,
            max_length=architecture.positions,
            epsilon=architecture.epsilon,
            activation=architecture.activation,
            centred=True,
            normed_words=True,
            reaches=tuple(near if local else everywhere for local in architecture.local),
            rotations=architecture.rotations,
            tables=tuple(int(local) for local in architecture.local),
        )

    def words(self) -> Float32Array:
        """See `GatedParameters`: the norm over the token table does not depend on the text, so it is taken here."""
        architecture = self._architecture
        table = self._read("embeddings.tok_embeddings.weight", architecture.vocabulary, architecture.hidden)
        scale, shift = self._norm("embeddings.norm", architecture.hidden, bias=architecture.norm_bias)
        centred = table - table.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(architecture.epsilon))
        words: Float32Array = centred / deviation * scale + shift
        return words

    def layer(self, number: int) -> GatedLayer:
        """See `GatedParameters`."""
        architecture, place = self._architecture, f"layers.{number}."
        hidden, inner, norm_bias = architecture.hidden, architecture.intermediate, architecture.norm_bias
        attention_bias, inner_bias = architecture.attention_bias, architecture.feed_forward_bias
        matrix, bias = self._linear([(f"{place}attn.Wqkv", 3 * hidden)], hidden, bias=attention_bias)
        return GatedLayer(
            # the words are normalised already
            self._norm(f"{place}attn_norm", hidden, bias=norm_bias) if number else (np.ones(hidden, np.float32),) * 2,
            _with_share(matrix, bias, hidden, self.shape.head_width),
            None,
            self._linear([(f"{place}attn.Wo", hidden)], hidden, bias=attention_bias),
            self._norm(f"{place}mlp_norm", hidden, bias=norm_bias),
            self._linear([(f"{place}mlp.Wi", 2 * inner)], hidden, bias=inner_bias),
            self._linear([(f"{place}mlp.Wo", hidden)], inner, bias=inner_bias),
        )

    def final_norm(self) -> Pair:
        """See `GatedParameters`."""
        return self._norm("final_norm", self._architecture.hidden, bias=self._architecture.norm_bias)


class DecoderParameters(_Files):
    """Those of a decoder language model."""

    def __init__(self, architecture: DecoderArchitecture, weights: Parameters) -> None:
        super().__init__(weights, architecture.prefix)
        self._architecture = architecture
        self.shape = GatedShape(
            layers=architecture.layers,
            hidden=architecture.hidden,
            intermediate=architecture.intermediate,
            vocabulary=architecture.vocabulary,
            heads=architecture.heads,
            key_value_heads=architecture.key_value_heads,
            head_width=architecture.head_width,
            max_length=architecture.max_length,
            epsilon=architecture.epsilon,
            activation=architecture.activation,
            centred=False,
            normed_words=False,
            reaches=((_EVERYWHERE, 0),) * architecture.layers,
            rotations=(architecture.rotation,),
            tables=(0,) * architecture.layers,
        )

    def words(self) -> Float32Array:
        """See `GatedParameters`."""
        return self._read("embed_tokens.weight", self.shape.vocabulary, self.shape.hidden)

    def layer(self, number: int) -> GatedLayer:
        """See `GatedParameters`."""
        architecture, place, width = self._architecture, f"layers.{number}.", self._architecture.head_width
        hidden, inner, inner_bias = architecture.hidden, architecture.intermediate, architecture.feed_forward_bias
        queries, shared = architecture.heads * width, architecture.key_value_heads * width
        parts = [
            (f"{place}self_attn.{name}_proj", size) for name, size in zip("qkv", (queries, shared, shared), strict=True)
        ]
        projections = self._linear(parts, hidden, bias=architecture.projection_bias)
        head_norm = None
        if architecture.head_norms:
            share = np.float32(width**-0.5)
            query, key = (self._read(f"{place}self_attn.{name}_norm.weight", width) for name in "qk")
            head_norm = np.stack([query * share, key])
        else:
            projections = _with_share(*projections, queries, width)
        return GatedLayer(
            self._norm(f"{place}input_layernorm", hidden),
            projections,
            head_norm,
            self._linear([(f"{place}self_attn.o_proj", hidden)], queries, bias=architecture.output_bias),
            self._norm(f"{place}post_attention_layernorm", hidden),
            self._linear([(f"{place}mlp.{name}_proj", inner) for name in ("gate", "up")], hidden, bias=inner_bias),
            self._linear([(f"{place}mlp.down_proj", hidden)], inner, bias=inner_bias),
        )

    def final_norm(self) -> Pair:
        """See `GatedParameters`."""
        return self._norm("norm", self.shape.hidden)


def _with_share(matrix: Float32Array, bias: Float32Array, queries: int, width: int) -> Pair:
    """A projection whose first columns, the `queries`, hold the factor 1 / sqrt(width) of the scores."""
    share = np.ones(len(bias), np.float32)
    share[:queries] = width**-0.5
    return matrix * share, bias * share
