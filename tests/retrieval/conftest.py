"""Small indexes that nevertheless use codes, on both instruction sets."""

from __future__ import annotations

import pytest

from llmrec_fast.retrieval import building


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit an index however few its rows are."""
    monkeypatch.setattr(building, "LEAST_FITTED_ROWS", 1)


@pytest.fixture(params=["native", "portable"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with this processor's instructions, and without them."""
    monkeypatch.setenv("LLMREC_PORTABLE", "1" if request.param == "portable" else "0")
    return str(request.param)
