"""What only the CUDA backend promises: device arrays in and out without a copy, stream order, refusals before any launch.

Runs on the emulated runtime (tests/simt), so it needs no GPU. What kernels compute is in test_pool.py and test_fuse.py.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import CudaError, DeviceUnavailable, InvalidInput
from llmrec_fast.kernels import cuda, reference
from llmrec_fast.kernels.cuda import runtime, views
from llmrec_fast.kernels.cuda.memory import Place
from tests.simt.memory import ORDERS, DeviceArray, Emulation

DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
FLOAT32_HALF_ULP = 2.0**-24


@pytest.fixture(autouse=True)
def _on_the_emulation(emulation: Emulation) -> Iterator[None]:
    emulation.set_order("ascending")
    emulation.memory.place = Place(0, 0)
    with runtime.using(emulation.runtime):
        yield


class DLPackArray:
    """A device array that only DLPack gives away, as PyTorch's bfloat16 tensors are."""

    def __init__(self, host: np.ndarray, device: int = 0) -> None:
        self.host, self.device, self.streams = host, device, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device

    def __dlpack__(self, *, stream: int) -> object:
        self.streams.append(stream)
        if self.host.dtype.name != "bfloat16":
            return self.host.__dlpack__()
        capsule = self.host.view(np.uint16).__dlpack__()
        tensor = ctypes.cast(views._capsule_pointer(capsule, b"dltensor"), ctypes.POINTER(views._DLTensor)).contents
        tensor.code = 4  # kDLBfloat
        return capsule


def host(array: DeviceArray) -> np.ndarray:
    here = runtime.runtime()
    return here.memory.download(array, here.memory.current_place())


def table_of(rows: int, columns: int, dtype=np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)


# -- results ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_pool_equals_the_reference_within_the_stated_bound(emulation, data):
    emulation.set_order(*data.draw(st.sampled_from(ORDERS)))
    rows, columns = data.draw(st.integers(1, 300)), data.draw(st.sampled_from([1, 3, 4, 8, 37, 64, 130, 384, 1040]))
    segments = data.draw(st.integers(0, 5))
    starts = np.array([data.draw(st.integers(0, rows)) for _ in range(segments)], np.int64)
    lengths = np.array([data.draw(st.integers(0, rows - start)) for start in starts], np.int64)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    table = table_of(rows, columns, data.draw(st.sampled_from(DTYPES)), seed=segments)
    mode = data.draw(st.sampled_from(["mean", "sum", "max", "first", "last"]))
    index = rng.integers(0, rows, rows) if data.draw(st.booleans()) else None
    weighted = mode in ("mean", "sum") and data.draw(st.booleans())
    weights = rng.random(rows).astype(np.float32) + np.float32(0.1) if weighted else None
    keywords = {"index": index, "weights": weights, "mode": mode}
    result = cuda.pool(table, starts, lengths, **keywords)
    expected = reference.pool(table, starts, lengths, **keywords)
    summed = {**keywords, "mode": "sum"} if mode in ("mean", "sum") else keywords
    magnitude = reference.pool(np.abs(table.astype(np.float32)), starts, lengths, **summed)
    if mode == "mean":
        masses = [1 if weights is None else weights[s : s + n].sum() for s, n in zip(starts, lengths, strict=True)]
        magnitude /= np.maximum(np.reshape(masses, (-1, 1)), np.float32(0.1))
    # mean: one rounding more for the result, one for the expected value
    assert (np.abs(result - expected) <= (rows + 3) * FLOAT32_HALF_ULP * magnitude).all()
    unit = cuda.pool(table, starts, lengths, normalize=True, **keywords)
    norms = np.linalg.norm(unit.astype(np.float64), axis=1)
    nonzero = np.linalg.norm(expected.astype(np.float64), axis=1) > 0
    np.testing.assert_allclose(norms, nonzero, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 70),
    widths=st.lists(st.sampled_from([0, 1, 4, 5, 32, 40, 128, 520, 1100]), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    exponent=st.sampled_from([-35, -30, 0, 30]),
    order=st.sampled_from(ORDERS),
)
def test_fuse_equals_the_reference(emulation, rows, widths, dtype, exponent, order):
    emulation.set_order(*order)
    scale = np.float32(10.0**exponent) if dtype != np.float16 else 1
    blocks = [(table_of(rows, width, seed=width) * scale).astype(dtype) for width in widths]
    weights = [0.3, 2.0, 1.0][: len(widths)]
    np.testing.assert_allclose(cuda.fuse(blocks, weights), reference.fuse(blocks, weights), rtol=0, atol=6e-7)


