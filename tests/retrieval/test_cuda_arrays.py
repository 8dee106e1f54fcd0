"""An index with `device="cuda"` takes rows and queries that are on the GPU, leaves answers there, and waits for nothing.

Without a GPU the kernels run as they are on the CPU (tests/simt), at small sizes.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmrec_fast.errors import CudaError, InvalidInput
from llmrec_fast.kernels.cuda.graphs import Graph
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import runtime
from llmrec_fast.kernels.cuda.scan_codes import codes_to_host
from llmrec_fast.retrieval import Index
from llmrec_fast.retrieval.result import Metric
from tests.retrieval.conftest import GPU_IS_MISSING, Gpu
from tests.simt.memory import DeviceArray, Emulation

N, D = 500, 48
G = np.random.default_rng(1)
METRICS: list[Metric] = ["dot", "cosine", "euclidean"]

pytestmark = pytest.mark.usefixtures("coded")


def make_rows(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((count, D)) * np.exp(-np.arange(D) / 10) + 0.05).astype(np.float32)


@pytest.fixture
def emulation(gpu: Gpu) -> Emulation:
    if gpu.emulation is None:
        pytest.skip("looks into the emulated device")
    gpu.emulation.memory.place = Place(0, 0)
    return gpu.emulation


def assert_same(gpu: Gpu, ours: Index, theirs: Index, queries: np.ndarray, k: int = 8) -> None:
    """Answers on the device, answers on the host, and those of an index on the CPU are the same, bit for bit."""
    for batch in (queries[:2], queries):
        expected = theirs.search(batch, k)
        on_host, on_device = ours.search(batch, k), ours.search(gpu.array(batch), k)
        for result in (on_host.ids, gpu.host(on_device.ids)):
            np.testing.assert_array_equal(result, expected.ids)
        for result in (on_host.scores, gpu.host(on_device.scores)):
            np.testing.assert_array_equal(result, expected.scores)


# -- rows on the device -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
def test_rows_on_the_device_make_the_index_that_the_host_makes(gpu: Gpu, metric: Metric, tmp_path: Path) -> None:
    rows = make_rows(N)
    rows[3] = 0
    ours = Index.build(gpu.array(rows), metric=metric, device="cuda")
    theirs = Index.build(rows, metric=metric)
    np.testing.assert_array_equal(ours.vectors(ours.ids), theirs.vectors(theirs.ids))
    queries = np.concatenate([rows[:6], make_rows(6, seed=2)])
    assert_same(gpu, ours, theirs, queries)
    ours.save(tmp_path / "index")
    assert_same(gpu, Index.load(tmp_path / "index", device="cuda"), Index.load(tmp_path / "index"), queries)


def test_rows_come_and_go_on_the_device(gpu: Gpu) -> None:
    rows, bias = make_rows(900), G.standard_normal(900).astype(np.float32)
    ours, theirs = Index(D, "dot", device="cuda"), Index(D, "dot")
    queries = np.concatenate([rows[:3], rows[250:256]])
    here: dict[int, Callable[[np.ndarray], Any]] = {id(ours): gpu.array, id(theirs): np.asarray}
    for step in range(6):
        for index in (ours, theirs):
            put = here[id(index)]
            if step == 0:
                index.add(put(rows[:300]), bias=put(bias[:300]))
            elif step == 1:
                index.add(put(rows[300:313]), ids=put(np.arange(1000, 1013)))  # a new segment with room for more
            elif step == 2:
                index.add(put(rows[313:350]))  # into that room, from the middle of a tile
            elif step == 3:
                index.upsert(put(rows[400:420]), ids=np.arange(290, 310)[::-1].copy(), bias=put(bias[:20]))
            elif step == 4:
                index.remove([0, 5, 1002, 295])
                index.add(rows[800:810])  # from the host, beside the others
            else:
                index.optimize()
        assert_same(gpu, ours, theirs, queries)


def test_codes_are_the_same_on_both_sides(gpu: Gpu) -> None:
    rows = make_rows(N)
    index = Index.build(gpu.array(rows[:400]), metric="dot", device="cuda")
    index.add(gpu.array(rows[400:417]))
    index.add(gpu.array(rows[417:]))
    copies, here = index._copies, runtime()
    assert copies is not None
    for segment, copy in zip(index._snapshot.segments, copies._held, strict=True):
        assert segment.codes is not None
        assert copy._codes is not None
        theirs = codes_to_host(copy._codes, here, here.memory.current_place())
        for name in ("first", "second", "third", "third_terms"):
            np.testing.assert_array_equal(getattr(theirs, name), getattr(segment.codes, name))


def test_rows_that_are_refused_change_nothing(gpu: Gpu) -> None:
    rows = make_rows(N)
    index = Index.build(gpu.array(rows[:300]), metric="dot", device="cuda")
    bad = rows[300:310].copy()
    bad[4, 2] = np.nan
    with pytest.raises(InvalidInput, match="vectors holds NaN in row 4"):
        index.add(gpu.array(bad))
    with pytest.raises(InvalidInput, match="id 5 is already in the index"):
        index.add(gpu.array(rows[300:302]), ids=gpu.array(np.array([700, 5])))
    with pytest.raises(InvalidInput, match="ids must be int64 on the device; got int32"):
        index.add(gpu.array(rows[300:302]), ids=gpu.array(np.array([700, 701], np.int32)))
    with pytest.raises(InvalidInput, match="bias must have 2 values; got 3"):
        index.add(gpu.array(rows[300:302]), bias=gpu.array(np.zeros(3, np.float32)))
    assert_same(gpu, index, Index.build(rows[:300], metric="dot"), rows[:12])


def test_a_write_that_fails_half_way_is_undone(emulation: Emulation, gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(N)
    ours, theirs = (Index.build(rows[:200], metric="dot", device=device) for device in ("cuda", "cpu"))
    for index in (ours, theirs):
        index.add(rows[200:210])
    write, left = emulation.memory.write, [0]

    def fails(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError("no room on the device")
        write(*arguments)

    monkeypatch.setattr(emulation.memory, "write", fails)
    for calls in range(3):
        left[0] = calls
        with pytest.raises(MemoryError):
            ours.add(rows[220:250])
        assert_same(gpu, ours, theirs, rows[:10])
    left[0] = 1000
    for index in (ours, theirs):
        index.add(rows[250:280])
    assert_same(gpu, ours, theirs, rows[245:260])


# -- queries on the device ----------------------------------------------------------------------------------------------


def test_filters_from_the_host_go_with_queries_on_the_device(gpu: Gpu) -> None:
    rows = make_rows(N)
    ids = np.arange(N) * 7
    ours, theirs = (Index.build(rows, ids, metric="cosine", device=device) for device in ("cuda", "cpu"))
    exclude = [ids[i : i + 30][::-1] for i in range(12)]
    for allow in (None, ids[::3], np.arange(N) % 2 == 0):
        result = ours.search(gpu.array(rows[:12]), 9, exclude=exclude, allow=allow, stats=True)
        expected = theirs.search(rows[:12], 9, exclude=exclude, allow=allow)
        np.testing.assert_array_equal(gpu.host(result.ids), expected.ids)
        np.testing.assert_array_equal(gpu.host(result.scores), expected.scores)
        assert result.stats is not None
        assert result.stats.rows_scanned == 12 * N


def test_more_results_than_rows_and_an_empty_index(gpu: Gpu) -> None:
    rows = make_rows(5)
    result = Index.build(gpu.array(rows), np.array([3, 1, 4, 15, 9]), metric="dot", device="cuda").search(
        gpu.array(rows[:2]), 7
    )
    assert sorted(gpu.host(result.ids)[0].tolist()) == [-1, -1, 1, 3, 4, 9, 15]
    assert (gpu.host(result.scores)[:, 5:] == -np.inf).all()
    nothing = Index(D, device="cuda").search(gpu.array(rows), 2)
    assert (gpu.host(nothing.ids) == -1).all()


def test_a_query_that_is_not_finite_harms_no_other(gpu: Gpu) -> None:
    rows = make_rows(N)
    index, queries = Index.build(rows, metric="dot", device="cuda"), rows[:12].copy()
    queries[1], queries[5] = np.nan, np.inf
    for count in (3, 12):
        ids = gpu.host(index.search(gpu.array(queries[:count]), 6).ids)
        expected = index.search(rows[:count], 6).ids
        sound = [query for query in range(count) if query not in (1, 5)]
        np.testing.assert_array_equal(ids[sound], expected[sound])


@pytest.mark.parametrize("metric", METRICS)
def test_a_search_on_the_device_waits_for_nothing(emulation: Emulation, metric: Metric) -> None:
    rows = make_rows(N)
    index, queries = Index.build(rows, metric=metric, device="cuda"), DeviceArray(rows[:3])
    index.remove([7])
    with emulation.deferred():
        result = index.search(queries, 5)
        assert (result.ids._host == -1).all()  # poison: nothing has run yet
        assert np.isnan(result.scores._host).all()
        emulation.extension.synchronize(0, 0)
    np.testing.assert_array_equal(result.ids._host, index.search(rows[:3], 5).ids)


def test_it_runs_on_the_callers_stream_and_waits_for_the_producers(emulation: Emulation, monkeypatch: Any) -> None:
    rows = make_rows(N)
    index = Index.build(rows, metric="dot", device="cuda")
    expected = index.search(rows[:3], 5).ids
    with emulation.deferred():
        # queries that another stream is about to write
        late = DeviceArray(np.zeros((3, D), np.float32), stream=8)
        emulation.extension.copy(
            device=0, stream=8, target=late._host.ctypes.data, source=rows.ctypes.data, bytes=3 * D * 4
        )
        emulation.memory.place = Place(0, 7)
        result = index.search(late, 5)
        emulation.extension.synchronize(0, 0)
        assert (result.ids._host == -1).all()
        emulation.extension.synchronize(0, 7)
    np.testing.assert_array_equal(result.ids._host, expected)

    class Tensor(DeviceArray):
        __module__ = "torch"

    stream = SimpleNamespace(cuda_stream=56)
    torch = SimpleNamespace(cuda=SimpleNamespace(current_stream=lambda device: stream))
    monkeypatch.setitem(sys.modules, "torch", torch)
    for metric in METRICS:
        index = Index.build(rows, metric=metric, device="cuda")
        with emulation.deferred():
            result = index.search(Tensor(rows[:3]), 5)
            emulation.extension.synchronize(0, 7)
            assert (result.ids._host == -1).all()
            emulation.extension.synchronize(0, 56)
        np.testing.assert_array_equal(result.ids._host, index.search(rows[:3], 5).ids)


def test_what_a_running_search_reads_outlives_the_index(emulation: Emulation) -> None:
    rows = make_rows(N)
    for change in (Index.optimize, lambda index: index.remove([1, 2])):
        index = Index.build(rows, metric="dot", device="cuda")
        expected = index.search(rows[:3], 5).ids
        emulation.memory.place = Place(0, 33)
        with emulation.deferred():
            result = index.search(DeviceArray(rows[:3]), 5)
            emulation.memory.place = Place(0, 0)
            change(index)
            # the write has given memory back, so it has waited
            np.testing.assert_array_equal(result.ids._host, expected)


def test_a_write_waits_for_those_who_are_about_to_launch(emulation: Emulation) -> None:
    """They hold what the write gives back, and the device does not know of their searches yet."""
    index = Index.build(make_rows(N), metric="dot", device="cuda")
    copies, here = index._copies, runtime()
    assert copies is not None
    before, deadline = index._snapshot, time.monotonic() + 60
    writer = threading.Thread(target=index.remove, args=([1],))
    with copies._segments(before, None, here, Place(0, 0)):
        writer.start()
        while index._snapshot is before and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.join(0.5)
        assert writer.is_alive()  # the new state can be seen already
    writer.join(60)
    assert not writer.is_alive()


def test_writes_and_searches_at_once(gpu: Gpu) -> None:
    rows = make_rows(N)
    index = Index.build(rows[:200], metric="dot", device="cuda")
    stop, errors = threading.Event(), []

    def search() -> None:
        view = index.snapshot()
        before = view.search(rows[:2], 5).ids
        while not stop.is_set():
            try:
                np.testing.assert_array_equal(view.search(rows[:2], 5).ids, before)
                index.search(gpu.array(rows[:3]), 5)
            except BaseException as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=search) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for start in range(200, 260, 20):
            index.add(gpu.array(rows[start : start + 20]))
            index.remove([start])
        index.optimize()
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert errors == []
    theirs = Index.build(rows[:260], metric="dot")
    theirs.remove([200, 220, 240])
    assert_same(gpu, index, theirs, rows[:5])


# -- searches of fixed shape --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [2, 12])
def test_a_fixed_search_only_launches_kernels(
    emulation: Emulation, metric: Metric, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a CUDA graph can capture, and replay: no allocation, no copy, no waiting, and no memory that others might move."""
    rows, exclude = make_rows(N), [np.array([query, 400]) for query in range(count)]
    index = Index.build(rows, metric=metric, device="cuda")
    allow = np.arange(N) % 3 > 0
    search = index.fixed_search(count, 6, exclude=exclude, allow=allow)
    expected = index.search(rows[:count], 6, exclude=exclude, allow=allow)
    index.remove(np.arange(20, 40))  # what happens later does not show
    index.search(make_rows(40), 100)  # nor does a search that needs more memory move that of this one

    def refuse(*_: object) -> None:
        raise AssertionError("the call allocated, copied or looked for memory")

    for name in ("empty", "upload", "download", "write"):
        monkeypatch.setattr(emulation.memory, name, refuse)
    monkeypatch.setattr(type(emulation.runtime), "workspace", refuse)
    emulation.memory.place = Place(0, 5)
    for queries in (None, DeviceArray(rows[:count])):
        search.queries._host[:] = rows[:count]
        with emulation.deferred():
            search.ids._host[:] = -7
            scores, ids = search(queries)
            assert (ids._host == -7).all()
            emulation.extension.synchronize(0, 5)
        np.testing.assert_array_equal(ids._host, expected.ids)
        np.testing.assert_array_equal(scores._host, expected.scores)
    assert (scores, ids) == (search.scores, search.ids)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [2, 12])
