"""The one suite of kernel tests runs on every device; the oracle is written out in the tests, in float64."""

from types import ModuleType

import pytest

from llmrec_fast.kernels import cpu, reference


@pytest.fixture(params=[reference, cpu], ids=["reference", "cpu"], scope="session")
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return request.param