def test_every_half_precision_pattern_converts_exactly():
    patterns = np.arange(2**16, dtype=np.uint16)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        for columns in (64, 1):  # 16 bytes at a time, and element by element
            table = patterns.view(dtype).reshape(-1, 64)[:, :columns].copy()
            result = cuda.pool(table, np.arange(1024), np.ones(1024, np.int64), mode="first")
            with np.errstate(invalid="ignore"):
                np.testing.assert_array_equal(result, table.astype(np.float32))


@pytest.mark.parametrize("segments", [1, 3])
def test_few_long_segments_are_cut_in_pieces_and_joined_in_order(emulation, segments):
    table = table_of(3000, 8)
    starts, lengths = 1000 * np.arange(segments), np.full(segments, 990)
    results = []
    for order, seed in ORDERS:
        emulation.set_order(order, seed)
        results.append(cuda.pool(table, starts, lengths))
        np.testing.assert_array_equal(results[0], results[-1])
    np.testing.assert_allclose(results[0], reference.pool(table, starts, lengths), atol=1e-6)
    assert emulation.extension.pool_workspace_bytes(segments=segments, positions=3000, columns=8, mode=0) > 0


def untouched(rows: int, columns: int) -> np.ndarray:
    """A matrix of zeros that takes memory only where it is touched."""
    without_reserve = 0x4000  # MAP_NORESERVE
    pages = mmap.mmap(-1, rows * columns * 4, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | without_reserve)
    return np.frombuffer(pages, np.float32).reshape(rows, columns)


def test_pool_reads_beyond_32_bits_of_offset():
    columns, row = 64, 2**26 + 5  # element 2^32 + 320 of the table
    table = untouched(row + 1, columns)
    table[row] = np.arange(columns)
    result = cuda.pool(DeviceArray(table), [row], [1], mode="sum")
    np.testing.assert_array_equal(host(result)[0], np.arange(columns))


def test_fuse_writes_beyond_32_bits_of_offset(emulation):
    block, out = table_of(2, 8), untouched(2, 2**31 + 8)
    emulation.extension.fuse(
        device=0,
        stream=0,
        block=block.ctypes.data,
        element=0,
        rows=2,
        columns=8,
        root=1.0,
        out=out.ctypes.data,
        out_columns=out.shape[1],
        first_column=2**31,
    )
    np.testing.assert_allclose(out[:, 2**31 :], reference.fuse([block], [1.0]), atol=4e-7)


# -- cost ---------------------------------------------------------------------------------------------------------------


def test_each_row_is_read_once_and_each_result_written_once(race_check):
    table, out = table_of(40, 64), np.zeros((2, 64), np.float32)

    def pool() -> None:
        cuda.pool(DeviceArray(table), [0, 10], [10, 30], out=DeviceArray(out))

    with runtime.using(race_check.runtime):
        for call in (pool, lambda: cuda.fuse([DeviceArray(table)], [1.0])):
            race_check.watch(table.ctypes.data, table.nbytes)
            call()
            assert (race_check.watched_reads(), race_check.watched_writes()) == (table.nbytes, 0)
        race_check.watch(0, 0)
        pool()
        assert race_check.watched_writes() == out.nbytes


