"""How large the processor's last cache is: what decides whether data that is read again and again can stay in it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_USUAL_BYTES = 16 << 20
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@cache
def last_cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> int:
    """Bytes of the last-level cache that the first core shares; 16 MiB where the system does not tell.

    `folder` : one folder a cache, each with the files `level` and `size`, as Linux has them.
    """
    sizes = {}
    for index in folder.glob("index*"):
        try:
            level, size = int((index / "level").read_text()), (index / "size").read_text().strip()
            sizes[level] = int(size[:-1]) * _UNITS[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return sizes[max(sizes)] if sizes else _USUAL_BYTES
