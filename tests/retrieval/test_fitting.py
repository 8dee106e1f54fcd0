"""The plan follows the spectrum, and whatever it is, it is well formed."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast.retrieval import Index
from llmrec_fast.retrieval.building import _sample
from llmrec_fast.retrieval.fitting import fit_plan, sample_positions

G = np.random.default_rng(0)


def test_a_flat_spectrum_takes_one_stage_and_a_steep_one_two() -> None:
    noise = G.standard_normal((8000, 256)).astype(np.float32)
    flat = fit_plan(noise, None, rows=200_000, euclidean=False)
    assert (flat.first, flat.second) == (256, 0)
    steep = fit_plan(noise * np.exp(-np.arange(256) / 40).astype(np.float32), None, rows=200_000, euclidean=False)
    assert steep.first < 160
    assert steep.second >= 64


@pytest.mark.parametrize("euclidean", [False, True])
@pytest.mark.parametrize("dim", [1, 31, 33, 65, 200, 2049])
def test_plans_are_well_formed(dim: int, euclidean: bool) -> None:
    rows = G.standard_normal((300, dim)).astype(np.float32) + 2
    plan = fit_plan(rows, None, rows=300, euclidean=euclidean)
    assert plan.first % 32 == 0
    assert plan.second % 64 == 0
    assert plan.second == 0 or plan.first < dim
    assert plan.second or plan.first >= dim
    norms = np.linalg.norm(rows - plan.mean, axis=1) * plan.scale
    assert 0.2 < np.quantile(norms, 0.99) <= 1.01
    if plan.rotation is None:
        assert dim > 2048
    else:
        gram = plan.rotation.astype(np.float64) @ plan.rotation.T.astype(np.float64)
        assert np.linalg.norm(gram - np.eye(dim), 2) <= plan.departure < 1e-4


def test_degenerate_samples_are_fitted() -> None:
    for rows in (
        np.zeros((50, 40)),
        np.ones((50, 40)),
        np.outer(G.standard_normal(50), np.ones(40)),
        np.zeros((1, 40)),
    ):
        plan = fit_plan(rows.astype(np.float32), None, rows=50, euclidean=False)
        assert np.isfinite(plan.scale)
        assert plan.departure < 1e-4


def test_advice_names_what_changed() -> None:
    rows = (G.standard_normal((8000, 160)) * np.exp(-np.arange(160) / 20)).astype(np.float32)
    index = Index.build(rows, metric="dot")
    assert index.advice is None
    index.remove(np.arange(2500))
    assert "removed" in str(index.advice)
    index.optimize()
    assert index.advice is None
    turned = np.ascontiguousarray(rows[:, ::-1])
    index.add(np.concatenate([turned, turned]))
    assert "unexplained" in str(index.advice)
    index.optimize()
    assert index.advice is None


@pytest.mark.parametrize("period", [1024, 4096, 16_384])
def test_a_repeating_catalogue_does_not_fill_the_sample_with_copies(period: int) -> None:
    """Rows at equal distances, eight apart here, would come from an eighth of what is repeated."""
    chosen = sample_positions(262_144, 128)
    assert len(chosen) == 32_768
    assert (np.diff(chosen) > 0).all()
    assert len(np.unique(chosen % period)) > 0.8 * period


def test_the_sample_holds_live_rows_of_every_segment() -> None:
    rows = np.repeat(np.arange(9000, dtype=np.float32)[:, None], 2, axis=1)
    index = Index(2, "dot")
    for start in range(0, 9000, 3000):
        index.add(rows[start : start + 3000], bias=rows[start : start + 3000, 0])
    index.remove(np.arange(0, 9000, 2))
    sample, bias = _sample(index._snapshot)
    np.testing.assert_array_equal(sample[:, 0], np.arange(1, 9000, 2))
    np.testing.assert_array_equal(bias, sample[:, 0])
