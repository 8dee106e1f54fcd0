"""No stage of the scan on the GPU may skip a row that reaches the threshold: not even for queries made to break it.

The attack of test_bounded_attack.py, on the functions of csrc themselves: `stage_margins.cu` evaluates each stage's bound minus
the threshold that the row's own exact score gives, by dp4a and by tensor tiles. A negative margin is a row that would be lost.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llmrec_fast.kernels import cuda
from llmrec_fast.kernels.codes import Codes, ScanPlan, ScanSegment
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import using
from llmrec_fast.kernels.cuda.scan_codes import codes_to_host, tiles_of_blocks
from tests.kernels.bounded_tools import plan_of, segment_of
from tests.kernels.test_bounded_attack import attacking_queries, decaying
from tests.simt import build
from tests.simt.memory import Emulation

# -- the structs of csrc/bounded_search.h -------------------------------------------------------------------------------


class Shape(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int32) for name in ("dim", "first", "second", "third", "euclidean"))


class Plan(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("mean", "rotation")),
        *((name, ctypes.c_double) for name in ("scale", "bias_centre", "bias_radius")),
    )


class Segment(ctypes.Structure):
    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in ("first", "second", "third", "third_terms", "rows", "bias", "allowed", "ids")
        ),
        *((name, ctypes.c_int64) for name in ("base", "count")),
        ("largest", ctypes.c_double * 3),
    )


class Queries(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("queries", "terms", "first", "second", "third_high", "third_low")),
        ("count", ctypes.c_int32),
    )


class Terms(ctypes.Structure):
    _fields_ = (
        ("errors", ctypes.c_double * 3),
        *((name, ctypes.c_double) for name in ("to_bound", "offset", "slack")),
        ("first", ctypes.c_float * 5),
        ("second", ctypes.c_float * 4),
        ("third", ctypes.c_float * 2),
        ("offsets", ctypes.c_int32 * 2),
        ("usable", ctypes.c_int32),
    )


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    if (reason := build.missing_tools()) is not None:
        pytest.skip(f"the CUDA kernels cannot be emulated here: {reason}")
    loaded = ctypes.CDLL(str(build.build_library("plain", [build.STAND_IN / "stage_margins.cu"], "stage_margins")))
    loaded.stage_workspace.restype = loaded.stage_size_of.restype = ctypes.c_size_t
    # the structs of this file are those of csrc/bounded_search.h
    for kind, mirror in enumerate((Shape, Plan, Segment, Queries, Terms)):
        assert loaded.stage_size_of(kind) == ctypes.sizeof(mirror), mirror
    return loaded


def address(array: np.ndarray | None) -> int:
    return 0 if array is None else array.ctypes.data


def margins(
    library: ctypes.CDLL,
    segment: ScanSegment,
    queries: np.ndarray,
    tensor: bool,
    change: Callable[[ScanPlan, np.ndarray, np.ndarray, Any], None] | None = None,
) -> np.ndarray:
    """(queries, rows, 3) bounds minus thresholds. `change(plan, first, third_high, terms)` may damage the prepared queries."""
    codes = segment.codes
    assert codes is not None
    plan, count = codes.plan, len(queries)
    shape = Shape(plan.dim, plan.first, plan.second, plan.third, plan.euclidean)
    own = Plan(address(plan.mean), address(plan.rotation), plan.scale, plan.bias_centre, plan.bias_radius)
    tiles = tiles_of_blocks(codes.first, plan)
    largest = (ctypes.c_double * 3)(codes.largest_first, codes.largest_second, codes.largest_third)
    view = Segment(
        *map(
            address,
            (tiles, codes.second, codes.third, codes.third_terms, segment.rows, segment.bias, segment.allowed, None),
        ),
        0,
        len(segment.rows),
        largest,
    )
    prepared = Queries()
    workspace = np.zeros(library.stage_workspace(ctypes.byref(shape), count), np.uint8)
    assert library.stage_prepare(
        ctypes.byref(shape), ctypes.byref(own), ctypes.c_void_p(address(queries)), count,
        ctypes.c_void_p(address(workspace)), ctypes.byref(prepared),
    ) == 0  # fmt: skip
    terms = (Terms * count).from_address(prepared.terms)
    if change is not None:
        first = np.ctypeslib.as_array((ctypes.c_int8 * (count * plan.first)).from_address(prepared.first))
        third = np.ctypeslib.as_array((ctypes.c_int8 * (count * plan.third)).from_address(prepared.third_high))
        change(plan, first.reshape(count, -1), third.reshape(count, -1), terms)
    bases = np.full((count, len(segment.rows)), np.nan, np.float32)
    found = np.full((count, len(segment.rows), 3), np.nan)
    assert library.stage_margins(
        ctypes.byref(shape), ctypes.byref(view), ctypes.byref(prepared), ctypes.c_bool(tensor),
        ctypes.c_void_p(address(bases)), ctypes.c_void_p(address(found)),
    ) == 0  # fmt: skip
    usable = np.array([term.usable for term in terms], bool)
    assert not np.isnan(bases[usable]).any()
    return found[usable]


def encoded_on_device(emulation: Emulation, rows: np.ndarray, plan: ScanPlan, bias: np.ndarray | None = None) -> Codes:
    """Codes that the GPU's own encoder made, in the host's layout."""
    with using(emulation.runtime):
        return codes_to_host(cuda.encode_rows(rows, plan, bias=bias), emulation.runtime, Place(0, 0))


@pytest.mark.parametrize("tensor", [False, True], ids=["dp4a", "tensor"])
@pytest.mark.parametrize(
    ("dim", "first", "second"), [(1, 32, 0), (64, 32, 64), (130, 64, 64), (384, 160, 128), (200, 224, 0)]
)
@pytest.mark.parametrize("euclidean", [False, True])
def test_no_stage_skips_a_row_that_reaches_the_threshold(
    library: ctypes.CDLL, emulation: Emulation, dim: int, first: int, second: int, euclidean: bool, tensor: bool
) -> None:
    generator = np.random.default_rng(dim + first)
    rows = decaying(generator, 700, dim)
    rows[60:80] *= (10.0 ** generator.uniform(-4, 0.5, (20, 1))).astype(np.float32)
    bias = None if euclidean else generator.standard_normal(len(rows)).astype(np.float32)
    plan = plan_of(rows, first, second, euclidean=euclidean, bias=bias)  # fewer rows than columns would leave no tails
    rows, bias = rows[:100].copy(), None if bias is None else bias[:100].copy()
    codes = encoded_on_device(emulation, rows, plan, bias)
    queries = attacking_queries(codes, rows, generator)
    assert margins(library, segment_of(rows, codes, bias), queries, tensor).min() >= 0


@pytest.mark.parametrize("magnitude", [1e-15, 1e-6, 1e6, 1e15])
@pytest.mark.parametrize("euclidean", [False, True])
def test_bounds_hold_at_every_magnitude(
    library: ctypes.CDLL, emulation: Emulation, magnitude: float, euclidean: bool
) -> None:
    generator = np.random.default_rng(1)
    rows = (decaying(generator, 120, 64) * magnitude).astype(np.float32)
    rows[:30] *= (10.0 ** generator.uniform(-12, 0, (30, 1))).astype(np.float32)
    codes = encoded_on_device(emulation, rows, plan_of(rows, 32, 64, euclidean=euclidean))
    queries = attacking_queries(codes, rows, generator)
    for scale in (1e-15, 1.0, 1e15):
        scaled = queries if euclidean else (queries * scale).astype(np.float32)
        assert margins(library, segment_of(rows, codes), scaled, tensor=False).min() >= 0


def test_rows_far_from_the_fit_pass_every_stage(library: ctypes.CDLL, emulation: Emulation) -> None:
    generator = np.random.default_rng(2)
    rows = decaying(generator, 150, 64)
    plan = plan_of(rows, 32, 64)
    far = np.concatenate([rows, rows[:20] * 1e3, rows[:10] * np.float32(1e30), np.full((4, 64), 3e38, np.float32)])
    codes = encoded_on_device(emulation, far, plan)
    assert codes.wild == 34
    queries = attacking_queries(encoded_on_device(emulation, rows, plan), rows, generator)
    for tensor in (False, True):
        assert margins(library, segment_of(far, codes), queries, tensor).min() >= 0


# -- planted faults: each of these must be found --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attacked(emulation: Emulation) -> tuple[np.ndarray, Codes, np.ndarray]:
    generator = np.random.default_rng(3)
    rows = decaying(generator, 700, 384)
    plan = plan_of(rows, 160, 128)
    rows = rows[:100].copy()
    codes = encoded_on_device(emulation, rows, plan)
    return rows, codes, attacking_queries(codes, rows, generator)


def test_the_bounds_are_not_looser_than_they_need_to_be(
    library: ctypes.CDLL, attacked: tuple[np.ndarray, Codes, np.ndarray]
) -> None:
    """Some query meets each of the first two bounds nearly with equality, in units of the longest row."""
    rows, codes, queries = attacked
    assert (margins(library, segment_of(rows, codes), queries, tensor=False).min(axis=(0, 1))[:2] < 5e-3).all()


def test_a_norm_scaled_down_is_found(library: ctypes.CDLL, attacked: tuple[np.ndarray, Codes, np.ndarray]) -> None:
    rows, codes, queries = attacked
    first = codes.first.copy()
    terms = first.reshape(-1, codes.plan.first_stride)[:, -64:].copy().view(np.uint16)
    terms[:, 16:24] -= 16  # tail norms an eighth of a power of two smaller
    first.reshape(-1, codes.plan.first_stride)[:, -64:] = terms.view(np.uint8)
    second = codes.second.view(np.float32).copy()
    second.reshape(-1, codes.plan.second_stride // 4)[:, -3] *= np.float32(0.8)  # the second stage's rounding norm
    third_terms = codes.third_terms.copy()
    third_terms[1::4] *= np.float32(0.9)
    for stage, damaged in enumerate(
        (
            replace(codes, first=first),
            replace(codes, second=second.view(np.uint8)),
            replace(codes, third_terms=third_terms),
        )
    ):
        found = margins(library, segment_of(rows, damaged), queries, tensor=False)
        assert found[:, :, stage].min() < 0


@pytest.mark.parametrize("tensor", [False, True], ids=["dp4a", "tensor"])
def test_a_block_of_codes_left_out_is_found(
    library: ctypes.CDLL, attacked: tuple[np.ndarray, Codes, np.ndarray], tensor: bool
) -> None:
    rows, codes, queries = attacked

    def leave_out(plan: ScanPlan, first: np.ndarray, third_high: np.ndarray, terms: Any) -> None:
        first[:, -32:] = 0
        third_high[:, :32] = 0
        for own, term in zip(first, terms, strict=True):  # the offset belongs to the codes that are left
            term.offsets[0] = -((15 * int(own.astype(np.int64).sum())) >> 1)

    found = margins(library, segment_of(rows, codes), queries, tensor, leave_out)
    assert found[:, :, 0].min() < 0
    assert found[:, :, 2].min() < 0
