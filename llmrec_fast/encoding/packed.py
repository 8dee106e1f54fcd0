"""A BERT-family encoder on the package's own kernels: texts packed end to end, no padding; float32 or int8 products.

The int8 form keeps one scale an output channel of every weight matrix and gives each row of activations its own scale and
zero point (`kernels/cpu/transformer.py`). Attention, norms and activations stay in float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.encoding.architectures import Architecture
from llmrec_fast.encoding.relative_positions import bias_by_distance
from llmrec_fast.encoding.session import check_vocabulary
from llmrec_fast.encoding.tokens import Int32Array

if TYPE_CHECKING:
    from llmrec_fast.kernels.cpu.scratch import Scratch
    from llmrec_fast.kernels.cpu.transformer import Linear, Norm

Arrays = Mapping[str, npt.NDArray[Any]]
_LINEARS = ("projections", "attention_output", "intermediate", "output")
_NORMS = ("attention_norm", "output_norm")


class Parameters(Protocol):
    """Where a model's parameters come from: `WeightFiles`, or whatever answers like it."""

    def names(self) -> frozenset[str]:
        """The name of every parameter."""

    def read(self, name: str, *shape: int | None) -> Float32Array:
        """One parameter; `shape`, where given, is what it must have (None: any size)."""


def packed_arrays(architecture: Architecture, weights: Parameters, *, quantise: bool) -> dict[str, npt.NDArray[Any]]:
    """The parameters of a model, quantised and packed for this processor, by name: what `PackedModel` takes.

    Raises `CorruptFile` for a parameter that is missing or has the wrong shape.
    """
    reader = _Reader(architecture, weights)
    arrays: dict[str, npt.NDArray[Any]] = reader.embeddings()
    layers = [reader.layer(layer) for layer in range(architecture.layers)]
    for name in _LINEARS:
        packed = [pack_linear(*layer[name], quantise=quantise) for layer in layers]
        for part in packed[0]:
            arrays[f"{name}_{part}"] = np.stack([entry[part] for entry in packed])
    for name in _NORMS:
        for part, place in (("scale", 0), ("shift", 1)):
            arrays[f"{name}_{part}"] = np.stack([layer[name][place] for layer in layers])
    return arrays


def pack_linear(matrix: Float32Array, bias: Float32Array, *, quantise: bool) -> dict[str, npt.NDArray[Any]]:
    """A (depth, columns) matrix and its bias in the form of the kernel's `Linear`."""
    from llmrec_fast.kernels.cpu.intrinsics import instruction_set
    from llmrec_fast.kernels.cpu.tiles import tile_shape
    from llmrec_fast.kernels.cpu.transformer import pack_weights

    shape = tile_shape(instruction_set())
    columns = matrix.shape[1]
    padded = -(-columns // (shape.byte_panel if quantise else shape.float_panel)) * (
        shape.byte_panel if quantise else shape.float_panel
    )
    full_bias = np.zeros(padded, np.float32)
    full_bias[:columns] = bias
    if not quantise:
        return {"weights": pack_weights(matrix, shape), "bias": full_bias}
    scales, sums = np.zeros(padded, np.float32), np.zeros(padded, np.int32)
    largest = np.abs(matrix).max(axis=0)
    scales[:columns] = np.where(largest > 0, largest, 1) / np.float32(shape.weight_limit)
    integers = np.rint(matrix / scales[:columns]).astype(np.int8)
    sums[:columns] = integers.sum(axis=0, dtype=np.int32)
    return {"weights": pack_weights(integers, shape), "bias": full_bias, "scales": scales, "sums": sums}


def float32_kernels() -> tuple[bool, str]:
    """Whether float32 products run in the package's kernels on this processor, and what to tell people about it.

    Their tiles are as fast as ONNX Runtime's products (AVX-512) or faster (Zen 2: 91 and 78 GFLOP/s a core on short texts,
    which ONNX Runtime pads), and nothing is padded. What LLVM makes of portable vectors elsewhere is not known to be.
    """
    from llmrec_fast.kernels.cpu.intrinsics import PORTABLE, VNNI, instruction_set

    chosen = instruction_set().dtype
    if chosen == PORTABLE.dtype:
        return False, "ONNX Runtime: llmrec_fast's float32 kernels are for processors with AVX2"
    return True, f"llmrec_fast's kernels, for {'AVX-512' if chosen == VNNI.dtype else 'AVX2'}"


def tokens_quick_alone() -> int:
    """Up to how many tokens one thread in the float32 kernels is no slower than several in ONNX Runtime.

    There, waiting for the weights and for one another is most of the time. A tile of AVX2 has 6 rows.
    """
    from llmrec_fast.kernels.cpu.intrinsics import VNNI, instruction_set

    return 32 if instruction_set().dtype == VNNI.dtype else 6


def weight_bits() -> int:
    """Bits of the integer weights that this processor multiplies."""
    from llmrec_fast.kernels.cpu.intrinsics import instruction_set
    from llmrec_fast.kernels.cpu.tiles import tile_shape

    return (2 * tile_shape(instruction_set()).weight_limit - 1).bit_length()


