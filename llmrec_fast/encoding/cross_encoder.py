"""`CrossEncoder`: how well two texts go together, read as one sequence by a model with a classification head.

More exact than the cosine of two vectors and far dearer, so it is for reordering what a search found (arXiv 1901.04085).
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array, as_count, as_texts
from llmrec_fast.encoding.architectures import read_architecture
from llmrec_fast.encoding.batching import pad_batch, plan_work
from llmrec_fast.encoding.classification_head import ClassificationHead, read_head
from llmrec_fast.encoding.families import build_model_graph
from llmrec_fast.encoding.graph import build_graph
from llmrec_fast.encoding.graph_builder import Graph
from llmrec_fast.encoding.model_files import ModelFiles, choose_max_length, find_model
from llmrec_fast.encoding.modernbert import read_modernbert
from llmrec_fast.encoding.pair_tokens import PairTokenizer
from llmrec_fast.encoding.pooling import Pooling
from llmrec_fast.encoding.session import GraphSession
from llmrec_fast.encoding.tokens import Int32Array, check_unicode
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.threads import get_threads, run_parallel

ScoreActivation = Literal["sigmoid", "identity"]


class CrossEncoder:
    """Scores of text pairs, those that sentence-transformers' CrossEncoder gives for the same model; float32 on the CPU.

    Parameters
    ----------
    model : a folder in the Hugging Face layout whose weights are of a `...ForSequenceClassification` model: BERT, RoBERTa,
        XLM-R, DistilBERT, MPNet or ModernBERT.
    activation : "sigmoid" or "identity", applied to the model's outputs; None: what config.json says, else sigmoid for one
        label and identity for several.
    max_length : tokens a pair is cut at, special tokens included, the longer text first; None: what the model says.
    threads : threads of the model; None: `llmrec_fast.get_threads()` at the time of construction. With more than one, the
        weights are held twice.

    Raises
    ------
    InvalidInput : not such a folder, an unsupported architecture or option.
    CorruptFile : a damaged file, named.
    MissingDependency : onnxruntime is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        activation: ScoreActivation | None = None,
        max_length: int | None = None,
        threads: int | None = None,
    ) -> None:
        if activation not in (None, "sigmoid", "identity"):
            raise InvalidInput(f"activation must be 'sigmoid' or 'identity'; got {activation!r}")
        self._threads = get_threads() if threads is None else as_count(threads, "threads")
        files = find_model(model)
        if not files.weights:
            raise InvalidInput(f"{files.folder} has no model.safetensors, whose classification head is needed")
        self._files = files
        self._types, graph, self._head = _load(files)
        self._activation = activation or _activation_of(files, self._head.labels)
        self._joint = GraphSession(graph, self._threads)
        self._single = self._joint if self._threads == 1 else GraphSession(graph, 1)
        self._max_length = choose_max_length(max_length, files.max_length, graph.max_length)
        self._tokenizer = PairTokenizer(files.tokenizer, self._max_length, files.lower_case)
        self._padding_id = int(files.config.get("pad_token_id") or 0)
        self._pooling = Pooling(("mean" if self._head.mean else "first",))

    @property
    def labels(self) -> int:
        """How many numbers the model gives a pair."""
        return self._head.labels

    @property
    def max_length(self) -> int:
        """Tokens a pair is cut at, special tokens included."""
        return self._max_length

    def describe(self) -> dict[str, Any]:
        """What was loaded and how it runs, for logs and for people."""
        return {
            "model": str(self._files.folder),
            "architecture": str(self._files.config.get("model_type")),
            "device": "cpu",
            "precision": "float32",
            "threads": self._threads,
            "labels": self.labels,
            "activation": self._activation,
            "max_length": self._max_length,
        }

    def predict(self, pairs: Sequence[tuple[str, str]], *, show_progress: bool | None = None) -> Float32Array:
        """The scores of pairs, in their order; identical pairs are computed once.

        Parameters
        ----------
        pairs : two texts each; which is the first matters.
        show_progress : whether a bar is shown on standard error; None: on a terminal, once the work takes over a second.

        Returns
        -------
        (n,) float32 of a model with one label, else (n, labels).

        Raises
        ------
        InvalidInput : something that is not a pair of strings, a string with a lone surrogate.
        """
        given = _check_pairs(pairs)
        places = {pair: place for place, pair in enumerate(dict.fromkeys(given))}
        logits = self._logits(list(places), show_progress)
        if len(places) < len(given):
            logits = logits[np.fromiter((places[pair] for pair in given), np.int64, len(given))]
        if self._activation == "sigmoid":
            # exact for large magnitudes of either sign
            logits = np.exp(-np.logaddexp(np.float32(0), -logits), dtype=np.float32)
        return logits[:, 0] if self.labels == 1 else logits

    def rank(self, query: str, documents: Sequence[str], top_k: int | None = None) -> tuple[Int64Array, Float32Array]:
        """The positions of `documents`, the best for `query` first, and their scores; ties in the order given.

        `top_k` None gives them all, else at most so many.

        Raises
        ------
        InvalidInput : as `predict`; a model with several labels, whose scores have no order.
        """
        if self.labels != 1:
            raise InvalidInput(f"ranking needs a model with one label; this one gives {self.labels}")
        scores = self.predict([(query, document) for document in as_texts(documents, "documents")])
        order = np.argsort(-scores, kind="stable")[: None if top_k is None else as_count(top_k, "top_k")]
        return order.astype(np.int64), scores[order]

    def _logits(self, pairs: list[tuple[str, str]], show_progress: bool | None) -> Float32Array:
        """(n, labels); batches as in `Inference`."""
        from tqdm import tqdm

        ids, types = self._tokenizer.tokenize(pairs)
        lengths = np.fromiter((len(row) for row in ids), np.int64, len(ids))
        vectors = np.zeros((len(ids), self._joint.hidden), np.float32)
        alone = None if self._joint is self._single else 0
        apart, batches = plan_work(lengths, self._threads, packed=False, tokens_of_one_thread=alone)
        session, threads = (self._single, 1) if apart else (self._joint, self._threads)
        lock = threading.Lock()
        disable = None if show_progress is None else not show_progress
        with tqdm(total=len(ids), desc="score", unit="pair", disable=disable, delay=1.0 * (disable is None)) as bar:

            def work(batch: Int64Array) -> None:
                padded, counts = pad_batch([ids[place] for place in batch], self._padding_id)
                kinds = self._padded_types([types[place] for place in batch])
                tokens = session.run(padded, counts, kinds)
                vectors[batch] = self._pooling.apply(tokens, counts.astype(np.int64), normalize=False, threads=threads)
                with lock:
                    bar.update(len(batch))

            run_parallel(work, [(batch,) for batch in batches], self._threads if apart else 1)
        return self._head.apply(vectors)

    def _padded_types(self, types: list[Int32Array]) -> Int32Array | None:
        return pad_batch(types, 0)[0] if self._types else None


