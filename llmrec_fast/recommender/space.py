"""The space in which a score is one inner product and still reads as a sum over features.

An item's row is `[x_1 | x_2 | ... | prior]`, each block x_f of unit norm (or zero where the item lacks the feature). A query
is `[w_1 u_1 | w_2 u_2 | ... | w_p]` with unit blocks u_f. Their product is

    score = sum_f w_f cos_f(u, x) + w_p prior(x)

Weights sit in the query alone, so one index serves every weighting: the tuned one, text only for a search by words, no
prior for similar items. Nothing here knows users, texts or ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import Float32Array, Float64Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Fusion

PRIOR = "popularity"


@dataclass(frozen=True)
class WeightedHistories:
    """For each query the items that describe it, oldest first, and how much each counts.

    Attributes
    ----------
    indptr : (queries + 1,) int64; query q owns the positions `indptr[q] .. indptr[q + 1]` of the other two.
    items : (m,) int64 positions in the catalogue.
    weights : (m,) float32.
    """

    indptr: Int64Array
    items: Int64Array
    weights: Float32Array

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def of(self, query: int) -> tuple[Int64Array, Float32Array]:
        """Items and weights of one query."""
        part = slice(int(self.indptr[query]), int(self.indptr[query + 1]))
        return self.items[part], self.weights[part]

    def take(self, queries: Int64Array) -> WeightedHistories:
        """The histories of `queries`, in that order."""
        lengths = np.diff(self.indptr)[queries]
        indptr = np.concatenate(([0], np.cumsum(lengths)))
        places = np.arange(indptr[-1]) + np.repeat(self.indptr[queries] - indptr[:-1], lengths)
        return WeightedHistories(indptr, self.items[places], self.weights[places])


class FusedSpace:
    """Item vectors by feature and a prior, joined into the rows that the index stores."""

    def __init__(self, features: Mapping[str, Float32Array], prior: Float32Array) -> None:
        """Take float32 matrices (n, d_f) by name and the prior (n,); every matrix has a row for every item."""
        if PRIOR in features:
            raise InvalidInput(f"{PRIOR!r} is the name of the prior; call the feature something else")
        for name, vectors in features.items():
            if len(vectors) != len(prior):
                raise InvalidInput(f"feature {name!r} has {len(vectors)} rows; expected {len(prior)}, one an item")
        self.features = dict(features)
        self.prior = prior
        # equal weights: blocks become unit vectors side by side
        self._blocks = Fusion(dict.fromkeys(features, 1.0)) if features else None

    @property
    def names(self) -> tuple[str, ...]:
        """The features, without the prior."""
        return tuple(self.features)

    @property
    def dimension(self) -> int:
        """Columns of a row: those of all features and one for the prior."""
        return sum(self._widths()) + 1

    def rows(self, start: int = 0) -> Float32Array:
        """The (n - start, dimension) float32 rows for the index, from item `start` on."""
        fused = self._fuse({name: vectors[start:] for name, vectors in self.features.items()}, len(self.prior) - start)
        fused[:, -1] = self.prior[start:]
        return fused

    def queries(self, profiles: Mapping[str, Float32Array], weights: Mapping[str, float], count: int) -> Float32Array:
        """(count, dimension) float32 queries from profiles (count, d_f); a feature without a profile adds nothing."""
        self.check_weights(weights)
        missing = {
            name: np.zeros((count, vectors.shape[1]), np.float32)
            for name, vectors in self.features.items()
            if name not in profiles
        }
        fused = self._fuse({**profiles, **missing}, count)
        fused[:, -1] = 1
        return fused * self._column_weights(weights)

    def profiles(self, histories: WeightedHistories) -> dict[str, Float32Array]:
        """For each feature the weighted sums (q, d_f) of the vectors of the history items. Reads those vectors only."""
        # the kernel itself, since its callers' checks would read whole matrices in every request
        from llmrec_fast.kernels.cpu import pool

        starts, lengths = histories.indptr[:-1], np.diff(histories.indptr)
        return {
            name: pool(vectors, starts, lengths, index=histories.items, weights=histories.weights, mode="sum")
            for name, vectors in self.features.items()
        }

    def by_feature(self, query: Float32Array, row: Float32Array) -> dict[str, float]:
        """The share of each feature and the prior in `query . row`, in float64; they sum to it exactly."""
        products = query.astype(np.float64) * row.astype(np.float64)
        shares, start = {}, 0
        for name, width in zip(self.features, self._widths(), strict=True):
            shares[name] = float(products[start : start + width].sum())
            start += width
        return shares | {PRIOR: float(products[-1])}

    def by_history(
        self, items: Int64Array, item_weights: Float32Array, target: int, weights: Mapping[str, float]
    ) -> dict[str, Float64Array]:
        """For each weighted feature what each history item adds to the score of item `target`, (h,) float64."""
        counted = {name: weight for name, weight in weights.items() if name != PRIOR and weight > 0}
        if not counted:
            return {}
        return Fusion(counted).explain_history(
            {name: self.features[name][items] for name in counted},
            item_weights,
            {name: self.features[name][target] for name in counted},
        )

    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Raise `InvalidInput` for a weight of an unknown feature, or one that is negative or not finite."""
        for name, weight in weights.items():
            if name != PRIOR and name not in self.features:
                known = ", ".join([*self.features, PRIOR])
                raise InvalidInput(f"there is a weight for {name!r}, which is no feature here; features: {known}")
            if not 0 <= weight < np.inf:
                raise InvalidInput(f"the weight of {name!r} must be finite and not negative; got {weight}")

    def extended(self, features: Mapping[str, Float32Array], prior: Float32Array) -> FusedSpace:
        """A space with further items; features that are not given are zero for them."""
        count = len(prior)
        return FusedSpace(
            {
                name: np.concatenate([vectors, features.get(name, np.zeros((count, vectors.shape[1]), np.float32))])
                for name, vectors in self.features.items()
            },
            np.concatenate([self.prior, prior]),
        )

    def _fuse(self, blocks: Mapping[str, Float32Array], count: int) -> Float32Array:
        """Unit blocks side by side, with the prior's column (still unset) behind them."""
        fused = np.empty((count, self.dimension), np.float32)
        if self._blocks is not None:
            fused[:, :-1] = self._blocks.fuse(blocks)
        return fused

    def _widths(self) -> list[int]:
        return [vectors.shape[1] for vectors in self.features.values()]

    def _column_weights(self, weights: Mapping[str, float]) -> Float32Array:
        values = [weights.get(name, 0.0) for name in (*self.features, PRIOR)]
        return np.repeat(np.array(values, np.float32), [*self._widths(), 1])
