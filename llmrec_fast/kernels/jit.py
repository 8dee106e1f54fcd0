"""How the package compiles its Numba kernels: without the GIL, cached on disk, never failing for want of a cache.

Importing this module imports Numba, so only `kernels.cpu` does, and only on first use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache, NullCache
from numba.core.runtime import rtsys

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(*, fastmath: bool | set[str] = False, inline: bool = False) -> Callable[[Function], Function]:
    """Decorate a kernel. `inline` marks a small helper that LLVM should fold into its callers."""

    def decorate(function: Function) -> Function:
        options: dict[str, Any] = {"nogil": True, "fastmath": fastmath}
        if inline:
            options["forceinline"] = True
        compiled = numba.njit(**options)(function)
        if isinstance(getattr(compiled, "_cache", None), NullCache):
            compiled._cache = KernelCache(function)
        return compiled  # type: ignore[no-any-return]

    return decorate


@cache
def _sources_stamp() -> str:
    """A digest that changes when a source file of a kernel or of a helper does."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        state = path.stat()
        digest.update(f"{path.name} {state.st_mtime_ns} {state.st_size}\n".encode())
    return digest.hexdigest()


class KernelCache(NullCache):  # type: ignore[misc]
    """Numba's cache of a kernel on disk, without two costs of a fresh process and one danger.

    Numba opens it when a function is decorated, which most of the kernels that are imported never need. And before it loads
    a compiled function, it registers every function that it could compile: 60 modules, a quarter of the time to a first
    answer, of which compiled code calls none.

    Numba takes a compiled kernel for current until the kernel's own file changes, even if a helper that was folded into it, or
    that it calls, lies in another one. Here every source file of the kernels counts.

    Numba refuses to cache a function whose source folder and user cache folder are both unwritable; such a kernel is
    compiled anew in each process instead.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    @cached_property
    def _files(self) -> Any:
        try:
            files = FunctionCache(self._function)
            index = files._cache_file
            index._source_stamp = (index._source_stamp, _sources_stamp())
            return files
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return NullCache()

    @property
    def cache_path(self) -> str | None:
        """The folder of the files, if there is one."""
        path: str | None = self._files.cache_path
        return path

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The kernel compiled for the signature `sig`, or None where the cache has none: Numba then compiles it."""
        # as FunctionCache.load_overload (Numba 0.61 to 0.68; a test watches it), but for the time of the refresh
        rtsys.initialize(target_context)
        loaded = None
        if not isinstance(self._files, NullCache):
            with self._files._guard_against_spurious_io_errors():
                loaded = self._files._load_overload(sig, target_context)
        if loaded is None:
            target_context.refresh()
        return loaded

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what Numba compiled for the signature `sig`."""
        self._files.save_overload(sig, data)

    def flush(self) -> None:
        """Forget all signatures."""
        self._files.flush()
