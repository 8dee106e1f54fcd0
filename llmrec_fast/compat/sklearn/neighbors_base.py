"""What the three estimators share: fitting an exact index, and searching it by number or by radius by scikit-learn's rules."""

# scikit-learn has no type information, so its classes are Any to mypy
# mypy: disable-error-code="import-untyped, import-not-found, misc, no-untyped-call"

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import ArrayLike, BoolArray, Float32Array, Float64Array, Int64Array, as_count
from llmrec_fast.compat.exact_search import FewRowsIndex, RowsIndex, unit_rows
from llmrec_fast.compat.ranges import blocks_of, few_within, indexed_within
from llmrec_fast.compat.sklearn.distances import metric_of, pair_distances, scaled
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.kernels.threads import available_cores

try:
    from sklearn.base import BaseEstimator
    from sklearn.neighbors import BallTree, KDTree
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingDependency(
        "llmrec_fast.compat.sklearn derives its estimators from scikit-learn's: pip install 'scikit-learn>=1.6'"
    ) from error

_ALGORITHMS = ("auto", "ball_tree", "kd_tree", "brute")
# float64 data are searched in float32 first: so many more candidates than asked for are then compared in float64
_SPARE = 8
# what rounding a vector to float32 may move it, relative to its length, with room to spare
_ROUNDING = 4 * float(np.finfo(np.float32).eps)