class _Reader:
    """Reads parameters by the architecture's names."""

    def __init__(self, architecture: Architecture, weights: Parameters) -> None:
        self._architecture = architecture
        self._weights = weights

    def embeddings(self) -> dict[str, npt.NDArray[Any]]:
        architecture = self._architecture
        words = self._read("embeddings.word_embeddings.weight", architecture.vocabulary, architecture.hidden)
        positions = self._read("embeddings.position_embeddings.weight", architecture.positions, architecture.hidden)
        if architecture.token_types:
            # all tokens have type 0, so its row is added to the positions once and for all
            types = self._read("embeddings.token_type_embeddings.weight", None, architecture.hidden)
            positions = positions + types[0]
        scale, shift = self._norm("embeddings.LayerNorm")
        arrays = {
            "words": words,
            "positions": positions,
            "embedding_scale": scale[None],
            "embedding_shift": shift[None],
        }
        if architecture.relative_buckets:
            name = "encoder.relative_attention_bias.weight"
            table = self._read(name, architecture.relative_buckets, architecture.heads)
            arrays["distances"] = bias_by_distance(table, architecture.max_length)
        return arrays

    def layer(self, number: int) -> dict[str, tuple[Float32Array, Float32Array]]:
        architecture, names = self._architecture, self._architecture.names
        hidden, inner = architecture.hidden, architecture.intermediate
        place = names.layer.format(number)
        query, key, value = (
            self._linear(place + name, hidden, hidden) for name in (names.query, names.key, names.value)
        )
        share = np.float32((hidden // architecture.heads) ** -0.5)
        return {
            "projections": (
                np.concatenate([query[0] * share, key[0], value[0]], axis=1),
                np.concatenate([query[1] * share, key[1], value[1]]),
            ),
            "attention_output": self._linear(place + names.attention_output, hidden, hidden),
            "attention_norm": self._norm(place + names.attention_norm),
            "intermediate": self._linear(place + names.intermediate, hidden, inner),
            "output": self._linear(place + names.output, inner, hidden),
            "output_norm": self._norm(place + names.output_norm),
        }

    def _linear(self, place: str, depth: int, columns: int) -> tuple[Float32Array, Float32Array]:
        return self._read(f"{place}.weight", columns, depth).T, self._read(f"{place}.bias", columns)

    def _norm(self, place: str) -> tuple[Float32Array, Float32Array]:
        """Scale and shift; checkpoints converted from TensorFlow call them gamma and beta."""
        old = f"{self._architecture.prefix}{place}.gamma" in self._weights.names()
        scale, shift = ("gamma", "beta") if old else ("weight", "bias")
        hidden = self._architecture.hidden
        return self._read(f"{place}.{scale}", hidden), self._read(f"{place}.{shift}", hidden)

    def _read(self, name: str, *shape: int | None) -> Float32Array:
        return self._weights.read(self._architecture.prefix + name, *shape)


class PackedSession(ABC):
    """A loaded model on the package's own kernels. Several threads may call it at once; each call is one thread's work."""

    device = "cpu"
    hidden: int

    def run(self, ids: Int32Array, lengths: Int32Array) -> Float32Array:
        """See `Session.run`: the padded form, for callers that need one."""
        from llmrec_fast.kernels.cpu.scratch import borrowed_scratch

        result = np.zeros((*ids.shape, self.hidden), np.float32)
        with borrowed_scratch() as scratch:
            tokens, _ = self.run_packed([row[:length] for row, length in zip(ids, lengths, strict=True)], scratch)
            result[np.arange(ids.shape[1]) < lengths[:, None]] = tokens
        return result

    @abstractmethod
    def run_packed(self, windows: Sequence[Int32Array], scratch: Scratch) -> tuple[Float32Array, Int64Array]:
        """Token embeddings (tokens, hidden) of texts end to end, in `scratch`, and the texts' lengths.

        Raises `InvalidInput` for an id beyond the vocabulary.
        """


class PackedModel(PackedSession):
    """A model of the BERT family, of what `packed_arrays` made of its parameters."""

    def __init__(self, architecture: Architecture, arrays: Arrays) -> None:
        from llmrec_fast.kernels.cpu.transformer import Embedding, Layers, Linear, Norm

        def linear(name: str) -> Linear:
            parts = (arrays.get(f"{name}_{part}") for part in ("weights", "bias", "scales", "sums"))
            return Linear(*parts)  # type: ignore[arg-type]

        def norm(name: str) -> Norm:
            return Norm(arrays[f"{name}_scale"], arrays[f"{name}_shift"])

        self._embedding = Embedding(arrays["words"], arrays["positions"], norm("embedding"))
        self._layers = Layers(
            linear("projections"),
            linear("attention_output"),
            norm("attention_norm"),
            linear("intermediate"),
            linear("output"),
            norm("output_norm"),
        )
        distances = arrays.get("distances")
        self._distances = None if distances is None else np.ascontiguousarray(distances, np.float32)
        self._architecture = architecture
        self.hidden = architecture.hidden

    def run_packed(self, windows: Sequence[Int32Array], scratch: Scratch) -> tuple[Float32Array, Int64Array]:
        """See `PackedSession.run_packed`."""
        from llmrec_fast.kernels.cpu.transformer import encode_packed

        lengths = np.array([len(window) for window in windows], np.int64)
        ids = np.concatenate(windows)
        check_vocabulary(ids, self._architecture.vocabulary)
        embeddings = encode_packed(
            ids,
            self._positions(windows),
            lengths,
            self._embedding,
            self._layers,
            heads=self._architecture.heads,
            activation=self._architecture.activation,
            epsilon=self._architecture.epsilon,
            distances=self._distances,
            scratch=scratch,
        )
        return embeddings, lengths

    def _positions(self, windows: Sequence[Int32Array]) -> Int32Array:
        """BERT counts from 0; RoBERTa counts the tokens that are not padding from padding_id + 1, padding keeps its id."""
        padding = self._architecture.padding_id
        if padding is None:
            return np.concatenate([np.arange(len(window), dtype=np.int32) for window in windows])
        return np.concatenate(
            [np.where(window == padding, 0, np.cumsum(window != padding)) + padding for window in windows]
        ).astype(np.int32)
