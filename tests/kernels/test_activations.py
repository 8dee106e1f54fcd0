"""Activations against their formulas in float64, on every instruction set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from llmrec_fast.kernels.cpu.activations import ACTIVATIONS, activate
from llmrec_fast.kernels.cpu.intrinsics import instruction_set
from llmrec_fast.kernels.cpu.tiles import tile_shape

SETS = {"best": {}, "avx2": {"LLMREC_AVX2": "1"}, "portable": {"LLMREC_PORTABLE": "1"}}
FORMULAS = {
    "gelu": lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


@pytest.fixture(params=SETS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in SETS[request.param].items():
        monkeypatch.setenv(name, value)
    return instruction_set()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("count", [1, 7, 48, 1001])
def test_every_number_by_its_formula(isa: Any, name: str, count: int) -> None:
    values = np.random.default_rng(count).uniform(-9, 9, count + tile_shape(isa).lanes).astype(np.float32)
    expected = np.array([FORMULAS[name](float(x)) for x in values[:count]])
    activate(isa, ACTIVATIONS.index(name), values[:count])
    np.testing.assert_allclose(values[:count], expected, rtol=1e-6, atol=2e-6)


def test_a_number_has_the_same_gelu_in_every_place(isa: Any) -> None:
    lanes = tile_shape(isa).lanes
    numbers = np.random.default_rng(0).standard_normal(13 * lanes, dtype=np.float32)
    one_by_one = np.repeat(numbers[:, None], lanes, axis=1)
    for row in one_by_one:
        activate(isa, ACTIVATIONS.index("gelu"), row)
    activate(isa, ACTIVATIONS.index("gelu"), numbers)
    np.testing.assert_array_equal(numbers, one_by_one[:, 0])


def test_gelu_keeps_what_is_no_number(isa: Any) -> None:
    values = np.full(tile_shape(isa).lanes, np.nan, np.float32)
    activate(isa, ACTIVATIONS.index("gelu"), values)
    assert np.isnan(values).all()
