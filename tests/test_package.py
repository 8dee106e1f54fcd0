"""What `import llmrec_fast` promises: quick, light, and every public name there."""

import subprocess
import sys

import llmrec_fast

HEAVY = ("numba", "onnxruntime", "onnx", "torch", "cupy", "scipy", "tokenizers", "pandas", "polars", "pyarrow")


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_import_loads_nothing_heavy():
    code = f"import llmrec_fast, sys; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run_python(code).strip() == "[]"


def test_import_takes_under_three_tenths_of_a_second():
    code = "import time; t = time.perf_counter(); import llmrec_fast; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(5)) < 0.3


def test_every_public_name_resolves():
    assert set(llmrec_fast.__all__) <= set(dir(llmrec_fast))
    for name in llmrec_fast.__all__:
        assert getattr(llmrec_fast, name) is not None
