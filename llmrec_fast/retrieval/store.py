"""A folder of named arrays that is replaced atomically, versioned and checksummed. Knows nothing of what the arrays mean.

Layout: one `NAME-TOKEN.npy` an array and one `manifest.json` that lists them with size and SHA-256, itself checksummed.
Data files are written under a fresh token and flushed to disk before `manifest.json` is replaced by rename, so whatever
moment the process dies at, the manifest names a complete set of files: the old one or the new one. Files that no manifest
names are swept by the next save.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from llmrec_fast.errors import CorruptFile, InvalidInput

MANIFEST = "manifest.json"
FORMAT = "llmrec_fast index"
VERSION = 1
_CHUNK = 1 << 24

AnyArray = npt.NDArray[Any]


def write_folder(path: Path, header: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> None:
    """Write `arrays` and `header` (anything JSON holds) to the folder `path`; a crash leaves what was there before.

    Raises
    ------
    InvalidInput : `path` exists and is neither an empty folder nor one written by this function.
    """
    if path.exists() and not path.is_dir():
        raise InvalidInput(f"cannot save an index to {path}: it is a file, not a folder")
    if path.is_dir() and not (path / MANIFEST).exists() and any(not _is_ours(entry) for entry in path.iterdir()):
        raise InvalidInput(
            f"cannot save an index to {path}: the folder holds other files; choose an empty or new folder"
        )
    path.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(4)
    files = {name: _write_array(path / f"{name}-{token}.npy", array) for name, array in arrays.items()}
    content = {"format": FORMAT, "version": VERSION, "header": dict(header), "files": files}
    document = json.dumps({"content": content, "sha256": _digest(content)}, indent=1)
    temporary = path / f"{MANIFEST}-{token}.tmp"
    with temporary.open("wb") as file:
        file.write(document.encode())
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path)
    temporary.replace(path / MANIFEST)
    _sync_folder(path)
    named = {entry["file"] for entry in files.values()}
    for entry in path.iterdir():
        if entry.name not in named and _is_ours(entry):
            entry.unlink(missing_ok=True)


def read_folder(
    path: Path, *, mapped: Collection[str] = (), verify: bool | None = None
) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """The header and arrays of a folder that `write_folder` wrote.

    Parameters
    ----------
    mapped : names of arrays to map from disk, read-only, instead of reading them.
    verify : whether to compare checksums: True all files, False none (sizes only), None those that are read anyway.

    Raises
    ------
    CorruptFile : the manifest or a file is missing, truncated or not what its checksum says; the message names it.
    """
    content = _read_manifest(path / MANIFEST)
    arrays = {}
    for name, entry in content["files"].items():
        is_mapped = name in mapped
        check = verify if verify is not None else not is_mapped
        arrays[name] = _read_array(path / entry["file"], entry, is_mapped, check)
    return content["header"], arrays


def _is_ours(entry: Path) -> bool:
    stem, _, token = entry.name.rpartition("-")
    return bool(stem) and token.partition(".")[2] in ("npy", "tmp") and len(token.partition(".")[0]) == 8


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_array(path: Path, array: AnyArray) -> dict[str, Any]:
    checksum = hashlib.sha256()
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        start = file.tell()
        data = array.reshape(-1).view(np.uint8).data
        for at in range(0, len(data), _CHUNK):
            file.write(data[at : at + _CHUNK])
            checksum.update(data[at : at + _CHUNK])
        file.flush()
        os.fsync(file.fileno())
    # the .npy header is described by dtype and shape, which the manifest's own checksum covers
    return {
        "file": path.name,
        "bytes": start + array.nbytes,
        "start": start,
        "sha256": checksum.hexdigest(),
        "dtype": array.dtype.str,
        "shape": list(array.shape),
    }


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
        content = document["content"]
        intact = document["sha256"] == _digest(content)
    except FileNotFoundError as error:
        raise CorruptFile(f"{path} does not exist: {path.parent} holds no saved index") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} is damaged: {error}") from error
    if not intact:
        raise CorruptFile(f"{path} is damaged: its checksum does not match")
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise CorruptFile(
            f"{path} holds format {content.get('format')!r} version {content.get('version')!r}; "
            f"this release reads {FORMAT!r} version {VERSION}"
        )
    return dict(content)


def _read_array(path: Path, entry: Mapping[str, Any], is_mapped: bool, check: bool) -> AnyArray:
    dtype, shape, start = np.dtype(entry["dtype"]), tuple(entry["shape"]), entry["start"]
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CorruptFile(f"{path} is missing") from error
    if size != entry["bytes"]:
        raise CorruptFile(f"{path} has {size} bytes; {entry['bytes']} were saved")
    with path.open("rb") as file:
        if check:
            _check_header(file, path, dtype, shape)
        file.seek(start)
        if is_mapped and size > start:
            if check:
                _check_data(file, path, entry)
            return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape)
        data = aligned_empty((size - start,), np.uint8)
        if file.readinto(data.data) != len(data):
            raise CorruptFile(f"{path} ended early")
    if check and hashlib.sha256(data.data).hexdigest() != entry["sha256"]:
        raise CorruptFile(f"{path} is damaged: its checksum does not match")
    return data.view(dtype).reshape(shape)


def _check_header(file: BinaryIO, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    try:
        np.lib.format.read_magic(file)
        found_shape, fortran, found_dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, SyntaxError, EOFError) as error:
        raise CorruptFile(f"{path} is damaged: {error}") from error
    if fortran or found_shape != shape or found_dtype != dtype:
        raise CorruptFile(f"{path} is damaged: its header does not match the manifest")


def _check_data(file: BinaryIO, path: Path, entry: Mapping[str, Any]) -> None:
    checksum = hashlib.sha256()
    while piece := file.read(_CHUNK):
        checksum.update(piece)
    if checksum.hexdigest() != entry["sha256"]:
        raise CorruptFile(f"{path} is damaged: its checksum does not match")


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> AnyArray:
    """An uninitialised C-contiguous array that starts at a cache line (64 bytes), as the scan's loads want it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.empty(size + 64, np.uint8)
    offset = -buffer.ctypes.data % 64
    aligned: AnyArray = buffer[offset : offset + size].view(dtype).reshape(shape)
    return aligned
