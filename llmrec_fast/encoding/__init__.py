"""Text to vectors: transformer models through ONNX Runtime, static word vectors, and any callable that people bring."""

from llmrec_fast.encoding.cross_encoder import CrossEncoder
from llmrec_fast.encoding.dynamic_batching import BatchingPolicy
from llmrec_fast.encoding.encoder import Encoder
from llmrec_fast.encoding.text_encoder import EncoderLike, TextEncoder, as_text_encoder
from llmrec_fast.encoding.vector_cache import VectorCache
from llmrec_fast.encoding.word_vectors import WordVectors

__all__ = [
    "BatchingPolicy",
    "CrossEncoder",
    "Encoder",
    "EncoderLike",
    "TextEncoder",
    "VectorCache",
    "WordVectors",
    "as_text_encoder",
]
