"""Choose the weights of a fusion, and how histories are weighed, on a validation part of the training data.

Works on score matrices and a function that says how good a matrix of scores is; making the split, the scores and the metric
is the caller's business, and so is keeping the test data out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float32Array, as_count, check_finite
from llmrec_fast.errors import InvalidInput

Choice = TypeVar("Choice")

WEIGHT_GRID = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0)


@dataclass(frozen=True)
class Tuned(Generic[Choice]):
    """What was found to be best.

    Attributes
    ----------
    choice : the key of the candidate that won, for instance a decay.
    weights : feature -> weight; 1 for the anchor.
    quality : what the metric said of it on the validation part.
    tried : how many settings were looked at.
    """

    choice: Choice
    weights: dict[str, float]
    quality: float
    tried: int


def tune(
    candidates: Mapping[Choice, Callable[[], Mapping[str, ArrayLike]]],
    quality: Callable[[Float32Array], float],
    *,
    anchor: str,
    grid: Sequence[float] = WEIGHT_GRID,
    rounds: int = 3,
) -> Tuned[Choice]:
    """The candidate and weights for which `sum over features f of weight_f * scores_f` is best by `quality`.

    Coordinate search: all weights but the anchor's start at 0; one feature after another takes the value of the grid that
    is best while the others stay, until a round changes nothing. The next candidate starts where the last one ended.
    Deterministic; a tie is won by the smaller weight and the earlier candidate.

    Parameters
    ----------
    candidates : key -> function that makes one set of scores: feature -> (users, items) scores, in units in which a weight
        is meant (cosines), or (items,) for a prior. Functions are called one at a time, so that only one set is in memory.
    quality : takes (users, items) float32 scores, returns a number, higher is better. It must not keep or change them.
    anchor : the feature whose weight is 1. Rankings depend on ratios of weights only, so one of them is free.
    grid : the weights to try, not negative.
    rounds : at most so many passes over the features.

    Returns
    -------
    Tuned

    Raises
    ------
    InvalidInput : no candidates, an anchor that has no scores, shapes that differ, scores that are not finite.
    """
    if not candidates:
        raise InvalidInput("tune needs at least one candidate")
    steps = sorted({float(weight) for weight in grid})
    if not steps or not all(0 <= weight < np.inf for weight in steps):
        raise InvalidInput(f"grid must hold finite weights that are not negative; got {tuple(grid)}")
    as_count(rounds, "rounds")
    found: list[Tuned[Choice]] = []
    start: dict[str, float] = {}
    for key, make_scores in candidates.items():
        scores = _check_scores(make_scores(), anchor)
        weights, value, looked_at = _coordinate_search(scores, quality, anchor, start, steps, rounds)
        found.append(Tuned(key, weights, value, looked_at))
        start = weights
    best = max(found, key=lambda tuned: tuned.quality)  # the first of equals
    return replace(best, tried=sum(tuned.tried for tuned in found))


def _coordinate_search(
    scores: Mapping[str, Float32Array],
    quality: Callable[[Float32Array], float],
    anchor: str,
    start: Mapping[str, float],
    steps: Sequence[float],
    rounds: int,
) -> tuple[dict[str, float], float, int]:
    weights = {name: start.get(name, 0.0) for name in scores} | {anchor: 1.0}
    seen: dict[tuple[float, ...], float] = {}

    def value_at(setting: Mapping[str, float]) -> float:
        key = tuple(setting.values())
        if key not in seen:
            seen[key] = _checked(quality(_mix(scores, setting)))
        return seen[key]

    value = value_at(weights)
    for _ in range(rounds):
        before = dict(weights)
        for name in scores:
            if name == anchor:
                continue
            for step in steps:
                trial = weights | {name: step}
                trial_value = value_at(trial)
                if trial_value > value or (trial_value == value and step < weights[name]):
                    weights, value = trial, trial_value
        if weights == before:
            break
    return weights, value, len(seen)


def _mix(scores: Mapping[str, Float32Array], weights: Mapping[str, float]) -> Float32Array:
    shape = np.broadcast_shapes(*(matrix.shape for matrix in scores.values()))
    total = np.zeros(shape, np.float32)
    for name, matrix in scores.items():
        if weights[name]:
            total += np.float32(weights[name]) * matrix
    return total


def _check_scores(scores: Mapping[str, ArrayLike], anchor: str) -> dict[str, Float32Array]:
    if anchor not in scores:
        raise InvalidInput(f"the anchor {anchor!r} has no scores; features are {', '.join(scores) or 'none'}")
    arrays = {name: np.asarray(matrix, np.float32) for name, matrix in scores.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    matrices = {shape for shape in shapes.values() if len(shape) == 2}
    priors = {shape for shape in shapes.values() if len(shape) != 2}
    if len(matrices) != 1 or any(shape != (next(iter(matrices))[1],) for shape in priors):
        raise InvalidInput(f"scores must be (users, items) alike, or (items,) for a prior; got {shapes}")
    for name, array in arrays.items():
        check_finite(array, f"the scores of {name}")
    return arrays


def _checked(value: float) -> float:
    if not np.isfinite(value):
        raise InvalidInput(f"quality must return a finite number; got {value!r}")
    return float(value)
