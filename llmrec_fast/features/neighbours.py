"""Models that are one item x item matrix: the score of an item is the sum of what each history item says of it.

    score of item j = sum over history h of weight_h * B[h, j]

They need no training for a user either, but memory for pairs of items where `collaborative` needs a row an item.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features.collaborative import CollaborativeVectors, check_matrix

_BLOCK_ITEMS = 1024
# largest side of which more singular vectors than a quarter are found, all at once: cubic time
_DENSE_SIDE = 2048
_LARGEST_DENSE_SIDE = 16384


@dataclass(frozen=True)
class ItemWeights:
    """What history items say of others: `matrix` is (n, n) float32, a scipy CSR matrix or an array, its diagonal 0."""

    matrix: Any

    def scores(self, histories: Any) -> Float32Array:
        """(users, n) float32 scores of all items, for a (users, n) scipy sparse matrix of history weights."""
        scores = histories @ self.matrix
        return np.asarray(scores if isinstance(scores, np.ndarray) else scores.toarray(), np.float32)

    def to_vectors(self, rank: int) -> CollaborativeVectors:
        """The nearest model of two vectors an item, in least squares: the leading singular vectors `U S V'` of the matrix.

        History vectors are `U sqrt(S)` and item vectors `V sqrt(S)`. At full rank the scores are those of the matrix.

        Parameters
        ----------
        rank : number of columns, at most the number of items; above 2,048 items at most a quarter of it.

        Raises
        ------
        InvalidInput : a rank below 1 or too large.
        """
        from scipy.sparse import issparse
        from scipy.sparse.linalg import svds

        from llmrec_fast.kernels.blas import one_blas_thread

        side = self.matrix.shape[0]
        rank = min(as_count(rank, "rank"), side)
        if rank <= side // 4:
            # many small products: more threads of BLAS would wait for one another
            with one_blas_thread():
                left, singular, right = svds(self.matrix.astype(np.float64), k=rank, v0=np.ones(side), solver="arpack")
            left, singular, right = left[:, ::-1], singular[::-1], right[::-1]
        elif side > _DENSE_SIDE:
            raise InvalidInput(f"for {side:,} items rank must be at most {side // 4:,}; got {rank:,}")
        else:
            dense = self.matrix.toarray() if issparse(self.matrix) else self.matrix
            left, singular, right = np.linalg.svd(dense.astype(np.float64))
        roots = np.sqrt(singular[:rank])
        history, items = left[:, :rank] * roots, right[:rank].T * roots
        return CollaborativeVectors(history.astype(np.float32), items.astype(np.float32))


def fit_exact_ease(matrix: Any, *, regularization: float = 500.0) -> ItemWeights:
    """EASE in closed form, `B = -P / diag(P)` with `P = (X'X + l I)^-1` and a diagonal of zeros.

    Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019. Takes cubic time and 8 bytes for each pair of items;
    `fit_ease` gives the same, or its best approximation of a rank, as vectors.

    Parameters
    ----------
    matrix : (users, items) scipy sparse matrix of interaction strengths.
    regularization : l, in units of squared strengths.

    Raises
    ------
    InvalidInput : a matrix without interactions or with values that are not finite, a regularization not above 0, more than
        16,384 items.
    """
    rows = check_matrix(matrix)
    if not 0 < regularization < np.inf:
        raise InvalidInput(f"regularization must be a positive number; got {regularization!r}")
    if rows.shape[1] > _LARGEST_DENSE_SIDE:
        raise InvalidInput(
            f"exact EASE takes at most {_LARGEST_DENSE_SIDE:,} items; got {rows.shape[1]:,}: use fit_ease with a rank"
        )
    gram = (rows.T @ rows).toarray()
    gram[np.diag_indices_from(gram)] += regularization
    precision = np.linalg.inv(gram)
    weights = -precision / np.diag(precision)
    np.fill_diagonal(weights, 0)
    return ItemWeights(weights.astype(np.float32))


def fit_item_knn(matrix: Any, k: int = 100, *, shrinkage: float = 10.0) -> ItemWeights:
    """Item-kNN: `B[h, j]` is the shrunk cosine `x_h . x_j / (|x_h| |x_j| + shrinkage)` if h is among the k nearest of j.

    Sarwar, Karypis, Konstan and Riedl, "Item-based collaborative filtering recommendation algorithms", WWW 2001, with the
    shrunk cosine of Dacrema, Cremonesi and Jannach, "Are we really making much progress?", RecSys 2019.

    Parameters
    ----------
    matrix : (users, items) scipy sparse matrix of interaction strengths.
    k : nearest items of each item that count; ties for the last place are won by the item that comes first.
    shrinkage : in units of squared strengths; larger trusts rare co-occurrences less. Not negative.

    Raises
    ------
    InvalidInput : as `fit_svd`; a negative shrinkage.
    """
    from scipy.sparse import csc_matrix, csr_matrix

    rows = check_matrix(matrix).tocsc()
    k = as_count(k, "k")
    if not 0 <= shrinkage < np.inf:
        raise InvalidInput(f"shrinkage must be a number that is not negative; got {shrinkage!r}")
    count = rows.shape[1]
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=0)).ravel())
    near, values, lengths = [], [], np.zeros(count, np.int64)
    by_item = rows.T.tocsr()
    for start in range(0, count, _BLOCK_ITEMS):
        block = (by_item[start : start + _BLOCK_ITEMS] @ rows).tocsr()
        block.sort_indices()
        for place in range(block.shape[0]):
            item, span = start + place, slice(block.indptr[place], block.indptr[place + 1])
            others = block.indices[span]
            products = block.data[span]
            wanted = (others != item) & (products != 0)
            others, products = others[wanted], products[wanted]
            cosines = products / (norms[item] * norms[others] + shrinkage)
            best = np.sort(np.argsort(-cosines, kind="stable")[:k])
            near.append(others[best])
            values.append(cosines[best].astype(np.float32))
            lengths[item] = len(best)
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    # column j holds the nearest of item j
    nearest = csc_matrix((np.concatenate(values), np.concatenate(near), indptr), shape=(count, count))
    return ItemWeights(csr_matrix(nearest))
