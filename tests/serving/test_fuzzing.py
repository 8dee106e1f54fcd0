"""Requests made from the OpenAPI document, and near misses of them: whatever comes, no 5xx."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from tests.serving.conftest import Running


def test_the_document_names_every_route_and_refuses_unknown_fields(serve: Callable[..., Running]) -> None:
    document = serve().client.get("/openapi.json").json()
    assert {"/recommend", "/similar", "/search", "/encode", "/events", "/items", "/explain", "/metrics"} <= {
        *document["paths"]
    }
    assert document["components"]["schemas"]["RecommendRequest"]["additionalProperties"] is False
    assert "requestBody" in document["paths"]["/recommend"]["post"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed")
def test_schemathesis_finds_no_server_error(serve: Callable[..., Running]) -> None:
    service = serve()
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"http://127.0.0.1:{service.port}/openapi.json"]
    options = "--checks not_a_server_error --max-examples 15 --phases examples,fuzzing --seed 1 --no-color"
    done = subprocess.run([*command, *options.split()], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "traceback" not in service.log.read_text().lower()