# -- arrays of other libraries ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("wrap", [DeviceArray, DLPackArray])
def test_device_arrays_go_in_and_come_out_without_a_copy(dtype, wrap):
    table = table_of(9, 16, dtype)
    out = np.zeros((2, 16), np.float32)
    given_out = wrap(out)
    result = cuda.pool(wrap(table), wrap(np.array([0, 4])), wrap(np.array([4, 5])), out=given_out)
    assert result is given_out
    np.testing.assert_array_equal(out, cuda.pool(table, [0, 4], [4, 5]))
    assert isinstance(cuda.pool(wrap(table), [0, 4], [4, 5]), DeviceArray)
    fused = cuda.fuse([wrap(table), table[:, :3]], [1, 2])
    np.testing.assert_array_equal(host(fused), cuda.fuse([table, table[:, :3]], [1, 2]))


def test_dlpack_producers_are_told_our_stream(emulation):
    array = DLPackArray(table_of(3, 4))
    cuda.pool(array, [0], [3])
    emulation.memory.place = Place(0, 42)
    cuda.pool(array, [0], [3])
    assert array.streams == [1, 42]  # the default stream is written as 1


def test_we_wait_for_the_stream_that_an_array_interface_names(emulation):
    table = table_of(6, 4)
    expected = cuda.pool(cuda.pool(table, [0, 2], [2, 4]), [0], [2])
    for stream, right in [(7, True), (None, False)]:
        with emulation.deferred():
            emulation.memory.place = Place(0, 7)
            first = cuda.pool(DeviceArray(table), [0, 2], [2, 4])
            emulation.memory.place = Place(0, 8)
            # an array that names no stream is nobody's to wait for: the result shows that the wait matters
            second = cuda.pool(DeviceArray(first._host, stream=stream), [0], [2])
            result = host(second)
            emulation.extension.synchronize(0, 7)
        assert np.array_equal(result, expected) == right


def test_tensors_of_pytorch_run_on_its_current_stream(emulation, monkeypatch):
    class Tensor(DLPackArray):
        __module__ = "torch"

    torch = SimpleNamespace(
        cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=55 + device))
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    emulation.memory.place = Place(0, 3)
    tensor, other = Tensor(table_of(3, 4)), DLPackArray(np.array([0]))
    cuda.pool(tensor, other, [3])
    assert (tensor.streams, other.streams) == ([55], [55])


def test_nothing_waits_for_the_device_when_the_result_stays_there(emulation):
    with emulation.deferred():
        result = cuda.pool(DeviceArray(table_of(6, 4)), [0], [6])
        assert np.isnan(result._host).all()
        np.testing.assert_allclose(host(result), reference.pool(table_of(6, 4), [0], [6]), atol=1e-6)


def test_the_workspace_is_kept_from_call_to_call(emulation):
    here, place = emulation.runtime, Place(0, 99)
    with here.workspace(100, place) as first, here.workspace(50, Place(0, 98)) as other:
        assert first[0] != other[0]
    with here.workspace(60, place) as again:
        assert again == first


