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
from collections.abc import Collection, Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from llmrec_fast.errors import CorruptFile, InvalidInput
from llmrec_fast.kernels.codes import aligned_zeros

MANIFEST = "manifest.json"
FORMAT = "llmrec_fast index"
VERSION = 1
_CHUNK = 1 << 24

AnyArray = npt.NDArray[Any]


class FolderWriter:
    """Writes a new content of a folder; nothing of it is visible before `commit`.

    Raises
    ------
    InvalidInput : `path` is a file, or a folder that holds anything but a saved index.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_dir():
            raise InvalidInput(f"cannot save an index to {path}: it is a file, not a folder")
        foreign = [entry.name for entry in path.iterdir() if not _is_ours(entry)] if path.is_dir() else []
        if foreign and not (path / MANIFEST).exists():
            raise InvalidInput(f"cannot save an index to {path}: it holds other files, {foreign[0]!r} among them")
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._token = secrets.token_hex(4)
        self._files: dict[str, dict[str, Any]] = {}

    def write(self, name: str, array: AnyArray) -> None:
        """Write one array."""
        self.stream(name, array.dtype, array.shape, [array])

    def stream(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...], pieces: Iterable[AnyArray]) -> Path:
        """Write one array that comes in pieces along its first axis; returns the file."""
        path = self._path / f"{name}-{self._token}.npy"
        checksum = hashlib.sha256()
        written = 0
        with path.open("wb") as file:
            descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            preamble = BytesIO()
            np.lib.format.write_array_header_1_0(preamble, header)
            file.write(preamble.getvalue())
            checksum.update(preamble.getvalue())
            start = file.tell()
            for piece in pieces:
                data = np.ascontiguousarray(piece, dtype).reshape(-1).view(np.uint8).data
                for at in range(0, len(data), _CHUNK):
                    file.write(data[at : at + _CHUNK])
                    checksum.update(data[at : at + _CHUNK])
                written += len(data)
            file.flush()
            os.fsync(file.fileno())
        self._files[name] = {
            "file": path.name,
            "bytes": start + written,
            "start": start,
            "sha256": checksum.hexdigest(),
            "dtype": np.dtype(dtype).str,
            "shape": list(shape),
        }
        return path

    def commit(self, header: Mapping[str, Any]) -> None:
        """Make what was written, and `header` (anything JSON holds), the content of the folder."""
        content = {"format": FORMAT, "version": VERSION, "header": dict(header), "files": self._files}
        document = _written({"content": content, "sha256": _digest(content)})
        temporary = self._path / f"{MANIFEST}-{self._token}.tmp"
        with temporary.open("wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(self._path)
        temporary.replace(self._path / MANIFEST)
        _sync_folder(self._path)
        named = {MANIFEST, *(entry["file"] for entry in self._files.values())}
        for entry in self._path.iterdir():
            if entry.name not in named and _is_ours(entry):
                entry.unlink(missing_ok=True)


def write_folder(path: Path, header: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> None:
    """Make `arrays` and `header` the content of a folder; a crash leaves what was there before."""
    writer = FolderWriter(path)
    for name, array in arrays.items():
        writer.write(name, array)
    writer.commit(header)


def read_folder(
    path: Path, *, mapped: Collection[str] = (), verify: bool | None = None
) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    """The header and arrays of a folder that a `FolderWriter` committed.

    Parameters
    ----------
    mapped : names of arrays to map from disk instead of reading them. Writing to them never reaches the disk.
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


def map_array(path: Path, start: int, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> AnyArray:
    """An array mapped from a file. Copy-on-write, so that compiled code sees an ordinary, writable array."""
    return np.memmap(path, dtype=dtype, mode="c", offset=start, shape=shape)


def header_bytes(path: Path) -> int:
    """Where the data of a .npy file begin."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        return file.tell()


def _is_ours(entry: Path) -> bool:
    stem, _, token = entry.name.rpartition("-")
    name, _, suffix = token.partition(".")
    return entry.name == MANIFEST or (bool(stem) and suffix in ("npy", "tmp") and len(name) == 8)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _written(document: Mapping[str, Any]) -> bytes:
    """The one way in which a manifest is written, so that a change of white space is seen too."""
    return json.dumps(document, indent=1).encode()


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()
        document = json.loads(text)
        content = document["content"]
        intact = document["sha256"] == _digest(content) and _written(document) == text
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
        if is_mapped and size > start:
            if check:
                _check_data(file, path, entry)
            return map_array(path, start, dtype, shape)
        preamble = file.read(start)
        data = aligned_zeros(size - start, np.uint8)
        if file.readinto(data.data) != len(data):
            raise CorruptFile(f"{path} ended early")
    if check:
        checksum = hashlib.sha256(preamble)
        checksum.update(data.data)
        if checksum.hexdigest() != entry["sha256"]:
            raise CorruptFile(f"{path} is damaged: its checksum does not match")
    array: AnyArray = data.view(dtype).reshape(shape)
    return array


def _check_data(file: BinaryIO, path: Path, entry: Mapping[str, Any]) -> None:
    checksum = hashlib.sha256()
    while piece := file.read(_CHUNK):
        checksum.update(piece)
    if checksum.hexdigest() != entry["sha256"]:
        raise CorruptFile(f"{path} is damaged: its checksum does not match")
