"""What `SentenceTransformer` is told about the hub, torch and its own names: what changes nothing here, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

from llmrec_fast.errors import InvalidInput

# no code of a model is ever run, no hub is asked with a token, nothing is published
_CHANGE_NOTHING = ("trust_remote_code", "token", "use_auth_token", "model_card_data")
_ABSENT = {
    "modules": "a model is made of a folder or a known name",
    "cache_folder": "the cache is where LLMREC_CACHE says",
    "revision": "models are pinned by their checksums",
    "model_kwargs": "there is no torch model",
    "processor_kwargs": "the tokeniser is that of the model's files; set max_seq_length for another length",
    "tokenizer_kwargs": "the tokeniser is that of the model's files; set max_seq_length for another length",
    "config_kwargs": "the configuration is that of the model's files",
}
_BACKENDS = ("torch", "onnx")


class SimilarityFunction(Enum):
    """The names of the similarity functions."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796 - sentence-transformers' second name of it
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @staticmethod
    def possible_values() -> list[str]:
        """All values."""
        return [function.value for function in SimilarityFunction]


def check_options(options: Mapping[str, Any], model: str | Path) -> None:
    """Refuse options of sentence-transformers' constructor that ask for what is not here.

    Raises
    ------
    TypeError : a keyword that it does not have.
    InvalidInput : one that would change something.
    """
    for name, value in options.items():
        if name in _ABSENT:
            if value:
                raise InvalidInput(f"{name} must be left out: {_ABSENT[name]}; got {value!r}")
        elif name == "backend":
            if value not in _BACKENDS:
                raise InvalidInput(
                    f"backend must be one of {', '.join(_BACKENDS)}, which are the same here; got {value!r}"
                )
        elif name == "local_files_only":
            if value and not Path(model).is_dir():
                raise InvalidInput(
                    f"local_files_only needs a model's folder, or set LLMREC_OFFLINE=1; got {str(model)!r}"
                )
        elif name not in _CHANGE_NOTHING:
            raise TypeError(f"SentenceTransformer() got an unexpected keyword argument {name!r}")
