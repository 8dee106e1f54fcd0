"""What the machine allows an encoder in float32: the operations a model needs, and the rate of matrix products."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from llmrec_fast.encoding.architectures import Architecture, read_architecture
from llmrec_fast.encoding.model_files import ModelFiles
from llmrec_fast.encoding.weights import WeightFiles

# matrices that stay in a core's own cache: larger ones wait for memory, and lower the limit
_SIZE, _PRODUCTS, _REPETITIONS = 512, 32, 10
# threads of BLAS and OpenMP spin for a while after a product, on the cores that the next way needs
_PAUSE_SECONDS = 0.5


class TokenCounter:
    """Counts the tokens that a model sees, special tokens included and nothing cut off."""

    def __init__(self, files: ModelFiles) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_file(str(files.tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def __call__(self, texts: Sequence[str]) -> list[int]:
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]


def operations(files: ModelFiles, lengths: Sequence[int]) -> float:
    """Additions and multiplications of all matrix products for texts of `lengths` tokens.

    A layer costs 8 h^2 + 4 h f a token for its four products, and 4 h t for the attention to the t tokens of its text.
    """
    with WeightFiles(files.weights) as weights:
        shape: Architecture = read_architecture(files.config, weights.names())
    tokens = np.asarray(lengths, np.float64)
    linear = (8 * shape.hidden**2 + 4 * shape.hidden * shape.intermediate) * tokens
    return float(shape.layers * (linear + 4 * shape.hidden * tokens**2).sum())


def matrix_rate(threads: int, torch: ModuleType | None) -> float:
    """Operations a second of float32 matrix products on `threads` threads: the best there has been.

    The ways are NumPy's and PyTorch's products with all threads on one, and ONNX Runtime's with a product for every thread,
    which wait for nobody. None of them is the fastest on every processor, and a limit that is too low flatters.
    """
    a = np.random.default_rng(0).standard_normal((_SIZE, _SIZE), dtype=np.float32)
    out = np.empty_like(a)
    session = _one_product(a)

    def numpy_together() -> int:
        for _ in range(_PRODUCTS):
            np.matmul(a, a, out=out)
        return _PRODUCTS

    def onnxruntime_side_by_side() -> int:
        def work(_: int) -> None:
            for _ in range(_PRODUCTS):
                session.run(None, {"left": a})

        return _PRODUCTS * len(list(pool.map(work, range(threads))))

    ways = [numpy_together, onnxruntime_side_by_side]
    if torch is not None:
        left, product = torch.from_numpy(a), torch.from_numpy(out)

        def torch_together() -> int:
            for _ in range(_PRODUCTS):
                torch.matmul(left, left, out=product)
            return _PRODUCTS

        ways.append(torch_together)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for way in ways:
            time.sleep(_PAUSE_SECONDS)
            for _ in range(_REPETITIONS):
                start = time.perf_counter()
                products = way()
                best = max(best, products * 2 * _SIZE**3 / (time.perf_counter() - start))
    return best


def _one_product(right: npt.NDArray[np.float32]) -> Any:
    """A session of ONNX Runtime that multiplies its input with `right`, on one thread."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, right.shape) for name in ("left", "product")]
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", sides[:1], sides[1:], [numpy_helper.from_array(right, "right")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
