"""The plan follows the spectrum, and whatever it is, it is well formed."""

from __future__ import annotations

import numpy as np
import pytest

from llmrec_fast.retrieval import Index
from llmrec_fast.retrieval.fitting import fit_plan

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
