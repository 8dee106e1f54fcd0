"""How an adapter is shaped and trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmrec_fast.arrays import as_count
from llmrec_fast.errors import InvalidInput


@dataclass(frozen=True)
class AdapterSettings:
    """Shape and training of the adapter towers; the defaults were chosen on a validation part of MovieLens 100K.

    Attributes
    ----------
    dimension : columns of the adapted vectors.
    hidden : width of the hidden layer; 0 makes the towers linear.
    smoothing : steps of graph smoothing over the interaction graph (LightGCN, as in AlphaRec); 0 for none.
    sequential : whether a user is the sum of the latest items weighed by attention, instead of by age and strength alone.
    recent : how many of a user's latest items a profile sees in training, and the attention always.
    decay : items after which a history item counts 1/e in training.
    temperature : of the softmax over cosines.
    dropout : share of the inputs that is left out at random.
    collaborative : whether the towers also read the recommender's collaborative vectors of the items. New items have none. On
        the validation part it added .0005 to .0012 to the quality of the fused list, and on one of two splits with new items
        it took .05 of Recall@20 from them.
    masking : share of the items that lack those vectors in a training step, drawn anew for each, so that text alone does too.
    candidates : items that a target competes with; all that were ever chosen while they are no more than this, else so many
        drawn anew for every batch, with the batch's own targets (sampled softmax).
    batch, learning_rate, weight_decay : of AdamW.
    epochs : at most so many.
    patience : epochs without a better validation quality after which training stops.
    validation : share of each user's interactions, the latest, that is held out to find the number of epochs. Training is then
        repeated on everything for that long.
    seed : of everything random.
    """

    dimension: int = 128
    hidden: int = 256
    smoothing: int = 1
    sequential: bool = False
    recent: int = 100
    decay: float = 30.0
    temperature: float = 0.15
    dropout: float = 0.1
    candidates: int = 8192
    batch: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    epochs: int = 40
    patience: int = 4
    validation: float = 0.2
    seed: int = 0
    collaborative: bool = False
    masking: float = 0.5

    def __post_init__(self) -> None:
        for name in ("dimension", "recent", "candidates", "batch", "epochs", "patience"):
            as_count(getattr(self, name), name)
        for name in ("hidden", "smoothing", "seed"):
            as_count(getattr(self, name), name, minimum=0)
        for name in ("decay", "temperature", "learning_rate"):
            if not 0 < getattr(self, name) < np.inf:
                raise InvalidInput(f"{name} must be a positive number; got {getattr(self, name)!r}")
        if not 0 <= self.weight_decay < np.inf:
            raise InvalidInput(f"weight_decay must be a number that is not negative; got {self.weight_decay!r}")
        if not 0 <= self.masking <= 1:
            raise InvalidInput(f"masking must lie from 0 to 1; got {self.masking!r}")
        if not 0 <= self.dropout < 1 or not 0 < self.validation < 1:
            raise InvalidInput(
                f"dropout must lie from 0 to below 1 and validation between 0 and 1; got {self.dropout!r} and "
                f"{self.validation!r}"
            )
