"""A tiny run of the suite `serve`: its bookkeeping, not its times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from benchmarks.__main__ import main
from benchmarks.serve.load import Run


def test_every_rate_is_reported_and_no_acknowledged_event_is_lost(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    words = "serve --quick --items 1100 --seconds 0.2 --crash-rounds 1 --vectors"
    assert main([*words.split(), str(tmp_path / "vectors.npy"), "--output", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "serve.json").read_text())
    assert [cell["labels"]["of saturation"] for cell in written["cells"]] == ["10%", "70%", "200%"]
    assert written["figures"]["in one process, one user a call: p50, ms"] > 0
    assert written["figures"]["events acknowledged before kills"] > 0
    assert written["figures"]["acknowledged events lost"] == 0


def test_only_answers_count_as_good() -> None:
    run = Run(np.array([0.0, 0.5, 1.5]), np.zeros(3), np.array([0.1, 0.2, 9.0]), np.array([200, 429, 200]))
    assert run.part(0, 1).good.tolist() == [0.1]
    assert run.quantile(1.0) == 9.0


def test_quiet_returns_with_the_first_window_in_which_all_is_answered_in_time() -> None:
    meant = np.arange(0.05, 3, 0.1)
    seconds, status = np.full(len(meant), 0.01), np.full(len(meant), 200)
    status[:12] = 429
    run = Run(meant, np.zeros(len(meant)), seconds, status)
    assert run.quiet_after(1.0, limit=0.1) == pytest.approx(0.2)
    seconds[15] = 0.5
    assert run.quiet_after(1.0, limit=0.1) == pytest.approx(0.6)
    assert run.quiet_after(2.0, limit=0.1) == 0
