"""`write_index` and `read_index`: folders of this package's own format, and FAISS's own files of flat indexes.

A folder holds the exact index (`Index.save`) in a subfolder of its own, and a manifest with checksums that names it, written
last: a crash leaves what was there before.
"""

from __future__ import annotations

import os
import secrets
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.compat.faiss import faiss_format
from llmrec_fast.compat.faiss.faiss_format import AnyIndex, with_ids
from llmrec_fast.compat.faiss.flat import IndexFlat, IndexFlatIP, IndexFlatL2
from llmrec_fast.compat.faiss.id_map import IndexIDMap, IndexIDMap2
from llmrec_fast.compat.faiss.metrics import CorruptIndex, FaissError
from llmrec_fast.errors import CorruptFile
from llmrec_fast.folders import FolderWriter, read_folder
from llmrec_fast.retrieval import Index as ExactIndex

IO_FLAG_READ_ONLY = 2
IO_FLAG_MMAP = 0x646F0008

_CLASSES: dict[str, type[IndexFlat]] = {c.__name__: c for c in (IndexFlat, IndexFlatIP, IndexFlatL2)}
_MAPS: dict[str, type[IndexIDMap]] = {c.__name__: c for c in (IndexIDMap, IndexIDMap2)}
_SUBFOLDER = "rows-"


def write_index(index: AnyIndex, path: str | Path) -> None:
    """Write an index, replacing one that is there; a crash leaves the old one.

    What is a file stays a file: over an index that FAISS wrote, or an empty file, goes FAISS's own format. Anywhere else goes a
    folder of this package's format, which opens without encoding anything.

    Raises
    ------
    FaissError : not an index of this module, or `path` is a file that holds something else.
    """
    _check(index)
    place = Path(path)
    if place.exists() and not place.is_dir():
        _write_file(index, place)
    else:
        _write_folder(index, place)


def read_index(path: str | Path, io_flags: int = 0) -> AnyIndex:
    """The index in a folder that `write_index` wrote, or in a file of FAISS's format.

    Parameters
    ----------
    path : a folder or a file.
    io_flags : 0, IO_FLAG_MMAP, IO_FLAG_READ_ONLY or both; nothing changes, as rows of a folder are mapped anyway.

    Raises
    ------
    CorruptIndex : damaged, truncated, or not an index.
    FaissError : a FAISS index of a kind or metric that is not covered; the message names its four-letter code.
    """
    if io_flags & ~(IO_FLAG_MMAP | IO_FLAG_READ_ONLY):
        raise FaissError(f"io_flags must be made of IO_FLAG_MMAP and IO_FLAG_READ_ONLY; got {io_flags}")
    place = Path(path)
    try:
        if place.is_dir():
            return _read_folder(place)
        with place.open("rb") as file:
            return faiss_format.read(file, place.stat().st_size, str(place))
    except FileNotFoundError as error:
        raise FaissError(f"{place} does not exist") from error
    except CorruptFile as error:
        raise CorruptIndex(str(error)) from error


def serialize_index(index: AnyIndex) -> npt.NDArray[np.uint8]:
    """An index as bytes, (n,) uint8, in FAISS's own format, which FAISS reads too."""
    _check(index)
    return np.frombuffer(b"".join(faiss_format.pieces_of(index)), np.uint8)


def deserialize_index(data: npt.NDArray[np.uint8], io_flags: int = 0) -> AnyIndex:
    """The index that `serialize_index` made `data` of, here or in FAISS. Raises as `read_index`."""
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        raise FaissError(f"data must be a uint8 array; got {getattr(data, 'dtype', type(data).__name__)}")
    try:
        return faiss_format.read(BytesIO(data.tobytes()), data.size, "data")
    except CorruptFile as error:
        raise CorruptIndex(str(error)) from error


def clone_index(index: AnyIndex) -> AnyIndex:
    """A copy of an index, which shares nothing with it."""
    _check(index)
    copied: AnyIndex = index.__deepcopy__({})
    return copied


def _check(index: Any) -> None:
    if not isinstance(index, IndexFlat | IndexIDMap):
        raise FaissError(f"index must be an index of this module; got {type(index).__name__}")


def _write_file(index: AnyIndex, place: Path) -> None:
    with place.open("rb") as file:
        code = file.read(4)
    if code and code not in faiss_format.CODES:
        raise FaissError(f"{place} is a file that holds something else than an index; choose another path or delete it")
    unfinished = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            file.writelines(faiss_format.pieces_of(index))
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, place)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_folder(index: AnyIndex, folder: Path) -> None:
    flat = index.index if isinstance(index, IndexIDMap) else index
    folder.mkdir(parents=True, exist_ok=True)
    writer = FolderWriter(folder)  # refuses a folder that holds anything else, so it comes first
    subfolder = f"{_SUBFOLDER}{secrets.token_hex(4)}"
    flat._index.save(folder / subfolder)
    header = {"flat": type(flat).__name__, "metric": flat.metric_type, "rows": subfolder}
    if isinstance(index, IndexIDMap):
        header["map"] = type(index).__name__
        writer.write("id_map", np.asarray(index.id_map))
    writer.commit(header)
    for old in folder.glob(f"{_SUBFOLDER}*"):
        if old.is_dir() and old.name != subfolder:
            shutil.rmtree(old)


def _read_folder(folder: Path) -> AnyIndex:
    header, arrays = read_folder(folder)
    try:
        flat, metric, subfolder = _CLASSES[header["flat"]], header["metric"], str(header["rows"])
    except KeyError as error:
        raise CorruptFile(f"{folder} does not hold an index that write_index wrote: {error} is not known") from error
    index = flat.__new__(flat)
    index._start(1, metric)
    index._index = ExactIndex.load(folder / subfolder)
    serials = index._index.ids
    if len(serials) and int(serials[-1]) != len(serials) - 1:
        index._serials = serials
    if "map" not in header:
        return index
    return with_ids(_MAPS[header["map"]], index, arrays["id_map"], str(folder))
