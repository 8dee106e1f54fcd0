"""The space in which a score is one inner product and still reads as a sum over features.

An item's row is `[x_1 | x_2 | ... | prior]`, each block x_f of unit norm (or zero where the item lacks the feature). A query
is `[w_1 u_1 | w_2 u_2 | ... | w_p]` with unit blocks u_f. Their product is

    score = sum_f w_f cos_f(u, x) + w_p prior(x)

Weights sit in the query alone, so one index serves every weighting: the tuned one, text only for a search by words, no
prior for similar items. Nothing here knows users, texts or ids.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Float64Array, Int64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Fusion
from llmrec_fast.recommender.histories import WeightedHistories

PRIOR = "popularity"
_LEAST_CAPACITY = 1024

Attend: TypeAlias = Callable[[Float32Array], Float32Array]


class _GrowingRows:
    """An array with room behind its rows. Rows that have been shown never change, so views stay right while it grows."""

    def __init__(self, rows: Float32Array) -> None:
        self._buffer = rows

    def put(self, start: int, rows: Float32Array) -> Float32Array:
        """Write `rows` from row `start` on, which is where what anyone has seen ends; returns all rows up to their end."""
        stop = start + len(rows)
        if stop > len(self._buffer):
            shape = (max(stop, 2 * len(self._buffer), _LEAST_CAPACITY), *self._buffer.shape[1:])
            grown = np.empty(shape, np.float32)
            grown[:start] = self._buffer[:start]
            self._buffer = grown
        self._buffer[start:stop] = rows
        return self._buffer[:stop]


class FusedSpace:
    """Item vectors by feature and a prior, joined into the rows that the index stores. Immutable.

    An item is known by its position in the catalogue. `row_of` says in which row of `features` and `prior` it is described:
    None where position and row are the same, as they are until the first item is changed; -1 for a removed item.
    """

    def __init__(
        self,
        features: Mapping[str, Float32Array],
        prior: Float32Array,
        *,
        history_tables: Mapping[str, str] | None = None,
        attention: Mapping[str, Attend] | None = None,
    ) -> None:
        """Take float32 matrices (n, d_f) by name and the prior (n,); every matrix has a row for every item.

        history_tables : feature -> the matrix among `features` that describes its items where they stand in a history, for a
            feature whose items have two sides. That matrix is no feature of its own.
        attention : feature -> function from the vectors (h, d_f) of one history to factors (h,) of its weights.
        """
        if PRIOR in features:
            raise InvalidInput(f"{PRIOR!r} is the name of the prior; call the feature something else")
        for name, vectors in features.items():
            if len(vectors) != len(prior):
                raise InvalidInput(f"feature {name!r} has {len(vectors)} rows; expected {len(prior)}, one an item")
        self.features = dict(features)
        self.prior = prior
        self.history_tables = dict(history_tables or {})
        self.attention = dict(attention or {})
        self.row_of: Int64Array | None = None
        self._growing = {name: _GrowingRows(vectors) for name, vectors in features.items()}
        self._growing_prior = _GrowingRows(prior)
        # equal weights: blocks become unit vectors side by side
        self._blocks = Fusion(dict.fromkeys(self.names, 1.0)) if features else None

    @property
    def names(self) -> tuple[str, ...]:
        """The features, without the prior."""
        return tuple(name for name in self.features if name not in self.history_tables.values())

    @property
    def dimension(self) -> int:
        """Columns of a row: those of all features and one for the prior."""
        return sum(self._widths()) + 1

    @property
    def positions(self) -> int:
        """Number of positions in the catalogue, those of removed items included."""
        return len(self.prior) if self.row_of is None else len(self.row_of)

    @property
    def live(self) -> BoolArray | None:
        """(positions,) which items have not been removed; None for all."""
        return None if self.row_of is None or (self.row_of >= 0).all() else self.row_of >= 0

    def at(self, positions: Int64Array) -> Int64Array:
        """The rows of `features` and `prior` that describe the items at `positions`."""
        return positions if self.row_of is None else self.row_of[positions]

    def vectors(self, name: str, positions: Int64Array) -> Float32Array:
        """(n, d) float32: feature `name` of the items at `positions`."""
        return self.features[name][self.at(positions)]

    def rows(self, positions: Int64Array | None = None) -> Float32Array:
        """The (n, dimension) float32 rows for the index, of the items at `positions` or of all."""
        if positions is None and self.row_of is None:
            vectors, prior = self.features, self.prior
        else:
            rows = self.at(np.arange(self.positions) if positions is None else positions)
            vectors, prior = {name: values[rows] for name, values in self.features.items()}, self.prior[rows]
        fused = self._fuse(vectors, len(prior))
        fused[:, -1] = prior
        return fused

    def queries(self, profiles: Mapping[str, Float32Array], weights: Mapping[str, float], count: int) -> Float32Array:
        """(count, dimension) float32 queries from profiles (count, d_f); a feature without a profile adds nothing."""
        self.check_weights(weights)
        missing = {
            name: np.zeros((count, self.features[name].shape[1]), np.float32)
            for name in self.names
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
        rows = self.at(histories.items)
        return {
            name: pool(
                self.features[self._of_histories(name)],
                starts,
                lengths,
                index=rows,
                weights=self._attended(name, histories.indptr, rows, histories.weights),
                mode="sum",
            )
            for name in self.names
        }

    def by_feature(self, query: Float32Array, row: Float32Array) -> dict[str, float]:
        """The share of each feature and the prior in `query . row`, in float64; they sum to it exactly."""
        products = query.astype(np.float64) * row.astype(np.float64)
        shares, start = {}, 0
        for name, width in zip(self.names, self._widths(), strict=True):
            shares[name] = float(products[start : start + width].sum())
            start += width
        return shares | {PRIOR: float(products[-1])}

    def by_history(
        self, items: Int64Array, item_weights: Float32Array, target: int, weights: Mapping[str, float]
    ) -> dict[str, Float64Array]:
        """For each weighted feature what each history item adds to the score of item `target`, (h,) float64."""
        counted = {name: weight for name, weight in weights.items() if name != PRIOR and weight > 0}
        rows, indptr = self.at(items), np.array([0, len(items)])
        shares: dict[str, Float64Array] = {}
        for name, weight in counted.items():
            shares |= Fusion({name: weight}).explain_history(
                {name: self.vectors(self._of_histories(name), items)},
                self._attended(name, indptr, rows, item_weights),
                {name: self.vectors(name, np.array([target]))[0]},
            )
        return shares

    def check_weights(self, weights: Mapping[str, float]) -> None:
        """Raise `InvalidInput` for a weight of an unknown feature, or one that is negative or not finite."""
        for name, weight in weights.items():
            if name != PRIOR and name not in self.names:
                known = ", ".join([*self.names, PRIOR])
                raise InvalidInput(f"there is a weight for {name!r}, which is no feature here; features: {known}")
            if not 0 <= weight < np.inf:
                raise InvalidInput(f"the weight of {name!r} must be finite and not negative; got {weight}")

    def written(self, positions: Int64Array, features: Mapping[str, Float32Array]) -> FusedSpace:
        """A space in which the items at `positions` are described anew; those from `self.positions` on are new.

        A feature that is not given stays what it was for a known item, and so does the prior; both are zero for a new one.
        New positions must follow the known ones without a gap. Copies what is written, and 8 bytes an item.
        """
        known = positions < self.positions
        old_rows, start = self.at(positions[known]), len(self.prior)
        made = {}
        for name, vectors in self.features.items():
            rows = features.get(name)
            if rows is None:
                rows = np.zeros((len(positions), vectors.shape[1]), np.float32)
                rows[known] = vectors[old_rows]
            made[name] = self._growing[name].put(start, rows)
        prior = np.zeros(len(positions), np.float32)
        prior[known] = self.prior[old_rows]
        return self._with(made, self._growing_prior.put(start, prior), self._moved(positions, start))

    def removed(self, positions: Int64Array) -> FusedSpace:
        """A space without the items at `positions`."""
        row_of = np.arange(self.positions) if self.row_of is None else self.row_of.copy()
        row_of[positions] = -1
        return self._with(self.features, self.prior, row_of)

    def _moved(self, positions: Int64Array, start: int) -> Int64Array | None:
        """`row_of` when the items at `positions` lie in the rows from `start` on."""
        new_rows = np.arange(start, start + len(positions))
        if self.row_of is None and (positions == new_rows).all():
            return None
        row_of = np.empty(max(self.positions, int(positions.max(initial=-1)) + 1), np.int64)
        row_of[: self.positions] = np.arange(self.positions) if self.row_of is None else self.row_of
        row_of[positions] = new_rows
        return row_of

    def _with(self, features: Mapping[str, Float32Array], prior: Float32Array, row_of: Int64Array | None) -> FusedSpace:
        space = copy.copy(self)
        space.features, space.prior, space.row_of = dict(features), prior, row_of
        return space

    def _of_histories(self, name: str) -> str:
        """The matrix that describes the items of a history for feature `name`."""
        return self.history_tables.get(name, name)

    def _attended(self, name: str, indptr: Int64Array, rows: Int64Array, weights: Float32Array) -> Float32Array:
        """The weights of histories for feature `name`: those given, times what attention makes of each history."""
        attend = self.attention.get(name)
        if attend is None:
            return weights
        vectors, factors = self.features[self._of_histories(name)], np.ones(len(rows), np.float32)
        for start, stop in zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True):
            if stop > start:
                factors[start:stop] = attend(vectors[rows[start:stop]])
        return weights * factors

    def _fuse(self, blocks: Mapping[str, Float32Array], count: int) -> Float32Array:
        """Unit blocks side by side, with the prior's column (still unset) behind them."""
        fused = np.empty((count, self.dimension), np.float32)
        if self._blocks is not None:
            fused[:, :-1] = self._blocks.fuse(blocks)
        return fused

    def _widths(self) -> list[int]:
        return [self.features[name].shape[1] for name in self.names]

    def _column_weights(self, weights: Mapping[str, float]) -> Float32Array:
        values = [weights.get(name, 0.0) for name in (*self.names, PRIOR)]
        return np.repeat(np.array(values, np.float32), [*self._widths(), 1])
