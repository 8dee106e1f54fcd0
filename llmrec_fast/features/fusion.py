"""Fusion: several vectors of one item or user become one, so that a single inner product is a readable sum.

    fused(u) . fused(i)  =  sum over features f of  weight_f * cos_f(u, i)

and therefore one index serves all features together, and every score can be taken apart again without remainder, by feature
and by item of the user's history. How the weights are found is for `tuning.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Float64Array, as_matrix, as_vector
from llmrec_fast.errors import InvalidInput


@dataclass(frozen=True)
class Fusion:
    """Which features a score is made of, and how much each counts.

    Attributes
    ----------
    weights : feature -> weight, finite and not negative, at least one positive. Blocks of fused vectors stand in this order.
    dot : the features whose contribution is `weight * u . i` with the vectors as they are, instead of the cosine. For vectors
        whose length means something, such as collaborative vectors without a popularity prior beside them.
    """

    weights: Mapping[str, float]
    dot: frozenset[str] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        weights = {name: float(weight) for name, weight in self.weights.items()}
        bad = {name: weight for name, weight in weights.items() if not 0 <= weight < np.inf}
        if bad:
            raise InvalidInput(f"weights must be finite and not negative; got {bad}")
        if not any(weights.values()):
            raise InvalidInput(f"a fusion needs a feature of positive weight; got {weights}")
        unknown = sorted(set(self.dot) - set(weights))
        if unknown:
            raise InvalidInput(
                f"dot names {', '.join(unknown)}, which is no feature; features are {', '.join(weights)}"
            )
        object.__setattr__(self, "weights", MappingProxyType(weights))
        object.__setattr__(self, "dot", frozenset(self.dot))

    @property
    def features(self) -> tuple[str, ...]:
        """The features of positive weight, in the order of their blocks."""
        return tuple(name for name, weight in self.weights.items() if weight > 0)

    def fuse(self, vectors: Mapping[str, ArrayLike], *, threads: int | None = None) -> Float32Array:
        """One vector a row from the vectors of each feature.

        Parameters
        ----------
        vectors : feature -> (n, d_f); every feature of positive weight, others are ignored. A row of zeros means that the
            feature knows nothing of this item or user, and contributes 0.

        Returns
        -------
        (n, sum of d_f) float32: blocks scaled by the root of their weight, normalised first unless in `dot`.

        Raises
        ------
        InvalidInput : a feature is missing, row counts differ, or a vector is not finite.
        """
        blocks = self._blocks(vectors)
        rows = {name: len(block) for name, block in blocks.items()}
        if len(set(rows.values())) > 1:
            raise InvalidInput(f"the features must have as many rows as each other; got {rows}")
        from llmrec_fast.kernels.cpu import fuse

        if not self.dot & blocks.keys():
            return fuse(list(blocks.values()), [self.weights[name] for name in blocks], threads=threads)
        parts = [
            np.float32(np.sqrt(self.weights[name])) * block
            if name in self.dot
            else fuse([block], [self.weights[name]], threads=threads)
            for name, block in blocks.items()
        ]
        return np.concatenate(parts, axis=1)

    def contributions(
        self, user_vectors: Mapping[str, ArrayLike], item_vectors: Mapping[str, ArrayLike]
    ) -> dict[str, Float64Array]:
        """What each feature adds to the score of user r and item r, for every row r.

        Returns
        -------
        feature -> (n,) float64; their sum is `fuse(user)[r] . fuse(item)[r]` to float32 rounding.
        """
        users, items = self._blocks(user_vectors), self._blocks(item_vectors)
        result = {}
        for name in self.features:
            user, item = users[name].astype(np.float64), items[name].astype(np.float64)
            if user.shape != item.shape:
                raise InvalidInput(f"{name}: users have shape {user.shape} where items have {item.shape}")
            products = np.einsum("nd,nd->n", user, item)
            result[name] = self._weigh(name, products, np.linalg.norm(user, axis=1) * np.linalg.norm(item, axis=1))
        return result

    def explain_history(
        self,
        history_vectors: Mapping[str, ArrayLike],
        history_weights: ArrayLike,
        item_vector: Mapping[str, ArrayLike],
    ) -> dict[str, Float64Array]:
        """What each item of a history adds to the score of one item, feature by feature.

        The user vector of feature f is `sum_h weight_h * history_vector_h` divided by whatever it was divided by; with a
        cosine the division cancels, with `dot` it is the sum of the weights (mode "mean" of `user_vectors`).

        Parameters
        ----------
        history_vectors : feature -> (h, d_f), the vectors of the items of the history.
        history_weights : (h,) their weights.
        item_vector : feature -> (d_f,), the item to be explained.

        Returns
        -------
        feature -> (h,) float64; the sum over all of them is the score (without a prior).
        """
        history, items = self._blocks(history_vectors), self._rows(item_vector)
        result = {}
        for name in self.features:
            vectors, item = history[name].astype(np.float64), items[name].astype(np.float64)
            weights = as_vector(history_weights, "history_weights", length=len(vectors)).astype(np.float64)
            if vectors.shape[1] != len(item):
                raise InvalidInput(f"{name}: history has {vectors.shape[1]} columns where the item has {len(item)}")
            norm = np.linalg.norm(weights @ vectors) * np.linalg.norm(item)
            divisor = weights.sum() if name in self.dot else norm
            result[name] = self._scale(weights * (vectors @ item), self.weights[name], np.float64(divisor))
        return result

    def _weigh(self, name: str, products: Float64Array, norms: Float64Array) -> Float64Array:
        divisor = np.ones_like(norms) if name in self.dot else norms
        return self._scale(products, self.weights[name], divisor)

    @staticmethod
    def _scale(products: Float64Array, weight: float, divisor: Float64Array | np.float64) -> Float64Array:
        """`weight * products / divisor`, 0 where the divisor is: a zero vector has no direction, hence no say."""
        return weight * np.divide(products, divisor, out=np.zeros_like(products), where=np.asarray(divisor) != 0)

    def _blocks(self, vectors: Mapping[str, ArrayLike]) -> dict[str, Float32Array]:
        self._require(vectors)
        return {name: as_matrix(vectors[name], name) for name in self.features}

    def _rows(self, vectors: Mapping[str, ArrayLike]) -> dict[str, Float32Array]:
        self._require(vectors)
        return {name: as_vector(vectors[name], name) for name in self.features}

    def _require(self, vectors: Mapping[str, ArrayLike]) -> None:
        absent = [name for name in self.features if name not in vectors]
        if absent:
            raise InvalidInput(f"no vectors for the feature {', '.join(absent)}; got {', '.join(vectors) or 'none'}")
