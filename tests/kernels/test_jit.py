"""Kernels come from the cache on disk without Numba's compiler, and Numba stays whole for others in the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.caching import FunctionCache
from numba.core.dispatcher import Dispatcher

from llmrec_fast.kernels import jit as kernels_jit
from llmrec_fast.kernels.jit import KernelCache, jit

_KERNEL = """
import numpy as np
from llmrec_fast.kernels.jit import jit

@jit(inline=True)
def half(value):
    return value / 2

@jit()
def halves(values):
    result = np.empty(len(values))
    for place in range(len(values)):
        result[place] = half(values[place])
    return result
"""
_PROGRAM = """
import json, sys
import numpy as np
from kernel import half, halves

np.testing.assert_array_equal(halves(np.array([2.0, 5.0])), [1, 2.5])
seen = {
    "hits": sum(halves.stats.cache_hits.values()),
    "misses": sum(halves.stats.cache_misses.values()),
    "registered": "numba.typed.typeddict" in sys.modules,
    "linear algebra": "scipy.linalg" in sys.modules,
    "opened": "_files" in vars(half._cache),
}
import numba
from numba.np import arraymath
assert arraymath._HAVE_BLAS
product = numba.njit(lambda a, b: (a @ b).sum())
assert product(np.eye(3), np.full((3, 3), 2.0)) == 18
np.testing.assert_array_equal(halves(np.array([2, 5], np.int8)), [1, 2.5])  # compiled after others were loaded
seen["folder"] = halves.stats.cache_path
print(json.dumps(seen))
"""


_CHANGED = """
from llmrec_fast.kernels import jit
jit._sources_stamp = lambda: "another"
"""


def _run(folder: Path, before: str = "") -> dict[str, object]:
    (folder / "kernel.py").write_text(_KERNEL)
    done = subprocess.run(
        [sys.executable, "-c", before + _PROGRAM],
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": f"{folder}:.", "PATH": "", "NUMBA_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, object] = json.loads(done.stdout)
    return seen


def test_a_second_process_loads_the_kernel_and_sets_up_no_compiler(tmp_path: Path) -> None:
    first = _run(tmp_path)
    assert (first["hits"], first["misses"], first["registered"]) == (0, 1, True)
    second = _run(tmp_path)
    assert (second["hits"], second["misses"]) == (1, 0)
    assert not second["registered"]
    assert not second["linear algebra"]
    assert not second["opened"]
    assert str(second["folder"]).startswith(str(tmp_path / "cache"))


def test_a_kernel_is_compiled_anew_when_another_source_file_has_changed(tmp_path: Path) -> None:
    _run(tmp_path)
    changed = _run(tmp_path, _CHANGED)
    assert (changed["hits"], changed["misses"]) == (0, 1)
    again = _run(tmp_path, _CHANGED)
    assert (again["hits"], again["misses"]) == (1, 0)


def test_the_stamp_follows_helpers_in_other_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    helper = tmp_path / "cpu" / "helper.py"
    helper.write_text("one = 1\n")
    monkeypatch.setattr(kernels_jit, "__file__", str(tmp_path / "jit.py"))
    stamps = {kernels_jit._sources_stamp.__wrapped__()}
    helper.write_text("one = 1.0\n")
    stamps.add(kernels_jit._sources_stamp.__wrapped__())
    assert len(stamps) == 2


def test_every_kernel_keeps_its_files_in_this_cache() -> None:
    """A Numba that kept its caches elsewhere would compile every kernel in every process."""
    kernel = jit()(lambda value: value + 1)
    assert isinstance(kernel, Dispatcher)
    assert isinstance(kernel._cache, KernelCache)
    assert all(hasattr(FunctionCache, name) for name in ("_load_overload", "_guard_against_spurious_io_errors"))


def test_without_a_folder_to_cache_in_a_kernel_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: object) -> None:
        raise RuntimeError(f"cannot cache function {function!r}: no locator available for file 'x.py'")

    monkeypatch.setattr(kernels_jit, "FunctionCache", refuse)
    kernel = jit()(lambda values: values.sum())
    assert kernel(np.arange(4)) == 6
    assert kernel(np.arange(4.0)) == 6


def test_other_errors_of_the_cache_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: object) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(kernels_jit, "FunctionCache", fail)
    with pytest.raises(RuntimeError, match="something else"):
        jit()(lambda values: values.sum())(np.arange(4))
