"""Codes that the GPU makes keep the promises of those that the CPU makes, and convert between the devices without loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels import cpu, cuda, reference
from llmrec_fast.kernels.codes import Codes, ScanPlan, empty_codes
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import runtime, using, why_unavailable
from llmrec_fast.kernels.cuda.scan_codes import (
    blocks_of_tiles,
    codes_to_device,
    codes_to_host,
    empty_device_codes,
    tiles_of_blocks,
)
from llmrec_fast.kernels.reference.bounded_search import decoded_stages, first_terms
from tests.kernels.bounded_tools import plan_of, segment_of
from tests.kernels.test_cuda_bounded_search import reserved
from tests.kernels.test_encode_rows import SHAPES, exactly_rotated, least_margins, make_rows
from tests.simt.memory import DeviceArray, Emulation


@pytest.fixture(autouse=True, scope="module", params=["cuda-emulated"] + ([] if why_unavailable() else ["cuda"]))
def gpu(request: pytest.FixtureRequest) -> Any:
    """What `kernels.cuda` runs on meanwhile."""
    if request.param == "cuda":
        with using(runtime()):
            yield
        return
    emulation: Emulation = request.getfixturevalue("emulation")
    emulation.set_order("random", 4)
    with using(emulation.runtime):
        yield


def encode(rows: np.ndarray, plan: ScanPlan, bias: np.ndarray | None = None) -> Codes:
    return codes_to_host(cuda.encode_rows(rows, plan, bias=bias), runtime(), runtime().memory.current_place())


@pytest.mark.parametrize(("dim", "first", "second"), SHAPES)
@pytest.mark.parametrize("euclidean", [False, True])
def test_stored_norms_are_not_below_what_the_codes_lost(dim: int, first: int, second: int, euclidean: bool) -> None:
    rows = make_rows(130, dim)
    codes = encode(rows, plan_of(rows, first, second, euclidean=euclidean))
    assert codes.rows == 130
    assert codes.wild == 0
    assert min(least_margins(codes, rows)) >= 0


@pytest.mark.parametrize(("dim", "first", "second"), SHAPES)
@pytest.mark.parametrize("euclidean", [False, True])
def test_it_agrees_with_the_cpu(dim: int, first: int, second: int, euclidean: bool) -> None:
    """A code may differ where a value lies at the border of two levels; nothing may differ by more."""
    rows = make_rows(130, dim)
    bias = None if euclidean else np.linspace(-1, 1, 130).astype(np.float32)
    plan = plan_of(rows, first, second, euclidean=euclidean, bias=bias)
    ours, theirs = encode(rows, plan, bias), cpu.encode_rows(rows, plan, bias=bias)
    largest = np.abs(exactly_rotated(rows, plan)).max()
    for mine, other in zip(decoded_stages(ours), decoded_stages(theirs), strict=True):
        assert np.mean(np.abs(mine - other) > 1e-6 * largest) < 0.02
    np.testing.assert_allclose(first_terms(ours), first_terms(theirs), rtol=0.02, atol=1e-6)
    np.testing.assert_allclose(ours.third_terms, theirs.third_terms, rtol=1e-3, atol=1e-6)
    for name in ("largest_first", "largest_second", "largest_third", "mean_rounding", "mean_tail"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-3)


def test_appending_equals_encoding_at_once() -> None:
    rows = make_rows(150, 100)
    plan = plan_of(rows, 32, 64)
    here = runtime()
    grown = cuda.encode_rows(rows[:45], plan, out=empty_device_codes(plan, 150, here, here.memory.current_place()))
    early, grown = grown, cuda.encode_rows(rows[45:46], plan, out=grown)
    grown = cuda.encode_rows(rows[46:], plan, out=grown)
    assert (early.rows, grown.rows) == (45, 150)
    whole, parts = encode(rows, plan), codes_to_host(grown, here, here.memory.current_place())
    for mine, other in zip(decoded_stages(parts), decoded_stages(whole), strict=True):
        np.testing.assert_array_equal(mine, other)
    np.testing.assert_array_equal(first_terms(parts), first_terms(whole))
    # behind codes that the CPU made, too
    out = empty_codes(plan, 150)
    joined = cuda.encode_rows(rows[45:], plan, out=cpu.encode_rows(rows[:45], plan, out=out))
    np.testing.assert_array_equal(
        decoded_stages(codes_to_host(joined, here, here.memory.current_place()))[0][45:], decoded_stages(whole)[0][45:]
    )
    with pytest.raises(InvalidInput, match="more do not fit"):
        cuda.encode_rows(make_rows(400, 100), plan, out=grown)


@pytest.mark.parametrize("magnitude", [1e-40, 1e-15, 1e15, 1e37])
def test_any_magnitude_is_scaled_into_range(magnitude: float) -> None:
    rows = (make_rows(100, 40).astype(np.float64) * magnitude).astype(np.float32)
    codes = encode(rows, plan_of(rows, 64, 0))
    assert codes.wild == 0
    lost = np.linalg.norm(exactly_rotated(rows, codes.plan) - decoded_stages(codes)[0], axis=1)
    assert (first_terms(codes)[:, 1] >= lost).all()


def test_a_search_over_its_codes_is_exact_on_every_device() -> None:
    rows = make_rows(300, 64)
    plan = plan_of(rows, 32, 0)
    codes = cuda.encode_rows(rows, plan)
    here = runtime()
    host = segment_of(rows, codes_to_host(codes, here, here.memory.current_place()))
    expected = reference.bounded_search([host], rows[:3], 5, euclidean=False)
    for kernels in (cpu, cuda):
        scores, positions = kernels.bounded_search([host], rows[:3], 5, euclidean=False)
        np.testing.assert_array_equal(positions, expected[1])
        np.testing.assert_array_equal(scores, expected[0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 1100), first=st.integers(1, 6), second=st.integers(0, 2))
def test_converting_loses_nothing(seed: int, rows: int, first: int, second: int) -> None:
    plan = ScanPlan(48, False, 32 * first, 64 * second, np.zeros(48, np.float32), None, 0.0, 1.0, 0.0, 0.0)
    codes = empty_codes(plan, rows)
    generator = np.random.default_rng(seed)
    for array in (codes.first, codes.second, codes.third.view(np.uint8), codes.third_terms.view(np.uint8)):
        array[:] = generator.integers(0, 256, len(array), np.uint8)
    tiles = tiles_of_blocks(codes.first, plan)
    assert len(tiles) == len(codes.first)
    np.testing.assert_array_equal(blocks_of_tiles(tiles, plan), codes.first)
    here = runtime()
    place = here.memory.current_place()
    back = codes_to_host(codes_to_device(codes, here, place), here, place)
    for name in ("first", "second", "third"):
        np.testing.assert_array_equal(getattr(back, name), getattr(codes, name))
    np.testing.assert_array_equal(back.third_terms.view(np.uint8), codes.third_terms.view(np.uint8))


def test_misuse_is_refused(emulation: Emulation) -> None:
    rows = make_rows(40, 64)
    plan = plan_of(rows, 32, 0)
    with using(emulation.runtime), emulation.no_launches():
        with pytest.raises(InvalidInput, match="rows must be float32"):
            cuda.encode_rows(DeviceArray(rows.astype(np.float64)), plan)
        with pytest.raises(InvalidInput, match="rows must have shape"):
            cuda.encode_rows(rows[:, :60].copy(), plan)
        with pytest.raises(InvalidInput, match="bias must have shape"):
            cuda.encode_rows(rows, plan, bias=np.zeros(39, np.float32))


def test_offsets_beyond_32_bits(emulation: Emulation) -> None:
    """Rows are encoded behind so many others that every stage lies beyond 2^31 bytes."""
    rows, far = make_rows(70, 150), 46_000_000 // 512 * 512 + 13
    plan, place = plan_of(rows, 96, 64), Place(0, 0)
    with using(emulation.runtime):
        near = empty_device_codes(plan, 512, emulation.runtime, place)
        room, nothing = far + 512 - 13, np.zeros(0, np.uint8)
        reserved_codes = replace(
            near,
            described=replace(near.described, rows=far),
            capacity=room,
            first=reserved(room * plan.first_stride // 8, np.uint8, nothing),
            second=reserved(room * plan.second_stride, np.uint8, nothing),
            third=reserved(room * plan.third, np.int8, nothing),
            third_terms=reserved(room * 4, np.float32, nothing),
        )
        codes = cuda.encode_rows(rows, plan, out=reserved_codes)
        expected = cuda.encode_rows(rows, plan, out=replace(near, described=replace(near.described, rows=13)))
    assert far * min(plan.first_stride // 8, plan.second_stride, plan.third) > 2**31
    assert codes.rows == far + 70
    for name in ("first", "second", "third", "third_terms"):
        ours, theirs = getattr(codes, name).owner, getattr(expected, name).owner._host
        np.testing.assert_array_equal(ours[-len(theirs) :].view(np.uint8), theirs.view(np.uint8))