def _load(files: ModelFiles) -> tuple[bool, Graph, ClassificationHead]:
    """Whether the graph takes token types; the graph; the head."""
    with WeightFiles(files.weights) as weights:
        kind, names = files.config.get("model_type"), weights.names()
        if kind == "modernbert":
            modern = read_modernbert(files.config, names)
            head = read_head(files.config, weights, modern.prefix, modern.hidden)
            return False, build_model_graph(files.config, weights), head
        architecture = read_architecture(files.config, names)
        head = read_head(files.config, weights, architecture.prefix, architecture.hidden)
        table = f"{architecture.prefix}embeddings.token_type_embeddings.weight"
        types = files.token_types and table in names and len(weights.read(table)) > 1
        return types, build_graph(architecture, weights, token_types=types), head


def _activation_of(files: ModelFiles, labels: int) -> ScoreActivation:
    """sentence-transformers keeps a class name in config.json, at one of two places."""
    newer = files.config.get("sentence_transformers")
    name = newer.get("activation_fn") if isinstance(newer, dict) else None
    name = name or files.config.get("sbert_ce_default_activation_function")
    if name is None:
        return "sigmoid" if labels == 1 else "identity"
    known: dict[str, ScoreActivation] = {"Sigmoid": "sigmoid", "Identity": "identity"}
    if str(name).rsplit(".", 1)[-1] not in known:
        raise InvalidInput(
            f"config.json asks for the activation {name!r} of scores; supported are {', '.join(known)}. Pass activation="
        )
    return known[str(name).rsplit(".", 1)[-1]]


def _check_pairs(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    if isinstance(pairs, str):
        raise InvalidInput("pairs must be a sequence of pairs of strings; got one string")
    given = []
    for position, pair in enumerate(pairs):
        if isinstance(pair, str) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InvalidInput(f"pairs[{position}] must be two strings; got {pair!r}")
        given.append((str(pair[0]), str(pair[1])))
    check_unicode([first for first, _ in given], "the first texts")
    check_unicode([second for _, second in given], "the second texts")
    return given
