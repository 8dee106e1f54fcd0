"""Shared by the encoding tests: small models, written once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.encoding.tiny_models import write_model


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain Hugging Face folder of a tiny BERT: mean pooling, no normalisation."""
    return write_model(tmp_path_factory.mktemp("models") / "bert")
