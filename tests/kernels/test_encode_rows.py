"""What an encoder stores is what the bounds need: codes that decode, and norms that are not below what the codes lost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from llmrec_fast.kernels import cpu, reference
from llmrec_fast.kernels.codes import Codes, ScanPlan, empty_codes
from llmrec_fast.kernels.reference.bounded_search import decoded_stages, first_terms, second_terms
from tests.kernels.bounded_tools import plan_of

Encoder = Callable[..., Codes]
ENCODERS = [cpu.encode_rows, reference.encode_rows]
SHAPES = [(1, 32, 0), (7, 32, 0), (64, 64, 0), (100, 32, 64), (192, 64, 128), (192, 192, 0)]


def make_rows(count: int, dim: int) -> np.ndarray:
    generator = np.random.default_rng(dim)
    spectrum = np.exp(-np.arange(dim) / (0.2 * dim + 1))
    rows = generator.standard_normal((count, dim)) * spectrum + 1
    rows[-10:] *= 10.0 ** generator.uniform(-3, 0.3, (10, 1))
    return rows.astype(np.float32)


def exactly_rotated(rows: np.ndarray, plan: ScanPlan) -> np.ndarray:
    centred = (rows.astype(np.float64) - plan.mean) * plan.scale
    return centred if plan.rotation is None else centred @ plan.rotation.astype(np.float64)


def least_margins(codes: Codes, rows: np.ndarray) -> list[float]:
    """How far the stored norms lie above the true ones, at least, relative to the row."""
    plan = codes.plan
    exact = exactly_rotated(rows, plan)
    stop0, stop1 = min(plan.first, plan.dim), min(plan.first + plan.second, plan.dim)
    first, second, third = decoded_stages(codes)
    norms = np.linalg.norm(exact, axis=1)

    def margin(stored: np.ndarray, columns: np.ndarray) -> float:
        return float(((stored - np.linalg.norm(columns, axis=1)) / norms).min())

    terms, last = first_terms(codes), codes.third_terms.reshape(-1, 4)[: codes.rows].astype(np.float64)
    margins = [margin(terms[:, 1], (exact - first)[:, :stop0]), margin(last[:, 1], exact - third)]
    if stop0 < plan.dim:
        margins.append(margin(terms[:, 2], exact[:, stop0:]))
    if plan.second:
        finer = second_terms(codes)
        margins += [margin(finer[:, 1], (exact - second)[:, stop0:stop1]), margin(finer[:, 2], exact[:, stop1:])]
    return margins


@pytest.mark.parametrize("encode", ENCODERS, ids=["cpu", "reference"])
@pytest.mark.parametrize(("dim", "first", "second"), SHAPES)
def test_stored_norms_are_not_below_what_the_codes_lost(encode: Encoder, dim: int, first: int, second: int) -> None:
    rows = make_rows(300, dim)
    codes = encode(rows, plan_of(rows, first, second))
    assert codes.rows == 300
    assert codes.wild == 0
    assert min(least_margins(codes, rows)) >= 0


def test_norms_without_the_slack_would_be_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(300, 384)
    plan = plan_of(rows, 160, 128)
    monkeypatch.setattr(ScanPlan, "row_slack", 0.0)
    assert min(least_margins(cpu.encode_rows(rows, plan), rows)) < 0


@pytest.mark.parametrize("encode", ENCODERS, ids=["cpu", "reference"])
@pytest.mark.parametrize(("dim", "first", "second"), SHAPES)
def test_codes_lose_little(encode: Encoder, dim: int, first: int, second: int) -> None:
    """4-bit codes of a spread-out row keep all but some 11% of its norm, int8 codes all but 1%."""
    rows = make_rows(300, dim)
    plan = plan_of(rows, first, second)
    codes = encode(rows, plan)
    exact = exactly_rotated(rows, plan)
    stop = min(plan.first, dim)
    stage, _, third = decoded_stages(codes)
    share = np.linalg.norm((exact - stage)[:, :stop], axis=1) / np.linalg.norm(exact[:, :stop], axis=1)
    assert np.median(share) < 0.125
    share = np.linalg.norm(exact - third, axis=1) / np.linalg.norm(exact, axis=1)
    assert np.median(share) < 0.012


@pytest.mark.parametrize(("dim", "first", "second"), SHAPES)
@pytest.mark.parametrize("euclidean", [False, True])
def test_devices_agree(dim: int, first: int, second: int, euclidean: bool) -> None:
    rows = make_rows(300, dim)
    bias = np.linspace(-1, 1, 300).astype(np.float32)
    plan = plan_of(rows, first, second, euclidean=euclidean, bias=bias)
    ours, theirs = cpu.encode_rows(rows, plan, bias=bias), reference.encode_rows(rows, plan, bias=bias)
    for mine, other in zip(decoded_stages(ours), decoded_stages(theirs), strict=True):
        assert np.mean(np.abs(mine - other) > 1e-4 * np.abs(other).max()) < 2e-3  # values at the border of two levels
    np.testing.assert_allclose(first_terms(ours), first_terms(theirs), rtol=0.01, atol=1e-3)
    np.testing.assert_allclose(ours.third_terms, theirs.third_terms, rtol=0.01, atol=1e-5)
    np.testing.assert_allclose(
        [ours.largest_first, ours.largest_second, ours.largest_third],
        [theirs.largest_first, theirs.largest_second, theirs.largest_third],
        rtol=1e-3,
    )


@pytest.mark.parametrize("encode", ENCODERS, ids=["cpu", "reference"])
def test_appending_equals_encoding_at_once_and_disturbs_no_reader(encode: Encoder) -> None:
    rows = make_rows(300, 100)
    plan = plan_of(rows, 32, 64)
    whole = encode(rows, plan)
    grown = encode(rows[:133], plan, out=empty_codes(plan, 300))
    before = decoded_stages(grown)
    early, grown = grown, encode(rows[133:134], plan, out=grown)
    grown = encode(rows[134:], plan, out=grown)
    assert early.rows == 133
    for stage, again in zip(before, decoded_stages(early), strict=True):
        np.testing.assert_array_equal(stage, again)
    for name in ("first", "second", "third", "third_terms"):
        np.testing.assert_array_equal(getattr(grown, name), getattr(whole, name))


@pytest.mark.parametrize("encode", ENCODERS, ids=["cpu", "reference"])
@pytest.mark.parametrize("magnitude", [1e-40, 1e-15, 1e15, 1e37])
def test_any_magnitude_is_scaled_into_range(encode: Encoder, magnitude: float) -> None:
    rows = (make_rows(200, 40).astype(np.float64) * magnitude).astype(np.float32)
    codes = encode(rows, plan_of(rows, 64, 0))
    assert codes.wild == 0
    assert np.isfinite(first_terms(codes)).all()
    exact = exactly_rotated(rows, codes.plan)
    lost = np.linalg.norm(exact - decoded_stages(codes)[0], axis=1)
    assert (first_terms(codes)[:, 1] >= lost).all()


def test_rows_of_zeros_encode_to_nothing_lost() -> None:
    plan = ScanPlan(64, False, 64, 0, np.zeros(64, np.float32), None, 0.0, 1.0, 0.0, 0.0)
    codes = cpu.encode_rows(np.zeros((10, 64), np.float32), plan)
    assert first_terms(codes)[:, 1].max() < 1e-28
    assert codes.third.max() == codes.third.min() == 0
