"""Candidates for an evaluation that ranks only some items. It biases; rank the whole catalogue wherever that is possible."""

from __future__ import annotations

import warnings

import numpy as np

from llmrec_fast.arrays import Int64Array, as_count
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.relevance import Relevant, as_relevance


class SampledEvaluationWarning(UserWarning):
    """Metrics on sampled candidates are not those on the catalogue, and may order methods differently."""


def sample_candidates(
    relevant: Relevant,
    users: int,
    n_items: int,
    *,
    negatives: int = 100,
    exclude: Relevant | None = None,
    seed: int = 0,
) -> tuple[Int64Array, Int64Array]:
    """For each user the relevant items and `negatives` others, drawn uniformly without replacement.

    To reproduce published figures that were made so. Metrics on such candidates are biased: they are inconsistent with
    the exact ones, so that even the order of two methods can turn (Krichene and Rendle, "On sampled metrics for item
    recommendation", KDD 2020). AUC alone keeps its expectation.

    Parameters
    ----------
    relevant : as `evaluate` takes it, positions 0 to n_items - 1. A user without any gets no candidates.
    users, n_items : numbers of users and items.
    negatives : how many other items each user gets.
    exclude : what may not be drawn, such as each user's training items, in the form of `relevant`.
    seed : of the draws.

    Returns
    -------
    The CSR pair (indptr, positions), ascending within each user, so that ties of a model favour nobody. Score and rank
    them, and give the ranked positions to `evaluate`.

    Warns
    -----
    SampledEvaluationWarning : always.

    Raises
    ------
    InvalidInput : positions out of range, or fewer than `negatives` items left to draw for a user.
    """
    users = as_count(users, "users")
    n_items, negatives = as_count(n_items, "n_items"), as_count(negatives, "negatives")
    generator = np.random.default_rng(as_count(seed, "seed", minimum=0))
    wanted = as_relevance(relevant, users)
    barred = as_relevance([()] * users if exclude is None else exclude, users, name="exclude")
    rows: list[Int64Array] = []
    for user in range(users):
        own, other = (
            part.ids[part.offsets[user] : part.offsets[user] + part.counts[user]] for part in (wanted, barred)
        )
        if len(own) == 0:
            rows.append(own)
            continue
        forbidden = np.union1d(own, other)
        if forbidden[0] < 0 or forbidden[-1] >= n_items:
            wrong = forbidden[0] if forbidden[0] < 0 else forbidden[-1]
            raise InvalidInput(f"user {user} has the position {wrong}; positions go from 0 to {n_items - 1}")
        if n_items - len(forbidden) < negatives:
            raise InvalidInput(
                f"user {user} has {n_items - len(forbidden)} items to draw from, fewer than negatives={negatives}"
            )
        drawn = generator.choice(n_items, negatives + len(forbidden), replace=False)
        drawn = drawn[~np.isin(drawn, forbidden)][:negatives]
        rows.append(np.sort(np.concatenate([own, drawn])))
    indptr = np.zeros(users + 1, dtype=np.int64)
    np.cumsum([len(row) for row in rows], out=indptr[1:])
    warnings.warn(
        f"metrics on {negatives} sampled negatives are biased and may order methods differently than the whole catalogue "
        "does (Krichene and Rendle, KDD 2020)",
        SampledEvaluationWarning,
        stacklevel=2,
    )
    return indptr, np.concatenate(rows)
