"""What trees look at to reorder the candidates of the suite `sequential`: a history and an item together, as columns.

Beside the scores that chose the candidates: how near the item is to the latest bought and to the nearest bought, whether and
when it was bought before, what followed at other distances, and how often an item is what comes last.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.sequential_data import Catalogue, Rows
from llmrec_fast.arrays import Float32Array, Int64Array
from llmrec_fast.features import HistoryWeighting, count_transitions, transition_matrix, transition_scores

_NEVER = 99.0
_RECENT, _LONG = 0.6, 2.0


def pair_columns(
    scores: dict[str, Float32Array], train: Rows, asked: Rows, catalogue: Catalogue, candidates: Int64Array
) -> tuple[Float32Array, list[str]]:
    """(rows, c, features) float32 of the candidates (rows, c) and the names of the features, learned from `train`.

    Parameters
    ----------
    scores : name -> (rows, items), or (items,), those that the candidates were chosen by.
    """
    count = catalogue.count
    columns = {
        name: np.take_along_axis(np.broadcast_to(values, (len(asked), count)), candidates, 1)
        for name, values in scores.items()
    }
    columns |= _nearness(asked, catalogue, candidates)
    columns["places since bought"] = _places_since(asked, count, candidates)
    recent, long = (HistoryWeighting(decay).weights(asked.indptr) for decay in (_RECENT, _LONG))
    sequences = train.sequences()
    adjacent = count_transitions(*sequences, count, window=1, decay=1.0)
    distant = count_transitions(*sequences, count, window=50, decay=20.0)
    for name, counts, weights in (
        ("directly next", adjacent, recent),
        ("later", distant, recent),
        ("somewhere together", distant + distant.T, long),
    ):
        followed = transition_scores(transition_matrix(counts), asked.indptr, asked.items, weights)
        columns[name] = np.take_along_axis(followed, candidates, 1)
    _, items = sequences
    bought, last = (np.bincount(of, minlength=count) for of in (items, train.targets))
    columns["share of last"] = ((last + 0.5) / (bought + 2.5))[candidates]
    columns["neighbours that were last"] = np.asarray(catalogue.neighbours @ np.log1p(last))[candidates]
    columns["length"] = np.broadcast_to(np.diff(asked.indptr)[:, None], candidates.shape)
    return np.stack(list(columns.values()), axis=-1).astype(np.float32), list(columns)


def _nearness(asked: Rows, catalogue: Catalogue, candidates: Int64Array) -> dict[str, Float32Array]:
    """Cosines to the latest item, by each text, and to the nearest of the history, by title and brand."""
    columns: dict[str, Float32Array] = {}
    for name, vectors in catalogue.texts.items():
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        latest, nearest = np.empty(candidates.shape, np.float32), np.empty(candidates.shape, np.float32)
        for row, chosen in enumerate(candidates):
            cosines = unit[asked.items[asked.indptr[row] : asked.indptr[row + 1]]] @ unit[chosen].T
            latest[row], nearest[row] = cosines[-1], cosines.max(axis=0)
        columns[f"{name} of the latest"] = latest
        columns[f"{name} of the nearest"] = nearest
    return columns


def _places_since(asked: Rows, count: int, candidates: Int64Array) -> Float32Array:
    """How many places before the end of the history the item was bought last; 99 for never."""
    age = np.repeat(asked.indptr[1:], np.diff(asked.indptr)) - np.arange(len(asked.items))
    # of several positions of one item the latest counts: the smallest age, kept by writing it last
    users = np.repeat(np.arange(len(asked)), np.diff(asked.indptr))
    order = np.lexsort((-age, asked.items, users))
    keys = users[order] * count + asked.items[order]
    last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
    found = csr_matrix(
        (age[order][last], (users[order][last], asked.items[order][last])), shape=(len(asked), count)
    ).toarray()
    picked = np.take_along_axis(found, candidates, 1)
    places: Float32Array = np.where(picked > 0, picked - 1, _NEVER).astype(np.float32)
    return places