def test_many_python_threads_share_a_stream(emulation):
    table = DeviceArray(table_of(3000, 8))
    expected = cuda.pool(table._host, [0, 1000], [990, 2000])
    results: list[np.ndarray] = []
    workers = [
        threading.Thread(target=lambda: results.append(host(cuda.pool(table, [0, 1000], [990, 2000]))))
        for _ in range(6)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 6
    for result in results:
        np.testing.assert_array_equal(result, expected)


# -- refusals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [DeviceArray, DLPackArray])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": np.zeros((4, 3))}, "table must be float32 or float16 or bfloat16 on the device; got float64"),
        ({"table": np.zeros((4, 6), np.float32)[:, ::2]}, "table must be C-contiguous on the device"),
        ({"table": np.zeros(4, np.float32)}, r"table must have two dimensions \(rows, columns\); got shape \(4,\)"),
        ({"starts": np.array([0], np.int32)}, "starts must be int64 on the device; got int32"),
        ({"lengths": np.array([1, 1])}, r"lengths must have shape \(1\); got \(2,\)"),
        ({"index": np.array([0.5])}, "index must be int64 on the device; got float64"),
        ({"weights": np.ones(4)}, "weights must be float32 on the device; got float64"),
        ({"weights": np.ones(3, np.float32)}, r"weights must have shape \(4\); got \(3,\)"),
        ({"out": np.zeros((1, 3))}, "out must be float32 on the device; got float64"),
        ({"out": np.zeros((2, 3), np.float32)}, r"out must have shape \(1, 3\); got \(2, 3\)"),
        ({"out": np.zeros((1, 6), np.float32)[:, ::2]}, "out must be C-contiguous on the device"),
    ],
)
def test_what_a_kernel_cannot_take_is_refused_before_any_launch(emulation, wrap, change, message):
    arguments = {"table": table_of(4, 3), "starts": np.array([0]), "lengths": np.array([2])}
    wrapped = {name: wrap(array) for name, array in {**arguments, **change}.items()}
    with emulation.no_launches(), pytest.raises(InvalidInput, match=message):
        cuda.pool(**wrapped)


def test_host_arguments_are_still_checked_by_value_beside_device_ones(emulation):
    table = DeviceArray(table_of(4, 3))
    with emulation.no_launches():
        with pytest.raises(InvalidInput, match="segment 0 starts at 3 with length 2, outside the 4 positions of table"):
            cuda.pool(table, [3], [2])
        with pytest.raises(InvalidInput, match="index holds 4"):
            cuda.pool(table, [0], [1], index=[4])
        with pytest.raises(InvalidInput, match="weights go with the modes"):
            cuda.pool(table, [0], [1], weights=np.ones(4, np.float32), mode="max")
        with pytest.raises(InvalidInput, match="out must be on the device"):
            cuda.pool(table, [0], [1], out=np.zeros((1, 3), np.float32))
        with pytest.raises(InvalidInput, match="fuse needs at least one block"):
            cuda.fuse([], [], out=table)
        with pytest.raises(InvalidInput, match="1 blocks need as many weights; got 2"):
            cuda.fuse([table], [1, 2])
        with pytest.raises(InvalidInput, match=r"blocks\[1\] has 5 rows"):
            cuda.fuse([table, table_of(5, 2)], [1, 2])


def test_what_is_out_of_range_on_the_device_gives_nan_and_reads_nothing():
    table = table_of(4, 3)
    starts, lengths = np.array([0, 3, -1, 0, 1]), np.array([2, 2, 1, -1, 0])
    result = host(cuda.pool(DeviceArray(table), DeviceArray(starts), DeviceArray(lengths)))
    np.testing.assert_allclose(result[0], table[:2].mean(axis=0), atol=1e-6)
    assert np.isnan(result[1:4]).all()
    assert not result[4].any()
    gathered = host(cuda.pool(DeviceArray(table), [0, 1], [1, 2], index=DeviceArray(np.array([3, 0, 2**40]))))
    np.testing.assert_array_equal(gathered[0], table[3])
    assert np.isnan(gathered[1]).all()


def test_arrays_on_different_devices_are_refused(emulation):
    other = np.array([0])
    message = "on one device; got table on 0, starts on 1"
    with emulation.on_device(other, 1), emulation.no_launches(), pytest.raises(InvalidInput, match=message):
        cuda.pool(DeviceArray(table_of(4, 3)), DeviceArray(other), [1])
    with (
        emulation.no_launches(),
        pytest.raises(InvalidInput, match=r"on one device; got blocks\[0\] on 0, blocks\[1\] on 1"),
    ):
        cuda.fuse([DLPackArray(table_of(4, 3)), DLPackArray(table_of(4, 3), device=1)], [1, 1])


