"""Built engines on disk. A file says what it was built from and for; one that says something else is stale, and is told apart
from one that is damaged and from none at all.

An engine is machine code that is trusted as it is read: the folder is the user's own cache, and no engine is ever fetched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from llmrec_fast.encoding import plain_builder
from llmrec_fast.encoding.engine_profiles import Profile
from llmrec_fast.encoding.plain_attention import LayoutName
from llmrec_fast.encoding.plain_families import AnyArchitecture
from llmrec_fast.fetch import cache_folder

_MAGIC = b"llmrec_fast TensorRT engine 1\n"


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on.

    Attributes
    ----------
    weights : digest of the weights files.
    graph : digest of the architecture and of the version of the graph builder.
    precision : of the matrix products.
    layout : how it takes texts.
    profiles : digest of the optimisation profiles.
    gpu : its name and compute capability.
    tensorrt : version.
    """

    weights: str
    graph: str
    precision: str
    layout: LayoutName
    profiles: str
    gpu: str
    tensorrt: str

    @property
    def path(self) -> Path:
        """Where the engine lies: one a model, precision, layout and GPU, so that stale ones are replaced and do not pile up."""
        gpu = re.sub(r"\W+", "-", self.gpu).strip("-")
        return cache_folder() / "engines" / f"{self.weights[:16]}-{self.precision}-{self.layout}-{gpu}.engine"

    @property
    def timing_path(self) -> Path:
        """Where the timing cache of this GPU and version of TensorRT lies; all models share it."""
        name = re.sub(r"\W+", "-", f"{self.gpu} {self.tensorrt}").strip("-")
        return cache_folder() / "engines" / f"{name}.timing"


@dataclass(frozen=True)
class Found:
    """An engine, or what is wrong with the file; neither where there is no file."""

    engine: bytes | None = None
    problem: str | None = None


def digest_weights(weights: Sequence[Path]) -> str:
    """Of the files' content; reads them once."""
    digest = hashlib.blake2b(digest_size=16)
    for path in weights:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def make_key(
    weights: str,
    architecture: AnyArchitecture,
    precision: str,
    layout: LayoutName,
    profiles: Sequence[Profile],
    gpu: str,
    tensorrt: str,
) -> EngineKey:
    """The key of a model's engine; `weights` is their digest."""
    graph = _digest(f"{plain_builder.VERSION} {architecture}".encode())
    return EngineKey(weights, graph, precision, layout, _digest(repr(profiles).encode()), gpu, tensorrt)


def read_engine(key: EngineKey) -> Found:
    """The engine of `key`, checked against its digest, or what is wrong with the one in its place."""
    try:
        content = key.path.read_bytes()
    except FileNotFoundError:
        return Found()
    except OSError as error:
        return Found(problem=f"cannot be read ({error})")
    header, _, engine = content.removeprefix(_MAGIC).partition(b"\n")
    told = _read_header(header) if content.startswith(_MAGIC) else {}
    if told.get("digest") != _digest(engine):
        return Found(problem="is damaged")
    wanted = asdict(key)
    stale = [f"{name} was {told.get(name)}, is {value}" for name, value in wanted.items() if told.get(name) != value]
    return Found(problem=f"is stale ({'; '.join(stale)})") if stale else Found(engine)


def _read_header(header: bytes) -> dict[str, object]:
    try:
        told = json.loads(header)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def write_engine(key: EngineKey, engine: bytes) -> Path:
    """Put the engine in its place, whole or not at all; raises `OSError` where the folder cannot be written."""
    header = json.dumps(asdict(key) | {"digest": _digest(engine)})
    _write(key.path, _MAGIC + header.encode() + b"\n" + engine)
    return key.path


def read_timing(key: EngineKey) -> bytes:
    """What earlier builds learned; nothing where there were none, or their file is damaged."""
    try:
        content = key.timing_path.read_bytes()
    except FileNotFoundError:
        return b""
    digest, _, timing = content.partition(b"\n")
    return timing if digest == _digest(timing).encode() else b""


def write_timing(key: EngineKey, timing: bytes) -> None:
    """Keep what a build learned; raises `OSError` where the folder cannot be written."""
    _write(key.timing_path, _digest(timing).encode() + b"\n" + timing)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
