"""`Encoder`: texts to vectors with a transformer model. The steps are in the files it imports; here they are joined."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from llmrec_fast.arrays import Float32Array, as_count, as_texts
from llmrec_fast.encoding.dense import DenseLayers
from llmrec_fast.encoding.device_inference import DeviceInference, DeviceModel, choose_and_load
from llmrec_fast.encoding.dynamic_batching import BatchingPolicy, DynamicBatcher, TextToEncode
from llmrec_fast.encoding.inference import Inference, LoadedModel, load_model
from llmrec_fast.encoding.model_files import choose_max_length, find_model
from llmrec_fast.encoding.plain_builder import PRECISIONS, Precision
from llmrec_fast.encoding.pooling import normalize_rows
from llmrec_fast.encoding.prompts import DOCUMENT_NAMES, QUERY_NAMES
from llmrec_fast.encoding.streaming import encode_pieces, write_npy
from llmrec_fast.encoding.tokens import Tokenizer, check_unicode
from llmrec_fast.encoding.vector_cache import VectorCache
from llmrec_fast.encoding.windows import pool_windows
from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels.threads import get_threads

LongTexts = Literal["truncate", "window"]
# what `describe` tells that no vector depends on, beyond rounding
_WITHOUT_EFFECT = ("device_reason", "engine", "model", "device", "threads")


class Encoder:
    """A transformer text encoder that gives what sentence-transformers gives for the same model, faster.

    Parameters
    ----------
    model : a known name (`minilm`) or a folder in the Hugging Face layout: config.json, tokenizer.json, and either
        model.safetensors or an ONNX file; modules.json and 1_Pooling are honoured. Weights may be of BERT, RoBERTa, XLM-R,
        DistilBERT, MPNet, ModernBERT, Llama, Mistral, Qwen2 or Qwen3.
    device : "auto", "cpu", "cuda" (ONNX Runtime on a GPU, float32) or "tensorrt", the last two for weights that the package
        builds a graph from. "auto" takes a GPU where one can be used, with TensorRT where an engine of the model was built;
        `describe()` says what it chose and why. A device that was asked for by name and cannot be used raises, and names what
        is missing. With "tensorrt" and no engine (`llmrec-fast build-engine`), `warmup` builds one and `encode` raises.
    precision : "float32"; "float16" products on TensorRT; None: float16 on TensorRT and float32 elsewhere; or "int8" for the
        products of a model given as safetensors. On the CPU: one scale an output channel of
        the weights, a scale and a zero point a row of activations. With all-MiniLM-L6-v2 and 2,000 short texts, against
        float32: mean cosine .9990, least .9971, 96% of the ten nearest neighbours the same, where weights have 8 bits (x86 with
        AVX-512 VNNI, and every processor without AVX2); .9975, .9932 and 94% where they have 7 bits (x86 with AVX2 and no
        AVX-512 VNNI). Decoders are rotated first, so that outliers do not cost more: SmolLM2-135M keeps .9979, .9824 and 88% of
        400 short texts with 7 bits.
        Vectors made on processors of the two kinds differ by as much: keep one index to one kind. A `VectorCache` does.
    pooling : "mean", "max", "first" (or "cls"), "last" (or "lasttoken"), "weighted_mean" (the token at position t weighs t) or
        "mean_sqrt_len" (the sum over the root of the number of tokens); None: what the model says, else mean.
    normalize : whether vectors are scaled to length 1; None: what the model says.
    max_length : tokens a text (or window) is cut at, special tokens included; None: what the model says.
    long_texts : "truncate" drops what is beyond max_length; "window" encodes overlapping windows and averages their vectors
        by their token counts.
    window_overlap : tokens that neighbouring windows share; None: a quarter of a window.
    prompts : texts by name that `encode` can put before what it encodes; they go before the model's own of the same name.
    default_prompt_name : the prompt of calls that name none; None: what the model says.
    truncate_dim : keep the first columns only, then normalise (for models trained so: Matryoshka, arXiv 2205.13147).
    threads : threads of the model; None: `llmrec_fast.get_threads()` at the time of construction. With more than one, the
        weights are held twice (once for one thread a batch, once for all threads on one batch); a service whose own threads
        call `encode` side by side has the steadiest latency with 1.
    cache : a `VectorCache`, or the folder of one: texts that it knows are not encoded again.
    batching : how `submit` and `encode_async` gather calls; None: `BatchingPolicy()`.
    progress : whether fetching a known model shows a bar.

    Raises
    ------
    InvalidInput : an unknown name, option or architecture; a folder that lacks a file.
    CorruptFile : a damaged file, named.
    DeviceUnavailable, MissingDependency, FetchFailed : what the message says is missing.

    Examples
    --------
    >>> encoder = Encoder("minilm")  # doctest: +SKIP
    >>> encoder.encode(["This is an example sentence"]).shape  # doctest: +SKIP
    (1, 384)
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "auto",
        precision: Precision | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        max_length: int | None = None,
        long_texts: LongTexts = "truncate",
        window_overlap: int | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        truncate_dim: int | None = None,
        threads: int | None = None,
        cache: VectorCache | str | Path | None = None,
        batching: BatchingPolicy | None = None,
        progress: bool = True,
    ) -> None:
        if precision is not None and precision not in PRECISIONS:
            raise InvalidInput(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
        if long_texts not in ("truncate", "window"):
            raise InvalidInput(f"long_texts must be 'truncate' or 'window'; got {long_texts!r}")
        if window_overlap is not None and long_texts != "window":
            raise InvalidInput("window_overlap goes with long_texts='window'")
        self._threads = get_threads() if threads is None else as_count(threads, "threads")
        files = find_model(model, pooling=pooling, progress=progress)
        self._files = files
        self._normalize = files.normalize if normalize is None else bool(normalize)
        chosen = choose_and_load(files, device, precision)
        self._choice, self._precision = chosen.choice, chosen.precision
        self._model: LoadedModel | DeviceModel = chosen.model or load_model(files, self._threads, chosen.precision)
        self._max_length = choose_max_length(max_length, files.max_length, self._model.positions)
        overlap = None
        if long_texts == "window":
            overlap = (
                self._max_length // 4
                if window_overlap is None
                else as_count(window_overlap, "window_overlap", minimum=0)
            )
        self._window_overlap = overlap
        self._tokenizer = Tokenizer(files.tokenizer, self._max_length, overlap, files.lower_case)
        self._prompts = files.prompts.updated(prompts, default_prompt_name)
        self._long_texts = long_texts
        padding_id = int(files.config.get("pad_token_id") or 0)
        self._inference: Inference | DeviceInference = (
            DeviceInference(self._model.session, files.pooling, padding_id)
            if isinstance(self._model, DeviceModel)
            else Inference(self._model, files.pooling, padding_id, self._threads)
        )
        self._dense = DenseLayers(files.dense, self._inference.columns)
        self._dimension = _choose_dimension(truncate_dim, self._dense.columns)
        self._cache = VectorCache(cache) if isinstance(cache, str | Path) else cache
        self._batcher = DynamicBatcher(self._encode_gathered, batching or BatchingPolicy())

    @property
    def dimension(self) -> int:
        """Columns of the vectors."""
        return self._dimension

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that `encode` knows by name."""
        return dict(self._prompts.texts)

    @property
    def max_length(self) -> int:
        """Tokens a text (or window) is cut at, special tokens included."""
        return self._max_length

    def describe(self) -> dict[str, Any]:
        """What was loaded and how it runs, for logs and for people."""
        described = {
            "model": str(self._files.folder),
            "architecture": str(self._files.config.get("model_type", "unknown")),
            "source": self._model.source,
            "device": self._choice.device,
            "device_reason": self._choice.reason,
            "precision": self._precision,
            "threads": self._threads,
            "dimension": self.dimension,
            "max_length": self._max_length,
            "long_texts": self._long_texts,
            "pooling": "+".join(self._files.pooling.modes),
            "normalize": self._normalize,
        }
        described["engine"] = self._model.engine
        if isinstance(self._model, LoadedModel) and self._model.weight_bits is not None:
            described["weight_bits"] = self._model.weight_bits
        return described

    def encode(
        self,
        texts: Sequence[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        show_progress: bool | None = None,
    ) -> Float32Array:
        """The vectors of texts, in their order.

        Identical texts are encoded once. A text's vector does not depend on the other texts beyond rounding (1e-6).

        Parameters
        ----------
        texts : strings; the empty string is one like any other.
        prompt_name : which of `prompts` goes before each text; None: the default, if there is one.
        prompt : a text to put before each text instead; "" for none.
        show_progress : whether a bar is shown on standard error; None: on a terminal, once the work takes over a second.

        Returns
        -------
        (n, dimension) float32.

        Raises
        ------
        InvalidInput : not a sequence of strings, a string with a lone surrogate, an unknown prompt_name.
        """
        given, skipped = self._with_prompt(texts, prompt_name, prompt)
        return self._encode_checked(given, skipped, show_progress)

    def _encode_checked(self, given: list[str], skipped: int, show_progress: bool | None) -> Float32Array:
        """(n, dimension) of checked texts, of each of which the first `skipped` tokens are not pooled."""
        places = {text: place for place, text in enumerate(dict.fromkeys(given))}

        def compute(distinct: list[str]) -> Float32Array:
            return self._encode_distinct(distinct, skipped, show_progress)

        if self._cache is None:
            vectors = compute(list(places))
        else:
            model = self._fingerprint + skipped.to_bytes(4, "little") if skipped else self._fingerprint
            vectors = self._cache.through(list(places), model, compute)
        if len(places) == len(given):
            return vectors
        return vectors[np.fromiter((places[text] for text in given), np.int64, len(given))]

    def encode_query(self, texts: Sequence[str], *, show_progress: bool | None = None) -> Float32Array:
        """`encode` with the prompt "query", or the default where the model has none of that name."""
        return self.encode(texts, prompt_name=self._prompts.first_of(QUERY_NAMES), show_progress=show_progress)

    def encode_document(self, texts: Sequence[str], *, show_progress: bool | None = None) -> Float32Array:
        """`encode` with the first prompt of "document", "passage" and "corpus" that there is, or the default."""
        return self.encode(texts, prompt_name=self._prompts.first_of(DOCUMENT_NAMES), show_progress=show_progress)

    def encode_iter(
        self, texts: Iterable[str], *, texts_at_a_time: int = 4096, show_progress: bool | None = None
    ) -> Iterator[Float32Array]:
        """The vectors of any number of texts, piece by piece, in their order; memory does not grow with their number.

        Parameters
        ----------
        texts : strings, taken from the iterable as they are needed.
        texts_at_a_time : texts of a piece. Padding is least where a piece holds many.
        show_progress : as in `encode`.

        Yields
        ------
        (texts_at_a_time, dimension) float32, the last one shorter.

        Raises
        ------
        InvalidInput : as `encode`, once the text at fault is reached; positions count from the start of its piece.
        """
        return encode_pieces(
            lambda piece: self.encode(piece, show_progress=False),
            texts,
            as_count(texts_at_a_time, "texts_at_a_time"),
            show_progress,
        )

    def encode_to(
        self,
        path: str | Path,
        texts: Iterable[str],
        *,
        texts_at_a_time: int = 4096,
        show_progress: bool | None = None,
    ) -> Float32Array:
        """Encode any number of texts into a .npy file; memory does not grow with their number.

        The file appears under its name once it is whole; an error on the way leaves what was there before.

        Returns
        -------
        (n, dimension) float32, a read-only memory map of the file: `Index.build` takes it as it is.

        Raises
        ------
        InvalidInput : as `encode`; a path that does not end in .npy or cannot be written.
        OSError : the disk is full or failed.
        """
        pieces = self.encode_iter(texts, texts_at_a_time=texts_at_a_time, show_progress=show_progress)
        return write_npy(path, pieces, self.dimension)

    def submit(
        self, texts: Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> Future[Float32Array]:
        """A future of what `encode` gives, for services: calls that wait at the same time share a batch.

        Its `cancel()` works until the batch starts. An error in one call's texts concerns that call alone.

        Raises
        ------
        InvalidInput : as `encode`, at once.
        Overloaded : too many texts wait already (`BatchingPolicy.waiting_texts`).
        """
        given, skipped = self._with_prompt(texts, prompt_name, prompt)
        return self._batcher.submit([(text, skipped) for text in given])

    async def encode_async(
        self, texts: Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> Float32Array:
        """`await encoder.encode_async(texts)`: as `submit`; cancelling the task withdraws a call that has not started."""
        given, skipped = self._with_prompt(texts, prompt_name, prompt)
        vectors: asyncio.Future[Float32Array] = asyncio.get_running_loop().create_future()
        self._batcher.put([(text, skipped) for text in given], vectors)
        return await vectors

    async def encode_query_async(self, texts: Sequence[str]) -> Float32Array:
        """`encode_async` with the prompt that `encode_query` takes."""
        return await self.encode_async(texts, prompt_name=self._prompts.first_of(QUERY_NAMES))

    def warmup(self) -> None:
        """Run the model once each way, so that the first request finds everything loaded and compiled.

        With device="tensorrt" and no engine in the cache, or one that is stale or damaged, builds it, which takes minutes.
        """
        if isinstance(self._model, DeviceModel):
            self._model.session.prepare()
        words = ["warm up"]
        self._encode_distinct(words, 0, False)
        self._encode_distinct([" ".join(words * 32)], 0, False)  # too long to be quick alone, and nothing to share out
        self._encode_distinct([f"warm up {number}" for number in range(64 * self._threads)], 0, False)

    @cached_property
    def _fingerprint(self) -> bytes:
        """A digest of everything but the text that a vector depends on; reads the model's files once."""
        digest = hashlib.blake2b(digest_size=32)
        settings = {key: value for key, value in self.describe().items() if key not in _WITHOUT_EFFECT}
        digest.update(repr(sorted(settings.items())).encode())
        digest.update(repr((self._window_overlap, self._files.lower_case)).encode())
        weights = self._files.weights if self._model.source == "safetensors" else (self._files.onnx,)
        for path in (self._files.tokenizer, *weights, *(layer.weights for layer in self._files.dense)):
            if path is not None:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "blake2b").digest())
        return digest.digest()

    def _encode_gathered(self, texts: list[TextToEncode]) -> Float32Array:
        """(n, dimension) of the texts of several calls, whose prompts may differ."""
        by_skipped: dict[int, list[int]] = {}
        for place, (_, skipped) in enumerate(texts):
            by_skipped.setdefault(skipped, []).append(place)
        vectors = np.empty((len(texts), self._dimension), np.float32)
        for skipped, places in by_skipped.items():
            vectors[places] = self._encode_checked([texts[place][0] for place in places], skipped, False)
        return vectors

    def _with_prompt(self, texts: Sequence[str], prompt_name: str | None, prompt: str | None) -> tuple[list[str], int]:
        """The texts, checked, each with its prompt before it, and how many of its tokens are not pooled."""
        before = self._prompts.choose(prompt_name, prompt)
        given = as_texts(texts)
        check_unicode(given)
        if not before:
            return given, 0
        check_unicode([before], "prompt")
        skipped = 0 if self._files.pooling.include_prompt else self._tokenizer.prompt_length(before)
        return [before + text for text in given], skipped

    def _encode_distinct(self, texts: list[str], skipped: int, show_progress: bool | None) -> Float32Array:
        """(n, dimension) of distinct, checked texts."""
        tokens = self._tokenizer.tokenize(texts)
        lengths = np.fromiter((len(window) for window in tokens.windows), np.int64, len(tokens.windows))
        cut = bool((tokens.counts > 1).any())
        whole = self._dimension == self._dense.columns
        direct = self._normalize and not cut and not self._dense and whole
        left_out = None
        if skipped:
            # the prompt is in a text's first window
            left_out = np.zeros_like(lengths)
            left_out[np.cumsum(tokens.counts) - tokens.counts] = skipped
        vectors = self._inference.vectors(
            tokens.windows, lengths, normalize=direct, show_progress=show_progress, skipped=left_out
        )
        if cut:
            pooled = lengths if left_out is None else np.maximum(lengths - left_out, 0)
            vectors = pool_windows(vectors, pooled, tokens.counts, self._threads)
        if self._dense:
            vectors = self._dense.apply(vectors)
        if not whole:
            vectors = np.ascontiguousarray(vectors[:, : self._dimension])
        if self._normalize and not direct:
            vectors = normalize_rows(vectors, self._threads)
        return vectors


def _choose_dimension(truncate_dim: int | None, columns: int) -> int:
    if truncate_dim is None:
        return columns
    if as_count(truncate_dim, "truncate_dim") > columns:
        raise InvalidInput(
            f"truncate_dim must be at most {columns}, the columns that the model gives; got {truncate_dim}"
        )
    return int(truncate_dim)
