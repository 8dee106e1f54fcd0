"""`evaluate` and `compare`: metrics of runs, and tests of whether their differences are more than chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from llmrec_fast.arrays import Float64Array, as_count
from llmrec_fast.compat.ranx.judged import Judged, Scores
from llmrec_fast.compat.ranx.metrics import compute, parse
from llmrec_fast.compat.ranx.report import Comparisons, Report
from llmrec_fast.compat.ranx.score_table import Qrels, Run
from llmrec_fast.errors import InvalidInput

_TESTS = ("student", "fisher", "tukey")


def evaluate(
    qrels: Qrels | Scores | Sequence[Any] | npt.NDArray[Any],
    run: Run | Scores | Sequence[Any] | npt.NDArray[Any],
    metrics: Sequence[str] | str,
    return_mean: bool = True,
    return_std: bool = False,
    threads: int = 0,
    save_results_in_run: bool = True,
    make_comparable: bool = False,
) -> Any:
    """Measure a run.

    Parameters
    ----------
    qrels, run : judgments and scores, or dicts of dicts of them; or, for both, one (documents, 2) array a query with the
        documents' ids in its first column, and in its second their judgments or their scores, which fall.
    metrics : a name or several; see `llmrec_fast.compat.ranx.metrics`.
    return_mean : means over queries; False: (queries,) arrays in the order of the query ids.
    return_std : {"mean", "std"} in place of each mean.
    threads : accepted, at least 0; everything is one pass of array operations.
    save_results_in_run : write means and values by query to a `Run`'s `mean_scores`, `std_scores` and `scores`.
    make_comparable : see `Run.make_comparable`; it changes the run.

    Returns
    -------
    The value of one metric, or a dict by name of several.

    Raises
    ------
    InvalidInput : an unknown metric, different queries, no query, judgments that are not integers.
    """
    as_count(threads, "threads", minimum=0)
    names = [metrics] if isinstance(metrics, str) else list(metrics)
    parsed = [parse(name) for name in names]
    if isinstance(qrels, Sequence | np.ndarray) and isinstance(run, Sequence | np.ndarray):
        data, rankings = Judged.of_arrays(qrels, run), None
    else:
        data, rankings = _judged(qrels, run, make_comparable)
    if not len(data.judged.lengths):
        raise InvalidInput("qrels and run have no query")
    values = {name: compute(metric, data) for name, metric in zip(names, parsed, strict=True)}
    if save_results_in_run and rankings is not None:
        for name, scores in values.items():
            rankings.mean_scores[name] = float(scores.mean())
            if return_std and return_mean:
                rankings.std_scores[name] = float(scores.std())
            rankings.scores[name].update(zip(rankings.get_query_ids(), scores.tolist(), strict=True))
    results = {name: _summary(scores, return_mean, return_std) for name, scores in values.items()}
    return results[names[0]] if len(names) == 1 else results


def compare(
    qrels: Qrels | Scores,
    runs: Sequence[Run],
    metrics: Sequence[str] | str,
    stat_test: str = "student",
    n_permutations: int = 1000,
    max_p: float = 0.01,
    random_seed: int = 42,
    threads: int = 0,
    rounding_digits: int = 3,
    show_percentages: bool = False,
    make_comparable: bool = False,
) -> Report:
    """Measure several runs and test every pair of them for every metric.

    Parameters
    ----------
    qrels, metrics, threads, make_comparable : as of `evaluate`.
    runs : `Run`s; one without a name is called run_1, run_2, ... by its place.
    stat_test : "student" (two-sided paired t-test), "fisher" (randomization test: each query's two values are swapped at
        random; Smucker et al., CIKM 2007) or "tukey" (honestly significant difference).
    n_permutations, random_seed : of "fisher". Its p-values are estimates: another generator than ranx's draws the swaps.
    max_p : greatest p-value that counts as significant.
    rounding_digits, show_percentages : how the report prints values.

    Raises
    ------
    InvalidInput : as `evaluate`; an unknown test, fewer than two runs, two runs of one name.
    """
    if stat_test not in _TESTS:
        raise InvalidInput(f"stat_test must be one of {', '.join(_TESTS)}; got {stat_test!r}")
    names = [run.name if run.name is not None else f"run_{place}" for place, run in enumerate(runs, 1)]
    if len(set(names)) != len(names) or len(names) < 2:
        raise InvalidInput(f"runs must be two or more, of different names; got {names}")
    metric_names = [metrics] if isinstance(metrics, str) else list(metrics)
    values: dict[str, dict[str, Float64Array]] = {}
    for name, run in zip(names, runs, strict=True):
        found = evaluate(qrels, run, metric_names, return_mean=False, threads=threads, make_comparable=make_comparable)
        values[name] = {metric_names[0]: found} if len(metric_names) == 1 else found
    comparisons = Comparisons()
    wins: dict[tuple[str, str], dict[str, dict[str, int]]] = {}
    for left_place, left in enumerate(names):
        for right in names[left_place + 1 :]:
            comparisons[left, right] = {}
    for metric in metric_names:
        scores = [values[name][metric] for name in names]
        p_values = _p_values(scores, stat_test, as_count(n_permutations, "n_permutations"), random_seed)
        for i, left in enumerate(names):
            for j, right in enumerate(names):
                if i < j:
                    p = float(p_values[i, j])
                    comparisons[left, right][metric] = {"p_value": p, "significant": p <= max_p}
                if i != j:
                    difference = scores[i] - scores[j]
                    counts = {"W": difference > 0, "T": difference == 0, "L": difference < 0}
                    wins.setdefault((left, right), {})[metric] = {key: int(c.sum()) for key, c in counts.items()}
    results = {name: {metric: float(v.mean()) for metric, v in by_metric.items()} for name, by_metric in values.items()}
    return Report(names, results, comparisons, metric_names, max_p, wins, rounding_digits, show_percentages, stat_test)


def _judged(qrels: Any, run: Any, make_comparable: bool) -> tuple[Judged, Run]:
    judgments = qrels if isinstance(qrels, Qrels) else Qrels(qrels)
    rankings = run if isinstance(run, Run) else Run(run)
    if make_comparable:
        rankings.make_comparable(judgments)
    return Judged.of(judgments.ordered(), rankings.ordered()), rankings


def _summary(scores: Float64Array, mean: bool, std: bool) -> Any:
    if not mean:
        return scores
    return {"mean": scores.mean(), "std": scores.std()} if std else scores.mean()


def _p_values(scores: list[Float64Array], stat_test: str, permutations: int, seed: int) -> Float64Array:
    from scipy import stats

    if stat_test == "tukey":
        p_values: Float64Array = stats.tukey_hsd(*scores).pvalue
        return p_values
    count = len(scores)
    result = np.ones((count, count))
    for i in range(count):
        for j in range(i + 1, count):
            difference = scores[i] - scores[j]
            if stat_test == "fisher":
                p = _randomization(difference, permutations, seed)
            elif (
                difference == difference[0]
            ).all():  # no variance: nothing differs (NaN, as in ranx) or everything does
                p = float("nan") if difference[0] == 0 or len(difference) < 2 else 0.0
            else:
                p = float(stats.ttest_rel(scores[i], scores[j]).pvalue)
            result[i, j] = result[j, i] = p
    return result


def _randomization(difference: Float64Array, permutations: int, seed: int) -> float:
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (permutations, len(difference)))
    # means that are equal in exact arithmetic may differ in the last bit by the order of their sums
    slack = 1e-12 * np.abs(difference).mean()
    return float((np.abs((signs * difference).mean(axis=1)) >= abs(difference.mean()) - slack).mean())
