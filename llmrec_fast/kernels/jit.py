"""How the package compiles its Numba kernels: without the GIL, cached on disk, never failing for want of a cache.

Importing this module imports Numba, so only `kernels.cpu` does, and only on first use.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def _import_array_functions() -> None:
    """Import Numba's array functions without `scipy.linalg`, which would take a quarter of the time to a first answer.

    They import it only to note that there is a BLAS; whatever calls BLAS imports it when it is compiled.
    """
    linalg: Any = importlib.import_module("numba.np.linalg")
    check = getattr(linalg, "ensure_blas", None)
    if check is None or "numba.np.arraymath" in sys.modules or find_spec("scipy") is None:
        return
    linalg.ensure_blas = lambda: None
    try:
        arraymath: Any = importlib.import_module("numba.np.arraymath")
        arraymath.ensure_blas = check
    finally:
        linalg.ensure_blas = check


_import_array_functions()


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
