"""Documents and vectors in one folder: replaced atomically, checksummed, plain JSON and arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document

from llmrec_fast.arrays import Float32Array
from llmrec_fast.errors import CorruptFile, InvalidInput
from llmrec_fast.folders import read_folder, write_folder
from llmrec_fast.retrieval.result import Metric

_KIND = "langchain documents"


def save(path: Path, metric: Metric, documents: Sequence[Any], rows: Float32Array) -> None:
    """Write everything to `path`; raises `InvalidInput` for metadata that would not come back as it is."""
    for document in documents:
        _check_plain(document.metadata, f"the metadata of document {document.id!r}")
    entries = [[document.id, document.page_content, document.metadata] for document in documents]
    text = np.frombuffer(json.dumps(entries).encode(), np.uint8)
    write_folder(path, {"kind": _KIND, "metric": metric}, {"documents": text, "rows": rows})


def load(path: Path) -> tuple[Metric, list[Any], Float32Array]:
    """What `save` wrote; raises `CorruptFile`."""
    header, arrays = read_folder(path)
    if header.get("kind") != _KIND:
        raise CorruptFile(f"{path} holds no saved vector store but something else of this package")
    documents = [
        Document(id=identifier, page_content=content, metadata=metadata)
        for identifier, content, metadata in json.loads(arrays["documents"].tobytes())
    ]
    return header["metric"], documents, arrays["rows"]


def _check_plain(value: Any, name: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidInput(f"{name} has the key {key!r}, which JSON would turn into a string")
            _check_plain(item, name)
    elif isinstance(value, list):
        for item in value:
            _check_plain(item, name)
    elif not isinstance(value, str | int | float | None):
        raise InvalidInput(f"{name} holds {type(value).__name__} {value!r}; what is saved must be what JSON holds")
