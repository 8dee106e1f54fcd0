"""After `llmrec_fast.warmup` or `Encoder.warmup`, no int8 request compiles anything. Each runs in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.encoding.tiny_models import write_model

_SCRIPT = """
import sys
import llmrec_fast
from llmrec_fast.encoding import Encoder
from llmrec_fast.kernels.cpu import transformer

def compiled():
    kernels = {id(k): k for name, m in list(sys.modules.items()) if name.startswith("llmrec_fast.kernels.cpu.")
               for k in vars(m).values() if hasattr(k, "signatures")}
    return {k.py_func.__qualname__: len(k.signatures) for k in kernels.values()}

folder, whose = sys.argv[1:]
if whose == "package":
    llmrec_fast.warmup()
encoder = Encoder(folder, precision="int8", threads=2)
if whose == "encoder":
    encoder.warmup()
before = compiled()
assert (before["_forward"] > 0) == (whose != "nobody"), before
encoder.encode(["snow"])
encoder.encode([f"a man is eating {n}" for n in range(300)])
print(compiled() == before)
"""


@pytest.mark.parametrize(
    ("kind", "whose", "nothing_left"),
    [
        ("bert", "package", True),
        ("mpnet", "package", True),
        ("roberta", "encoder", True),
        ("bert", "nobody", False),  # else this could not fail
    ],
)
def test_no_request_compiles(tmp_path: Path, kind: str, whose: str, nothing_left: bool) -> None:
    folder = write_model(tmp_path, kind)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder), whose], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(nothing_left)]
