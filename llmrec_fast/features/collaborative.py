"""Collaborative vectors: items near each other because the same people chose them, learned from the interaction matrix.

Every method here gives two vectors an item, one for when it stands in a history and one for when it is scored:

    user = sum over history h of weight_h * history_vectors[h]        score of item j = user . item_vectors[j]

so that users need no training of their own: a new user, or a new weighting of a history, is one pass of the `pool` kernel, and
every score is exactly the sum of what each history item adds to it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, as_count
from llmrec_fast.errors import InvalidInput, MissingDependency

# Below this side the dense eigenproblem takes seconds and is exact; above, the Lanczos method finds the leading part.
_DENSE_SIDE = 2048
# What is not a small share of the spectrum is dense work: 8 bytes x side^2, cubic time.
_LARGEST_DENSE_SIDE = 16384
# Eigenvalues below this share of the largest are rounding noise of a matrix that has no such direction.
_NOISE = 1e-10


@dataclass(frozen=True)
class CollaborativeVectors:
    """Vectors of items in one collaborative space.

    Attributes
    ----------
    history_vectors : (n, r) float32, to be summed to user vectors. An item that nobody chose has zeros.
    item_vectors : (n, r) float32, to be scored against user vectors.
    """

    history_vectors: Float32Array
    item_vectors: Float32Array

    def scores(self, histories: Any) -> Float32Array:
        """(users, n) float32 scores of all items, for a (users, n) scipy sparse matrix of history weights."""
        users = np.asarray(histories @ self.history_vectors, np.float32)
        scores: Float32Array = users @ self.item_vectors.T
        return scores


def fit_svd(matrix: Any, rank: int = 32) -> CollaborativeVectors:
    """PureSVD: the leading right singular vectors V of the interaction matrix; `score = history @ V @ V.T`.

    Cremonesi, Koren and Turrin, "Performance of recommender algorithms on top-N recommendation tasks", RecSys 2010.

    Parameters
    ----------
    matrix : (users, items) scipy sparse matrix of interaction strengths.
    rank : number of columns, at most the smaller side of the matrix.

    Raises
    ------
    InvalidInput : a matrix without interactions, values that are not finite, a rank below 1 or too large for the matrix.
    """
    rows = check_matrix(matrix)
    _, directions = _spectrum(rows, rank)
    vectors = directions.astype(np.float32)
    return CollaborativeVectors(vectors, vectors)


def fit_ease(matrix: Any, rank: int | None = 256, *, regularization: float = 500.0) -> CollaborativeVectors:
    """EASE as dense vectors, one inner product away from its scores.

    EASE (Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019) scores item j by
    `sum_h x_h * -P_hj / P_jj` with `P = (X'X + l I)^-1`. With the eigenvectors `X'X = U diag(g) U'`,

        P = I / l - U diag(s) U',    s = g / (l (g + l)),

    so for an item j that is not in the history (`h != j`) the score is `sum_h x_h (A_h . A_j) / P_jj` with
    `A = U diag(sqrt s)`: the history vectors are `A`, the item vectors `A_j / P_jj`. With all eigenvectors that is EASE
    exactly; with the leading `rank` of them it is EASE of the best rank-`rank` approximation of X'X. The two sides differ
    by a factor an item, so their cosines agree. For items of the history itself EASE forbids what this does not: leave
    them out of the ranking.

    Parameters
    ----------
    matrix : (users, items) scipy sparse matrix of interaction strengths.
    rank : number of columns, at most the smaller side of the matrix; None for all.
    regularization : l, in units of squared strengths (interactions an item); larger trusts rare co-occurrences less.

    Raises
    ------
    InvalidInput : as `fit_svd`; a regularization not above 0.
    """
    rows = check_matrix(matrix)
    if not 0 < regularization < np.inf:
        raise InvalidInput(f"regularization must be a positive number; got {regularization!r}")
    eigenvalues, directions = _spectrum(rows, rank)
    gains = eigenvalues / (regularization * (eigenvalues + regularization))
    precision_diagonal = 1 / regularization - np.square(directions) @ gains
    # the scale of a score is free: with sqrt(l) on both sides vectors have lengths near 1
    history = directions * np.sqrt(gains * regularization)
    items = history / (precision_diagonal * regularization)[:, None]
    return CollaborativeVectors(history.astype(np.float32), items.astype(np.float32))


def fit_als(
    matrix: Any,
    rank: int = 64,
    *,
    regularization: float = 10.0,
    confidence: float = 1.0,
    iterations: int = 15,
    seed: int = 0,
    threads: int | None = None,
) -> CollaborativeVectors:
    """Implicit alternating least squares, by the library `implicit` (Hu, Koren and Volinsky, ICDM 2008).

    The library gives item factors Y. A user's own least-squares solution depends on which items the history holds; here all
    items are weighed as unobserved ones are, `user = (Y'Y + l I)^-1 sum_h x_h y_h`, which is a sum over the history.

    Parameters
    ----------
    matrix : (users, items) scipy sparse matrix of interaction strengths.
    rank : number of factors.
    regularization : l.
    confidence : by what the strengths are multiplied (alpha of the paper).
    iterations : alternations.
    seed : of the random start; the same seed gives the same vectors with `threads=1`.
    threads : for the training (default: all cores of the affinity mask).

    Raises
    ------
    MissingDependency : `implicit` is not installed.
    InvalidInput : as `fit_ease`.
    """
    rows = check_matrix(matrix)
    as_count(rank, "rank")
    as_count(iterations, "iterations")
    if not 0 < regularization < np.inf or not 0 < confidence < np.inf:
        raise InvalidInput(f"regularization and confidence must be positive; got {regularization!r} and {confidence!r}")
    try:
        from implicit.als import AlternatingLeastSquares
    except ImportError as error:
        raise MissingDependency("alternating least squares needs implicit: pip install implicit") from error
    model = _train_implicit(
        AlternatingLeastSquares,
        rows,
        threads,
        factors=rank,
        regularization=regularization,
        alpha=confidence,
        iterations=iterations,
        random_state=seed,
        dtype=np.float64,
    )
    factors = np.asarray(model.item_factors, np.float64)
    solver = np.linalg.inv(factors.T @ factors + regularization * np.eye(rank))
    return CollaborativeVectors((factors @ solver).astype(np.float32), factors.astype(np.float32))


def fit_bpr(
    matrix: Any,
    rank: int = 64,
    *,
    learning_rate: float = 0.01,
    regularization: float = 0.01,
    iterations: int = 100,
    seed: int = 0,
    threads: int | None = None,
) -> CollaborativeVectors:
    """Bayesian personalised ranking, by the library `implicit` (Rendle, Freudenthaler, Gantner and Schmidt-Thieme, UAI 2009).

    The library gives user factors U and item factors Y, a bias of the items among them. Users of BPR are parameters of their
    own; here a user is `sum_h x_h y_h M`, with the map M that comes nearest to U in least squares over the users of `matrix`.

    Parameters
    ----------
    matrix : (users, items) scipy sparse matrix; what is not 0 was chosen, how strongly does not matter to the training.
    rank : number of factors, the bias apart: vectors have rank + 1 columns.
    learning_rate, regularization : of the stochastic gradient.
    iterations : passes over the interactions.
    seed : of start and samples; the same seed gives the same vectors with `threads=1`.
    threads : for the training (default: all cores of the affinity mask).

    Raises
    ------
    MissingDependency : `implicit` is not installed.
    InvalidInput : as `fit_ease`.
    """
    rows = check_matrix(matrix)
    as_count(rank, "rank")
    as_count(iterations, "iterations")
    if not 0 < regularization < np.inf or not 0 < learning_rate < np.inf:
        raise InvalidInput(
            f"regularization and learning_rate must be positive; got {regularization!r} and {learning_rate!r}"
        )
    try:
        from implicit.bpr import BayesianPersonalizedRanking
    except ImportError as error:
        raise MissingDependency("personalised ranking needs implicit: pip install implicit") from error
    rows.eliminate_zeros()
    model = _train_implicit(
        BayesianPersonalizedRanking,
        rows.astype(np.float32),
        threads,
        factors=rank,
        learning_rate=learning_rate,
        regularization=regularization,
        iterations=iterations,
        random_state=seed,
    )
    users, items = np.asarray(model.user_factors, np.float64), np.asarray(model.item_factors, np.float64)
    known = np.diff(rows.indptr) > 0
    nearest = np.linalg.lstsq((rows @ items)[known], users[known], rcond=None)[0]
    return CollaborativeVectors((items @ nearest).astype(np.float32), items.astype(np.float32))


def _train_implicit(kind: Any, rows: Any, threads: int | None, **settings: Any) -> Any:
    """A model of implicit, trained on the CPU."""
    from llmrec_fast.kernels.blas import one_blas_thread
    from llmrec_fast.kernels.threads import get_threads

    count = get_threads() if threads is None else as_count(threads, "threads")
    # implicit has threads of its own, and each of them would start those of BLAS
    with one_blas_thread():
        model = kind(num_threads=count, use_gpu=False, **settings)
        model.fit(rows, show_progress=False)
    return model


def fit_nmf(matrix: Any, rank: int = 32, *, iterations: int = 200, seed: int = 0) -> CollaborativeVectors:
    """Non-negative matrix factorisation X ~ W H of least squared error, by scikit-learn (Lee and Seung, NIPS 2000).

    A user is the projection on the rows of H, `x H' (H H')^+`, which unlike the user's own row of W is a sum over the history
    (and may be negative).

    Parameters
    ----------
    matrix : (users, items) scipy sparse matrix of interaction strengths, not negative.
    rank : number of components, at most the smaller side of the matrix.
    iterations : of coordinate descent, at most.
    seed : of what fills the zeros of the start (NNDSVD); the same seed gives the same vectors.

    Raises
    ------
    MissingDependency : scikit-learn is not installed.
    InvalidInput : as `fit_svd`; a negative value.
    """
    rows = check_matrix(matrix)
    rank = min(as_count(rank, "rank"), *rows.shape)
    as_count(iterations, "iterations")
    if rows.data.min() < 0:
        raise InvalidInput(f"the interaction matrix must not be negative; its least value is {rows.data.min():g}")
    try:
        from sklearn.decomposition import NMF
        from sklearn.exceptions import ConvergenceWarning
    except ImportError as error:
        raise MissingDependency("matrix factorisation needs scikit-learn: pip install scikit-learn") from error

    model = NMF(rank, init="nndsvdar", max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `iterations` is the caller's bound
        model.fit(rows)
    parts = np.asarray(model.components_, np.float64)
    history = parts.T @ np.linalg.pinv(parts @ parts.T, hermitian=True)
    return CollaborativeVectors(history.astype(np.float32), parts.T.astype(np.float32))


def check_matrix(matrix: Any) -> Any:
    """`matrix` as a float64 CSR matrix with at least one finite, non-zero value."""
    import scipy.sparse

    if not scipy.sparse.issparse(matrix):
        raise InvalidInput(f"matrix must be a scipy sparse matrix; got {type(matrix).__name__}")
    rows = scipy.sparse.csr_matrix(matrix, dtype=np.float64)
    if not rows.nnz or not rows.data.any():
        raise InvalidInput(f"the interaction matrix {rows.shape} is empty: there is nothing to learn from")
    if not np.isfinite(rows.data).all():
        bad = int(np.searchsorted(rows.indptr, np.argmin(np.isfinite(rows.data)), side="right")) - 1
        raise InvalidInput(f"the interaction matrix holds NaN or infinite values; the first in row {bad}")
    return rows


def _spectrum(matrix: Any, rank: int | None) -> tuple[Float64Array, Float64Array]:
    """The leading eigenvalues (r,) of X'X, largest first, and their eigenvectors (items, r); deterministic.

    Solves the smaller of the two Gram matrices: X'X and XX' share their eigenvalues, and if XX'v = g v then X'v / sqrt(g)
    is the eigenvector of X'X.
    """
    users, items = matrix.shape
    side = min(users, items)
    rank = side if rank is None else min(as_count(rank, "rank"), side)
    if side <= _DENSE_SIDE or rank > side // 4:
        if side > _LARGEST_DENSE_SIDE:
            raise InvalidInput(f"for a matrix of shape {matrix.shape} rank must be at most {side // 4}; got {rank}")
        small = matrix @ matrix.T if users <= items else matrix.T @ matrix
        eigenvalues, vectors = np.linalg.eigh(small.toarray())
        eigenvalues, vectors = eigenvalues[::-1][:rank], vectors[:, ::-1][:, :rank]
        real = eigenvalues > _NOISE * eigenvalues[0]
        if users <= items:
            roots = np.sqrt(np.where(real, eigenvalues, 1))
            vectors = (matrix.T @ vectors) / roots
    else:
        from scipy.sparse.linalg import svds

        _, singular, right = svds(matrix, k=rank, v0=np.ones(side), return_singular_vectors="vh", solver="arpack")
        order = np.argsort(-singular)
        eigenvalues, vectors = np.square(singular[order]), right[order].T
        real = eigenvalues > _NOISE * eigenvalues[0]
    eigenvalues, vectors = np.where(real, eigenvalues, 0), np.where(real, vectors, 0)
    return eigenvalues, _fix_signs(vectors)


def _fix_signs(vectors: Float64Array) -> Float64Array:
    """Eigenvectors are free in sign: make the largest component of each positive, so that fits repeat."""
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(vectors.shape[1])]
    signed: Float64Array = vectors * np.where(largest < 0, -1.0, 1.0)
    return signed
