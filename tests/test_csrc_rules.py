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


_SEGMENT_ARRAYS = "first|second|third|third_terms|rows|bias|allowed"
_NARROW = r"\(\s*(?:u?int|u?int32_t|unsigned)\s*\)|static_cast<\s*(?:u?int|u?int32_t|unsigned)\s*>"


def narrow_offsets(code: str) -> list[str]:
    """Places of `code` where an offset into a segment's arrays is not computed in 64 bits.

    What a row or a tile is multiplied by goes beyond 2^31 bytes at a few million rows. Emulated runs over reserved memory
    reach such rows (`test_offsets_beyond_32_bits`), but not on every path. So the first factor of every offset must be a
    variable that was declared int64_t, with no narrowing cast before the product.
    """
    found = []
    for use in re.finditer(rf"segment\.(?:{_SEGMENT_ARRAYS})\s*(?:\+\s*|\[)([^;,\]]*)", code):
        offset, before = use.group(1), code[: use.start()]
        name = re.match(r"\w+", offset)
        kinds = [] if name is None else re.findall(rf"\b(\w+) {name.group()}\b", before)
        declared = [kind for kind in kinds if re.fullmatch(r"u?int\w*|size_t|unsigned|auto|long", kind)]
        if re.search(_NARROW, offset) or not declared or declared[-1] != "int64_t":
            found.append(use.group())
    return found


@pytest.mark.parametrize("path", files(".cuh"), ids=lambda path: path.name)
def test_offsets_into_a_segment_are_64_bits_wide(path):
    assert narrow_offsets(code_of(path)) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("segment.second + row * (", "segment.second + (int)row * ("),
        ("segment.second + row * (", "segment.second + static_cast<uint32_t>(row) * ("),
        ("int query, int64_t row, float base", "int query, int row, float base"),
        ("segment.third + row * ", "segment.third + (uint32_t)row * "),
    ],
)
def test_a_planted_32_bit_offset_is_found(right, wrong):
    code = code_of(CSRC / "survivors.cuh")
    assert code.count(right) == 1
    assert len(narrow_offsets(code.replace(right, wrong))) == 1
