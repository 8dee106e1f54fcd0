"""Gradient-boosted trees that rank by pair features, with LightGBM, and what each feature adds to a score.

They learn which rows are relevant (log loss), their order by LambdaRank (Burges, "From RankNet to LambdaRank to LambdaMART: an
overview", 2010), or both, whose scores are then added. The library is the optional extra `trees`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array, as_matrix
from llmrec_fast.errors import CorruptFile, InvalidInput, MissingDependency
from llmrec_fast.ranking.groups import check_groups

# what is trained for each objective that can be asked for
_OBJECTIVES = {"binary": ("binary",), "lambdarank": ("lambdarank",), "both": ("binary", "lambdarank")}
_TRUNCATION = 30
# a quarter of the library's default: half the time to train, and no difference in quality that could be told from chance
_BINS = 63


@dataclass(frozen=True)
class TreeSettings:
    """How trees are grown.

    Attributes
    ----------
    objective : "binary" (whether a row is relevant, by log loss), "lambdarank" (the order within groups) or "both", the sum of
        the two, each divided by the spread of its scores in training. NDCG@10 / Recall@20 on two nested validation parts of
        ml-100k, mean of two seeds: .2295 / .3395 and .2182 / .3540 binary, .2263 / .3372 and .2185 / .3558 LambdaRank,
        .2318 / .3412 and .2232 / .3578 both.
    rounds : trees for each objective.
    learning_rate, leaves, least_in_leaf : of each tree; `least_in_leaf` in rows.
    feature_share, row_share : what each tree sees of both.
    seed : of those shares; the same seed gives the same trees.
    """

    objective: Literal["binary", "lambdarank", "both"] = "both"
    rounds: int = 250
    learning_rate: float = 0.03
    leaves: int = 15
    least_in_leaf: int = 100
    feature_share: float = 0.5
    row_share: float = 0.8
    seed: int = 0


class TreeRanker:
    """Trained trees.

    Attributes
    ----------
    names : the features, in the order of columns.
    """

    def __init__(self, boosters: Sequence[tuple[float, Any]], names: Sequence[str]) -> None:
        """Take LightGBM boosters, each with the factor of its scores."""
        self._boosters = tuple(boosters)
        self.names = tuple(names)

    @classmethod
    def fit(
        cls,
        features: ArrayLike,
        relevant: ArrayLike,
        sizes: ArrayLike,
        names: Sequence[str],
        settings: TreeSettings | None = None,
        *,
        threads: int | None = None,
    ) -> TreeRanker:
        """Learn to put relevant rows of a group before its others.

        Parameters
        ----------
        features : (n, f) float32, the rows of a group one after another.
        relevant : (n,) grades, 0 for what is not relevant, small integers above.
        sizes : (groups,) rows of each group.
        names : (f,) what the features are called.

        Raises
        ------
        InvalidInput : sizes that do not add up, no relevant row, wrong shapes.
        MissingDependency : LightGBM is not installed or cannot be loaded.
        """
        settings = settings or TreeSettings()
        if settings.objective not in _OBJECTIVES:
            raise InvalidInput(f"objective must be one of {', '.join(_OBJECTIVES)}; got {settings.objective!r}")
        rows, grades, groups = check_groups(features, relevant, sizes, names)
        lightgbm = import_lightgbm()
        boosters = []
        for objective in _OBJECTIVES[settings.objective]:
            ranks = objective == "lambdarank"
            parameters: dict[str, Any] = {
                "objective": objective,
                "learning_rate": settings.learning_rate,
                "num_leaves": settings.leaves,
                "min_data_in_leaf": settings.least_in_leaf,
                "feature_fraction": settings.feature_share,
                "bagging_fraction": settings.row_share,
                "bagging_freq": 1,
                "seed": settings.seed,
                "max_bin": _BINS,
                "deterministic": True,
                "force_row_wise": True,
                "num_threads": threads or 0,
                "verbose": -1,
            }
            if ranks:
                parameters["lambdarank_truncation_level"] = _TRUNCATION
            data = lightgbm.Dataset(rows, grades if ranks else grades > 0, group=groups if ranks else None)
            booster = lightgbm.train(parameters, data, settings.rounds)
            factor = 1.0
            if settings.objective == "both":
                spread = float(np.std(booster.predict(rows, raw_score=True)))
                # trees that found nothing to part have no spread and no say
                factor = 1 / spread if spread > 0 else 0.0
            boosters.append((factor, booster))
        return cls(boosters, names)

    def scores(self, features: ArrayLike) -> Float64Array:
        """(n,) float64, higher is better; scores of different groups do not compare."""
        rows = as_matrix(features, "features", dimension=len(self.names))
        if not len(rows):
            return np.zeros(0)
        scores = np.zeros(len(rows))
        for factor, booster in self._boosters:
            scores += factor * np.asarray(booster.predict(rows, raw_score=True), np.float64)
        return scores

    def contributions(self, features: ArrayLike) -> Float64Array:
        """(n, f + 1) float64: what each feature adds to a score (Shapley values of the trees), and the mean last.

        Lundberg et al., "From local explanations to global understanding with explainable AI for trees", 2020. Rows sum to
        `scores`.
        """
        rows = as_matrix(features, "features", dimension=len(self.names))
        shares = np.zeros((len(rows), len(self.names) + 1))
        for factor, booster in self._boosters:
            shares += factor * np.asarray(booster.predict(rows, pred_contrib=True), np.float64)
        return shares

    def to_text(self) -> str:
        """JSON: a list of boosters, each the factor of its scores and the trees in LightGBM's own text format."""
        return json.dumps([[factor, booster.model_to_string()] for factor, booster in self._boosters])

    @classmethod
    def from_text(cls, text: str, names: Sequence[str]) -> TreeRanker:
        """What `to_text` wrote; raises `CorruptFile`, or `MissingDependency` without LightGBM."""
        lightgbm = import_lightgbm()
        try:
            boosters = [(float(factor), lightgbm.Booster(model_str=trees)) for factor, trees in json.loads(text)]
        except (lightgbm.basic.LightGBMError, TypeError, ValueError) as error:
            raise CorruptFile(f"the trees of a reranker cannot be read: {error}") from error
        return cls(boosters, names)


def import_lightgbm() -> Any:
    """The module; `MissingDependency` says how to get it."""
    try:
        import lightgbm
    except ImportError as error:
        raise MissingDependency("ranking by trees needs LightGBM: pip install 'llmrec-fast[trees]'") from error
    except OSError as error:
        raise MissingDependency(
            f"LightGBM is installed but cannot be loaded ({error}); on Debian: apt-get install libgomp1"
        ) from error
    return lightgbm
