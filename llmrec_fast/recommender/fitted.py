"""What fitting learns, as one immutable value: a recommender swaps the whole of it, so that readers never see a half."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmrec_fast.features import Centring, CleaningReport
from llmrec_fast.ids import IdTable
from llmrec_fast.recommender.space import FusedSpace, WeightedHistories
from llmrec_fast.retrieval import Index


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
class Fitted:
    """Everything that answers need. Positions in all parts are those of `item_ids` and `user_ids`."""

    item_ids: IdTable
    user_ids: IdTable
    titles: tuple[str, ...]
    space: FusedSpace
    centrings: Mapping[str, Centring]
    weights: Mapping[str, float]
    decay: float | None
    histories: WeightedHistories
    index: Index
