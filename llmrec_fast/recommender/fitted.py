"""What fitting learns, as one immutable value: a recommender swaps the whole of it, so that readers never see a half."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.features import Centring, CleaningReport
from llmrec_fast.ids import IdTable, IdView
from llmrec_fast.ranking.adapter import Adapter
from llmrec_fast.recommender.histories import UserHistories
from llmrec_fast.recommender.reranking import Reranker
from llmrec_fast.recommender.space import FusedSpace
from llmrec_fast.retrieval import Index, IndexView


@dataclass(frozen=True)
class FitReport:
    """What `fit` did.

    Attributes
    ----------
    items, interactions : what cleaning dropped, and why; None where nothing was read.
    weights : feature -> weight, the prior's under "popularity".
    decay : items after which a history item's weight has fallen to 1/e; None where old and new count alike.
    weights_from : "given", "validation" (chosen on the last part of each user's interactions), or "default" (there was
        nothing to validate on, and `note` says why).
    quality : mean of NDCG@10 and Recall@20 on the validation part, where weights were chosen there.
    note : why the weights are the default ones, else empty.
    seconds : stage -> time.
    """

    items: CleaningReport | None
    interactions: CleaningReport | None
    weights: Mapping[str, float]
    decay: float | None
    weights_from: str
    quality: float | None
    note: str
    seconds: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """The figures, as a JSON-able dictionary (cleaning reports as text)."""
        return {
            "items": None if self.items is None else str(self.items),
            "interactions": None if self.interactions is None else str(self.interactions),
            "weights": dict(self.weights),
            "decay": self.decay,
            "weights_from": self.weights_from,
            "quality": self.quality,
            "note": self.note,
            "seconds": dict(self.seconds),
        }


@dataclass(frozen=True)
class Growing:
    """What only ever grows, shared by all states of one fit. The one writer appends to it; readers keep to their views.

    Attributes
    ----------
    item_ids, user_ids : the tables behind the views of a state.
    titles : how the item that a row of the space describes is shown.
    index : the index behind the view of a state.
    """

    item_ids: IdTable
    user_ids: IdTable
    titles: list[str]
    index: Index


@dataclass(frozen=True)
class Fitted:
    """Everything that answers need, unchanging. Positions in all parts are those of `item_ids` and `user_ids`."""

    item_ids: IdView
    user_ids: IdView
    space: FusedSpace
    centrings: Mapping[str, Centring]
    weights: Mapping[str, float]
    decay: float | None
    histories: UserHistories
    index: IndexView
    growing: Growing
    adapter: Adapter | None = None
    reranker: Reranker | None = None

    @classmethod
    def start(
        cls,
        growing: Growing,
        space: FusedSpace,
        centrings: Mapping[str, Centring],
        weights: Mapping[str, float],
        decay: float | None,
        histories: UserHistories,
        adapter: Adapter | None = None,
        reranker: Reranker | None = None,
    ) -> Fitted:
        """The first state over `growing`, which from now on belongs to it."""
        item_ids, user_ids = growing.item_ids.view(), growing.user_ids.view()
        index = growing.index.snapshot()
        return cls(item_ids, user_ids, space, centrings, weights, decay, histories, index, growing, adapter, reranker)

    def titles(self, positions: Int64Array) -> list[str]:
        """How the items at positions are shown."""
        return [self.growing.titles[place] for place in self.space.at(positions).tolist()]

    def described(self, ids: Iterable[Hashable], names: Iterable[str]) -> dict[str, Float32Array]:
        """The vectors (n, d_f) of items under the features `names`, zeros for an item that is not known."""
        positions = np.array([self.item_ids.position(item) if item in self.item_ids else -1 for item in ids], np.int64)
        known = positions >= 0
        made = {}
        for name in names:
            made[name] = np.zeros((len(positions), self.space.features[name].shape[1]), np.float32)
            made[name][known] = self.space.vectors(name, positions[known])
        return made

    def title(self, position: int) -> str:
        """How the item at a position is shown."""
        return self.growing.titles[int(self.space.at(np.array([position]))[0])]
