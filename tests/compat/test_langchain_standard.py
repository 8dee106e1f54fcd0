"""LangChain's own standard tests (package langchain-tests), for its vector stores and embeddings."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_tests", reason="the continuous integration runs these in a pass of their own")
pytest.importorskip("pytest_asyncio", reason="half of LangChain's standard tests are coroutines")

from langchain_tests.integration_tests import EmbeddingsIntegrationTests, VectorStoreIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from llmrec_fast.compat.langchain import EncoderEmbeddings, ExactVectorStore

# langchain-tests leaves it to its user in which mode pytest-asyncio runs
for suite in (EmbeddingsIntegrationTests, VectorStoreIntegrationTests):
    for case in vars(suite).values():
        if inspect.iscoroutinefunction(case):
            pytest.mark.asyncio(case)


class TestExactVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> ExactVectorStore:
        return ExactVectorStore(self.get_embeddings())


class _OfTinyModel:
    @pytest.fixture(autouse=True)
    def _folder(self, folder: Path) -> None:
        self.folder = folder

    @property
    def embeddings_class(self) -> type[EncoderEmbeddings]:
        return EncoderEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.folder, "threads": 1}


class TestEncoderEmbeddings(_OfTinyModel, EmbeddingsUnitTests):
    pass


class TestEncoderEmbeddingsIntegration(_OfTinyModel, EmbeddingsIntegrationTests):
    pass
