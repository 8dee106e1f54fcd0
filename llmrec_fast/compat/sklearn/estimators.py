"""`NearestNeighbors`, `KNeighborsTransformer` and `RadiusNeighborsTransformer`: scikit-learn's estimators, exact and faster."""

# scikit-learn has no type information, so its classes are Any to mypy
# mypy: disable-error-code="import-untyped, import-not-found, misc, no-untyped-call"

from __future__ import annotations

from typing import Any

import numpy as np

from llmrec_fast.arrays import ArrayLike
from llmrec_fast.compat.sklearn.neighbors_base import NeighborsBase
from llmrec_fast.errors import InvalidInput

# NeighborsBase comes first: its module says what to install where scikit-learn is missing
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin  # isort: skip
from sklearn.utils.validation import check_is_fitted  # isort: skip

_MODES = ("connectivity", "distance")


class _KNeighbors(NeighborsBase):
    def kneighbors_graph(
        self, X: ArrayLike | None = None, n_neighbors: int | None = None, mode: str = "connectivity"
    ) -> Any:
        """The neighbours of `kneighbors` as a sparse matrix.

        Parameters
        ----------
        X, n_neighbors : as of `kneighbors`.
        mode : "connectivity" (ones) or "distance".

        Returns
        -------
        (n, n_samples_fit_) scipy.sparse.csr_matrix, float64, each row's entries nearest first.
        """
        check_is_fitted(self)
        _check_mode(mode)
        distances, indices = self.kneighbors(X, n_neighbors)
        values = distances if mode == "distance" else np.ones_like(distances)
        indptr = np.arange(0, indices.size + 1, indices.shape[1])
        return self._graph(indptr, indices.ravel(), values.ravel())


class _RadiusNeighbors(NeighborsBase):
    def radius_neighbors_graph(
        self,
        X: ArrayLike | None = None,
        radius: float | None = None,
        mode: str = "connectivity",
        sort_results: bool = False,
    ) -> Any:
        """The neighbours of `radius_neighbors` as a sparse matrix: parameters and result as of `kneighbors_graph`."""
        check_is_fitted(self)
        _check_mode(mode)
        distances, indices = self.radius_neighbors(X, radius, sort_results=sort_results)
        indptr = np.cumsum([0, *map(len, indices)])
        values = np.concatenate(distances)
        return self._graph(indptr, np.concatenate(indices), values if mode == "distance" else np.ones_like(values))


class NearestNeighbors(_KNeighbors, _RadiusNeighbors):
    """Exact nearest neighbours under cosine or Euclidean distance.

    Distances are float64: of the given rows for float64 data, and for float32 data of them or, for cosine, of unit rows rounded
    to float32. Equal distances come by smaller index, where scikit-learn leaves the order open. Candidates for float64 data are
    found in float32, with a margin of 8: rows that differ by less than that rounding for more than 8 places may be missed.

    Parameters
    ----------
    n_neighbors, radius : defaults of the two searches.
    algorithm, leaf_size : accepted; they change no answer, and there is one algorithm here.
    metric : "cosine", "euclidean", "l2", or "minkowski" with p = 2.
    p : see `metric`.
    metric_params : None.
    n_jobs : threads; None: `llmrec_fast.get_threads()`; -1: all cores.

    Raises
    ------
    InvalidInput : from `fit`, for what is not covered: other metrics, metric_params. Sparse X raises TypeError.

    Examples
    --------
    >>> from llmrec_fast.compat.sklearn import NearestNeighbors
    >>> neighbors = NearestNeighbors(n_neighbors=1).fit([[0, 0, 0], [0, 0.5, 0], [1, 1, 0.5]])
    >>> distances, indices = neighbors.kneighbors([[1, 1, 1]])
    >>> distances.tolist(), indices.tolist()
    ([[0.5]], [[2]])
    """

    def __init__(
        self,
        *,
        n_neighbors: int = 5,
        radius: float = 1.0,
        algorithm: str = "auto",
        leaf_size: int = 30,
        metric: str = "minkowski",
        p: float = 2,
        metric_params: None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.radius = radius
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.metric = metric
        self.p = p
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: object = None) -> NearestNeighbors:
        """Index the rows of X (n, d), or those of a fitted estimator or tree. y is ignored, by scikit-learn's convention."""
        self._fit(X)
        return self


class KNeighborsTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _KNeighbors):
    """X to the sparse graph of its neighbours among the fitted rows, as input of metric="precomputed" estimators.

    Parameters
    ----------
    mode : "distance" (one neighbour more than n_neighbors, since a fitted row finds itself) or "connectivity".
    n_neighbors : how many. The others are as of `NearestNeighbors`.
    """

    def __init__(
        self,
        *,
        mode: str = "distance",
        n_neighbors: int = 5,
        algorithm: str = "auto",
        leaf_size: int = 30,
        metric: str = "minkowski",
        p: float = 2,
        metric_params: None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.mode = mode
        self.n_neighbors = n_neighbors
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.metric = metric
        self.p = p
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: object = None) -> KNeighborsTransformer:
        """Index the rows of X (n, d)."""
        _check_mode(self.mode)
        self._fit(X)
        self._n_features_out = self.n_samples_fit_
        return self

    def transform(self, X: ArrayLike) -> Any:
        """The graph of the neighbours of X (m, d): (m, n_samples_fit_) scipy.sparse.csr_matrix."""
        check_is_fitted(self)
        return self.kneighbors_graph(X, self.n_neighbors + (self.mode == "distance"), self.mode)


class RadiusNeighborsTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin, _RadiusNeighbors):
    """X to the sparse graph of the fitted rows within a radius.

    Parameters
    ----------
    mode : "distance" or "connectivity".
    radius : the largest distance. The others are as of `NearestNeighbors`.
    """

    def __init__(
        self,
        *,
        mode: str = "distance",
        radius: float = 1.0,
        algorithm: str = "auto",
        leaf_size: int = 30,
        metric: str = "minkowski",
        p: float = 2,
        metric_params: None = None,
        n_jobs: int | None = None,
    ) -> None:
        self.mode = mode
        self.radius = radius
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.metric = metric
        self.p = p
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    def fit(self, X: ArrayLike, y: object = None) -> RadiusNeighborsTransformer:
        """Index the rows of X (n, d)."""
        _check_mode(self.mode)
        self._fit(X)
        self._n_features_out = self.n_samples_fit_
        return self

    def transform(self, X: ArrayLike) -> Any:
        """The graph of the neighbours of X (m, d): (m, n_samples_fit_) scipy.sparse.csr_matrix."""
        check_is_fitted(self)
        return self.radius_neighbors_graph(X, self.radius, mode=self.mode, sort_results=True)


def _check_mode(mode: str) -> None:
    if mode not in _MODES:
        raise InvalidInput(f"mode must be 'connectivity' or 'distance'; got {mode!r}")
