"""sentence-transformers' encoding and vector functions: `from llmrec_fast.compat.sentence_transformers import ...`.

Covered: `SentenceTransformer` for encoding, `util`'s functions on vectors, `quantize_embeddings`. Vectors agree within 1e-4.
Where sentence-transformers returns torch tensors so does this, and then torch must be installed; nothing else needs it.
Refused: devices other than the CPU, pools of processes, `output_value=None`, score functions of the caller's own, vectors
that are not finite. Not there: training, cross encoders, sparse encoders.
"""

from llmrec_fast.compat.sentence_transformers import util
from llmrec_fast.compat.sentence_transformers.model import SentenceTransformer
from llmrec_fast.compat.sentence_transformers.options import SimilarityFunction
from llmrec_fast.compat.sentence_transformers.quantization import quantize_embeddings

__all__ = ["SentenceTransformer", "SimilarityFunction", "quantize_embeddings", "util"]
