"""The suite `cold` on a small world: both rankings, and a report that shows the new items."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import cold
from llmrec_fast.datasets import MovieLens

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")


class Encoder:
    """Random vectors in the place of a model's."""

    def __init__(self, *_, **__):
        pass

    def encode(self, texts):
        return np.random.default_rng(len(texts)).standard_normal((len(texts), 8)).astype(np.float32)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    users, count = 30, 25
    items = np.concatenate([rng.permutation(count)[:8] for _ in range(users)]) + 1
    return MovieLens(
        np.repeat(np.arange(users), 8),
        items,
        rng.integers(3, 6, len(items)).astype(np.float32),
        np.arange(len(items)),
        np.arange(count) + 1,
        tuple(f"film {item}" for item in range(count)),
        np.where(np.arange(count) < 3, 0, 1930 + 3 * np.arange(count)),
        tuple(("Drama",) if item % 2 else ("Comedy", "War") for item in range(count)),
    )


def test_years_are_near_their_neighbours_and_nothing_where_unknown(data):
    vectors = cold.year_vectors(data)
    assert vectors.shape == (25, 16)
    assert not vectors[:3].any()
    near = np.arange(1925, 2001, 5)[vectors[3:].argmax(axis=1)]
    assert (np.abs(near - data.years[3:]) <= 2).all()


def test_both_rankings_are_measured_and_reported(data, monkeypatch, tmp_path):
    monkeypatch.setattr(cold, "load", lambda _: data)
    monkeypatch.setattr(cold, "Encoder", Encoder)
    monkeypatch.setattr(cold, "SHOWN", 3)
    report = cold.run(SimpleNamespace(data="small", split_seed=0, quick=True, threads=1, output=tmp_path))
    assert {name.partition(",")[0] for name in report.figures} == {"text", "adapter", "seconds to train"}
    assert len(report.targets) == 2
    for folder in ("cold-among-all", "cold-alone"):
        assert "5 items have no training interaction" in (tmp_path / folder / "report.html").read_text()
