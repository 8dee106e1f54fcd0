"""Token ids to pooled vectors: load the model's sessions, cut the work in batches and share them between threads.

Much work goes batch by batch to the package's thread pool, one thread a batch: no thread ever waits for another within a
layer, which matters most on busy machines. Work that cannot be shared out so has one batch on which all threads work, for the
quickest answer.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.encoding.architectures import read_architecture
from llmrec_fast.encoding.batching import pad_batch, plan_work
from llmrec_fast.encoding.families import GRAPH_TYPES, gated_parameters
from llmrec_fast.encoding.model_files import ModelFiles
from llmrec_fast.encoding.packed import (
    PackedModel,
    float32_kernels,
    tokens_quick_alone,
    weight_bits,
)
from llmrec_fast.encoding.packed_gated import PackedGatedModel
from llmrec_fast.encoding.plain_builder import Precision
from llmrec_fast.encoding.pooling import Pooling
from llmrec_fast.encoding.prepared import prepared_arrays, prepared_graph
from llmrec_fast.encoding.session import GraphSession, OnnxFileSession, Session
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.threads import run_parallel

Packed = PackedModel | PackedGatedModel


@dataclass(frozen=True)
class LoadedModel:
    """A model's sessions.

    Attributes
    ----------
    joint : all threads work on one batch.
    single : one thread works on a batch; several batches run at once. The same object as `joint` where there is one thread.
    source : "safetensors" or "onnx".
    positions : the most tokens it takes; None where its files do not say.
    engine : what runs the sessions, and why, for people.
    weight_bits : of quantised weights; None where none are.
    """

    joint: Session
    single: Session
    source: str
    positions: int | None
    engine: str
    weight_bits: int | None = None


def load_model(files: ModelFiles, threads: int, precision: Precision = "float32") -> LoadedModel:
    """Load `files`; weights of an architecture that can be built go before an ONNX file.

    Raises
    ------
    InvalidInput, CorruptFile : as `build_model_graph` and `OnnxFileSession` do; "int8" for an ONNX file, or for a model that
        is of none of `GRAPH_TYPES`.
    MissingDependency : onnxruntime is needed and not installed.
    """
    if precision == "int8":
        return _load_int8(files)
    if files.can_be_built or files.onnx is None:
        with WeightFiles(files.weights) as weights:
            return _load_float32(files, weights, threads)
    positions = files.config.get("max_position_embeddings")
    loaded = OnnxFileSession(files.onnx, threads)
    return LoadedModel(
        loaded,
        loaded if threads == 1 else OnnxFileSession(files.onnx, 1),
        "onnx",
        positions if isinstance(positions, int) and positions > 0 else None,
        "ONNX Runtime: the model is an ONNX file",
    )


def _load_float32(files: ModelFiles, weights: WeightFiles, threads: int) -> LoadedModel:
    """One thread a batch is the package's kernels' where they are the faster ones; ONNX Runtime joins threads on a batch."""
    usable, engine = float32_kernels()
    if usable and not files.of_bert_family:
        usable, engine = False, "ONNX Runtime: llmrec_fast's float32 kernels are for models of the BERT family"
    single: Session | None = None
    if usable:
        architecture = read_architecture(files.config, weights.names())
        single = PackedModel(architecture, prepared_arrays(files.weights, architecture, weights, quantise=False))
        if threads == 1:
            return LoadedModel(single, single, "safetensors", architecture.max_length, engine)
        engine += "; ONNX Runtime where all threads work on one batch"
    graph = prepared_graph(files.weights, files.config, weights)
    joint = GraphSession(graph, threads)
    if single is None:
        single = joint if threads == 1 else GraphSession(graph, 1)
    return LoadedModel(joint, single, "safetensors", graph.max_length, engine)


def _load_int8(files: ModelFiles) -> LoadedModel:
    if not files.weights:
        raise InvalidInput(
            f"precision='int8' quantises the weights of a safetensors file, and {files.folder} has an ONNX file only; "
            "use precision='float32', or put model.safetensors into the folder"
        )
    if not files.can_be_built:
        raise InvalidInput(
            f"precision='int8' is for models of the architectures {', '.join(GRAPH_TYPES)}; {files.folder} is of the "
            f"architecture {files.config.get('model_type')!r}: use precision='float32'"
        )
    with WeightFiles(files.weights) as weights:
        model, positions = _packed_int8(files, weights)
    bits = weight_bits()
    engine = f"llmrec_fast's kernels, {bits}-bit weights"
    return LoadedModel(model, model, "safetensors", positions, engine, bits)


def _packed_int8(files: ModelFiles, weights: WeightFiles) -> tuple[Packed, int]:
    """The model and the most tokens it takes."""
    if not files.of_bert_family:
        gated = PackedGatedModel(gated_parameters(files.config, weights), quantise=True)
        return gated, gated.max_length
    architecture = read_architecture(files.config, weights.names())
    arrays = prepared_arrays(files.weights, architecture, weights, quantise=True)
    return PackedModel(architecture, arrays), architecture.max_length


class Inference:
    """Pooled vectors of token id arrays. May be used by several threads at once.

    Parameters
    ----------
    model : its sessions.
    pooling : how token embeddings become one vector.
    padding_id : the token that fills shorter texts of a batch.
    threads : how many threads a call uses.
    """

    def __init__(self, model: LoadedModel, pooling: Pooling, padding_id: int, threads: int) -> None:
        import llmrec_fast.kernels.cpu  # noqa: F401 - Numba takes half a second to import: not in the first call

        self._model = model
        self._pooling = pooling
        self._padding_id = padding_id
        self._threads = threads
        self.columns = model.joint.hidden * len(pooling.modes)

    def vectors(
        self,
        windows: Sequence[Int32Array],
        lengths: Int64Array,
        *,
        normalize: bool,
        show_progress: bool | None,
        skipped: Int64Array | None = None,
    ) -> Float32Array:
        """(windows, columns): a vector for each token id array of `lengths` tokens; zeros where there are none.

        The first `skipped` (windows,) tokens of each take no part in the pooling.
        """
        from tqdm import tqdm

        vectors = np.zeros((len(windows), self.columns), np.float32)
        session, batches = self._plan(lengths)
        side_by_side = session is self._model.single
        packed = session if isinstance(session, Packed) else None
        lock = threading.Lock()
        # disable=None: shown on a terminal only
        disable = None if show_progress is None else not show_progress
        with tqdm(
            total=len(windows), desc="encode", unit="text", disable=disable, delay=1.0 * (disable is None)
        ) as bar:

            def work(batch: Int64Array) -> None:
                texts = [windows[place] for place in batch]
                left_out = None if skipped is None else skipped[batch]
                if packed is not None:
                    vectors[batch] = self._packed_vectors(packed, texts, left_out, normalize=normalize)
                else:
                    ids, counts = pad_batch(texts, self._padding_id)
                    vectors[batch] = self._pooling.apply(
                        session.run(ids, counts),
                        counts.astype(np.int64),
                        normalize=normalize,
                        threads=1 if side_by_side else self._threads,
                        skipped=left_out,
                    )
                with lock:
                    bar.update(len(batch))

            run_parallel(work, [(batch,) for batch in batches], self._threads if side_by_side else 1)
        return vectors

    def _plan(self, lengths: Int64Array) -> tuple[Session, list[Int64Array]]:
        """The session that is the quickest for texts of `lengths` tokens, and its batches."""
        joint, single = self._model.joint, self._model.single
        packed = isinstance(single, Packed)
        alone = None if joint is single else tokens_quick_alone() if packed else 0
        apart, batches = plan_work(lengths, self._threads, packed=packed, tokens_of_one_thread=alone)
        return single if apart else joint, batches

    def _packed_vectors(
        self, model: Packed, texts: list[Int32Array], skipped: Int64Array | None, *, normalize: bool
    ) -> Float32Array:
        """Pooled before the scratch memory, in which the token embeddings lie, goes to somebody else."""
        from llmrec_fast.kernels.cpu.scratch import borrowed_scratch

        with borrowed_scratch() as scratch:
            embeddings, lengths = model.run_packed(texts, scratch)
            starts = np.cumsum(lengths) - lengths
            return self._pooling.apply_packed(
                embeddings, starts, lengths, normalize=normalize, threads=1, skipped=skipped
            )
