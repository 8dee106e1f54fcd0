"""Each wrapper of csrc/ptx.cuh: its equivalent computes what the PTX ISA says, and nvcc makes the instruction it stands for."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from tests.simt import build

SOURCE = build.STAND_IN / "ptx_functions.cu"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def library() -> Any:
    return ctypes.CDLL(str(build.build_library("plain", [SOURCE], "ptx_functions")))


def call(function: Any, *arrays: np.ndarray) -> None:
    assert function(*(ctypes.c_void_p(array.ctypes.data) for array in arrays)) == 0


def random_bytes(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    limits = np.iinfo(dtype)
    values = RNG.integers(limits.min, limits.max + 1, shape, dtype=dtype)
    values.reshape(-1)[:4] = [limits.min, limits.max, limits.min, limits.max]  # the largest products are among them
    return values


def test_half_precision_converts_like_numpy(library):
    patterns, result = np.arange(2**16, dtype=np.uint16), np.empty(2**16, np.float32)
    for start in range(0, 2**16, 1024):
        call(library.run_half_to_float, patterns[start:], result[start:])
    np.testing.assert_array_equal(result, patterns.view(np.float16).astype(np.float32))


@pytest.mark.parametrize(("name", "left"), [("s8_s8", np.int8), ("u8_s8", np.uint8)])
def test_dp4a_adds_four_products_and_wraps(library, name, left):
    a, b = random_bytes((64, 4), left), random_bytes((64, 4), np.int8)
    c, result = RNG.integers(-(2**31), 2**31, 64).astype(np.int32), np.empty(64, np.int32)
    c[:2] = [2**31 - 1, -(2**31)]
    call(getattr(library, f"run_dp4a_{name}"), a, b, c, result)
    exact = c + (a.astype(np.int64) * b.astype(np.int64)).sum(axis=1)
    np.testing.assert_array_equal(result, exact.astype(np.uint64).astype(np.uint32).view(np.int32))


@pytest.mark.parametrize(
    ("name", "left", "right"), [("s8_s8", np.int8, np.int8), ("u8_s8", np.uint8, np.int8), ("s8_u8", np.int8, np.uint8)]
)
def test_mma_multiplies_matrices_in_the_layout_of_the_isa(library, name, left, right):
    a, b = random_bytes((16, 32), left), random_bytes((8, 32), right)
    before = RNG.integers(-1000, 1000, (16, 8)).astype(np.int32)
    result = before.copy()
    call(getattr(library, f"run_mma_m16n8k32_{name}"), a, b, result)
    np.testing.assert_array_equal(result, before + a.astype(np.int32) @ b.astype(np.int32).T)


def test_a_relaxed_load_reads_the_word(library):
    given, result = RNG.standard_normal(32).astype(np.float32), np.empty(32, np.float32)
    call(library.run_load_relaxed, given, result)
    np.testing.assert_array_equal(result, given)


# What nvcc must make of each wrapper, by compute capability.
INSTRUCTIONS = {
    "half_to_float": {75: ["cvt.f32.f16"], 80: ["cvt.f32.f16"]},
    "dp4a_s8_s8": {75: ["dp4a.s32.s32"], 80: ["dp4a.s32.s32"]},
    "dp4a_u8_s8": {75: ["dp4a.u32.s32"], 80: ["dp4a.u32.s32"]},
    "mma_m16n8k32_s8_s8": {
        75: ["mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32"] * 4,
        80: ["m16n8k32.row.col.s32.s8.s8.s32"],
    },
    "mma_m16n8k32_u8_s8": {
        75: ["mma.sync.aligned.m8n8k16.row.col.s32.u8.s8.s32"] * 4,
        80: ["m16n8k32.row.col.s32.u8.s8.s32"],
    },
    "mma_m16n8k32_s8_u8": {
        75: ["mma.sync.aligned.m8n8k16.row.col.s32.s8.u8.s32"] * 4,
        80: ["m16n8k32.row.col.s32.s8.u8.s32"],
    },
    "cp_async": {
        75: ["ld.global", "st.shared"],
        80: ["cp.async.cg.shared.global", "cp.async.commit_group", "cp.async.wait_group"],
    },
    "load_relaxed": {75: ["ld.relaxed.gpu.global.u32"], 80: ["ld.relaxed.gpu.global.u32"]},
}


@pytest.mark.parametrize("capability", [75, 80])
def test_nvcc_makes_the_instruction_that_the_equivalent_stands_for(tmp_path, capability):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    target = tmp_path / "functions.ptx"
    flags = ["-std=c++17", f"-I{build.CSRC}", f"-arch=compute_{capability}", "-ptx"]
    subprocess.run([nvcc, *flags, str(SOURCE), "-o", str(target)], check=True, capture_output=True)
    kernels = re.findall(
        r"^\.visible \.entry \w*?test_(\w+?)(?:P\w*)?\((.*?)^\}", target.read_text(), re.MULTILINE | re.DOTALL
    )
    found = {name: body for mangled, body in kernels for name in INSTRUCTIONS if mangled.startswith(name)}
    assert found.keys() == INSTRUCTIONS.keys()
    for name, body in found.items():
        for instruction in INSTRUCTIONS[name][capability]:
            assert body.count(instruction) == INSTRUCTIONS[name][capability].count(instruction), (name, instruction)
