"""The page at /, in a real browser where there is one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from tests.serving.conftest import Running

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --virtual-time-budget=8000 --dump-dom"
)


def test_the_page_allows_no_script_but_its_own(serve: Callable[..., Running]) -> None:
    client = serve().client
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
    assert "<script>" not in page.text
    assert "innerHTML" not in client.get("/page.js").text
    assert client.get("/page.css").headers["content-type"].startswith("text/css")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_person_sees_recommendations_their_reasons_and_the_latency(serve: Callable[..., Running]) -> None:
    service = serve()

    def shown(question: str) -> str:
        address = f"http://127.0.0.1:{service.port}/#{question}"
        command = [BROWSER, *OPTIONS.split(), address]
        return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout

    by_user = shown("user=1")
    assert by_user.count("<li>") == 10
    assert "because of" in by_user
    assert "median of" in by_user
    # titles of this catalogue are markup: they must come out as text
    assert "&lt;b&gt;item " in by_user
    assert "<b>item " not in by_user
    assert "nearness of its text" in shown("text=item+3")
    assert "unknown user" in shown("user=nobody")
