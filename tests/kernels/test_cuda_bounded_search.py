"""The bounded scan on CUDA devices equals the reference, which scores every row: ids, order and the very bits of the scores.

`cuda-emulated-*` run the kernels as they are on the CPU, with blocks and threads in several orders and with the race check;
sizes are small because of it. Few queries take the path of dp4a, more than eight the tensor cores.
"""

from __future__ import annotations

import mmap
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from llmrec_fast.errors import CudaError, InvalidInput
from llmrec_fast.kernels import cpu, reference
from llmrec_fast.kernels.codes import ScanCounts, ScanPlan, ScanSegment, allowed_bits, panels_of
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import using
from llmrec_fast.kernels.cuda.scan_codes import segment_to_device, tiles_of_blocks
from llmrec_fast.kernels.cuda.views import DeviceView
from tests.kernels.bounded_tools import plan_of, segment_of
from tests.kernels.conftest import DEVICES
from tests.simt.memory import DeviceArray, Emulation

GPU = [device for device in DEVICES if device == "cuda"]
CUDA = [device for device in DEVICES if device.startswith("cuda-emulated") and not device.endswith(("-2", "-3"))] + GPU
on_cuda = pytest.mark.parametrize("kernels", CUDA, indirect=True)
once = pytest.mark.parametrize("kernels", ["cuda-emulated-random-2", *GPU], indirect=True)


