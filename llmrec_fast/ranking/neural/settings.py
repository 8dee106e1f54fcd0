"""How a neural scorer is shaped and trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from llmrec_fast.arrays import as_count
from llmrec_fast.errors import InvalidInput

OBJECTIVES = ("softmax", "lambda")


@dataclass(frozen=True)
class NeuralSettings:
    """Shape and training of the networks; the defaults were chosen on a validation part of MovieLens 100K.

    Attributes
    ----------
    objective : "softmax" (the cross-entropy of a group's relevant rows under a softmax over the group, as in ListNet: Cao et
        al., "Learning to rank: from pairwise approach to listwise approach", 2007) or "lambda" (logistic loss of each pair of a
        relevant and another row, weighed by what swapping them would change in NDCG: Wang et al., "The LambdaLoss framework
        for ranking metric optimization", 2018).
    members : networks whose scores are averaged. Each holds out another part of the groups to stop early by.
    hidden : width of each network's hidden layer. NDCG@10 / Recall@20 on the validation part of ml-100k, mean of three seeds:
        .2279 / .3327 with 64, .2303 / .3340 with 128, .2299 / .3344 with 256.
    dropout : share of the hidden units that is left out at random.
    batch, learning_rate, weight_decay : of AdamW; `batch` in groups.
    epochs : at most so many.
    patience : epochs without a better order of the held-out groups after which training stops.
    validation : share of the groups that is held out where there is one member; with more of them it is 1 / members.
    seed : of everything random.
    """

    objective: Literal["softmax", "lambda"] = "softmax"
    members: int = 4
    hidden: int = 128
    dropout: float = 0.1
    batch: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1.0
    epochs: int = 30
    patience: int = 4
    validation: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise InvalidInput(f"objective must be 'softmax' or 'lambda'; got {self.objective!r}")
        for name in ("members", "hidden", "batch", "epochs", "patience"):
            as_count(getattr(self, name), name)
        as_count(self.seed, "seed", minimum=0)
        if not 0 < self.learning_rate < np.inf or not 0 <= self.weight_decay < np.inf:
            raise InvalidInput(
                f"learning_rate must be positive and weight_decay not negative; got {self.learning_rate!r} and "
                f"{self.weight_decay!r}"
            )
        if not 0 <= self.dropout < 1 or not 0 < self.validation < 1:
            raise InvalidInput(
                f"dropout must lie from 0 to below 1 and validation between 0 and 1; got {self.dropout!r} and "
                f"{self.validation!r}"
            )
