import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels import cpu, reference


def blocks_of(rows: int, widths: list[int], dtype=np.float32, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((rows, width)).astype(dtype) for width in widths]


def cosines(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    users, items = users.astype(np.float64), items.astype(np.float64)
    return users @ items.T / np.outer(np.linalg.norm(users, axis=1), np.linalg.norm(items, axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_the_product_of_fused_rows_is_the_weighted_sum_of_cosines(kernels, dtype):
    widths, weights = [5, 17, 1], [0.3, 2.0, 0.5]
    users, items = blocks_of(9, widths, dtype, seed=1), blocks_of(13, widths, dtype, seed=2)
    fused = kernels.fuse(users, weights) @ kernels.fuse(items, weights).T
    expected = sum(w * cosines(u, i) for w, u, i in zip(weights, users, items, strict=True))
    np.testing.assert_allclose(fused, expected, atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(0, 30),
    widths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    exponent=st.integers(-30, 30),
    seed=st.integers(0, 1000),
)
def test_cpu_equals_reference(rows, widths, exponent, seed):
    blocks = [block * np.float32(10.0**exponent) for block in blocks_of(rows, widths, seed=seed)]
    weights = list(np.random.default_rng(seed).random(len(widths)) * 3)
    np.testing.assert_allclose(cpu.fuse(blocks, weights), reference.fuse(blocks, weights), rtol=0, atol=4e-7)


def test_zero_rows_and_zero_weights_give_zeros(kernels):
    rows = blocks_of(4, [6, 3])
    rows[0][2] = 0
    result = kernels.fuse(rows, [1.0, 0.0])
    assert not result[2].any()
    assert not result[:, 6:].any()


def test_results_do_not_depend_on_the_number_of_threads():
    blocks = blocks_of(5000, [100, 30])
    one = cpu.fuse(blocks, [1, 0.5], threads=1)
    for threads in (2, 5):
        np.testing.assert_array_equal(cpu.fuse(blocks, [1, 0.5], threads=threads), one)


def test_inputs_are_left_alone_and_the_caller_may_own_the_result(kernels):
    block = blocks_of(3, [4])[0]
    before, out = block.copy(), np.empty((3, 4), np.float32)
    assert kernels.fuse([block], [1.0], out=out) is out
    np.testing.assert_array_equal(block, before)


@pytest.mark.parametrize(
    ("blocks", "weights", "message"),
    [
        ([], [], "fuse needs at least one block"),
        (blocks_of(2, [3]) + blocks_of(4, [3]), [1, 1], r"blocks\[1\] has 4 rows where blocks\[0\] has 2"),
        (blocks_of(2, [3]), [1, 1], "1 blocks need as many weights; got 2"),
        (blocks_of(2, [3]), [-1], r"weights\[0\] must be finite and not negative; got -1"),
        (blocks_of(2, [3]), [np.nan], r"weights\[0\] must be finite and not negative; got nan"),
        ([np.zeros(3)], [1], r"blocks\[0\] must have two dimensions"),
    ],
)
def test_bad_arguments_are_refused_by_name(kernels, blocks, weights, message):
    with pytest.raises(InvalidInput, match=message):
        kernels.fuse(blocks, weights)