def make_rows(count: int, dim: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    spectrum = np.exp(-np.arange(dim) / (0.1 * dim + 1))
    return (generator.standard_normal((count, dim)) * spectrum + 0.1).astype(np.float32)


def encoded(rows: np.ndarray, first: int, second: int, euclidean: bool = False) -> ScanSegment:
    return segment_of(rows, cpu.encode_rows(rows, plan_of(rows, first, second, euclidean=euclidean)))


def assert_exact(kernels: Any, segments: list[ScanSegment], queries: np.ndarray, k: int, **keywords: Any) -> ScanCounts:
    """Scores and positions are those of the reference; returns what the search counted."""
    counts = ScanCounts()
    scores, positions = kernels.bounded_search(segments, queries, k, counts=counts, **keywords)
    expected_scores, expected_positions = reference.bounded_search(segments, queries, k, **keywords)
    np.testing.assert_array_equal(positions, expected_positions)
    np.testing.assert_array_equal(scores, expected_scores)
    return counts


@on_cuda
@pytest.mark.parametrize(("dim", "first", "second"), [(5, 32, 0), (96, 32, 64), (200, 224, 0), (130, 64, 64)])
@pytest.mark.parametrize("euclidean", [False, True])
def test_equals_the_reference(kernels: Any, dim: int, first: int, second: int, euclidean: bool) -> None:
    rows = make_rows(1100, dim)
    segment = encoded(rows, first, second, euclidean)
    for count, k in ((1, 1), (3, 10), (20, 5)):
        assert_exact(kernels, [segment], make_rows(count, dim, seed=count), k, euclidean=euclidean)


@once
@pytest.mark.parametrize("count", [1, 2, 4, 7, 8, 9, 16, 17, 40, 70])
def test_any_number_of_queries(kernels: Any, count: int) -> None:
    rows = make_rows(700, 96)
    assert_exact(kernels, [encoded(rows, 32, 64)], make_rows(count, 96, seed=1), 7, euclidean=False)


@once
@pytest.mark.parametrize("k", [1, 31, 128, 129, 1000, 1024])
@pytest.mark.parametrize("count", [2, 10])
def test_any_k(kernels: Any, k: int, count: int) -> None:
    rows = make_rows(1500, 40)
    assert_exact(kernels, [encoded(rows, 64, 0)], make_rows(count, 40, seed=2), k, euclidean=False)


@on_cuda
@pytest.mark.parametrize("count", [2, 12])
def test_segments_with_and_without_codes_join(kernels: Any, count: int) -> None:
    rows = make_rows(1300, 96)
    plan = plan_of(rows, 32, 64)
    parts = [(0, 900), (900, 913), (913, 1300)]
    segments = [
        segment_of(rows[start:stop], None if start == 900 else cpu.encode_rows(rows[start:stop], plan), base=start)
        for start, stop in parts
    ]
    assert_exact(kernels, segments, make_rows(count, 96, seed=3), 20, euclidean=False)


@once
def test_rows_without_any_codes(kernels: Any) -> None:
    rows = make_rows(300, 33)
    bias = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    for euclidean in (False, True):
        assert_exact(kernels, [segment_of(rows, None, bias)], make_rows(9, 33, seed=4), 12, euclidean=euclidean)
    assert_exact(kernels, [], rows[:2], 3, euclidean=False)


@on_cuda
@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("best", [False, True])
def test_exclusions_never_come_back_nor_raise_the_floor(kernels: Any, count: int, best: bool) -> None:
    rows = make_rows(1000, 64)
    segment = encoded(rows, 32, 0)
    queries = make_rows(count, 64, seed=5)
    excluded = (
        reference.bounded_search([segment], queries, 100, euclidean=False)[1]
        if best
        else np.random.default_rng(0).integers(-5, 1100, (count, 100))
    )
    pair = np.arange(count + 1) * 100, excluded.reshape(-1).astype(np.int64)
    assert_exact(kernels, [segment], queries, 10, euclidean=False, excluded=pair)


@once
@pytest.mark.parametrize("share", [0.0, 0.005, 0.1, 0.9])
def test_only_allowed_rows_are_considered(kernels: Any, share: float) -> None:
    rows = make_rows(1500, 64)
    bits = allowed_bits(1500, panels_of(1500), np.random.default_rng(1).random(1500) < share)
    segment = replace(encoded(rows, 32, 0), allowed=bits)
    for count in (3, 11):
        assert_exact(kernels, [segment], make_rows(count, 64, seed=6), 10, euclidean=False)


@on_cuda
@pytest.mark.parametrize("count", [3, 70])
def test_more_survivors_than_there_is_room_for_lose_none(kernels: Any, count: int) -> None:
    """Rows that all tie pass every bound: queues and buffers fill again and again, and the earliest rows must win."""
    rows = np.tile(make_rows(1, 32), (1400 if count == 3 else 330, 1))
    counts = assert_exact(kernels, [encoded(rows, 32, 0)], make_rows(count, 32, seed=7), 150, euclidean=False)
    assert counts.reranked >= len(rows) * count


@once
@pytest.mark.parametrize("exponent", [-15, 0, 15])
@pytest.mark.parametrize("euclidean", [False, True])
def test_ties_at_every_scale(kernels: Any, exponent: int, euclidean: bool) -> None:
    generator = np.random.default_rng(8)
    rows = (generator.integers(-2, 3, (900, 40)) * np.float32(10.0**exponent)).astype(np.float32)
    rows[generator.random(900) < 0.5] = rows[0]
    for count in (2, 9):
        queries = (generator.integers(-2, 3, (count, 40)) * np.float32(10.0**exponent)).astype(np.float32)
        assert_exact(kernels, [encoded(rows, 64, 0, euclidean)], queries, 25, euclidean=euclidean)


@once
def test_rows_and_queries_that_bounds_cannot_handle(kernels: Any) -> None:
    """Wild rows pass every stage; queries of zeros, or far from float32's middle, have every row scored."""
    rows = make_rows(700, 64)
    plan = plan_of(rows, 32, 64)
    far = np.concatenate([rows, rows[:20] * 1e3, rows[:10] * np.float32(1e30), np.full((2, 64), 3e38, np.float32)])
    queries = np.concatenate(
        [np.zeros((1, 64), np.float32), rows[:2], rows[:1] * np.float32(1e-37), rows[:1] * np.float32(1e37)]
    )
    for own in (queries, np.tile(queries, (3, 1))):
        assert_exact(kernels, [segment_of(far, cpu.encode_rows(far, plan))], own, 30, euclidean=False)


@once
@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e4, 1e30])
def test_bias_that_matters_little_or_dominates(kernels: Any, spread: float) -> None:
    rows = make_rows(800, 48)
    bias = (np.random.default_rng(9).standard_normal(800) * spread).astype(np.float32)
    bias[:100] = bias[0]
    segment = segment_of(rows, cpu.encode_rows(rows, plan_of(rows, 64, 0, bias=bias), bias=bias), bias)
    for count in (4, 12):
        assert_exact(kernels, [segment], make_rows(count, 48, seed=10), 10, euclidean=False)


