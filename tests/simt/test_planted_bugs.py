"""Every kind of bug that the stand-in is there to find, planted (planted.cu): each is caught, and its correct twin is not."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from tests.simt import build

ORDERS = {"ascending": (0, 0), "descending": (1, 0), "random 1": (2, 1), "random 2": (2, 2)}
SOURCE = build.STAND_IN / "planted.cu"


@dataclass
class Planted:
    library: Any

    def run(self, name: str, *arguments: Any, order: str = "ascending") -> str:
        """Launch `planted_NAME`; returns what the launch failed of, or an empty string."""
        kind, seed = ORDERS[order]
        self.library.simt_set_order(kind, ctypes.c_uint64(seed))
        given = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else a for a in arguments]
        if not getattr(self.library, f"planted_{name}")(*given):
            return ""
        self.library.planted_failure.restype = ctypes.c_char_p
        return build.with_lines(self.library.planted_failure().decode())


@pytest.fixture(scope="module")
def plain() -> Planted:
    return Planted(ctypes.CDLL(str(build.build_library("plain", [SOURCE], "planted"))))


@pytest.fixture(scope="module")
def races() -> Planted:
    return Planted(ctypes.CDLL(str(build.build_library("races", [SOURCE], "planted"))))


def numbers(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count, dtype=np.int32), np.full(count, -7, np.int32)


def line_of(text: str) -> str:
    lines = SOURCE.read_text().splitlines()
    [number] = [number for number, line in enumerate(lines, 1) if text in line]
    return f"planted.cu:{number}"


@pytest.mark.parametrize("order", ORDERS)
def test_correct_kernels_give_the_right_result_in_every_order(plain, races, order):
    for planted in (plain, races):
        given, result = numbers(64)
        assert planted.run("reverse", given, result, 64, True, order=order) == ""
        np.testing.assert_array_equal(result, given[::-1])
        assert planted.run("reverse_in_warp", given, result, True, order=order) == ""
        np.testing.assert_array_equal(result[:32], given[:32][::-1])
        assert planted.run("cp_async", given, result, True, order=order) == ""
        np.testing.assert_array_equal(result[:32], given[:32])
        counter, parts, done, total = (np.zeros(5, np.int32) for _ in range(4))
        assert planted.run("count", counter, True, order=order) == ""
        assert counter[0] == 4
        assert planted.run("sum_of_blocks", parts, done, total, True, order=order) == ""
        assert total[0] == 0 + 1 + 2 + 3 + 4


@pytest.mark.parametrize("order", ["ascending", "descending", "random 1"])
def test_a_missing_block_barrier_gives_a_wrong_result(plain, order):
    given, result = numbers(64)
    assert plain.run("reverse", given, result, 64, False, order=order) == ""
    assert (result != given[::-1]).any()


@pytest.mark.parametrize("order", ORDERS)
def test_the_race_check_names_both_lines_of_a_missing_block_barrier(races, order):
    given, result = numbers(64)
    found = races.run("reverse", given, result, 64, False, order=order)
    assert "data race in shared memory" in found
    assert line_of("staged[threadIdx.x] = in[threadIdx.x];  // reverse") in found
    assert line_of("staged[blockDim.x - 1 - threadIdx.x]") in found


@pytest.mark.parametrize("order", ORDERS)
def test_a_shuffle_is_no_barrier_for_memory(races, order):
    given, result = numbers(32)
    assert "data race in shared memory" in races.run("reverse_in_warp", given, result, False, order=order)


@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_wait_for_an_asynchronous_copy_reads_poison(plain, order):
    given, result = numbers(32)
    assert plain.run("cp_async", given, result, False, order=order) == ""
    np.testing.assert_array_equal(result, np.full(32, -1))


def test_an_asynchronous_copy_that_nobody_waits_for_fails(plain):
    given, result = numbers(32)
    assert "cp.async that nobody waited for" in plain.run("cp_async_forgotten", given, result)


def test_blocks_race_for_a_counter_without_atomics(races):
    counter = np.zeros(1, np.int32)
    found = races.run("count", counter, False)
    assert "data race in global memory" in found
    assert line_of("*counter += 1") in found


@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_fence_between_blocks_is_a_race(races, order):
    parts, done, total = (np.zeros(5, np.int32) for _ in range(3))
    assert "data race in global memory" in races.run("sum_of_blocks", parts, done, total, False, order=order)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (0xFFFF, ""),
        (0xFFFFFFFF, "deadlock"),  # lanes 16 to 31 never come
        (0x00FF, "a lane is not in the mask of its own warp operation"),
    ],
)
def test_masks_must_name_exactly_the_lanes_that_come(plain, mask, message):
    found = plain.run("incomplete_mask", np.zeros(32, np.int32), ctypes.c_uint(mask))
    assert message in found if message else not found


def test_a_mask_with_lanes_that_have_ended_is_refused(plain):
    found = plain.run("incomplete_mask", np.zeros(32, np.int32), ctypes.c_uint(0xFFFFFFFF), order="descending")
    assert "names lane 16, which does not exist or has ended" in found


def test_threads_at_different_barriers_are_told_with_their_lines(plain):
    found = plain.run("different_barriers", np.zeros(32, np.int32))
    assert "threads of one block wait at different barriers" in found
    assert line_of("__syncthreads();  // here") in found


def test_the_engine_survives_a_failed_launch(plain):
    given, result = numbers(64)
    plain.run("different_barriers", result)
    assert plain.run("reverse", given, result, 64, True) == ""
    np.testing.assert_array_equal(result, given[::-1])


def test_launches_beyond_what_a_device_takes_are_refused(plain):
    for threads, blocks, shared in [(1025, 1, 0), (0, 1, 0), (32, 0, 0), (32, 1, 48 * 1024 + 4), (32, 1, 65 * 1024)]:
        assert plain.library.planted_launch(threads, blocks, shared) in (1, 9)
    assert plain.library.planted_launch(1024, 2, 48 * 1024) == 0


_SANITIZED = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
given, result = (ctypes.c_int * 16)(*range(16)), (ctypes.c_int * 16)()
sys.exit(getattr(library, "planted_" + sys.argv[2])(given, result, *map(int, sys.argv[3:])))
"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("read_at 0 15", ""),
        ("read_at 0 16", "heap-buffer-overflow"),  # dynamic shared memory
        ("read_at 1 15", ""),
        ("read_at 1 16", "heap-buffer-overflow"),  # global memory
        ("read_at 2 3", ""),
        ("read_at 2 4", "index 4 out of bounds"),  # a local array
        ("read_wide 0", ""),
        ("read_wide 4", "misaligned address"),
    ],
)
def test_the_sanitizers_end_a_kernel_that_reads_where_it_must_not(words, message):
    library = build.build_library("sanitized", [SOURCE], "planted")
    done = subprocess.run(
        [sys.executable, "-c", _SANITIZED, str(library), *words.split()],
        env=build.sanitizer_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (message == ""), done.stderr
    assert message in done.stderr
    if message:
        assert "planted.cu" in done.stderr
