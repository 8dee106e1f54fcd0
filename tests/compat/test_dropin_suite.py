"""A tiny run of the suite `dropin`: no peer is needed but scikit-learn, whose classes its module derives from."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import dropin, threads
from benchmarks.__main__ import main


def test_the_suite_runs_without_peers_and_names_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def only_scikit_learn(names: list[str]) -> tuple[dict[str, object], dict[str, str]]:
        return {"sklearn": importlib.import_module("sklearn")}, {n: "not here" for n in names if n != "sklearn"}

    monkeypatch.setattr(threads, "SETTLE_AT_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "SETTLE_AT_MOST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "FLUSH_BYTES", 1 << 16)
    monkeypatch.setattr(dropin, "import_peers", only_scikit_learn)
    monkeypatch.setattr(dropin, "use_threads", lambda threads: [])  # it would hold for the tests that follow
    monkeypatch.setattr(dropin, "QUICK_QUERIES", 8)
    monkeypatch.setattr(dropin, "descriptions", lambda count: ["a man is eating food", "snow"] * (count // 2))
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).standard_normal((400, 160), dtype=np.float32))
    words = ["dropin", "--quick", "--seconds", "0.001", "--rows", "300", "--model", str(folder)]
    assert main([*words, "--vectors", str(tmp_path / "vectors.npy"), "--output", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "dropin.json").read_text())
    assert {cell["labels"]["module"] for cell in document["cells"]} == {
        "faiss",
        "implicit",
        "ranx",
        "sentence_transformers",
        "sklearn",
    }
    assert "faiss" in document["missing_peers"]
    assert "semantic_search, 100 queries" in capsys.readouterr().out
