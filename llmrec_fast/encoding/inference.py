"""Token ids to pooled vectors: load the model's sessions, cut the work in batches and share them between threads.

Much work goes batch by batch to the package's thread pool, one thread a batch: no thread ever waits for another within a
layer, which matters most on busy machines. Little work has one batch on which all threads work, for the quickest answer.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.encoding.architectures import BERT_TYPES, read_architecture
from llmrec_fast.encoding.batching import TOKENS_PER_BATCH, TOKENS_WORTH_A_BATCH, pad_batch, plan_batches
from llmrec_fast.encoding.families import build_model_graph
from llmrec_fast.encoding.model_files import ModelFiles
from llmrec_fast.encoding.packed import PackedModel, packed_arrays
from llmrec_fast.encoding.plain_graph import Precision
from llmrec_fast.encoding.pooling import Pooling
from llmrec_fast.encoding.session import GraphSession, OnnxFileSession, Session
from llmrec_fast.encoding.tokens import Int32Array
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.threads import run_parallel


@dataclass(frozen=True)
class LoadedModel:
    """A model's sessions.

    Attributes
    ----------
    joint : all threads work on one batch.
    single : one thread works on a batch; several batches run at once. The same object as `joint` where there is one thread.
    source : "safetensors" or "onnx".
    positions : the most tokens it takes; None where its files do not say.
    """

    joint: Session
    single: Session
    source: str
    positions: int | None


def load_model(files: ModelFiles, threads: int, precision: Precision = "float32") -> LoadedModel:
    """Load `files`; weights of an architecture that can be built go before an ONNX file.

    Raises
    ------
    InvalidInput, CorruptFile : as `build_model_graph` and `OnnxFileSession` do; "int8" for an ONNX file, or for a model that
        is not of the BERT family.
    MissingDependency : onnxruntime is not installed.
    """
    if precision == "int8":
        return _load_int8(files)
    if files.can_be_built or files.onnx is None:
        with WeightFiles(files.weights) as weights:
            graph = build_model_graph(files.config, weights)
        built = GraphSession(graph, threads)
        return LoadedModel(built, built if threads == 1 else GraphSession(graph, 1), "safetensors", graph.max_length)
    positions = files.config.get("max_position_embeddings")
    loaded = OnnxFileSession(files.onnx, threads)
    return LoadedModel(
        loaded,
        loaded if threads == 1 else OnnxFileSession(files.onnx, 1),
        "onnx",
        positions if isinstance(positions, int) and positions > 0 else None,
    )


def _load_int8(files: ModelFiles) -> LoadedModel:
    if not files.weights:
        raise InvalidInput(
            f"precision='int8' quantises the weights of a safetensors file, and {files.folder} has an ONNX file only; "
            "use precision='float32', or put model.safetensors into the folder"
        )
    if not files.of_bert_family:
        raise InvalidInput(
            f"precision='int8' is for models of the BERT family ({', '.join(BERT_TYPES)}); {files.folder} is of the "
            f"architecture {files.config.get('model_type')!r}: use precision='float32'"
        )
    with WeightFiles(files.weights) as weights:
        architecture = read_architecture(files.config, weights.names())
        model = PackedModel(architecture, packed_arrays(architecture, weights, quantise=True))
    return LoadedModel(model, model, "safetensors", architecture.max_length)


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
        share = int(lengths.sum()) // self._threads
        together = self._threads > 1 and share >= TOKENS_WORTH_A_BATCH
        session, threads = (self._model.single, 1) if together else (self._model.joint, self._threads)
        packed = session if isinstance(session, PackedModel) else None
        batches = plan_batches(lengths, min(TOKENS_PER_BATCH, share) if together else TOKENS_PER_BATCH)
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
                        threads=threads,
                        skipped=left_out,
                    )
                with lock:
                    bar.update(len(batch))

            run_parallel(work, [(batch,) for batch in batches], self._threads if packed is not None or together else 1)
        return vectors

    def _packed_vectors(
        self, model: PackedModel, texts: list[Int32Array], skipped: Int64Array | None, *, normalize: bool
    ) -> Float32Array:
        """Pooled before the scratch memory, in which the token embeddings lie, goes to somebody else."""
        from llmrec_fast.kernels.cpu.scratch import borrowed_scratch

        with borrowed_scratch() as scratch:
            embeddings, lengths = model.run_packed(texts, scratch)
            starts = np.cumsum(lengths) - lengths
            return self._pooling.apply_packed(
                embeddings, starts, lengths, normalize=normalize, threads=1, skipped=skipped
            )