def test_host_memory_behind_an_array_interface_is_refused(emulation):
    pretender = table_of(4, 3)
    message = "its memory is on no device"
    with emulation.on_device(pretender, -1), emulation.no_launches(), pytest.raises(InvalidInput, match=message):
        cuda.pool(DeviceArray(pretender), [0], [1])


def test_a_stream_of_another_device_is_refused(emulation):
    emulation.memory.place = Place(0, 1000)  # the emulated runtime gives streams from 1000 on to device 1
    with (
        emulation.no_launches(),
        pytest.raises(InvalidInput, match="stream belongs to device 1, the arrays are on device 0"),
    ):
        cuda.pool(DeviceArray(table_of(4, 3)), [0], [1])


def test_a_read_only_result_array_is_refused(emulation):
    out = np.zeros((1, 3), np.float32)
    out.flags.writeable = False
    with emulation.no_launches(), pytest.raises(InvalidInput, match="out must be writeable"):
        cuda.pool(DeviceArray(table_of(4, 3)), [0], [1], out=DeviceArray(out))


def test_a_masked_array_and_one_that_cannot_be_shared_are_refused(emulation):
    class Masked(DeviceArray):
        @property
        def __cuda_array_interface__(self):
            return {**super().__cuda_array_interface__, "mask": self}

    class Unwilling(DLPackArray):
        def __dlpack__(self, *, stream):
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")

    for array, message in [
        (Masked(table_of(4, 3)), "has a mask"),
        (Unwilling(table_of(4, 3)), "table cannot be shared: Can't"),
    ]:
        with emulation.no_launches(), pytest.raises(InvalidInput, match=message):
            cuda.pool(array, [0], [1])


def test_a_workspace_that_is_too_small_is_refused_with_file_line_and_call(emulation):
    table, starts, out = table_of(3000, 8), np.array([0]), np.zeros((1, 8), np.float32)
    lengths = np.array([3000])
    with pytest.raises(CudaError, match=r"csrc/pool\.cu:\d+: workspace_bytes >= needed .*: the workspace is too small"):
        emulation.extension.pool(
            device=0,
            stream=0,
            table=table.ctypes.data,
            element=0,
            rows=3000,
            columns=8,
            starts=starts.ctypes.data,
            lengths=lengths.ctypes.data,
            segments=1,
            index=0,
            weights=0,
            positions=3000,
            mode=0,
            normalize=False,
            out=out.ctypes.data,
            workspace=0,
            workspace_bytes=0,
        )
    assert not out.any()


def test_errors_of_the_runtime_name_file_line_and_call(emulation):
    with pytest.raises(CudaError, match=r"csrc/binding\.h:\d+: cudaSetDevice\(device\): .*cudaErrorInvalidDevice, 101"):
        emulation.extension.synchronize(17, 0)


# -- without a GPU ------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_said_with_the_command_that_gets_it(monkeypatch):
    monkeypatch.setattr(runtime, "_opened", None)
    monkeypatch.setattr(runtime.importlib, "import_module", _no_module)
    with pytest.raises(DeviceUnavailable, match=r"no CUDA extension; .*LLMREC_CUDA=1 pip install"):
        cuda.pool(table_of(2, 2), [0], [1])
    assert "LLMREC_CUDA=1 pip install" in (cuda.why_unavailable() or "")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (CudaError("csrc/bindings.cpp:1: cudaGetDeviceCount(count): no driver"), "no usable NVIDIA driver .*no driver"),
        (0, "lists no GPU"),
    ],
)
def test_an_extension_without_a_driver_is_imported_and_says_so(monkeypatch, count, message):
    class Extension:
        @staticmethod
        def device_count():
            if isinstance(count, Exception):
                raise count
            return count

    monkeypatch.setattr(runtime, "_opened", None)
    monkeypatch.setattr(runtime.importlib, "import_module", lambda _: Extension)
    with pytest.raises(DeviceUnavailable, match=message):
        runtime.runtime()


def _no_module(name: str) -> object:
    raise ModuleNotFoundError(f"No module named {name!r}")