class NeighborsBase(BaseEstimator):
    """Fits an index to X; `kneighbors` and `radius_neighbors` search it. Parameters are those of the derived classes."""

    _fit_X: npt.NDArray[Any]

    def _fit(self, X: ArrayLike) -> None:
        metric = metric_of(self.metric, self.p, self.metric_params)
        if self.algorithm not in _ALGORITHMS:
            raise InvalidInput(f"algorithm must be one of {', '.join(_ALGORITHMS)}; got {self.algorithm!r}")
        if hasattr(self, "n_neighbors"):
            as_count(self.n_neighbors, "n_neighbors")
        if hasattr(self, "radius"):
            _check_radius(self.radius)
        threads = _threads(self.n_jobs)
        if isinstance(X, NeighborsBase):
            X = X._fit_X
        elif isinstance(X, BallTree | KDTree):
            X = np.asarray(X.data)
        rows: npt.NDArray[Any] = validate_data(self, X, order="C", dtype=[np.float64, np.float32], copy=True)
        self._fit_X = rows
        self.effective_metric_ = metric
        self.n_samples_fit_ = len(rows)
        # distances between float64 rows far from the origin would drown in float32; moving the origin moves no distance
        self._center = rows.mean(axis=0) if metric == "euclidean" and rows.dtype == np.float64 else None
        narrow = self._as_float32(rows)
        self._longest_row = _longest(narrow) if metric == "euclidean" else 1.0
        self._index = RowsIndex(narrow, metric, threads)

    def kneighbors(
        self, X: ArrayLike | None = None, n_neighbors: int | None = None, return_distance: bool = True
    ) -> Any:
        """The nearest rows that the estimator was fitted to, nearest first, equally near ones by smaller index.

        Parameters
        ----------
        X : (n, d) queries; None: the fitted rows themselves, each without itself (as in scikit-learn: one that has more than
            n_neighbors copies of smaller index, without the first of these).
        n_neighbors : how many; None: what the constructor was given.
        return_distance : whether distances are returned too.

        Returns
        -------
        distances : (n, n_neighbors) float64, if asked for; indices : (n, n_neighbors) int64.

        Raises
        ------
        InvalidInput : more neighbours than rows, or below 1.
        """
        check_is_fitted(self)
        k = as_count(self.n_neighbors if n_neighbors is None else n_neighbors, "n_neighbors")
        queries = self._queries(X)
        available = self.n_samples_fit_ - (X is None)
        if k > available:
            raise InvalidInput(
                f"Expected n_neighbors {'<' if X is None else '<='} n_samples_fit, but n_neighbors = {k}, "
                f"n_samples_fit = {self.n_samples_fit_}, n_samples = {len(queries)}"
            )
        refine = np.float64 in (queries.dtype, self._fit_X.dtype)
        with_itself = k + (X is None)
        wanted = min(with_itself + _SPARE, self.n_samples_fit_) if refine else with_itself
        found = self._searchable().search(self._as_float32(queries), wanted)
        if refine:
            distances, indices = self._refined(queries, found.ids, with_itself)
        else:
            indices = found.ids
            distances = -found.scores if self.effective_metric_ == "euclidean" else np.clip(1 - found.scores, 0, 2)
            distances += 0.0  # no negative zeros
        if X is None:
            others = indices != np.arange(len(indices))[:, None]
            others[others.all(axis=1), 0] = False
            distances, indices = distances[others].reshape(-1, k), indices[others].reshape(-1, k)
        return (distances, indices) if return_distance else indices

    def radius_neighbors(
        self,
        X: ArrayLike | None = None,
        radius: float | None = None,
        return_distance: bool = True,
        sort_results: bool = False,
    ) -> Any:
        """All fitted rows within a radius, its boundary included.

        Parameters
        ----------
        X : (n, d) queries; None: the fitted rows themselves, each without itself.
        radius : the largest distance; None: what the constructor was given.
        return_distance : whether distances are returned too.
        sort_results : nearest first, equally near ones by smaller index, instead of by index.

        Returns
        -------
        distances, if asked for, and indices : (n,) object arrays of one-dimensional float64 and int64 arrays.
        """
        check_is_fitted(self)
        if sort_results and not return_distance:
            raise InvalidInput("return_distance must be True if sort_results is True")
        limit = _check_radius(self.radius if radius is None else radius)
        queries = self._queries(X)
        left, right, distances = self._within(queries, limit)
        keep = distances <= limit
        if X is None:
            keep &= left != right
        left, right, distances = left[keep], right[keep], distances[keep]
        if sort_results:
            order = np.lexsort((right, distances, left))
            right, distances = right[order], distances[order]
        limits = np.searchsorted(left, np.arange(1, len(queries)))
        indices = _ragged(np.split(right, limits))
        return (_ragged(np.split(distances, limits)), indices) if return_distance else indices

    def _graph(self, indptr: Int64Array, indices: Int64Array, values: Float64Array) -> Any:
        from scipy.sparse import csr_matrix

        return csr_matrix((values, indices, indptr), shape=(len(indptr) - 1, self.n_samples_fit_))

    def _queries(self, X: ArrayLike | None) -> npt.NDArray[Any]:
        if X is None:
            rows: npt.NDArray[Any] = self._fit_X
            return rows
        checked: npt.NDArray[Any] = validate_data(self, X, reset=False, order="C", dtype=[np.float64, np.float32])
        return checked

    def _as_float32(self, rows: npt.NDArray[Any]) -> Float32Array:
        if self.effective_metric_ == "cosine" and rows.dtype == np.float64:
            rows = scaled(rows)  # beyond float32's range, directions are kept
        elif self._center is not None:
            rows = rows - self._center
        return np.ascontiguousarray(rows, dtype=np.float32)

    def _refined(self, queries: npt.NDArray[Any], candidates: Int64Array, k: int) -> tuple[Float64Array, Int64Array]:
        at_query = np.repeat(np.arange(len(candidates)), candidates.shape[1])
        flat = pair_distances(queries, self._fit_X, at_query, candidates.ravel(), self.effective_metric_)
        distances = flat.reshape(candidates.shape)
        order = np.lexsort((candidates, distances))[:, :k]
        return np.take_along_axis(distances, order, 1), np.take_along_axis(candidates, order, 1)

    def _within(self, queries: npt.NDArray[Any], limit: float) -> tuple[Int64Array, Int64Array, Float64Array]:
        """(query, row, exact distance) of all pairs whose distance may be at most `limit`, in order."""
        left, index = self._as_float32(queries), self._searchable()
        euclidean = self.effective_metric_ == "euclidean"
        if euclidean:
            longest = max(_longest(left), self._longest_row)
            threshold = (limit + 2 * _ROUNDING * longest) ** 2
        else:
            left = unit_rows(left)
            threshold = 1 - limit - 4 * _ROUNDING

        def judge(scores: Float64Array) -> BoolArray:
            return scores <= threshold if euclidean else scores >= threshold

        def blocks() -> Iterable[tuple[Int64Array, Float32Array]]:
            rows = self._as_float32(self._fit_X)
            return blocks_of(rows if euclidean else unit_rows(rows))

        if isinstance(index.index, FewRowsIndex):
            found = few_within(left, index.index.few, threshold, judge, euclidean=euclidean)
        else:
            found = indexed_within(index.index, left, blocks, threshold, judge, euclidean=euclidean)
        at_query = np.repeat(np.arange(len(queries)), np.diff(found.indptr))
        exact = pair_distances(queries, self._fit_X, at_query, found.positions, self.effective_metric_)
        return at_query, found.positions, exact

    def _searchable(self) -> RowsIndex:
        if self._index is None:  # after unpickling
            rows = self._as_float32(self._fit_X)
            self._index = RowsIndex(rows, self.effective_metric_, _threads(self.n_jobs))
        index: RowsIndex = self._index
        return index

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "_index" in state:
            state["_index"] = None  # built again when it is needed: the rows are there
        return state


def _longest(rows: Float32Array) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64).max(initial=0)))


def _ragged(parts: list[npt.NDArray[Any]]) -> npt.NDArray[np.object_]:
    result = np.empty(len(parts), object)
    for position, part in enumerate(parts):
        result[position] = part
    return result


def _check_radius(radius: object) -> float:
    if isinstance(radius, bool) or not isinstance(radius, int | float | np.number) or not radius >= 0:
        raise InvalidInput(f"radius must be a number of at least 0; got {radius!r}")
    return float(radius)


def _threads(n_jobs: int | None) -> int | None:
    """scikit-learn's n_jobs: None leaves it to the package, -1 is all cores, -2 all but one."""
    if n_jobs is None:
        return None
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int | np.integer) or n_jobs == 0:
        raise InvalidInput(f"n_jobs must be None or an integer other than 0; got {n_jobs!r}")
    return int(n_jobs) if n_jobs > 0 else max(1, available_cores() + 1 + int(n_jobs))
