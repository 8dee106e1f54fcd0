"""Whether a built engine computes the model: its token embeddings next to those of the CPU, of a few made-up texts.

For engines whose attention is TensorRT's own operator: what it reads of a graph changed between versions (`is_causal`, then
`causal_kind`), and one that is read wrongly would show in the vectors only.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.encoding.families import build_model_graph
from llmrec_fast.encoding.model_files import ModelFiles
from llmrec_fast.encoding.plain_builder import Precision
from llmrec_fast.encoding.session import GraphSession
from llmrec_fast.encoding.token_table import DeviceSession
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import CudaError
from llmrec_fast.kernels.threads import get_threads

_LENGTHS = (5, 1, 17)
_LEAST_COSINES: dict[Precision, float] = {"float32": 0.9999, "float16": 0.99, "int8": 0.9}


def check_engine(session: DeviceSession, files: ModelFiles, precision: Precision) -> None:
    """Compare a session with the CPU. Takes a few seconds, and the memory of the model in float32.

    Raises
    ------
    CudaError : the direction of a token's embedding differs by more than `precision` explains.
    """
    with WeightFiles(files.weights) as weights:
        graph = build_model_graph(files.config, weights)
    lengths = np.minimum(np.array(_LENGTHS, np.int32), session.longest)
    shape = len(lengths), int(lengths.max())
    ids = np.random.default_rng(0).integers(0, graph.vocabulary, shape).astype(np.int32)
    expected = GraphSession(graph, get_threads()).run(ids, lengths)
    memory = session.runtime.memory
    place = memory.current_place()
    with session.running(ids, lengths, place) as table:
        rows, starts = memory.download(table.rows, place), table.starts
    for text, length in enumerate(lengths):
        wanted, found = expected[text, :length], rows[starts[text] : starts[text] + length]
        sizes = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
        # not "any below": a cosine that is not a number is wrong too
        if not ((wanted * found).sum(axis=1) >= _LEAST_COSINES[precision] * sizes).all():
            raise CudaError("the embeddings that it computes are not those of the model on the CPU")
