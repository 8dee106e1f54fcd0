"""Choose the weights of the features and the decay of histories on held-out interactions of the training data.

The last fifth of each user's interactions is held out; collaborative vectors and the prior are learned from the rest only,
as they will be learned from everything afterwards. Test data never comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from llmrec_fast.arrays import BoolArray, Float32Array, Int64Array
from llmrec_fast.evaluation import evaluate, group_items_of, split_by_time
from llmrec_fast.features import HistoryWeighting, Interactions, Tuned, tune
from llmrec_fast.kernels.cpu import fuse
from llmrec_fast.recommender.histories import WeightedHistories
from llmrec_fast.recommender.space import PRIOR, FusedSpace

TRAINING_SHARE = 0.8
DECAYS: tuple[float | None, ...] = (None, 50.0, 20.0, 10.0)
# Score matrices (users, items) of all features are held at once; users are sampled to keep them within this many numbers.
_MATRIX_NUMBERS = 2**26
_MOST_USERS = 5000
_METRICS = ("ndcg@10", "recall@20")

Learn: TypeAlias = Callable[[BoolArray], FusedSpace]


def choose_weights(
    interactions: Interactions, liked: BoolArray, learn: Learn, anchor: str, decays: Sequence[float | None] = DECAYS
) -> Tuned[float | None] | str:
    """The best decay and weights, or the reason in words why there is nothing to choose on.

    Parameters
    ----------
    interactions : the training data, values being strengths.
    liked : (n,) which of them count as a hit when they are held out.
    learn : makes the features and the prior of all items from the part of the interactions that a mask selects.
    anchor : the feature whose weight is 1.
    decays : the decays to try.
    """
    held = hold_out(interactions, liked)
    if isinstance(held, str):
        return held
    space = learn(held.train)
    part = interactions.select(held.train)
    users = held.sample(len(space.prior) * (len(space.names) + 1))
    return tune(
        {decay: partial(feature_scores, part, users, space, decay) for decay in decays},
        held.quality(interactions, users),
        anchor=anchor,
    )


@dataclass(frozen=True)
class HeldOut:
    """The validation part of training data.

    Attributes
    ----------
    train : (n,) which interactions are learned from.
    wanted : (n,) which later ones are to be predicted.
    users : codes of those who have both.
    """

    train: BoolArray
    wanted: BoolArray
    users: Int64Array

    def sample(self, numbers: int) -> Int64Array:
        """As many users, evenly spread, as keep matrices of `numbers` scores a user in bounds."""
        most = max(1, min(_MOST_USERS, _MATRIX_NUMBERS // numbers))
        return self.users[np.linspace(0, len(self.users) - 1, min(len(self.users), most)).astype(np.int64)]

    def quality(self, interactions: Interactions, users: Int64Array) -> Quality:
        """What says how good answers to these users are: mean of NDCG@10 and Recall@20."""
        return Quality(interactions.select(self.train), interactions.select(self.wanted), users)


def hold_out(interactions: Interactions, liked: BoolArray) -> HeldOut | str:
    """Hold out the last fifth of each user's interactions, or say in words why that cannot be."""
    if interactions.timestamps is None:
        return "the interactions have no times to split them by"
    train = split_by_time(interactions.users, interactions.items, interactions.timestamps, TRAINING_SHARE).train
    wanted = ~train & liked
    users = np.intersect1d(interactions.users[train], interactions.users[wanted])
    if not len(users):
        return "no user has both a history and a liked item after it"
    return HeldOut(train, wanted, users)


def feature_scores(
    part: Interactions, users: Int64Array, space: FusedSpace, decay: float | None
) -> dict[str, Float32Array]:
    """Cosines (users, items) by feature, of histories in `part`, and the prior (items,)."""
    histories = part.by_user()
    weights = HistoryWeighting(decay, use_values=True).weights(histories.indptr, histories.values)
    lengths = np.diff(histories.indptr)[users]
    indptr = np.concatenate(([0], np.cumsum(lengths)))
    places = np.arange(indptr[-1]) + np.repeat(histories.indptr[users] - indptr[:-1], lengths)
    profiles = space.profiles(WeightedHistories(indptr, histories.items[places], weights[places]))
    made = {name: fuse([profile], [1.0]) @ fuse([space.features[name]], [1.0]).T for name, profile in profiles.items()}
    return {**made, PRIOR: space.prior}


class Quality:
    """Mean of NDCG@10 and Recall@20: of (users, items) scores, seen items left out and ties by position, or of lists."""

    shown = 20

    def __init__(self, part: Interactions, held_out: Interactions, users: Int64Array) -> None:
        rows = np.full(len(part.user_ids), -1)
        rows[users] = np.arange(len(users))
        self._relevant = group_items_of(users, held_out.users, held_out.items)
        seen = rows[part.users] >= 0
        self._seen = rows[part.users[seen]], part.items[seen]

    def __call__(self, scores: Float32Array) -> float:
        """Of (users, items) scores."""
        masked = scores.copy()
        masked[self._seen] = -np.inf
        top = _top(masked, min(self.shown, masked.shape[1]))
        top[np.isneginf(np.take_along_axis(masked, top, axis=1))] = -1
        return self.of_lists(top)

    def of_lists(self, positions: Int64Array) -> float:
        """Of (users, `shown`) items, best first; -1 where there are fewer."""
        return float(np.mean(list(evaluate(positions, self._relevant, _METRICS).values())))


def _top(scores: Float32Array, k: int) -> Int64Array:
    """(users, k) positions of the largest scores, best first; which of equals is k-th is left open."""
    if k < scores.shape[1]:
        candidates = np.sort(np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:], axis=1)
    else:
        candidates = np.tile(np.arange(scores.shape[1]), (len(scores), 1))
    order = np.argsort(-np.take_along_axis(scores, candidates, axis=1), axis=1, kind="stable")
    result: Int64Array = np.take_along_axis(candidates, order, axis=1)
    return result
