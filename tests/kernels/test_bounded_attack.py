"""No stage of the bounded scan may skip a row whose exact score reaches the threshold: not even for queries made to break it.

An oracle on ordinary data is not enough: a scan that leaves out a block of columns passes it. These queries point
along exactly what each stage skipped or rounded, where the Cauchy-Schwarz bounds are equalities, and along every
block of a row's columns. The planted faults at the end show that the attack sees what it is for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from llmrec_fast.kernels.codes import Codes
from llmrec_fast.kernels.cpu.encode_rows import encode_rows
from llmrec_fast.kernels.cpu.intrinsics import InstructionSet, instruction_set
from llmrec_fast.kernels.cpu.scan_queries import QueryCodes
from llmrec_fast.kernels.reference.bounded_search import decoded_stages, exact_scores, stage_bounds
from tests.kernels.bounded_tools import plan_of, segment_of, violations
from tests.kernels.instruction_sets import SETS


def decaying(generator: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Rows with a spectrum like that of text embeddings, away from the origin."""
    spectrum = np.exp(-np.arange(dim) / (0.15 * dim + 1))
    return (generator.standard_normal((rows, dim)) * spectrum + 0.2 * generator.standard_normal(dim)).astype(np.float32)


def attacking_queries(codes: Codes, rows: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Queries along what each stage lost of a few rows, along blocks of a row's columns, and along rows themselves."""
    plan = codes.plan
    exact = (rows.astype(np.float64) - plan.mean) * plan.scale
    rotated = exact if plan.rotation is None else exact @ plan.rotation.astype(np.float64)
    targets = generator.choice(len(rows), 3, replace=False)
    targets[0] = np.argmax(np.linalg.norm(rotated, axis=1))
    lost = [(rotated - stage)[targets] for stage in decoded_stages(codes)]
    directions = list(lost)
    # each stage's parts alone: its rounding without the columns after it, and these without its rounding
    for stage, border in ((0, plan.first), (1, plan.first + plan.second)):
        for kept in (np.arange(plan.dim) < border, np.arange(plan.dim) >= border):
            directions.append(np.where(kept, lost[stage], 0))
    leading = np.arange(plan.dim) < plan.first
    directions.append(np.where(leading, 0, lost[1]))
    # what the mixed bound lost, and the second stage's rounding alone, which no other norm then covers
    directions.append(np.where(leading, lost[2], lost[1]))
    directions.append(np.where(leading | (np.arange(plan.dim) >= plan.first + plan.second), 0, lost[1]))
    for start in range(0, plan.dim, max(32, plan.dim // 12 // 32 * 32)):
        block = np.zeros((1, plan.dim))
        block[0, start : start + 32] = rotated[targets[0], start : start + 32]
        directions.append(block)
    z = np.concatenate([*directions, rotated[targets]])
    z = z[np.linalg.norm(z, axis=1) > 0]
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    z = np.concatenate([z, -z[:3]])
    queries = z if plan.rotation is None else z @ plan.rotation.astype(np.float64).T
    if plan.euclidean:  # a query is seen from the mean
        queries = queries * np.linalg.norm(exact, axis=1).mean() / plan.scale + plan.mean
    return np.ascontiguousarray(queries, np.float32)


CASES = [
    # dim, first, second
    (1, 32, 0),
    (7, 32, 0),
    (64, 32, 64),
    (130, 64, 64),
    (192, 192, 0),
    (200, 96, 128),
]


@pytest.mark.parametrize("isa", SETS, ids=str)
@pytest.mark.parametrize(("dim", "first", "second"), CASES)
@pytest.mark.parametrize("euclidean", [False, True])
def test_no_stage_skips_a_row_that_reaches_the_threshold(
    isa: InstructionSet, dim: int, first: int, second: int, euclidean: bool
) -> None:
    generator = np.random.default_rng(dim + first)
    rows = decaying(generator, 700, dim)
    rows[100:120] *= (10.0 ** generator.uniform(-4, 0.5, (20, 1))).astype(np.float32)
    bias = None if euclidean else generator.standard_normal(len(rows)).astype(np.float32)
    codes = encode_rows(rows, plan_of(rows, first, second, euclidean=euclidean, bias=bias), bias=bias)
    queries = attacking_queries(codes, rows, generator)
    assert violations(isa, segment_of(rows, codes, bias), queries).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("magnitude", [1e-15, 1e-6, 1e6, 1e15])
@pytest.mark.parametrize("euclidean", [False, True])
def test_bounds_hold_at_every_magnitude(magnitude: float, euclidean: bool) -> None:
    generator = np.random.default_rng(1)
    rows = (decaying(generator, 600, 64) * magnitude).astype(np.float32)
    rows[:100] *= (10.0 ** generator.uniform(-12, 0, (100, 1))).astype(np.float32)
    codes = encode_rows(rows, plan_of(rows, 32, 64, euclidean=euclidean))
    queries = attacking_queries(codes, rows, generator)
    for scale in (1e-15, 1.0, 1e15):
        scaled = queries if euclidean else (queries * scale).astype(np.float32)
        assert violations(instruction_set(), segment_of(rows, codes), scaled).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("first", "second"), [(64, 64), (192, 0)])
def test_bounds_are_not_looser_than_they_need_to_be(first: int, second: int) -> None:
    """The reference evaluates the bounds without float32 and without the query's rounding: they must hold, and be tight."""
    generator = np.random.default_rng(5)
    rows = decaying(generator, 512, 192)
    codes = encode_rows(rows, plan_of(rows, first, second))
    queries = attacking_queries(codes, rows, generator)
    gaps = []
    for query in queries:
        exact = exact_scores(rows, np.zeros(len(rows), np.float32), query, False)
        gaps.append(stage_bounds(codes, query) - exact[:, None])
    least = np.array(gaps).min(axis=(0, 1))
    scale = np.linalg.norm(rows, axis=1).max()
    assert (least >= 0).all()
    assert (least[:2] < 2e-3 * scale).all()  # some query meets the bound nearly with equality


def test_rows_far_from_the_fit_pass_every_stage() -> None:
    generator = np.random.default_rng(2)
    rows = decaying(generator, 600, 64)
    plan = plan_of(rows, 32, 64)
    far = np.concatenate([rows, rows[:50] * 1e3, rows[:20] * np.float32(1e30), np.full((4, 64), 3e38, np.float32)])
    codes = encode_rows(far, plan)
    assert codes.wild == 74
    queries = attacking_queries(encode_rows(rows, plan), rows, generator)
    assert violations(instruction_set(), segment_of(far, codes), queries).tolist() == [0, 0, 0, 0]


# -- planted faults: each of these must be found --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attacked() -> tuple[np.ndarray, Codes, np.ndarray]:
    generator = np.random.default_rng(3)
    rows = decaying(generator, 700, 384)
    codes = encode_rows(rows, plan_of(rows, 160, 128))
    return rows, codes, attacking_queries(codes, rows, generator)


def test_a_norm_scaled_down_is_found(attacked: tuple[np.ndarray, Codes, np.ndarray]) -> None:
    rows, codes, queries = attacked
    first = codes.first.copy()
    terms = first.reshape(-1, codes.plan.first_stride)[:, -64:].copy().view(np.uint16)
    terms[:, 16:24] -= 16  # tail norms an eighth of a power of two smaller
    first.reshape(-1, codes.plan.first_stride)[:, -64:] = terms.view(np.uint8)
    assert violations(instruction_set(), segment_of(rows, replace(codes, first=first)), queries)[0] > 0

    third_terms = codes.third_terms.copy()
    third_terms[1::4] *= np.float32(0.9)
    assert violations(instruction_set(), segment_of(rows, replace(codes, third_terms=third_terms)), queries)[2] > 0

    second = codes.second.view(np.float32).copy()
    second.reshape(-1, codes.plan.second_stride // 4)[:, -3] *= np.float32(0.8)  # the second stage's rounding norm
    damaged = replace(codes, second=second.view(np.uint8))
    assert violations(instruction_set(), segment_of(rows, damaged), queries)[1] > 0


@pytest.mark.parametrize("norm", [-3, -2])
def test_a_norm_of_the_mixed_bound_scaled_down_is_found(
    attacked: tuple[np.ndarray, Codes, np.ndarray], norm: int
) -> None:
    rows = attacked[0]
    # narrow stages, so that the int8 codes' rounding, which this bound counts for all columns, covers little
    codes = encode_rows(rows, plan_of(rows, 32, 64))
    second = codes.second.view(np.float32).copy()
    second.reshape(-1, codes.plan.second_stride // 4)[:, norm] *= np.float32(0.4)
    damaged = segment_of(rows, replace(codes, second=second.view(np.uint8)))
    queries = attacking_queries(codes, rows, np.random.default_rng(4))
    assert violations(instruction_set(), damaged, queries)[3] > 0


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_a_block_of_codes_left_out_is_found(attacked: tuple[np.ndarray, Codes, np.ndarray], stage: int) -> None:
    rows, codes, queries = attacked

    def leave_out(query_codes: QueryCodes) -> None:
        if stage == 2:
            query_codes.third[:, :32] = 0
            return
        own = (query_codes.first, query_codes.second)[stage]
        own[:, -32:] = 0
        # the offset belongs to the codes that are left
        query_codes.offsets[stage] = -((15 * own.astype(np.int64).sum(axis=1)) >> 1)

    found = violations(instruction_set(), segment_of(rows, codes), queries, leave_out)
    assert found[stage] > 0
    # the mixed bound takes the second stage's codes, and the first columns of the third's
    assert (found[3] > 0) == (stage > 0)


def test_a_slack_removed_is_found() -> None:
    """A rotation that departs from orthogonality is paid for by `departure`; forgetting it is found."""
    generator = np.random.default_rng(6)
    rows = decaying(generator, 600, 64)
    plan = plan_of(rows, 32, 64)
    assert plan.rotation is not None
    bent = (plan.rotation * np.float32(0.98)).astype(np.float32)
    departure = float(np.linalg.norm(bent.astype(np.float64) @ bent.T.astype(np.float64) - np.eye(64)))
    honest = replace(plan, rotation=bent, departure=departure)
    for candidate, expected in ((honest, True), (replace(honest, departure=0.0), False)):
        codes = encode_rows(rows, candidate)
        found = violations(instruction_set(), segment_of(rows, codes), attacking_queries(codes, rows, generator))
        assert (found.sum() == 0) == expected
