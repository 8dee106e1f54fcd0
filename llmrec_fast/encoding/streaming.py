"""Catalogues larger than memory: texts come from an iterator, vectors go to a consumer or to a .npy file, piece by piece."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from llmrec_fast.arrays import Float32Array
from llmrec_fast.errors import InvalidInput


def encode_pieces(
    encode: Callable[[list[str]], Float32Array], texts: Iterable[str], texts_at_a_time: int, show_progress: bool | None
) -> Iterator[Float32Array]:
    """(<= texts_at_a_time, d) float32 arrays of vectors, in the order of `texts`, of which only one piece is held."""
    if isinstance(texts, str | bytes):
        raise InvalidInput("texts must be an iterable of strings, not a single string: pass [texts]")
    return _pieces(encode, iter(texts), texts_at_a_time, None if show_progress is None else not show_progress)


def _pieces(
    encode: Callable[[list[str]], Float32Array], source: Iterator[str], texts_at_a_time: int, disable: bool | None
) -> Iterator[Float32Array]:
    from tqdm import tqdm

    # disable=None: shown on a terminal only
    with tqdm(desc="encode", unit="text", disable=disable, delay=1.0 * (disable is None)) as bar:
        while piece := list(islice(source, texts_at_a_time)):
            yield encode(piece)
            bar.update(len(piece))


def write_npy(path: str | Path, pieces: Iterable[Float32Array], columns: int) -> Float32Array:
    """Write pieces of rows one after another as one .npy file and return it as a read-only memory map (n, columns).

    The file appears under its name only once it is whole; an error on the way leaves what was there before.

    Raises
    ------
    InvalidInput : the path does not end in .npy, or its folder is absent or cannot be written to.
    OSError : the disk is full or failed; the unfinished file is gone.
    """
    target = Path(path)
    if target.suffix != ".npy":
        raise InvalidInput(f"the file must end in .npy; got {target}")
    try:
        descriptor, unfinished = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=".npy", dir=target.parent)
    except OSError as error:
        raise InvalidInput(f"cannot write into {target.parent}: {error}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            room = _write_header(file, 0, columns)
            rows = 0
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, np.float32).data)
                rows += len(piece)
            file.seek(0)
            if _write_header(file, rows, columns) != room:
                raise AssertionError("NumPy pads the header for any number of rows")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(unfinished, 0o666 & ~_umask())
        os.replace(unfinished, target)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    if not rows:
        return np.zeros((0, columns), np.float32)  # nothing can be mapped
    mapped: Float32Array = np.load(target, mmap_mode="r")
    return mapped


def _write_header(file: BinaryIO, rows: int, columns: int) -> int:
    """Write the header for so many rows; returns its bytes, which do not depend on the rows."""
    description = {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(file, description)
    return file.tell()


def _umask() -> int:
    """The process's mask of file modes; reading it means setting it for a moment."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
