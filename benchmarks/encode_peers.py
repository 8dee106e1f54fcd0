"""The peers of the suite `encode`, all on the same local model: sentence-transformers, its ONNX backend, and fastembed.

The last two need an ONNX file, which is exported from the PyTorch model as it is. Nobody fetches anything. The ONNX backend
needs optimum-onnx, whose releases up to 0.1.0 exclude transformers 5 and with it sentence-transformers 6; whether it is there
or not, a plain session over the same file does the same work.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.peers import import_peers
from llmrec_fast.encoding.model_files import find_model

Array = npt.NDArray[np.float32]
PEER, PEER_ONNX, FASTEMBED = "sentence-transformers", "sentence-transformers, ONNX", "fastembed"
PLAIN = "onnxruntime, plain graph"
_PLAIN_BATCH, _POSITIONS = 32, 512
# models that fastembed takes from a folder, by our name: it refuses those that are not on its list
_KNOWN_TO_FASTEMBED = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}


class Encodes(Protocol):
    def encode(self, texts: list[str]) -> Array: ...


class SentenceTransformers:
    """`SentenceTransformer.encode` with its defaults: batches of 32, sorted by length in characters."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, texts: list[str]) -> Array:
        vectors: Array = self._model.encode(texts, show_progress_bar=False)
        return vectors


class FastEmbed:
    """`TextEmbedding.embed` with its defaults: batches of 256 in the order given."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def encode(self, texts: list[str]) -> Array:
        return np.array(list(self._model.embed(texts)), np.float32)


class PlainGraph:
    """An ONNX file run by ONNX Runtime as sentence-transformers would: batches of 32, sorted by length in characters.

    Mean pooling, then vectors of length 1.
    """

    def __init__(self, session: Any, tokenizer: Any) -> None:
        self._session = session
        self._tokenizer = tokenizer

    def encode(self, texts: list[str]) -> Array:
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        pooled = []
        for start in range(0, len(order), _PLAIN_BATCH):
            batch = self._tokenizer.encode_batch([texts[place] for place in order[start : start + _PLAIN_BATCH]])
            ids, mask = (
                np.array([getattr(row, name) for row in batch], np.int64) for name in ("ids", "attention_mask")
            )
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            tokens = self._session.run(None, feed)[0]
            pooled.append((tokens * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True))
        vectors = np.empty((len(texts), pooled[0].shape[1]), np.float32)
        vectors[order] = np.concatenate(pooled)
        unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def load_peers(name: str, folder: Path, threads: int) -> tuple[dict[str, Encodes], dict[str, str]]:
    """The peers that take the model called `name` in `folder`, and why each other one takes no part."""
    modules, missing = import_peers(["sentence_transformers", "torch", "fastembed"])
    peers: dict[str, Encodes] = {}
    library = modules.get("sentence_transformers")
    if library is None or "torch" not in modules:
        why = "sentence-transformers and torch export the ONNX file that it needs"
        return peers, missing | dict.fromkeys((PEER_ONNX, FASTEMBED), why)
    model = library.SentenceTransformer(str(folder), device="cpu")
    peers[PEER] = SentenceTransformers(model)
    with tempfile.TemporaryDirectory() as place:
        exported = Path(place) / "model"
        shutil.copytree(folder, exported)
        try:
            _export(modules["torch"], model, exported / "model.onnx")
        except Exception as error:  # whatever the exporter raises is the reason that the report gives
            return peers, missing | dict.fromkeys((PEER_ONNX, FASTEMBED), f"the export to ONNX failed: {error}")
        _add_onnx_backend(library, exported, threads, peers, missing)
        _add_plain_graph(exported, threads, peers, missing)
        _add_fastembed(modules, name, exported, threads, peers, missing)
    return peers, missing


def _export(torch: ModuleType, model: Any, path: Path) -> None:
    transformer = model[0].auto_model

    class Exported(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, ids: Any, mask: Any, types: Any) -> Any:
            return self.transformer(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state

    ids = torch.ones((2, 7), dtype=torch.long)
    inputs, axes = ["input_ids", "attention_mask", "token_type_ids"], {0: "batch", 1: "time"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tracing, and about the exporter that torch prefers
        torch.onnx.export(
            Exported().eval(),
            (ids, torch.ones_like(ids), torch.zeros_like(ids)),
            str(path),
            input_names=inputs,
            output_names=["last_hidden_state"],
            dynamic_axes=dict.fromkeys((*inputs, "last_hidden_state"), axes),
            opset_version=17,
            dynamo=False,
        )


def _add_onnx_backend(
    library: ModuleType, folder: Path, threads: int, peers: dict[str, Encodes], missing: dict[str, str]
) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    arguments = {"file_name": "model.onnx", "session_options": options, "provider": "CPUExecutionProvider"}
    try:
        model = library.SentenceTransformer(str(folder), device="cpu", backend="onnx", model_kwargs=arguments)
    except Exception as error:  # sentence-transformers raises a plain Exception where optimum is not installed
        missing[PEER_ONNX] = " ".join(str(error).split())
    else:
        peers[PEER_ONNX] = SentenceTransformers(model)


def _add_plain_graph(folder: Path, threads: int, peers: dict[str, Encodes], missing: dict[str, str]) -> None:
    import onnxruntime
    import tokenizers

    files = find_model(folder)
    if files.pooling.modes != ("mean",) or not files.normalize:
        missing[PLAIN] = "it pools by the mean and normalises, which this model does not"
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    tokenizer = tokenizers.Tokenizer.from_file(str(files.tokenizer))
    tokenizer.enable_truncation(files.max_length or _POSITIONS)
    tokenizer.enable_padding()
    peers[PLAIN] = PlainGraph(session, tokenizer)


def _add_fastembed(
    modules: Mapping[str, ModuleType],
    name: str,
    folder: Path,
    threads: int,
    peers: dict[str, Encodes],
    missing: dict[str, str],
) -> None:
    if "fastembed" not in modules:
        return
    if name not in _KNOWN_TO_FASTEMBED:
        missing[FASTEMBED] = f"it takes models of its own list only, which {name} is not on"
        return
    known = _KNOWN_TO_FASTEMBED[name]
    model = modules["fastembed"].TextEmbedding(known, specific_model_path=str(folder), threads=threads)
    peers[FASTEMBED] = FastEmbed(model)
