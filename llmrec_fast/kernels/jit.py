"""How the package compiles its Numba kernels: without the GIL, cached on disk, never failing for want of a cache.

Importing this module imports Numba, so only `kernels.cpu` does, and only on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def jit(*, fastmath: bool | set[str] = False, inline: bool = False) -> Callable[[Function], Function]:
    """Decorate a kernel. `inline` marks a small helper that LLVM should fold into its callers.

    Numba refuses to cache a function whose source folder and user cache folder are both unwritable; such a kernel is
    compiled anew in each process instead.
    """

    def decorate(function: Function) -> Function:
        options: dict[str, Any] = {"nogil": True, "fastmath": fastmath}
        if inline:
            options["forceinline"] = True
        try:
            compiled = numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            compiled = numba.njit(**options)(function)
        return compiled  # type: ignore[no-any-return]

    return decorate
