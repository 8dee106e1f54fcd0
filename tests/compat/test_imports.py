"""Importing a shim imports nothing of the library it stands in for, and nothing heavy."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from llmrec_fast.errors import MissingDependency

PEERS = ("faiss", "sentence_transformers", "torch", "ranx", "implicit", "pandas", "sklearn")


def test_shims_import_no_peer() -> None:
    program = (
        "import sys\n"
        "import llmrec_fast.compat.faiss\n"
        "import llmrec_fast.compat.sentence_transformers\n"
        "import llmrec_fast.compat.ranx\n"
        "import llmrec_fast.compat.implicit\n"
        f"print([peer for peer in {PEERS!r} if peer in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("llmrec_fast.compat.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn.base", None)
    with pytest.raises(MissingDependency, match="pip install 'scikit-learn"):
        importlib.import_module("llmrec_fast.compat.sklearn")


def test_without_langchain_core_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("llmrec_fast.compat.langchain")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    with pytest.raises(MissingDependency, match="pip install 'langchain-core"):
        importlib.import_module("llmrec_fast.compat.langchain")
