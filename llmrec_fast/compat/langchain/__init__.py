"""LangChain's vector store and embeddings over this package: `from llmrec_fast.compat.langchain import ...`.

`ExactVectorStore` stands where `InMemoryVectorStore` stands and gives the same documents, faster; `EncoderEmbeddings` takes a
model's folder or name. Needs langchain-core and nothing else of LangChain. Saving uses no pickle, so loading runs nothing.
Refused: keywords that a method does not have (LangChain's own store ignores them), metadata that JSON cannot hold (on saving).
"""

try:
    import langchain_core as _langchain_core  # noqa: F401
except ImportError as error:
    from llmrec_fast.errors import MissingDependency

    raise MissingDependency(
        "llmrec_fast.compat.langchain derives its classes from LangChain's: pip install 'langchain-core>=0.3'"
    ) from error

from llmrec_fast.compat.langchain.embeddings import EncoderEmbeddings
from llmrec_fast.compat.langchain.vector_store import ExactVectorStore

__all__ = ["EncoderEmbeddings", "ExactVectorStore"]
