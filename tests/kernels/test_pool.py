import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.kernels import cpu, reference

MODES = ["mean", "max", "sum", "first", "last"]
DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]
FLOAT32_HALF_ULP = 2.0**-24


def table_of(rows: int, columns: int, dtype=np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(dtype)


def naive(table, starts, lengths, index, weights, mode):
    """What each mode means, one number at a time."""
    rows = np.asarray(table, np.float64)
    out = np.zeros((len(starts), rows.shape[1]))
    for segment, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        positions = range(start, start + length)
        members = [rows[p if index is None else index[p]] for p in positions]
        mass = [1.0 if weights is None else float(weights[p]) for p in positions]
        if not members:
            continue
        if mode in ("first", "last"):
            out[segment] = members[0 if mode == "first" else -1]
        elif mode == "max":
            out[segment] = np.max(members, axis=0)
        else:
            total = sum(m * x for m, x in zip(mass, members, strict=True))
            if mode == "mean":
                total = total / sum(mass) if sum(mass) != 0 else 0 * total
            out[segment] = total
    return out


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gather", [False, True])
def test_each_mode_equals_its_definition(kernels, mode, dtype, gather):
    table = table_of(60, 37, dtype)
    starts, lengths = [0, 5, 5, 59, 30, 60], [5, 0, 23, 1, 30, 0]
    index = np.random.default_rng(1).integers(0, 60, 60) if gather else None
    weights = np.random.default_rng(2).random(60).astype(np.float32) if mode in ("mean", "sum") else None
    result = kernels.pool(table, starts, lengths, index=index, weights=weights, mode=mode)
    expected = naive(table, starts, lengths, index, weights, mode)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, rtol=0, atol=30 * 30 * FLOAT32_HALF_ULP)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_cpu_equals_reference_within_the_stated_bound(data):
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 70))
    segments = data.draw(st.integers(0, 12))
    starts = np.array([data.draw(st.integers(0, rows)) for _ in range(segments)], np.int64)
    lengths = np.array([data.draw(st.integers(0, rows - start)) for start in starts], np.int64)
    table = table_of(rows, columns, seed=data.draw(st.integers(0, 1000))) * 10.0 ** data.draw(st.integers(-15, 15))
    mode = data.draw(st.sampled_from(["mean", "sum", "max", "first", "last"]))
    result = cpu.pool(table, starts, lengths, mode=mode)
    expected = reference.pool(table, starts, lengths, mode=mode)
    magnitude = reference.pool(np.abs(table), starts, lengths, mode="sum")
    assert (np.abs(result - expected) <= (rows + 2) * FLOAT32_HALF_ULP * magnitude).all()


def test_padded_and_packed_tokens_give_the_same_vectors(kernels):
    lengths = np.array([3, 7, 1, 5])
    padded = table_of(4 * 7, 16).reshape(4, 7, 16)
    packed = np.concatenate([padded[text, :length] for text, length in enumerate(lengths)])
    from_padded = kernels.pool(padded.reshape(-1, 16), 7 * np.arange(4), lengths, normalize=True)
    from_packed = kernels.pool(packed, np.cumsum(lengths) - lengths, lengths, normalize=True)
    np.testing.assert_array_equal(from_padded, from_packed)


def test_normalised_results_have_unit_norm_and_zero_rows_stay_zero(kernels):
    table = np.concatenate([table_of(3, 8) * 1e-30, table_of(3, 8) * 1e30, np.zeros((2, 8), np.float32)])
    result = kernels.pool(table, np.arange(8), np.ones(8, np.int64), normalize=True)
    np.testing.assert_allclose(np.linalg.norm(result[:6].astype(np.float64), axis=1), 1, atol=1e-6)
    assert not result[6:].any()


def test_a_mean_whose_weights_cancel_is_zero(kernels):
    weights = np.array([1, -1], np.float32)
    assert not kernels.pool(table_of(2, 4), [0], [2], weights=weights, mode="mean").any()


def test_every_half_precision_pattern_converts_exactly():
    patterns = np.arange(2**16, dtype=np.uint16)
    for dtype in (np.float16, ml_dtypes.bfloat16):
        table = patterns.view(dtype).reshape(-1, 1)
        result = cpu.pool(table, np.arange(2**16), np.ones(2**16, np.int64), mode="first")
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(result, table.astype(np.float32))


def test_a_nan_is_never_lost_by_max(kernels):
    table = np.array([[np.nan, 1], [2, np.nan], [3, 3]], np.float32)
    assert np.isnan(kernels.pool(table, [0], [3], mode="max")).all()


def test_results_do_not_depend_on_the_number_of_threads():
    table = table_of(20_000, 64)
    lengths = np.random.default_rng(3).integers(0, 60, 600)
    starts = np.cumsum(lengths) - lengths
    one = cpu.pool(table, starts, lengths, normalize=True, threads=1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(cpu.pool(table, starts, lengths, normalize=True, threads=threads), one)


def test_the_caller_may_own_the_result(kernels):
    out = np.full((2, 4), 7, np.float32)
    result = kernels.pool(table_of(3, 4), [0, 1], [2, 0], out=out)
    assert result is out
    assert not out[1].any()


def test_nothing_to_do_gives_an_empty_result(kernels):
    assert kernels.pool(table_of(3, 4), [], []).shape == (0, 4)
    assert kernels.pool(np.empty((0, 4), np.float32), [0], [0]).tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"starts": [3], "lengths": [2]}, "segment 0 starts at 3 with length 2, outside the 4 positions of table"),
        ({"starts": [-1]}, "segment 0 starts at -1"),
        ({"lengths": [-1]}, "with length -1"),
        ({"starts": [2**62], "lengths": [2**62]}, "outside the 4 positions"),
        ({"lengths": [1, 1]}, "lengths must have 1 values; got 2"),
        ({"starts": [0.5]}, "starts must be integers"),
        ({"index": [0, 4]}, "index holds 4, outside the 4 rows of table"),
        ({"index": [0, -1]}, "index holds -1"),
        ({"mode": "median"}, "mode must be one of mean, max, sum, first, last; got 'median'"),
        ({"mode": "max", "weights": [1, 1, 1, 1]}, "weights go with the modes mean and sum, not with 'max'"),
        ({"weights": [1, 1]}, "weights must have 4 values; got 2"),
        ({"weights": [1, 1, np.nan, 1]}, "weights holds NaN in row 2"),
        ({"table": np.zeros(4, np.float32)}, "table must have two dimensions"),
        ({"table": np.array([["a"]])}, "table must be real numbers"),
        ({"out": np.zeros((1, 3), np.float64)}, r"out must be a float32 array of shape \(1, 3\); got float64 \(1, 3\)"),
        ({"out": np.zeros((1, 6), np.float32)[:, ::2]}, "out must be C-contiguous and writeable"),
    ],
)
def test_bad_arguments_are_refused_by_name(kernels, change, message):
    arguments = {"table": table_of(4, 3), "starts": [0], "lengths": [2], **change}
    with pytest.raises(InvalidInput, match=message):
        kernels.pool(**arguments)
