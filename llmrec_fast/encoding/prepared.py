"""What loading a model prepares, kept on disk: weights packed for the package's kernels, graphs built for ONNX Runtime.

A later process maps a file where the first one packed or built, and shares the file's pages with others. A file is known by
where the weights lie, their sizes and times of change (reading them for a digest would take as long as packing them), by what
it holds and the instruction set; and it says for which architecture, package and code it was written, so that a stale one is
told apart and replaced. Weights that are overwritten with as many bytes and the same time of change are not noticed.

Graphs are kept as they are built, fused already, before ONNX Runtime's own optimisation: that takes no time that can be
measured, and depends on its version.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import mmap
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast import __version__
from llmrec_fast.encoding.architectures import Architecture
from llmrec_fast.encoding.families import build_model_graph
from llmrec_fast.encoding.graph_builder import Graph
from llmrec_fast.encoding.packed import Parameters, packed_arrays
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.fetch import cache_folder

Arrays = dict[str, npt.NDArray[Any]]
# smaller weights are packed in a few milliseconds
LEAST_BYTES = 16 << 20
# what all files may take; those that were not used for the longest time leave first
LARGEST_FOLDER = 4 << 30
_MAGIC = b"llmrec_fast prepared weights 1\n"
_ALIGNMENT = 64
_PARAMETER = "parameter "
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedKey:
    """All that a file depends on.

    Attributes
    ----------
    place : digest of the weights files' paths.
    weights : digest of their sizes and times of change.
    architecture : digest of the architecture or of the model's configuration.
    code : the package's version and a digest of the code that packs and builds.
    kind : "float32" or "int8" weights, or "graph".
    instructions : the instruction set that the kernels run; "any" for a graph.
    """

    place: str
    weights: str
    architecture: str
    code: str
    kind: str
    instructions: str

    @property
    def path(self) -> Path:
        """Where they lie: one file for each model, kind and instruction set, so that stale ones do not pile up."""
        return cache_folder() / "prepared" / f"{self.place[:16]}-{self.kind}-{self.instructions}.weights"


def prepared_arrays(
    files: Sequence[Path], architecture: Architecture, parameters: Parameters, *, quantise: bool
) -> Arrays:
    """`packed_arrays(architecture, parameters)` of the weights `files`, mapped from disk where an earlier process kept them.

    The arrays may be written to; neither the file nor other processes see that. What goes wrong with the file costs the time
    to pack, never the caller: a `RuntimeWarning` says so.
    """
    from llmrec_fast.kernels.cpu.intrinsics import instruction_set

    def prepare() -> Arrays:
        return packed_arrays(architecture, parameters, quantise=quantise)

    kind = "int8" if quantise else "float32"
    return _kept(files, repr(architecture), kind, str(instruction_set().dtype), prepare)


def prepared_graph(files: Sequence[Path], config: Mapping[str, Any], parameters: WeightFiles) -> Graph:
    """`build_model_graph(config, parameters)` of the weights `files`, kept and mapped as in `prepared_arrays`."""

    def prepare() -> Arrays:
        graph = build_model_graph(config, parameters)
        sizes = np.array([graph.hidden, graph.max_length, graph.vocabulary], np.int64)
        named = {_PARAMETER + name: array for name, array in graph.parameters.items()}
        return {"model": np.frombuffer(graph.model, np.uint8), "sizes": sizes, **named}

    arrays = _kept(files, json.dumps(config, sort_keys=True, default=str), "graph", "any", prepare)
    named = {name.removeprefix(_PARAMETER): array for name, array in arrays.items() if name.startswith(_PARAMETER)}
    return Graph(arrays["model"].tobytes(), named, *arrays["sizes"].tolist())


def _kept(files: Sequence[Path], model: str, kind: str, instructions: str, prepare: Callable[[], Arrays]) -> Arrays:
    if sum(path.stat().st_size for path in files) < LEAST_BYTES:
        return prepare()
    key = _make_key(files, model, kind, instructions)
    try:
        return _read(key)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except _Stale as error:
        _log.info("%s %s: it is prepared anew", key.path, error)
    except OSError as error:
        _warn(f"{key.path} cannot be read ({error}): it is prepared anew")
    except ValueError as error:
        _warn(f"{key.path} is damaged ({error}): it is prepared anew")
    arrays = prepare()
    try:
        _write(key, arrays)
        _shrink(key.path)
    except OSError as error:
        _warn(f"prepared weights cannot be kept in {key.path.parent} ({error}): each process prepares them anew")
    return arrays


class _Stale(Exception):
    """The file was written for something else."""


def _make_key(files: Sequence[Path], model: str, kind: str, instructions: str) -> PreparedKey:
    paths = [path.resolve() for path in files]
    states = [(stat.st_size, stat.st_mtime_ns) for stat in (path.stat() for path in paths)]
    return PreparedKey(
        _digest(repr([str(path) for path in paths]).encode()),
        _digest(repr(states).encode()),
        _digest(model.encode()),
        f"{__version__} {_code()}",
        kind,
        instructions,
    )


@cache
def _code() -> str:
    """Digest of the source of everything that packs or builds; where a package holds no source, its version has to do."""
    package = Path(__file__).parents[1]
    sources = [*sorted((package / "encoding").glob("*.py")), *sorted((package / "kernels" / "cpu").glob("*.py"))]
    return _digest(b"".join(source.read_bytes() for source in sources))


def _read(key: PreparedKey) -> Arrays:
    """Raises `_Stale`, `ValueError` for a damaged file, `OSError` for one that cannot be read."""
    with key.path.open("rb") as file:
        # private: NumPy arrays that can be written to, on pages that stay shared until they are
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    start = len(_MAGIC)
    ends = content.find(b"\n", start), content.find(b"\n", content.find(b"\n", start) + 1)
    if content[:start] != _MAGIC or min(ends) < start:
        raise ValueError("it is no file of prepared weights")
    header = content[ends[0] + 1 : ends[1]]
    if content[start : ends[0]] != _digest(header).encode():
        raise ValueError("its header has changed")
    told = json.loads(header)
    for name, value in asdict(key).items():
        if told["key"][name] != value:
            raise _Stale(f"is stale ({name} was {told['key'][name]}, is {value})")
    if len(content) != told["bytes"]:
        raise ValueError(f"it has {len(content)} bytes, not {told['bytes']}")
    arrays = {}
    for name, dtype, shape, offset, total in told["arrays"]:
        array = np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape)
        if _total(content, offset, array.nbytes) != total:
            raise ValueError(f"the values of {name} have changed")
        arrays[name] = array
    with suppress(OSError):  # a cache that somebody else filled is none of ours to tidy
        os.utime(key.path)
    return arrays


def _write(key: PreparedKey, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Whole or not at all. Not forced to the disk: a file that a power failure tore is known by its sums."""
    # offsets count from behind the header, which has to be known for them: it gets a fixed, sufficient size
    first = _padded(len(_MAGIC) + 4096 + 256 * len(arrays))
    entries, offset = [], first
    for name, array in arrays.items():
        total = sum(_total(block, 0, len(block)) for block in _blocks(array)) % 2**64
        entries.append((name, array.dtype.str, array.shape, offset, total))
        offset += _padded(array.nbytes)
    header = json.dumps({"key": asdict(key), "bytes": offset, "arrays": entries}).encode()
    head = _MAGIC + _digest(header).encode() + b"\n" + header + b"\n"
    key.path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{key.path.stem}-", dir=key.path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(head.ljust(first, b"\0"))
            for array in arrays.values():
                for block in _blocks(array):
                    file.write(block)
        os.replace(unfinished, key.path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def _blocks(array: npt.NDArray[Any]) -> Iterator[bytes | memoryview]:
    """The bytes of an array, then zeros up to a multiple of the alignment."""
    yield np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    yield bytes(_padded(array.nbytes) - array.nbytes)


def _total(content: Any, offset: int, count: int) -> int:
    """The sum of the 64-bit words of `count` bytes, the last filled up with zeros: some 10 GB a second."""
    words = count // 8
    total = int(np.frombuffer(content, np.uint64, words, offset).sum(dtype=np.uint64))
    rest = bytes(memoryview(content)[offset + 8 * words : offset + count])
    return (total + int.from_bytes(rest, "little")) % 2**64


def _shrink(newest: Path) -> None:
    """Remove what was not used for the longest time until the rest, with `newest`, is small enough."""
    states = []
    for path in newest.parent.glob("*.weights"):
        try:
            states.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        except FileNotFoundError:  # another process removed it
            continue
    states.sort(reverse=True)
    left = LARGEST_FOLDER - newest.stat().st_size
    for _, size, path in states:
        if path != newest:
            left -= size
            if left < 0:
                path.unlink(missing_ok=True)


def _padded(count: int) -> int:
    return -(-count // _ALIGNMENT) * _ALIGNMENT


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)
