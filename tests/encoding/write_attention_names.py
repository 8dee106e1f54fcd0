"""Write tensorrt_attention_names.txt: what the bindings of TensorRT 11 call the parts of their attention.

As write_tensorrt_names.py, with the wheels of 11 alone:

    python -m tests.encoding.write_attention_names wheels/tensorrt_cu12_bindings-11.*.whl
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from tests.encoding.write_tensorrt_names import names_in

ATTENTION_NAMES = Path(__file__).with_name("tensorrt_attention_names.txt")
_PARTS = ("attention", "causal", "packed", "padded", "upper_left", "lower_right", "query", "key_value", "decomposable")


def main() -> None:
    found = []
    for path in sys.argv[1:]:
        with zipfile.ZipFile(path) as wheel:
            found.append(names_in(wheel.read("tensorrt_bindings/tensorrt.so")))
    names = sorted(name for name in set.intersection(*found) if any(part in name.lower() for part in _PARTS))
    ATTENTION_NAMES.write_text("".join(f"{name}\n" for name in names), encoding="ascii")


if __name__ == "__main__":
    main()
