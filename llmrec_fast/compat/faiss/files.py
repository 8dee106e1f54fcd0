"""`write_index` and `read_index`: folders of this package's own format; FAISS's own files of flat indexes are read too.

A folder holds the exact index (`Index.save`) in a subfolder of its own, and a manifest with checksums that names it, written
last: a crash leaves what was there before. FAISS's layout is that of its index_write.cpp: a four-letter code, the header
(d, ntotal, two unused int64, is_trained, metric), then vectors with their number in front, little-endian.
"""

from __future__ import annotations

import secrets
import shutil
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from llmrec_fast.compat.faiss.flat import IndexFlat, IndexFlatIP, IndexFlatL2
from llmrec_fast.compat.faiss.id_map import IndexIDMap, IndexIDMap2
from llmrec_fast.compat.faiss.metrics import FaissError
from llmrec_fast.errors import CorruptFile
from llmrec_fast.folders import FolderWriter, read_folder
from llmrec_fast.retrieval import Index as ExactIndex

AnyIndex = IndexFlat | IndexIDMap

_CLASSES: dict[str, type[IndexFlat]] = {c.__name__: c for c in (IndexFlat, IndexFlatIP, IndexFlatL2)}
_MAPS: dict[str, type[IndexIDMap]] = {c.__name__: c for c in (IndexIDMap, IndexIDMap2)}
_FLAT_CODES = (b"IxFI", b"IxF2", b"IxFl")
_MAP_CODES: dict[bytes, type[IndexIDMap]] = {b"IxMp": IndexIDMap, b"IxM2": IndexIDMap2}
_HEADER = struct.Struct("<iqqq?i")
_SUBFOLDER = "rows-"


def write_index(index: AnyIndex, path: str | Path) -> None:
    """Write an index to the folder `path`, replacing an index that is there; a crash leaves the old one.

    Raises
    ------
    FaissError : not an index of this module, or `path` is a file (FAISS writes files; this package writes folders).
    """
    if not isinstance(index, IndexFlat | IndexIDMap):
        raise FaissError(f"index must be an index of this module; got {type(index).__name__}")
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FaissError(f"{folder} is a file; an index is written as a folder: choose another path or delete it")
    flat = index.index if isinstance(index, IndexIDMap) else index
    folder.mkdir(parents=True, exist_ok=True)
    writer = FolderWriter(folder)  # refuses a folder that holds anything else, so it comes first
    subfolder = f"{_SUBFOLDER}{secrets.token_hex(4)}"
    flat._index.save(folder / subfolder)
    header = {"flat": type(flat).__name__, "metric": flat.metric_type, "rows": subfolder}
    if isinstance(index, IndexIDMap):
        header["map"] = type(index).__name__
        writer.write("id_map", index.id_map)
    writer.commit(header)
    for old in folder.glob(f"{_SUBFOLDER}*"):
        if old.is_dir() and old.name != subfolder:
            shutil.rmtree(old)


def read_index(path: str | Path) -> AnyIndex:
    """The index in a folder that `write_index` wrote, or in a file that FAISS wrote.

    Raises
    ------
    CorruptFile : damaged, truncated, or not an index.
    FaissError : a FAISS index of a kind or metric that is not covered; the message names its four-letter code.
    """
    place = Path(path)
    if place.is_dir():
        return _read_folder(place)
    try:
        with place.open("rb") as file:
            index = _read_faiss(file, place)
            if file.read(1):
                raise CorruptFile(f"{place} goes on after the end of its index")
            return index
    except FileNotFoundError as error:
        raise FaissError(f"{place} does not exist") from error


def _read_folder(folder: Path) -> AnyIndex:
    header, arrays = read_folder(folder)
    try:
        flat, metric, subfolder = _CLASSES[header["flat"]], header["metric"], str(header["rows"])
    except KeyError as error:
        raise CorruptFile(f"{folder} does not hold an index that write_index wrote: {error} is not known") from error
    index = flat.__new__(flat)
    IndexFlat.__init__(index, 1, metric)
    index._index = ExactIndex.load(folder / subfolder)
    serials = index._index.ids
    if len(serials) and int(serials[-1]) != len(serials) - 1:
        index._serials = serials
    if "map" not in header:
        return index
    return _with_ids(_MAPS[header["map"]], index, arrays["id_map"], folder)


def _with_ids(kind: type[IndexIDMap], index: IndexFlat, ids: npt.NDArray[np.int64], place: Path) -> IndexIDMap:
    if len(ids) != index.ntotal:
        raise CorruptFile(f"{place} has {len(ids)} ids for {index.ntotal} rows")
    mapped = kind(type(index)(index.d) if type(index) is not IndexFlat else IndexFlat(index.d, index.metric_type))
    mapped.index, mapped.id_map = index, np.ascontiguousarray(ids, np.int64)
    return mapped


def _read_faiss(file: BinaryIO, path: Path) -> AnyIndex:
    code = _read(file, 4, path)
    if code not in _FLAT_CODES and code not in _MAP_CODES:
        raise FaissError(f"{path} holds the index kind {code!r}; flat indexes, alone or in an IDMap, are covered")
    d, count, _, _, _, metric = _HEADER.unpack(_read(file, _HEADER.size, path))
    if d < 1 or count < 0:
        raise CorruptFile(f"{path} says that it has {count} rows of {d} columns")
    if metric > 1:
        _read(file, 4, path)  # the argument of metrics that have one
    if code in _MAP_CODES:
        inner = _read_faiss(file, path)
        if not isinstance(inner, IndexFlat):
            raise FaissError(f"{path} holds an IDMap within an IDMap, which is not covered")
        return _with_ids(_MAP_CODES[code], inner, _read_array(file, np.dtype("<i8"), path), path)
    index = _new_flat(code, d, metric)
    values = _read_array(file, np.dtype("<f4"), path)
    if len(values) != d * count:
        raise CorruptFile(f"{path} has {len(values)} values; {count} rows of {d} columns need {d * count}")
    if count:
        index.add(values.reshape(count, d))
    return index


def _new_flat(code: bytes, d: int, metric: int) -> IndexFlat:
    if code == b"IxFI":
        return IndexFlatIP(d)
    return IndexFlatL2(d) if code == b"IxF2" else IndexFlat(d, metric)


def _read_array(file: BinaryIO, dtype: np.dtype[np.float32] | np.dtype[np.int64], path: Path) -> npt.NDArray[np.int64]:
    (count,) = struct.unpack("<Q", _read(file, 8, path))
    left = path.stat().st_size - file.tell()
    if count * dtype.itemsize > left:
        raise CorruptFile(
            f"{path} ended early: {count} values of {dtype.itemsize} bytes were announced, {left} bytes are left"
        )
    return np.frombuffer(_read(file, count * dtype.itemsize, path), dtype)


def _read(file: BinaryIO, size: int, path: Path) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise CorruptFile(f"{path} ended early: it is not a whole FAISS index")
    return data