def test_a_recorded_search_is_replayed_on_any_stream(gpu: Gpu, metric: Metric, count: int) -> None:
    rows = make_rows(N)
    index = Index.build(rows, metric=metric, device="cuda")
    search = index.fixed_search(count, 6)
    place = runtime().memory.current_place()
    graph = search.record()  # runs nothing
    assert not np.array_equal(gpu.host(search.ids), index.search(rows[:count], 6).ids)
    for start in (0, 30):
        fresh = rows[start : start + count]
        runtime().memory.write(search.queries, 0, fresh, place)
        graph.replay()
        expected = index.search(fresh, 6)
        np.testing.assert_array_equal(gpu.host(search.ids), expected.ids)
        np.testing.assert_array_equal(gpu.host(search.scores), expected.scores)


def test_what_waits_cannot_be_recorded(emulation: Emulation) -> None:
    """So the test above shows that a search waits for nothing and asks for no order of streams."""
    for wait in (
        lambda stream: emulation.extension.synchronize(0, stream),
        lambda stream: emulation.extension.synchronize_device(0),
        lambda stream: emulation.extension.wait_for(0, 7, stream),
    ):
        with pytest.raises(CudaError, match="StreamCaptureUnsupported"):
            Graph(emulation.runtime, 0, wait)
    with pytest.raises(ZeroDivisionError):
        Graph(emulation.runtime, 0, lambda stream: 1 // 0)
    Graph(emulation.runtime, 0, lambda stream: None).replay(Place(0, 0))  # nothing of the failures is left


@pytest.mark.skipif(GPU_IS_MISSING is not None, reason="needs a GPU")
def test_a_cuda_graph_of_cupy_replays_a_fixed_search(gpu: Gpu) -> None:
    import cupy

    if gpu.emulation is not None:
        pytest.skip("graphs are not emulated")
    rows = make_rows(N)
    for metric in METRICS:
        index = Index.build(rows, metric=metric, device="cuda")
        for count in (2, 20):
            search = index.fixed_search(count, 6)
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                stream.begin_capture()
                search()
                graph = stream.end_capture()
                search.queries[:] = cupy.asarray(rows[:count])
                graph.launch(stream)
                stream.synchronize()
            np.testing.assert_array_equal(cupy.asnumpy(search.ids), index.search(rows[:count], 6).ids)


def test_what_a_fixed_search_cannot_take_is_refused(emulation: Emulation) -> None:
    index = Index.build(make_rows(N), metric="dot", device="cuda")
    search = index.fixed_search(2, 6)
    elsewhere = make_rows(2)
    with emulation.no_launches():
        with pytest.raises(InvalidInput, match=r"queries must have shape \(2, 48\); got \(3, 48\)"):
            search(DeviceArray(make_rows(3)))
        with pytest.raises(InvalidInput, match="queries must be float32"):
            search(DeviceArray(np.zeros((2, D))))
        with pytest.raises(InvalidInput, match="queries must be on the device"):
            search(make_rows(2))
        with emulation.on_device(elsewhere, 1), pytest.raises(InvalidInput, match="on device 1, the search was made"):
            search(DeviceArray(elsewhere))
        emulation.memory.place = Place(0, 1000)
        with pytest.raises(InvalidInput, match="stream belongs to device 1"):
            search(DeviceArray(make_rows(2)))
        emulation.memory.place = Place(0, 0)
        with pytest.raises(InvalidInput, match="k must be 1 to 1024"):
            index.fixed_search(2, 1025)
        with pytest.raises(InvalidInput, match="queries must be at least 1"):
            index.fixed_search(0, 5)
    with pytest.raises(InvalidInput, match='fixed_search is for device="cuda"'):
        Index(D).fixed_search(1, 5)


# -- refusals -----------------------------------------------------------------------------------------------------------


def test_misuse_is_refused_before_anything_is_launched(emulation: Emulation) -> None:
    rows = make_rows(N)
    index = Index.build(rows, metric="cosine", device="cuda")
    wrong = [
        (DeviceArray(rows.astype(np.float64)[:3]), "must be float32 on the device; got float64"),
        (DeviceArray(np.asfortranarray(rows[:3])), "must be C-contiguous on the device"),
        (DeviceArray(rows[:3, :40].copy()), r"must have shape \(any, 48\); got \(3, 40\)"),
        (DeviceArray(rows[0]), "must have two dimensions"),
    ]
    elsewhere = make_rows(3)
    with emulation.no_launches():
        for array, message in wrong:
            for call in (lambda array: index.search(array, 3), index.add, lambda array: index.upsert(array, [1, 2, 3])):
                with pytest.raises(InvalidInput, match=message):
                    call(array)
        with emulation.on_device(elsewhere, 1):
            for name in ("queries", "vectors"):
                call = index.add if name == "vectors" else lambda array: index.search(array, 3)
                with pytest.raises(InvalidInput, match=f"{name} must be on device 0, like the index; got device 1"):
                    call(DeviceArray(elsewhere))
        with emulation.on_device(elsewhere, -1), pytest.raises(InvalidInput, match="its memory is on no device"):
            index.search(DeviceArray(elsewhere), 3)
        emulation.memory.place = Place(0, 1000)
        with pytest.raises(InvalidInput, match="stream belongs to device 1, the arrays are on device 0"):
            index.search(DeviceArray(rows[:3]), 3)
        emulation.memory.place = Place(0, 0)
        with pytest.raises(InvalidInput, match="exclude ids is in the memory of a GPU"):
            index.search(rows[:1], 3, exclude=(np.array([0, 1]), DeviceArray(np.array([4]))))
        with pytest.raises(InvalidInput, match="allow is in the memory of a GPU"):
            index.search(rows[:1], 3, allow=DeviceArray(np.array([4])))
    for k in (0, 1025):
        with pytest.raises(InvalidInput, match="k must be"):
            index.search(DeviceArray(rows[:3]), k)


def test_an_index_on_the_cpu_takes_no_device_arrays(emulation: Emulation, tmp_path: Path) -> None:
    rows = DeviceArray(make_rows(3))
    for call in (lambda: Index(D).add(rows), lambda: Index(D).search(rows, 1)):
        with pytest.raises(InvalidInput, match="is in the memory of a GPU"):
            call()
    with pytest.raises(InvalidInput, match="path is for vectors on the host"):
        Index.build(rows, device="cuda", path=tmp_path / "index")
    with pytest.raises(InvalidInput, match="two dimensions"):
        Index.build(DeviceArray(make_rows(1)[0]), device="cuda")


def test_an_index_stays_on_the_device_where_it_was_made(emulation: Emulation) -> None:
    rows = make_rows(50)
    emulation.memory.place = Place(1, 1000)
    index = Index.build(rows, metric="dot", device="cuda")
    emulation.memory.place = Place(0, 0)
    assert index.search(rows[:2], 1).ids.tolist() == Index.build(rows, metric="dot").search(rows[:2], 1).ids.tolist()
    with pytest.raises(InvalidInput, match="queries must be on device 1, like the index; got device 0"):
        index.search(DeviceArray(rows[:2]), 1)
