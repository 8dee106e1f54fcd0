"""`SentenceTransformer`: sentence-transformers' class for encoding, over this package's sessions. It does not train."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import as_count, as_texts
from llmrec_fast.compat.sentence_transformers import similarity
from llmrec_fast.compat.sentence_transformers.options import SimilarityFunction, check_options
from llmrec_fast.compat.sentence_transformers.quantization import PRECISIONS, quantize_embeddings
from llmrec_fast.compat.sentence_transformers.tensors import as_tensor
from llmrec_fast.compat.sentence_transformers.text_vectors import TextVectors
from llmrec_fast.encoding.pooling import normalize_rows
from llmrec_fast.encoding.prompts import DOCUMENT_NAMES, QUERY_NAMES, Prompts
from llmrec_fast.errors import DeviceUnavailable, InvalidInput
from llmrec_fast.kernels.threads import get_threads

_log = logging.getLogger(__name__)

_Similarity = Callable[[Any, Any], Any]
_SIMILARITIES: Mapping[str, tuple[_Similarity, _Similarity]] = {
    "cosine": (similarity.cos_sim, similarity.pairwise_cos_sim),
    "dot": (similarity.dot_score, similarity.pairwise_dot_score),
    "euclidean": (similarity.euclidean_sim, similarity.pairwise_euclidean_sim),
    "manhattan": (similarity.manhattan_sim, similarity.pairwise_manhattan_sim),
}
# every model of sentence-transformers has these two, without a text where its files give none
_USUAL_PROMPTS = ("query", "document")
_SETTINGS = "config_sentence_transformers.json"


class SentenceTransformer:
    """Texts to vectors: within 1e-4 of what sentence-transformers gives for the same model on a CPU.

    Parameters
    ----------
    model_name_or_path : what `llmrec_fast.Encoder` takes: a known name such as "all-MiniLM-L6-v2", or a model's folder.
    device : None or "cpu".
    prompts : prompts by name, put before a text; they go before those of the model's files.
    default_prompt_name : the prompt of calls that name none. Default: what the model's files say.
    similarity_fn_name : "cosine", "dot", "euclidean" or "manhattan". Default: what the model's files say, else cosine.
    truncate_dim : keep so many columns. Default: all.
    options : sentence-transformers' other keywords, where they change nothing here: see `options`.

    Raises
    ------
    InvalidInput : an unknown model, option or prompt name.
    DeviceUnavailable : another device.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        *,
        device: str | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | SimilarityFunction | None = None,
        truncate_dim: int | None = None,
        **options: Any,
    ) -> None:
        _check_device(device)
        check_options(options, model_name_or_path)
        self._texts = TextVectors(model_name_or_path)
        known = self._texts.files.prompts
        usual = Prompts(dict.fromkeys(_USUAL_PROMPTS, "") | dict(known.texts), known.default)
        chosen = usual.updated(prompts, default_prompt_name)
        self.prompts: dict[str, str] = dict(chosen.texts)
        self.default_prompt_name = chosen.default
        self.truncate_dim = None if truncate_dim is None else as_count(truncate_dim, "truncate_dim")
        self.similarity_fn_name = similarity_fn_name or _similarity_of(self._texts.files.folder) or "cosine"

    @property
    def device(self) -> str:
        """Always "cpu" (a string, which torch's functions take for a device)."""
        return "cpu"

    @property
    def max_seq_length(self) -> int:
        """Tokens a text is cut at, special tokens included; may be set."""
        return self._texts.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._texts.set_max_length(as_count(value, "max_seq_length"))

    @property
    def similarity_fn_name(self) -> str:
        """Which function `similarity` and `similarity_pairwise` use; may be set."""
        return self._similarity_fn_name

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: str | SimilarityFunction) -> None:
        value = value.value if isinstance(value, SimilarityFunction) else value
        if value not in _SIMILARITIES:
            raise InvalidInput(f"similarity_fn_name must be one of {', '.join(_SIMILARITIES)}; got {value!r}")
        self._similarity_fn_name = value

    def to(self, device: str) -> Self:
        """This model, if the device is the CPU, where it is."""
        _check_device(device)
        return self

    def eval(self) -> Self:
        """This model, which does not train anyway."""
        return self

    def get_max_seq_length(self) -> int:
        """`max_seq_length`."""
        return self.max_seq_length

    def get_embedding_dimension(self) -> int:
        """Columns of what `encode` returns."""
        columns = self._texts.columns
        return columns if self.truncate_dim is None else min(columns, self.truncate_dim)

    def get_sentence_embedding_dimension(self) -> int:
        """Columns of what `encode` returns."""
        return self.get_embedding_dimension()

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Within this context `encode` keeps `truncate_dim` columns."""
        before = self.truncate_dim
        self.truncate_dim = None if truncate_dim is None else as_count(truncate_dim, "truncate_dim")
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The (n, m) tensor of similarities of every row of one with every row of the other."""
        return _SIMILARITIES[self._similarity_fn_name][0](embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The (n,) tensor of similarities of row i of one with row i of the other."""
        return _SIMILARITIES[self._similarity_fn_name][1](embeddings1, embeddings2)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Token ids of texts as int64 tensors: input_ids and attention_mask, (n, longest); token_type_ids for BERT."""
        windows = self._texts.tokens(as_texts(texts))
        longest = max((len(window) for window in windows), default=0)
        ids = np.full((len(windows), longest), self._texts.padding_id, np.int64)
        mask = np.zeros_like(ids)
        for row, window in enumerate(windows):
            ids[row, : len(window)] = window
            mask[row, : len(window)] = 1
        features = {"input_ids": as_tensor(ids)}
        if self._texts.files.config.get("model_type") == "bert":
            features["token_type_ids"] = as_tensor(np.zeros_like(ids))
        features["attention_mask"] = as_tensor(mask)
        return features

    def encode(
        self,
        inputs: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: str | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: None = None,
        chunk_size: None = None,
        *,
        sentences: str | Sequence[str] | None = None,
    ) -> Any:
        """The vectors of texts.

        Parameters
        ----------
        inputs, sentences : a text or many; the parameter's new and old name.
        prompt_name : a name in `prompts`, whose text goes before each input.
        prompt : a text to put before each input; goes before `prompt_name`.
        batch_size : at least 1. Batches are planned by tokens here, so it changes nothing.
        show_progress_bar : whether a bar is shown. None: if this module's logger shows messages of level INFO.
        output_value : "sentence_embedding", or "token_embeddings" for a list of (tokens, hidden) tensors, one a text.
        precision : see `quantize_embeddings`.
        convert_to_numpy : an (n, d) array; False: a list of tensors.
        convert_to_tensor : an (n, d) tensor; goes before `convert_to_numpy`.
        device : None or "cpu".
        normalize_embeddings : scale vectors to length 1, after truncation.
        truncate_dim : keep so many columns.
        pool, chunk_size : None; there are threads here instead of processes.

        Returns
        -------
        As said above; for a single text one row of it.

        Raises
        ------
        InvalidInput : an unknown precision, prompt name or output value (None among them), inputs that are not texts.
        DeviceUnavailable : another device, or a list of devices.
        MissingDependency : a tensor is asked for and torch is not installed.
        """
        _check_device(device)
        as_count(batch_size, "batch_size")
        given = sentences if inputs is None else inputs
        if given is None or (inputs is not None and sentences is not None):
            raise InvalidInput("give either inputs or sentences, its former name")
        if pool is not None or chunk_size is not None:
            raise InvalidInput(
                "pool and chunk_size are for encoding with processes; leave them out: threads do it here"
            )
        if output_value not in ("sentence_embedding", "token_embeddings"):
            raise InvalidInput(f"output_value must be 'sentence_embedding' or 'token_embeddings'; got {output_value!r}")
        if precision not in PRECISIONS:
            raise InvalidInput(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
        single = isinstance(given, str)
        before = self._prompt(prompt, prompt_name)
        texts = [before + text for text in as_texts([given] if isinstance(given, str) else given, "inputs")]
        if output_value == "token_embeddings":
            tensors = [as_tensor(rows) for rows in self._texts.token_vectors(texts)]
            return tensors[0] if single else tensors
        if show_progress_bar is None:
            show_progress_bar = _log.isEnabledFor(logging.INFO)
        vectors = self._vectors(texts, before, truncate_dim, normalize_embeddings, precision, show_progress_bar)
        if convert_to_tensor:
            result: Any = as_tensor(vectors if texts else vectors.astype(np.float32))
        elif convert_to_numpy:
            result = vectors
        else:
            result = [as_tensor(row) for row in vectors]
        return result[0] if single else result

    def encode_query(self, inputs: str | Sequence[str] | None = None, **keywords: Any) -> Any:
        """`encode` with the prompt named "query", unless a prompt is given."""
        return self.encode(inputs, **self._with_prompt(QUERY_NAMES, keywords))

    def encode_document(self, inputs: str | Sequence[str] | None = None, **keywords: Any) -> Any:
        """`encode` with the first prompt of "document", "passage" and "corpus" that there is, unless one is given."""
        return self.encode(inputs, **self._with_prompt(DOCUMENT_NAMES, keywords))

    def _vectors(
        self,
        texts: list[str],
        prompt: str,
        truncate_dim: int | None,
        normalize: bool,
        precision: str,
        show_progress: bool,
    ) -> npt.NDArray[Any]:
        if not texts:
            return np.array([])  # as sentence-transformers: one dimension
        vectors = self._texts.vectors(texts, prompt, show_progress=show_progress)
        columns = self.truncate_dim if truncate_dim is None else as_count(truncate_dim, "truncate_dim")
        if columns is not None:
            vectors = np.ascontiguousarray(vectors[:, :columns])
        if normalize:
            vectors = normalize_rows(vectors, get_threads())
        return vectors if precision == "float32" else quantize_embeddings(vectors, precision)

    def _prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        if prompt is not None and prompt_name is not None:
            _log.warning("prompt and prompt_name were both given; prompt_name is ignored")
            prompt_name = None
        return self._known_prompts.choose(prompt_name, prompt)

    @property
    def _known_prompts(self) -> Prompts:
        return Prompts(self.prompts, self.default_prompt_name)  # both may have been set since

    def _with_prompt(self, names: Sequence[str], keywords: dict[str, Any]) -> dict[str, Any]:
        if keywords.get("prompt") is None and keywords.get("prompt_name") is None:
            return keywords | {"prompt_name": self._known_prompts.first_of(names)}
        return keywords


def _check_device(device: object) -> None:
    if device is not None and str(device) != "cpu":
        raise DeviceUnavailable(f"device {device!r} is not covered by this module; leave it out or use 'cpu'")


def _similarity_of(folder: Path) -> str | None:
    path = folder / _SETTINGS
    settings = json.loads(path.read_bytes()) if path.is_file() else {}
    name: str | None = settings.get("similarity_fn_name")
    return name
