"""FAISS's own format of flat indexes, alone or in an IDMap: bytes to an index and back. Nothing here touches files.

The layout is that of FAISS's index_write.cpp: a four-letter code, the header (d, ntotal, two unused int64, is_trained,
metric), then vectors with their number in front, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from llmrec_fast.compat.faiss.flat import IndexFlat, IndexFlatIP, IndexFlatL2
from llmrec_fast.compat.faiss.id_map import IndexIDMap, IndexIDMap2
from llmrec_fast.compat.faiss.metrics import METRIC_INNER_PRODUCT, FaissError
from llmrec_fast.errors import CorruptFile

AnyIndex = IndexFlat | IndexIDMap

_FLAT_CODES = (b"IxFI", b"IxF2", b"IxFl")
_MAP_CODES: dict[bytes, type[IndexIDMap]] = {b"IxMp": IndexIDMap, b"IxM2": IndexIDMap2}
CODES = (*_FLAT_CODES, *_MAP_CODES)
_HEADER = struct.Struct("<iqqq?i")
_UNUSED = 1 << 20  # what FAISS puts there


def pieces_of(index: AnyIndex) -> Iterator[bytes | memoryview]:
    """The bytes of an index, piece by piece."""
    if isinstance(index, IndexIDMap):
        yield next(code for code, kind in _MAP_CODES.items() if kind is type(index))
        yield _header(index)
        yield from pieces_of(index.index)
        yield from _array(np.asarray(index.id_map, "<i8"))
        return
    yield b"IxFI" if index.metric_type == METRIC_INNER_PRODUCT else b"IxF2"
    yield _header(index)
    yield from _array(np.asarray(index.reconstruct_n(), "<f4"))


def read(file: BinaryIO, size: int, name: str) -> AnyIndex:
    """The index that `file`, of `size` bytes, holds; messages call it `name`.

    Raises
    ------
    CorruptFile : it ends early or goes on after its index. FaissError : another kind of index or metric.
    """
    index = _read_index(file, size, name)
    if file.read(1):
        raise CorruptFile(f"{name} goes on after the end of its index")
    return index


def with_ids(kind: type[IndexIDMap], index: IndexFlat, ids: npt.NDArray[np.int64], name: str) -> IndexIDMap:
    """A map of `kind` over `index`, whose rows have these ids."""
    if len(ids) != index.ntotal:
        raise CorruptFile(f"{name} has {len(ids)} ids for {index.ntotal} rows")
    return kind.of(index, np.ascontiguousarray(ids, np.int64))


def _header(index: AnyIndex) -> bytes:
    return _HEADER.pack(index.d, index.ntotal, _UNUSED, _UNUSED, True, index.metric_type)


def _array(values: npt.NDArray[Any]) -> Iterator[bytes | memoryview]:
    yield struct.pack("<Q", values.size)
    if values.size:
        yield np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _read_index(file: BinaryIO, size: int, name: str) -> AnyIndex:
    code = _read(file, 4, name)
    if code not in CODES:
        raise FaissError(f"{name} holds the index kind {code!r}; flat indexes, alone or in an IDMap, are covered")
    d, count, _, _, _, metric = _HEADER.unpack(_read(file, _HEADER.size, name))
    if d < 1 or count < 0:
        raise CorruptFile(f"{name} says that it has {count} rows of {d} columns")
    if metric > 1:
        _read(file, 4, name)  # the argument of metrics that have one
    if code in _MAP_CODES:
        inner = _read_index(file, size, name)
        if not isinstance(inner, IndexFlat):
            raise FaissError(f"{name} holds an IDMap within an IDMap, which is not covered")
        return with_ids(_MAP_CODES[code], inner, _read_array(file, np.dtype("<i8"), size, name), name)
    index = _new_flat(code, d, metric)
    values = _read_array(file, np.dtype("<f4"), size, name)
    if len(values) != d * count:
        raise CorruptFile(f"{name} has {len(values)} values; {count} rows of {d} columns need {d * count}")
    if count:
        index.add(values.reshape(count, d))
    return index


def _new_flat(code: bytes, d: int, metric: int) -> IndexFlat:
    if code == b"IxFI":
        return IndexFlatIP(d)
    return IndexFlatL2(d) if code == b"IxF2" else IndexFlat(d, metric)


def _read_array(
    file: BinaryIO, dtype: np.dtype[np.float32] | np.dtype[np.int64], size: int, name: str
) -> npt.NDArray[np.int64]:
    (count,) = struct.unpack("<Q", _read(file, 8, name))
    left = size - file.tell()
    if count * dtype.itemsize > left:
        raise CorruptFile(
            f"{name} ended early: {count} values of {dtype.itemsize} bytes were announced, {left} bytes are left"
        )
    return np.frombuffer(_read(file, count * dtype.itemsize, name), dtype)


def _read(file: BinaryIO, count: int, name: str) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise CorruptFile(f"{name} ended early: it is not a whole FAISS index")
    return data
