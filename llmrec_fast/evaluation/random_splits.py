"""Splitting interactions by chance, repeatably: k-fold cross-validation, items and users that training never sees.

Only masks are made, as in `splits.py`. Chance ignores time: a k-fold split trains on what came later than its test part,
which flatters models that use co-occurrence (Ji et al., "A critical study on data leakage in recommender system offline
evaluation", TOIS 2023); `find_leaks` shows how much.
"""

from __future__ import annotations

import numpy as np

from llmrec_fast.arrays import ArrayLike, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.splits import Split, as_share, sort_key


def k_fold(users: ArrayLike, folds: int = 5, seed: int = 0) -> list[Split]:
    """`folds` splits; each interaction is in the test part of exactly one.

    Each user's interactions are dealt in random order, so that a user's number of test interactions differs by at most
    one between folds, and so does the number of all.

    Parameters
    ----------
    users : (n,) ids that can be sorted.
    folds : at least 2, at most n.
    seed : of the order; the same seed gives the same folds.

    Raises
    ------
    InvalidInput : missing users, or `folds` out of range.
    """
    key = sort_key(users, "users")
    folds = as_count(folds, "folds", minimum=2)
    if folds > len(key):
        raise InvalidInput(f"folds must be at most the number of interactions, {len(key)}; got {folds}")
    order = np.lexsort((np.random.default_rng(as_count(seed, "seed", minimum=0)).random(len(key)), key))
    fold = np.empty(len(key), dtype=np.int64)
    fold[order] = np.arange(len(key)) % folds
    return [Split(fold != number, fold == number) for number in range(folds)]


def cold_items(items: ArrayLike, share: float = 0.2, seed: int = 0) -> Split:
    """A random `share` of the items becomes cold: all of their interactions test, none trains.

    Parameters
    ----------
    items : (n,) ids that can be sorted. Items that nobody interacted with are cold anyway and not counted.
    share : of the different items, above 0 and below 1; the number is rounded, and at least one item stays on each side.
    seed : of the choice.

    Raises
    ------
    InvalidInput : missing ids, fewer than two different ones, a share out of range.
    """
    return _hold_out(items, "items", share, seed)


def cold_users(users: ArrayLike, share: float = 0.2, seed: int = 0) -> Split:
    """A random `share` of the users becomes cold: all of their interactions test, none trains. Else as `cold_items`."""
    return _hold_out(users, "users", share, seed)


def _hold_out(ids: ArrayLike, name: str, share: float, seed: int) -> Split:
    key = sort_key(ids, name)
    share = as_share(share, "share")
    different, codes = np.unique(key, return_inverse=True)
    count = len(different)
    if count < 2:
        raise InvalidInput(f"{name} holds {count} different ids; holding out a share needs at least 2")
    size = min(max(round(share * count), 1), count - 1)
    cold = np.zeros(count, dtype=bool)
    cold[np.random.default_rng(as_count(seed, "seed", minimum=0)).choice(count, size, replace=False)] = True
    return Split(~cold[codes], cold[codes])
