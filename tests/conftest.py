"""Which tests are which: those that run CUDA kernels on the CPU take minutes and are asked for with `pytest -m emulated`."""

import pytest

_EMULATING_FIXTURES = {"emulation", "race_check"}


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if "cuda-emulated" in item.name or "/simt/" in item.nodeid or fixtures & _EMULATING_FIXTURES:
            item.add_marker(pytest.mark.emulated)
