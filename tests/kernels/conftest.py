"""The one suite of kernel tests runs on every device; the oracle is written out in the tests, in float64.

`cuda-emulated` is the CUDA backend as it is, Python included, over kernels compiled by g++ (tests/simt): with blocks and
threads in several orders, and with the race check. `cuda` is the same on a GPU, where there is one.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from llmrec_fast.kernels import cpu, cuda, reference
from llmrec_fast.kernels.cuda.runtime import Runtime, runtime, using, why_unavailable
from tests.simt import build
from tests.simt.memory import ORDERS, Emulation

# set by the test that runs this suite again under the address and undefined-behaviour sanitizers
VARIANT = os.environ.get("LLMREC_EMULATION_VARIANT", "plain")
EMULATED = [
    f"cuda-emulated-{order}-{seed}" if order == "random" else f"cuda-emulated-{order}" for order, seed in ORDERS
]
RACES = "cuda-emulated-races"
CUDA_IS_MISSING = why_unavailable()
DEVICES = ["reference", "cpu", *EMULATED]
DEVICES += [RACES] if VARIANT == "plain" else []
DEVICES += [] if CUDA_IS_MISSING else ["cuda"]


class _Kernels:
    """The functions of `kernels.cuda` over one runtime."""

    def __init__(self, own: Runtime, prepare: Callable[[], None] = lambda: None) -> None:
        self._own, self._prepare = own, prepare

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(cuda, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            self._prepare()
            with using(self._own):
                return function(*arguments, **keywords)

        return call


def _emulation(variant: build.Variant) -> Emulation:
    if (reason := build.missing_for_module()) is not None:
        pytest.skip(f"the CUDA kernels cannot be emulated here: {reason}")
    return Emulation(variant)


@pytest.fixture(scope="session")
def emulation() -> Emulation:
    return _emulation(VARIANT)


@pytest.fixture(scope="session")
def race_check() -> Emulation:
    return _emulation("races")


@pytest.fixture(params=DEVICES, scope="session")
def kernels(request: pytest.FixtureRequest) -> Any:
    if request.param in ("reference", "cpu"):
        return {"reference": reference, "cpu": cpu}[request.param]
    if request.param == "cuda":
        return _Kernels(runtime())
    if request.param == RACES:
        checked: Emulation = request.getfixturevalue("race_check")
        return _Kernels(checked.runtime, lambda: checked.set_order("descending"))
    order, seed = ORDERS[EMULATED.index(request.param)]
    emulated: Emulation = request.getfixturevalue("emulation")
    return _Kernels(emulated.runtime, lambda: emulated.set_order(order, seed))
