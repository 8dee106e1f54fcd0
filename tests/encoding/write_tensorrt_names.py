"""Write tensorrt_names.txt: the names that the extension modules of TensorRT's bindings, all versions given, have for Python.

    pip download --no-deps --dest wheels tensorrt-cu12-bindings==10.12.0.36
    pip download --no-deps --dest wheels tensorrt-cu12-bindings==11.4.0.106
    python -m tests.encoding.write_tensorrt_names wheels/*.whl

The modules cannot be imported without TensorRT's libraries, so their files are read instead: a name is a NUL-terminated
identifier to which an instruction refers (x86-64 `lea`, relative to the next instruction). Looking for whole strings would miss
the names that the linker stored as the end of a longer one, such as `Logger` in `ILogger`.
"""

from __future__ import annotations

import re
import struct
import sys
import zipfile
from pathlib import Path

NAMES = Path(__file__).with_name("tensorrt_names.txt")
_LEA = re.compile(rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]", re.DOTALL)
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]{1,60}(?=\x00)")
_LOADED, _EXECUTABLE = 1, 1


def names_in(library: bytes) -> set[str]:
    """The identifiers to which the code of an x86-64 ELF file refers."""
    (table,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    segments = []
    for place in range(table, table + size * count, size):
        kind, flags, offset, address, _, length = struct.unpack_from("<IIQQQQ", library, place)
        if kind == _LOADED:
            segments.append((flags, offset, address, length))
    found: set[str] = set()
    for flags, offset, address, length in segments:
        if not flags & _EXECUTABLE:
            continue
        for match in _LEA.finditer(library, offset, offset + length - 4):
            (distance,) = struct.unpack_from("<i", library, match.end())
            target = address + match.end() + 4 - offset + distance
            for other, start, first, extent in segments:
                if not other & _EXECUTABLE and first <= target < first + extent:
                    name = _NAME.match(library, start + target - first)
                    if name:
                        found.add(name[0].decode())
    return found


def main() -> None:
    found = []
    for path in sys.argv[1:]:
        with zipfile.ZipFile(path) as wheel:
            found.append(names_in(wheel.read("tensorrt_bindings/tensorrt.so")))
    NAMES.write_text("".join(f"{name}\n" for name in sorted(set.intersection(*found))), encoding="ascii")


if __name__ == "__main__":
    main()
