"""The bounded scan equals the reference, which scores every row: ids, order and the very bits of the scores, on every
plan and processor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.kernels import cpu, reference
from llmrec_fast.kernels.codes import ScanCounts, ScanSegment, allowed_bits, panels_of
from llmrec_fast.kernels.cpu.intrinsics import InstructionSet
from llmrec_fast.kernels.cpu.product_search import product_search
from tests.kernels.bounded_tools import plan_of, segment_of
from tests.kernels.instruction_sets import SETS

GENERATOR = np.random.default_rng(0)


def make_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    spectrum = np.exp(-np.arange(dim) / (0.1 * dim + 1))
    return (generator.standard_normal((count, dim)) * spectrum + 0.1).astype(np.float32)


def encoded(rows: np.ndarray, first: int, second: int, euclidean: bool = False) -> ScanSegment:
    return segment_of(rows, cpu.encode_rows(rows, plan_of(rows, first, second, euclidean=euclidean)))


def assert_equal(ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(ours[1], theirs[1])
    np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("isa", SETS, ids=str)
@pytest.mark.parametrize(("dim", "first", "second"), [(5, 32, 0), (96, 32, 64), (200, 224, 0), (130, 64, 64)])
@pytest.mark.parametrize("euclidean", [False, True])
def test_equals_the_reference(isa: InstructionSet, dim: int, first: int, second: int, euclidean: bool) -> None:
    rows = make_rows(6000, dim)
    segment = encoded(rows, first, second, euclidean)
    for count in (1, 2, 5, 33):
        queries = make_rows(count, dim, seed=count)
        for k in (1, 10, 90):
            theirs = reference.bounded_search([segment], queries, k, euclidean=euclidean)
            assert_equal(cpu.bounded_search([segment], queries, k, euclidean=euclidean, isa=isa), theirs)


def test_codes_of_the_reference_serve_the_scan() -> None:
    rows = make_rows(3000, 96)
    segment = segment_of(rows, reference.encode_rows(rows, plan_of(rows, 32, 64)))
    queries = make_rows(9, 96, seed=1)
    theirs = reference.bounded_search([segment], queries, 7, euclidean=False)
    assert_equal(cpu.bounded_search([segment], queries, 7, euclidean=False), theirs)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("scratch", [1, 100_000, 1 << 26])
def test_neither_threads_nor_slabs_change_the_answer(threads: int, scratch: int) -> None:
    rows = make_rows(9000, 64)
    segment = encoded(rows, 32, 0)
    queries = make_rows(20, 64, seed=2)
    theirs = reference.bounded_search([segment], queries, 12, euclidean=False)
    ours = cpu.bounded_search([segment], queries, 12, euclidean=False, threads=threads, scratch_bytes=scratch)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("threads", [2, 3])
def test_groups_of_queries_side_by_side_change_neither_answers_nor_counts(threads: int) -> None:
    rows, queries = make_rows(4000, 64), make_rows(83, 64, 1)  # five full groups of queries and three more
    segment = encoded(rows, 32, 32)
    alone, together = ScanCounts(), ScanCounts()
    expected = cpu.bounded_search([segment], queries, 7, euclidean=False, threads=1, counts=alone)
    ours = cpu.bounded_search([segment], queries, 7, euclidean=False, threads=threads, counts=together)
    assert_equal(ours, expected)
    assert_equal(ours, reference.bounded_search([segment], queries, 7, euclidean=False))
    assert together.scanned == alone.scanned == 83 * 4096
    assert together.reranked >= 83 * 7


def test_segments_with_and_without_codes_join() -> None:
    rows = make_rows(7000, 96)
    plan = plan_of(rows, 32, 64)
    parts = [(0, 5000), (5000, 5003), (5003, 7000)]
    segments = [
        segment_of(rows[start:stop], None if start == 5000 else cpu.encode_rows(rows[start:stop], plan), base=start)
        for start, stop in parts
    ]
    queries = make_rows(6, 96, seed=3)
    theirs = reference.bounded_search(segments, queries, 20, euclidean=False)
    assert_equal(cpu.bounded_search(segments, queries, 20, euclidean=False), theirs)


@pytest.mark.parametrize("count", [1, 6])
@pytest.mark.parametrize("best", [False, True])
def test_exclusions_never_come_back_nor_raise_the_threshold(count: int, best: bool) -> None:
    rows = make_rows(8000, 64)
    segment = encoded(rows, 32, 0)
    queries = make_rows(count, 64, seed=4)
    excluded = (
        reference.bounded_search([segment], queries, 500, euclidean=False)[1]
        if best
        else GENERATOR.integers(-5, 9000, (count, 500))
    )
    pair = np.arange(count + 1) * 500, excluded.reshape(-1).astype(np.int64)
    theirs = reference.bounded_search([segment], queries, 10, euclidean=False, excluded=pair)
    assert_equal(cpu.bounded_search([segment], queries, 10, euclidean=False, excluded=pair), theirs)
    assert_equal(product_search([segment], queries, 10, euclidean=False, excluded=pair), theirs)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.9])
def test_only_allowed_rows_are_considered(share: float) -> None:
    rows = make_rows(6000, 64)
    codes = cpu.encode_rows(rows, plan_of(rows, 32, 0))
    bits = allowed_bits(6000, panels_of(6000), GENERATOR.random(6000) < share)
    segment = ScanSegment(0, rows, np.zeros(6000, np.float32), bits, codes)
    queries = make_rows(5, 64, seed=5)
    theirs = reference.bounded_search([segment], queries, 10, euclidean=False)
    assert_equal(cpu.bounded_search([segment], queries, 10, euclidean=False), theirs)
    assert_equal(product_search([segment], queries, 10, euclidean=False), theirs)


def test_the_scan_skips_nearly_everything() -> None:
    rows = make_rows(20_000, 96)
    counts = ScanCounts()
    cpu.bounded_search([encoded(rows, 32, 64)], make_rows(8, 96, seed=6), 10, euclidean=False, counts=counts)
    assert counts.scanned == 8 * 40 * 512
    assert counts.after_first < 0.2 * counts.scanned
    assert counts.after_second < counts.after_first
    assert 80 <= counts.after_third <= counts.reranked < 0.01 * counts.scanned


@pytest.mark.parametrize("euclidean", [False, True])
@pytest.mark.parametrize("dim", [1, 12, 65])
def test_the_product_equals_the_reference(dim: int, euclidean: bool) -> None:
    rows = make_rows(9000, dim)
    segments = [segment_of(rows[:8500], None), segment_of(rows[8500:], None, base=8500)]
    queries = make_rows(300, dim, seed=7)
    theirs = reference.bounded_search(segments, queries, 15, euclidean=euclidean)
    assert_equal(product_search(segments, queries, 15, euclidean=euclidean), theirs)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 2500),
    queries=st.integers(1, 9),
    k=st.integers(1, 40),
    levels=st.integers(1, 4),
    exponent=st.integers(-15, 15),
    euclidean=st.booleans(),
)
def test_ties_scales_and_shapes(
    seed: int, count: int, queries: int, k: int, levels: int, exponent: int, euclidean: bool
) -> None:
    """Rows of few distinct values tie by the thousand; the earlier row wins, whatever the plan."""
    generator = np.random.default_rng(seed)
    scale = np.float32(10.0**exponent)
    rows = (generator.integers(-levels, levels + 1, (count, 40)) * scale).astype(np.float32)
    rows[generator.random(count) < 0.5] = rows[0]
    wanted = (generator.integers(-levels, levels + 1, (queries, 40)) * scale).astype(np.float32)
    segment = encoded(rows, 64, 0, euclidean)
    theirs = reference.bounded_search([segment], wanted, k, euclidean=euclidean)
    assert_equal(cpu.bounded_search([segment], wanted, k, euclidean=euclidean), theirs)
    assert_equal(product_search([segment], wanted, k, euclidean=euclidean), theirs)
