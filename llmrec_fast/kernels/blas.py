"""Keep BLAS to one thread where its own threads cost more than they save.

Factorisations of a few hundred columns synchronise the threads of BLAS thousands of times. On cores that others use as well,
each of these meetings waits for the scheduler: an eigendecomposition of 0.2 s took 7 s on two busy cores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_lock = threading.Lock()
_users = 0
_limits: Any = None


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """BLAS and LAPACK use one thread meanwhile, in the whole process: there is no setting for a single caller.

    Contexts may overlap; the last one to end restores what was set before the first.
    """
    global _users, _limits
    from threadpoolctl import threadpool_limits

    with _lock:
        if _users == 0:
            _limits = threadpool_limits(1, user_api="blas")
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _limits.restore_original_limits()
                _limits = None
