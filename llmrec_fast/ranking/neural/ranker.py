"""A trained neural scorer: an ONNX model over pair features."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array, as_matrix
from llmrec_fast.errors import CorruptFile
from llmrec_fast.ranking.groups import check_groups
from llmrec_fast.ranking.neural.network import Network
from llmrec_fast.ranking.neural.settings import NeuralSettings
from llmrec_fast.ranking.onnx_models import INPUT, open_session


class NeuralRanker:
    """Networks that score rows of pair features; torch is needed by `fit` alone. Threads may share one.

    Attributes
    ----------
    names : the features, in the order of columns.
    model : the ONNX model.
    """

    def __init__(self, model: bytes, names: Sequence[str], threads: int | None = None) -> None:
        """Raises `CorruptFile` for bytes that are no such model, `MissingDependency` without ONNX Runtime."""
        self.model = model
        self.names = tuple(names)
        self._session = open_session(model, "the neural reranker", threads)
        width = self._session.get_inputs()[0].shape[-1]
        if width != len(self.names):
            raise CorruptFile(f"the model of the neural reranker reads {width} features; expected {len(self.names)}")

    @classmethod
    def fit(
        cls,
        features: ArrayLike,
        relevant: ArrayLike,
        sizes: ArrayLike,
        names: Sequence[str],
        settings: NeuralSettings | None = None,
        *,
        threads: int | None = None,
        show_progress: bool | None = False,
    ) -> NeuralRanker:
        """Learn to put relevant rows of a group before its others.

        Parameters
        ----------
        features : (n, f) float32, the rows of a group one after another.
        relevant : (n,) grades, 0 for what is not relevant.
        sizes : (groups,) rows of each group.
        names : (f,) what the features are called.
        settings : shape and training.
        threads : of torch while it trains, and of ONNX Runtime.
        show_progress : whether bars are shown on standard error; None: on a terminal.

        Raises
        ------
        InvalidInput : sizes that do not add up, no relevant row, wrong shapes.
        MissingDependency : torch or ONNX Runtime is not installed.
        """
        rows, grades, groups = check_groups(features, relevant, sizes, names)
        from llmrec_fast.ranking.neural.training import train

        network = train(rows, grades, groups, settings or NeuralSettings(), threads, show_progress)
        return cls(network.to_onnx(), names, threads)

    def scores(self, features: ArrayLike) -> Float64Array:
        """(n,) float64, higher is better; scores of different groups do not compare."""
        rows = as_matrix(features, "features", dimension=len(self.names))
        if not len(rows):
            return np.zeros(0)
        scores: Float64Array = self._session.run(None, {INPUT: rows})[0][:, 0].astype(np.float64)
        return scores

    def contributions(self, features: ArrayLike) -> Float64Array:
        """(n, f + 1) float64: what each feature adds to a score, and what all start from last; see `Network.contributions`.

        Rows sum to `scores` up to float32 rounding.
        """
        return self._network.contributions(as_matrix(features, "features", dimension=len(self.names)))

    @cached_property
    def _network(self) -> Network:
        return Network.from_onnx(self.model)
