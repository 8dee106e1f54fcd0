"""llmrec_fast: exact, fast recommendations from language-model embeddings."""

__version__ = "0.1.0"
