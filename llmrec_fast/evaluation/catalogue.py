"""What is known of the items that can be recommended, checked once. Which metric needs which part is said elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, Int64Array, as_count, as_int64, as_matrix
from llmrec_fast.errors import InvalidInput


@dataclass(frozen=True)
class Catalogue:
    """What is known of the items that can be recommended; every part is optional and checked when it is given.

    Attributes
    ----------
    n_items : number of items.
    item_counts : (n_items,) int64, training interactions of each item.
    item_vectors : (n_items, d) float32.
    item_categories : (n_items, categories) float32, how much each item belongs to each category, not negative.
    item_ids : (n_items,) int64, the id of each item; without them ids are positions, 0 to n_items - 1.
    """

    n_items: int | None
    item_counts: Int64Array | None
    item_vectors: Float32Array | None
    item_categories: Float32Array | None
    item_ids: Int64Array | None

    @staticmethod
    def check(
        n_items: int | None,
        item_counts: ArrayLike | None,
        item_vectors: ArrayLike | None,
        item_categories: ArrayLike | None,
        item_ids: ArrayLike | None,
    ) -> Catalogue:
        """A catalogue from what a caller gave. Raises `InvalidInput` where the parts do not fit together."""
        size = None if n_items is None else as_count(n_items, "n_items")
        counts = None if item_counts is None else as_int64(item_counts, "item_counts")
        vectors = None if item_vectors is None else as_matrix(item_vectors, "item_vectors")
        categories = None if item_categories is None else as_matrix(item_categories, "item_categories")
        ids = None if item_ids is None else as_int64(item_ids, "item_ids")
        sizes = {
            "n_items": size,
            "item_counts": None if counts is None else len(counts),
            "item_vectors": None if vectors is None else len(vectors),
            "item_categories": None if categories is None else len(categories),
            "item_ids": None if ids is None else len(ids),
        }
        given = {name: length for name, length in sizes.items() if length is not None}
        if len(set(given.values())) > 1:
            raise InvalidInput(f"n_items and all that is given of the items must be of one length; got {given}")
        if 0 in given.values():
            raise InvalidInput(f"the catalogue is empty; got {given}")
        if counts is not None and counts.min() < 0:
            raise InvalidInput(f"item_counts must not be negative; got {counts.min()} at {int(np.argmin(counts))}")
        if categories is not None and categories.size and categories.min() < 0:
            row = int(np.argmin(categories.min(axis=1)))
            raise InvalidInput(f"item_categories must not be negative; got {categories[row].min():g} in row {row}")
        if ids is not None and len(np.unique(ids)) != len(ids):
            raise InvalidInput("item_ids must not repeat an id")
        return Catalogue(next(iter(given.values()), None), counts, vectors, categories, ids)

    def positions_of(self, ids: Int64Array, name: str) -> Int64Array:
        """`ids`, of any shape and padded with -1, as positions in the catalogue; padding stays -1.

        Raises
        ------
        InvalidInput : an id that the catalogue does not have; `name` says whose it is.
        """
        size = self.n_items
        if size is None:
            raise InvalidInput("the size of the catalogue is not known")
        if ids.size == 0:
            return ids
        if self.item_ids is None:
            low, high = int(ids.min()), int(ids.max())
            if low < -1 or high >= size:
                raise InvalidInput(
                    f"{name} holds the id {high if high >= size else low}, but without item_ids an id is a "
                    f"position in the catalogue, 0 to {size - 1}"
                )
            return ids
        order = np.argsort(self.item_ids)
        known = self.item_ids[order]
        places = np.minimum(np.searchsorted(known, ids), size - 1)
        missing = (known[places] != ids) & (ids != -1)
        if missing.any():
            raise InvalidInput(f"{name} holds the id {ids[missing][0]}, which item_ids does not have")
        positions: Int64Array = np.where(ids == -1, -1, order[places]).astype(np.int64, copy=False)
        return positions
