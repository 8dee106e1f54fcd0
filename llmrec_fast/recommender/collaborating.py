"""Which models may learn the feature "collaborative", and how what they learn becomes vectors of the space.

A model is served if its score of an item is a sum over the history. Scores are cosines here: the lengths of item vectors, which
speak of popularity, are left to the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from llmrec_fast.arrays import Float32Array, as_count
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.features import CollaborativeVectors, fit_als, fit_bpr, fit_ease, fit_item_knn, fit_nmf, fit_svd

Model: TypeAlias = Literal["ease", "item-knn", "svd", "als", "bpr", "nmf"]
MODELS: tuple[Model, ...] = get_args(Model)
COLLABORATIVE = "collaborative"
COLLABORATIVE_HISTORIES = "collaborative of histories"

_Fit: TypeAlias = Callable[[Any, int, float, int | None], CollaborativeVectors]


@dataclass(frozen=True)
class _Known:
    """How a model is fitted.

    Attributes
    ----------
    fit : from matrix, rank, regularization and threads.
    regularization : the default, in the model's own units; None for a model that has none.
    positive : whether it must be above 0 (0 is allowed otherwise).
    nested : whether lower ranks are the first columns of higher ones.
    needs : the module that must be installed.
    """

    fit: _Fit
    regularization: float | None
    positive: bool = True
    nested: bool = False
    needs: str = "numpy"


_KNOWN: Mapping[Model, _Known] = {
    "ease": _Known(lambda m, rank, strength, _: fit_ease(m, rank, regularization=strength), 500.0, nested=True),
    "item-knn": _Known(
        lambda m, rank, shrinkage, _: fit_item_knn(m, shrinkage=shrinkage).to_vectors(rank),
        10.0,
        positive=False,
        nested=True,
    ),
    "svd": _Known(lambda m, rank, *_: fit_svd(m, rank), None, nested=True),
    "als": _Known(
        lambda m, rank, strength, threads: fit_als(m, rank, regularization=strength, threads=threads),
        10.0,
        needs="implicit",
    ),
    # with more threads than one, stochastic gradients race and no two fits agree
    "bpr": _Known(
        lambda m, rank, strength, _: fit_bpr(m, rank, regularization=strength, threads=1), 0.01, needs="implicit"
    ),
    "nmf": _Known(lambda m, rank, *_: fit_nmf(m, rank), None, needs="sklearn"),
}


def check_model(model: str, regularization: float | None = None) -> None:
    """Raise `InvalidInput` for no model, or a regularization that it does not take."""
    if model not in MODELS:
        raise InvalidInput(f"collaborative must be one of {', '.join(MODELS)}; got {model!r}")
    if regularization is None:
        return
    known = _KNOWN[model]
    if known.regularization is None:
        raise InvalidInput(f"{model} has no regularization; leave it out")
    if not 0 <= regularization < np.inf or (known.positive and not regularization):
        wanted = "positive" if known.positive else "not negative"
        raise InvalidInput(f"the regularization of {model} must be {wanted}; got {regularization!r}")


def check_installed(model: Model) -> None:
    """Raise `MissingDependency` if what fits the model is not installed."""
    if not is_installed(model):
        needs = {"implicit": "pip install 'llmrec-fast[als]'", "sklearn": "pip install scikit-learn"}
        raise MissingDependency(f"{model} is not installed: {needs[_KNOWN[model].needs]}")


def is_installed(model: Model) -> bool:
    """Whether what fits the model is there."""
    return find_spec(_KNOWN[model].needs) is not None


def is_nested(model: Model) -> bool:
    """Whether the vectors of a lower rank are the first columns of those of a higher one."""
    return _KNOWN[model].nested


def fit_collaborative(
    model: Model, matrix: Any, rank: int, regularization: float | None, threads: int | None
) -> dict[str, Float32Array]:
    """The matrices (items, r) float32 of the feature, by their names in the space: one, or two where sides differ.

    Parameters
    ----------
    model : who learns.
    matrix : (users, items) scipy sparse matrix of interaction strengths.
    rank : number of columns, at most what the matrix allows.
    regularization : in the model's own units (the shrinkage of item-kNN); None: its default.
    threads : for models that use them.
    """
    check_model(model, regularization)
    known = _KNOWN[model]
    strength = known.regularization if regularization is None else regularization
    vectors = known.fit(matrix, as_count(rank, "rank"), 0.0 if strength is None else strength, threads)
    if model in ("ease", "svd"):
        # their two sides differ in length only, so that one of them serves as both where cosines are taken
        return {COLLABORATIVE: vectors.history_vectors}
    return {COLLABORATIVE: vectors.item_vectors, COLLABORATIVE_HISTORIES: vectors.history_vectors}
