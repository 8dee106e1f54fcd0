import pytest

from tests.simt import build


@pytest.fixture(autouse=True, scope="session")
def _compiler() -> None:
    if (reason := build.missing_tools()) is not None:
        pytest.skip(f"nothing can be emulated here: {reason}")
