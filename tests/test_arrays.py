import numpy as np
import pytest

from llmrec_fast import arrays
from llmrec_fast.errors import InvalidInput


def test_a_float32_matrix_passes_without_a_copy():
    matrix = np.ones((3, 2), np.float32)
    assert arrays.as_matrix(matrix, "x") is matrix


def test_other_dtypes_and_layouts_become_contiguous_float32():
    result = arrays.as_matrix(np.arange(6, dtype=np.int16).reshape(2, 3).T, "x")
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"x must have two dimensions \(rows, columns\); got shape \(2,\)"),
        ([[1.0], [2.0, 3.0]], "x must be a rectangular array of numbers"),
        ([["a"]], "x must be real numbers"),
        ([[1j]], "x must be real numbers"),
        ([[0.0, 1.0], [2.0, np.nan]], "x holds NaN in row 1"),
        ([[0.0, np.inf]], "x holds an infinite value in row 0"),
        ([[1e39, 0.0]], "x holds an infinite value in row 0"),
    ],
)
def test_a_bad_matrix_is_named(values, message):
    with pytest.raises(InvalidInput, match=message):
        arrays.as_matrix(values, "x")


def test_the_first_bad_row_is_named_however_far_down():
    matrix = np.zeros((20_000, 2))
    matrix[[17_000, 18_000], 1] = np.nan
    with pytest.raises(InvalidInput, match="row 17000"):
        arrays.as_matrix(matrix, "x")


def test_another_dimension_is_refused():
    with pytest.raises(InvalidInput, match="x must have 4 columns"):
        arrays.as_matrix(np.zeros((1, 3)), "x", dimension=4)


@pytest.mark.parametrize("values", [[0.5], [True], ["1"], [2**63], [[1]]])
def test_only_integers_that_fit_are_int64(values):
    with pytest.raises(InvalidInput):
        arrays.as_int64(values, "ids")


def test_an_empty_list_is_no_integers():
    assert arrays.as_int64([], "ids").dtype == np.int64


def test_texts_are_strings_and_many():
    assert arrays.as_texts(("a", "b")) == ["a", "b"]
    with pytest.raises(InvalidInput, match="not a single string"):
        arrays.as_texts("a")
    with pytest.raises(InvalidInput, match=r"texts\[1\] must be a string; got NoneType"):
        arrays.as_texts(["a", None])  # type: ignore[list-item]


@pytest.mark.parametrize("value", [0, -3, 1.0, True, None, "3"])
def test_counts_are_integers_from_the_minimum_up(value):
    with pytest.raises(InvalidInput, match="k must be"):
        arrays.as_count(value, "k")


def test_memory_of_a_gpu_is_refused_by_name():
    class Tensor:
        def __dlpack_device__(self):
            return 2, 1

    class Interface:
        __cuda_array_interface__ = {"data": (8, False)}  # noqa: RUF012

    for value, device in ((Tensor(), 1), (Interface(), -1), (np.zeros(2), None), ([1.0], None)):
        assert arrays.device_of(value) == device
        assert arrays.is_on_device(value) == (device is not None)
    for read in (arrays.as_matrix, arrays.as_vector, arrays.as_int64):
        with pytest.raises(InvalidInput, match="rows is in the memory of a GPU"):
            read(Tensor(), "rows")
