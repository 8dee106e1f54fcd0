"""After `llmrec_fast.warmup` or `Encoder.warmup`, no request compiles a kernel. Each runs in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llmrec_fast.encoding.packed import float32_kernels
from tests.encoding.gated_models import GATED_KINDS, write_gated_model
from tests.encoding.tiny_models import write_model

_SCRIPT = """
import sys
import llmrec_fast
from llmrec_fast.encoding import Encoder
from llmrec_fast.kernels.cpu import transformer

def compiled():
    kernels = {id(k): k for name, m in list(sys.modules.items()) if name.startswith("llmrec_fast.kernels.cpu.")
               for k in vars(m).values() if hasattr(k, "signatures")}
    return {(k.py_func.__module__, k.py_func.__qualname__): len(k.signatures) for k in kernels.values()}

folder, precision, whose = sys.argv[1:]
if whose == "package":
    llmrec_fast.warmup()
encoder = Encoder(folder, precision=precision, threads=2)
if whose == "encoder":
    encoder.warmup()
before = compiled()
encoder.encode(["snow"])
encoder.encode([f"a man is eating {n}" for n in range(300)])
after = compiled()
print(after == before, any(count for (_, name), count in after.items() if name == "_forward"))
"""


@pytest.mark.parametrize(
    ("kind", "precision", "whose", "nothing_left"),
    [
        ("bert", "int8", "package", True),
        ("mpnet", "int8", "package", True),
        ("roberta", "int8", "encoder", True),
        ("qwen3", "int8", "encoder", True),
        ("bert", "int8", "nobody", False),  # else this could not fail
        ("bert", "float32", "package", True),
        ("mpnet", "float32", "encoder", True),
    ],
)
def test_no_request_compiles(tmp_path: Path, kind: str, precision: str, whose: str, nothing_left: bool) -> None:
    folder = (write_gated_model if kind in GATED_KINDS else write_model)(tmp_path, kind)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(folder), precision, whose], capture_output=True, text=True, check=True
    )
    runs_kernels = precision == "int8" or float32_kernels()[0] or whose == "package"
    assert done.stdout.split() == [str(nothing_left), str(runs_kernels)]