@once
def test_queries_are_cut_in_groups_that_keep_to_the_workspace(kernels: Any) -> None:
    rows = make_rows(600, 64)
    pair = np.arange(24) * 7, np.random.default_rng(0).integers(0, 600, 23 * 7)
    assert_exact(kernels, [encoded(rows, 32, 0)], make_rows(23, 64, seed=11), 5, euclidean=False, excluded=pair)
    scores, positions = kernels.bounded_search(
        [encoded(rows, 32, 0)], make_rows(23, 64, seed=11), 5, euclidean=False, excluded=pair, workspace_bytes=200_000
    )
    expected = reference.bounded_search(
        [encoded(rows, 32, 0)], make_rows(23, 64, seed=11), 5, euclidean=False, excluded=pair
    )
    np.testing.assert_array_equal(positions, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


@once
@pytest.mark.parametrize("least_rows", [32, 100_000])
def test_the_number_of_slices_does_not_change_the_answer(
    kernels: Any, least_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmrec_fast.kernels.cuda import bounded_search as module

    monkeypatch.setattr(sys.modules[module.__module__], "_LEAST_ROWS", least_rows)
    rows = make_rows(900, 64)
    for count in (3, 30):
        assert_exact(kernels, [encoded(rows, 32, 0)], make_rows(count, 64, seed=20), 40, euclidean=False)


# -- cost ---------------------------------------------------------------------------------------------------------------


@once
@pytest.mark.parametrize("count", [8, 64])
def test_the_scan_skips_nearly_everything(kernels: Any, count: int) -> None:
    rows = make_rows(6000, 96)
    counts = assert_exact(kernels, [encoded(rows, 32, 64)], make_rows(count, 96, seed=12), 10, euclidean=False)
    assert counts.scanned == count * 6000
    assert counts.after_first < 0.3 * counts.scanned
    assert counts.after_second < counts.after_first
    assert 10 * count <= counts.after_third <= counts.reranked < 0.05 * counts.scanned


def scan_by(watched: Emulation, segment: ScanSegment, queries: np.ndarray, region: str) -> tuple[int, int]:
    """Bytes that kernels read from the first stage's codes, or read and wrote anywhere, during one search."""
    with using(watched.runtime):
        from llmrec_fast.kernels import cuda

        moved = segment_to_device(segment, watched.runtime, Place(0, 0))
        assert moved.codes is not None
        first = moved.codes.first
        start, size = (first.pointer, first.shape[0]) if region == "codes" else (0, 0)
        watched.watch(start, size)
        cuda.bounded_search([moved], queries, 5, euclidean=False)
    return watched.watched_reads(), watched.watched_writes()


@pytest.mark.parametrize(("first", "second"), [(32, 64), (96, 0), (160, 0)])
def test_bytes_read_a_row(race_check: Emulation, first: int, second: int) -> None:
    """A row that fails the first bound costs first / 2 + 8 bytes of codes, and seeds at most 8 more a row on average."""
    rows = make_rows(24_000, max(first + second - 3, 60))
    segment = encoded(rows, first, second)
    for count in (1, 4):
        read, _ = scan_by(race_check, segment, make_rows(count, rows.shape[1], seed=13), "codes")
        assert read <= (first // 2 + 16) * len(rows)
        assert read >= (first // 2 + 8) * len(rows)


def test_nothing_of_the_size_of_queries_times_rows_is_written(race_check: Emulation) -> None:
    rows, queries = make_rows(24_000, 93), make_rows(8, 93, seed=14)
    _, written = scan_by(race_check, encoded(rows, 32, 64), queries, "everything")
    assert written < len(rows) * len(queries) / 4  # an int8 for every pair would be four times as much


# -- interface ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def moved(emulation: Emulation) -> Any:
    """A segment and two queries on the emulated device."""
    emulation.set_order("ascending")
    rows = make_rows(500, 64)
    place = Place(0, 0)
    with using(emulation.runtime):
        yield (
            segment_to_device(encoded(rows, 32, 0), emulation.runtime, place),
            DeviceArray(make_rows(2, 64, seed=15)),
            rows,
        )


def test_device_arrays_stay_on_the_device(moved: Any, emulation: Emulation) -> None:
    from llmrec_fast.kernels import cuda

    segment, queries, rows = moved
    excluded = DeviceArray(np.array([0, 1, 2])), DeviceArray(np.array([3, 4]))
    scores, positions = cuda.bounded_search([segment], queries, 4, euclidean=False, excluded=excluded)
    assert isinstance(scores, DeviceArray)
    host = reference.bounded_search(
        [segment_of(rows, None)], queries._host, 4, euclidean=False, excluded=(excluded[0]._host, excluded[1]._host)
    )
    np.testing.assert_array_equal(emulation.memory.download(positions, Place(0, 0)), host[1])


def test_a_call_with_its_own_memory_allocates_and_waits_for_nothing(
    moved: Any, emulation: Emulation, monkeypatch: Any
) -> None:
    """What a CUDA graph can capture: launches only, into buffers that the caller owns."""
    from llmrec_fast.kernels import cuda

    segment, queries, rows = moved
    out = DeviceArray(np.zeros((2, 4))), DeviceArray(np.zeros((2, 4), np.int64))
    workspace = DeviceArray(np.zeros(1 << 20, np.uint8))

    def refuse(*_: object) -> None:
        raise AssertionError("the call allocated, copied or waited")

    for name in ("empty", "upload", "download"):
        monkeypatch.setattr(emulation.memory, name, refuse)
    monkeypatch.setattr(type(emulation.runtime), "workspace", refuse)
    with emulation.deferred():
        out[1]._host[:] = -7
        cuda.bounded_search([segment], queries, 4, euclidean=False, out=out, workspace=workspace)
        assert (out[1]._host == -7).all()  # nothing has run yet: nobody waited
        emulation.extension.synchronize(0, 0)
    expected = reference.bounded_search([segment_of(rows, None)], queries._host, 4, euclidean=False)
    np.testing.assert_array_equal(out[1]._host, expected[1])


def test_misuse_is_refused_before_anything_is_launched(moved: Any, emulation: Emulation) -> None:
    from llmrec_fast.kernels import cuda

    segment, queries, _ = moved
    with emulation.no_launches():
        refuse_misuse(cuda.bounded_search, segment, queries, emulation)


def refuse_misuse(search: Any, segment: Any, queries: DeviceArray, emulation: Emulation) -> None:
    for k in (0, 1025):
        with pytest.raises(InvalidInput, match="k must be 1 to 1024"):
            search([segment], queries, k, euclidean=False)
    with pytest.raises(InvalidInput, match="made for inner products, not for Euclidean distance"):
        search([segment], queries, 3, euclidean=True)
    with pytest.raises(InvalidInput, match="queries must be float32"):
        search([segment], DeviceArray(np.zeros((2, 64))), 3, euclidean=False)
    with pytest.raises(InvalidInput, match="contiguous"):
        search([segment], DeviceArray(np.zeros((64, 2), np.float32).T), 3, euclidean=False)
    with pytest.raises(InvalidInput, match="queries must have shape"):
        search([segment], DeviceArray(np.zeros((2, 63), np.float32)), 3, euclidean=False)
    with pytest.raises(InvalidInput, match="excluded indptr"):
        search(
            [segment],
            queries,
            3,
            euclidean=False,
            excluded=(DeviceArray(np.zeros(2, np.int64)), DeviceArray(np.zeros(0, np.int64))),
        )
    with pytest.raises(InvalidInput, match="out must be two arrays on the device"):
        search([segment], queries, 3, euclidean=False, out=(np.zeros((2, 3)), np.zeros((2, 3), np.int64)))
    with pytest.raises(InvalidInput, match="out positions"):
        search(
            [segment],
            queries,
            3,
            euclidean=False,
            out=(DeviceArray(np.zeros((2, 3))), DeviceArray(np.zeros((2, 3), np.int32))),
        )
    for size in (0, 1000):
        with pytest.raises(InvalidInput, match=f"workspace must have at least [0-9]+ bytes; got {size}"):
            search([segment], queries, 3, euclidean=False, workspace=DeviceArray(np.zeros(size, np.uint8)))
    with pytest.raises(InvalidInput, match="workspace must be uint8"):
        search([segment], queries, 3, euclidean=False, workspace=DeviceArray(np.zeros(9000, np.float32)))
    with pytest.raises(InvalidInput, match="a segment is on device 1"):
        search([replace(segment, device=1)], queries, 3, euclidean=False)
    elsewhere = make_rows(2, 64)
    with emulation.on_device(elsewhere, 1), pytest.raises(InvalidInput, match="one device"):
        search(
            [segment],
            queries,
            3,
            euclidean=False,
            excluded=(DeviceArray(np.zeros(3, np.int64)), DeviceArray(elsewhere)),
        )


def test_launchers_refuse_a_small_workspace(emulation: Emulation) -> None:
    extension = emulation.extension
    shape = extension.ScanShape(dim=8, first=32, second=0, third=32, euclidean=False)
    plan = extension.PlanView(mean=0, rotation=0, scale=1.0, bias_centre=0.0, bias_radius=0.0)
    size = extension.search_workspace_bytes(shape=shape, segments=[], queries=3, k=5, slices=2)
    workspace = np.zeros(size, np.uint8)
    common = {"device": 0, "stream": 0, "shape": shape, "plan": plan}
    search = common | {
        "segments": [],
        "queries": 0,
        "query_count": 3,
        "k": 5,
        "slices": 2,
        "excluded_starts": 0,
        "excluded_rows": 0,
    }
    search |= {
        "counts": 0,
        "out_scores": 0,
        "out_rows": 0,
        "workspace": workspace.ctypes.data,
        "workspace_bytes": size - 1,
    }
    with pytest.raises(CudaError, match="workspace is too small"):
        extension.search(**search)
    with pytest.raises(CudaError, match="k must be 1 to 1024"):
        extension.search(**(search | {"k": 1025}))
    encode = common | {
        "rows": 8,
        "bias": 0,
        "count": 1,
        "place": 0,
        "row_slack": 0.0,
        "first": 0,
        "second": 0,
        "third": 0,
    }
    encode |= {"third_terms": 0, "summary": 0, "workspace": 8, "workspace_bytes": 31}
    with pytest.raises(CudaError, match="workspace is too small"):
        extension.encode(**encode)
    crooked = extension.ScanShape(dim=8, first=33, second=0, third=32, euclidean=False)
    with pytest.raises(CudaError, match="multiples of 32, 64 and 32"):
        extension.encode(**(encode | {"shape": crooked}))


MAP_NORESERVE = 0x4000  # Linux; the module mmap has no name for it


def reserved(size: int, dtype: type, last: np.ndarray) -> DeviceView:
    """Memory of which only what is touched takes room, zero but for `last` at its end."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    array = np.frombuffer(mmap.mmap(-1, size * np.dtype(dtype).itemsize, flags=flags), dtype)
    array[size - last.size :] = last.reshape(-1)
    return DeviceView("reserved", array.ctypes.data, array.shape, np.dtype(dtype).name, array)


@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("coded", [True, False])
def test_offsets_beyond_32_bits(emulation: Emulation, count: int, coded: bool) -> None:
    """Every array has more than 2^31 bytes before the only rows that are allowed; the rows, more than 2^32 values."""
    from llmrec_fast.kernels import cuda

    total, own, dim = 46_000_000 // 512 * 512, 512, 150
    rows = make_rows(own, dim)
    segment = encoded(rows, 96, 64)
    near = segment_to_device(segment, emulation.runtime, Place(0, 0))
    assert segment.codes is not None
    assert near.codes is not None
    plan = segment.codes.plan
    codes = replace(
        near.codes,
        first=reserved(total * plan.first_stride // 8, np.uint8, tiles_of_blocks(segment.codes.first, plan)),
        second=reserved(total * plan.second_stride, np.uint8, segment.codes.second),
        third=reserved(total * plan.third, np.int8, segment.codes.third),
        third_terms=reserved(total * 4, np.float32, segment.codes.third_terms),
    )
    far = replace(
        near,
        base=5,
        count=total,
        rows=replace(reserved(total * dim, np.float32, rows), shape=(total, dim)),
        bias=reserved(total, np.float32, segment.bias),
        allowed=reserved(total // 8, np.uint8, segment.allowed),
        codes=codes if coded else None,
    )
    assert total * min(plan.first_stride // 8, plan.second_stride, plan.third) > 2**31
    queries = make_rows(count, dim, seed=17)
    with using(emulation.runtime):
        scores, positions = cuda.bounded_search([far], queries, 6, euclidean=False)
    expected_scores, expected_positions = reference.bounded_search([segment], queries, 6, euclidean=False)
    np.testing.assert_array_equal(positions, expected_positions + total - own + 5)
    np.testing.assert_array_equal(scores, expected_scores)


def test_a_plan_without_rotation_and_of_many_columns(emulation: Emulation) -> None:
    """Rows too long for a tile of queries in shared memory take narrower groups."""
    from llmrec_fast.kernels import cuda

    generator = np.random.default_rng(16)
    rows = generator.standard_normal((70, 5000)).astype(np.float32)
    plan = ScanPlan(5000, False, 5024, 0, rows.mean(axis=0), None, 0.0, 2.0**-7, 0.0, 0.0)
    segment = segment_of(rows, cpu.encode_rows(rows, plan))
    with using(emulation.runtime):
        for count in (1, 10):
            queries = generator.standard_normal((count, 5000)).astype(np.float32)
            assert_exact(cuda, [segment], queries, 3, euclidean=False)


@pytest.mark.skipif(not GPU, reason="needs a GPU")
def test_a_cuda_graph_replays_a_search() -> None:
    import cupy

    from llmrec_fast.kernels import cuda
    from llmrec_fast.kernels.cuda.runtime import runtime

    rows = make_rows(5000, 64)
    host = encoded(rows, 32, 0)
    for count in (2, 20):
        stream = cupy.cuda.Stream(non_blocking=True)
        with stream:
            segment = segment_to_device(host, runtime(), runtime().memory.current_place())
            queries = cupy.asarray(make_rows(count, 64, seed=18))
            out = cupy.empty((count, 7)), cupy.empty((count, 7), cupy.int64)
            workspace = cupy.empty(64 << 20, cupy.uint8)
            stream.begin_capture()
            cuda.bounded_search([segment], queries, 7, euclidean=False, out=out, workspace=workspace)
            graph = stream.end_capture()
            fresh = make_rows(count, 64, seed=19)
            queries.set(fresh)
            graph.launch(stream)
            stream.synchronize()
        expected = reference.bounded_search([host], fresh, 7, euclidean=False)
        np.testing.assert_array_equal(cupy.asnumpy(out[1]), expected[1])
        np.testing.assert_array_equal(cupy.asnumpy(out[0]), expected[0])
