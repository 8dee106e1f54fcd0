"""Shared by the tests of the sentence-transformers shim: a small model, and a stand-in for torch that hands back arrays."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.encoding.tiny_models import write_json, write_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with mean pooling and with prompts."""
    path = write_model(tmp_path_factory.mktemp("models") / "bert", pooling={"pooling_mode_mean_tokens": True})
    prompts = {"query": "a man ", "passage": "the movie ", "document": None}
    write_json(
        path / "config_sentence_transformers.json",
        {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "dot"},
    )
    return path


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.from_numpy that returns the array itself, so that what would be in a tensor can be looked at without torch."""
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(from_numpy=lambda array: array))


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torch were not installed."""
    monkeypatch.setitem(sys.modules, "torch", None)
