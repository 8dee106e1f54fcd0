"""Rules of csrc/ that no compiler checks: where PTX, shared memory and the CUDA runtime may appear."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[1] / "csrc"


def files(*suffixes: str) -> list[Path]:
    return sorted(path for path in CSRC.iterdir() if path.suffix in suffixes)


def code_of(path: Path) -> str:
    """The source without comments."""
    return re.sub(r"//.*", "", path.read_text())


@pytest.mark.parametrize("path", files(".cu", ".cuh", ".h", ".cpp"), ids=lambda path: path.name)
class TestSources:
    def test_inline_ptx_is_in_one_header(self, path):
        assert path.name == "ptx.cuh" or not re.search(r"\basm\b", code_of(path))

    def test_shared_memory_comes_from_one_macro(self, path):
        assert path.name == "device.cuh" or "__shared__" not in code_of(path)

    def test_nothing_allocates_and_only_the_binding_waits(self, path):
        code = code_of(path)
        assert not re.search(r"\bcuda(Malloc|Free|HostAlloc)\w*\s*\(", code)
        assert path.name == "bindings.cpp" or not re.search(r"\bcuda\w*Synchronize\s*\(", code)

    def test_the_first_lines_say_what_the_file_is_for(self, path):
        assert path.read_text().startswith("// ")


@pytest.mark.parametrize("path", files(".cuh"), ids=lambda path: path.name)
def test_kernels_include_no_runtime_header(path):
    waiting, seen = [path], set()
    while waiting:
        file = waiting.pop()
        names = set(re.findall(r'#include ["<]([^">]+)[">]', file.read_text())) - seen
        seen |= names
        waiting += [CSRC / name for name in names if (CSRC / name).exists()]
    assert not {name for name in seen if name.startswith("cuda")}
