"""Comparing methods on the same users, and writing it down: a table, JSON, and one HTML page with plots.

Measures and decides what is shown; the page is laid out in `report_page.py`, charts are drawn in `svg.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmrec_fast.arrays import ArrayLike, Float64Array
from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation.catalogue import Catalogue
from llmrec_fast.evaluation.cold import ColdItems, summarize_cold_items
from llmrec_fast.evaluation.metrics import evaluate, evaluate_per_user, is_overall
from llmrec_fast.evaluation.popularity_buckets import PopularityBucket, recall_by_popularity
from llmrec_fast.evaluation.relevance import Gains, Relevant, as_relevance
from llmrec_fast.evaluation.report_page import render_page
from llmrec_fast.evaluation.uncertainty import Interval, bootstrap_interval, randomization_test
from llmrec_fast.tables import Cell, format_table

_CUTS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
_QUANTILES = 101
_COLD_CUT = 20
CURVES = ("ndcg", "recall")


@dataclass(frozen=True)
class MethodResult:
    """What was measured of one method.

    Attributes
    ----------
    figures : metric -> mean over users, or the value of all lists together.
    intervals : metric -> bootstrap interval, for metrics that have a value for each user.
    p_values : metric -> paired randomisation test against the reference method; empty for the reference itself. They
        are not corrected for several comparisons.
    curves : "ndcg" and "recall" -> [(k, mean)].
    coverage : share of the catalogue in the first k of any list, at the k of the main metric.
    distribution : [(value, share of users at or below it)] of the main metric.
    recall_by_popularity : at the k of the main metric; empty without item_counts.
    cold_items : recall of the items without a training interaction among the first 20; None without item_counts or where no
        such item is relevant.
    """

    figures: dict[str, float]
    intervals: dict[str, Interval]
    p_values: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    coverage: float
    distribution: list[tuple[float, float]]
    recall_by_popularity: list[PopularityBucket]
    cold_items: ColdItems | None


@dataclass(frozen=True)
class EvaluationReport:
    """The comparison of several methods on the same users.

    Attributes
    ----------
    title : heads the page.
    users, relevant, n_items : how many users have relevant items, how many those are in all, size of the catalogue.
    main_metric : the metric of the plots.
    reference : the method that the others are tested against.
    methods : name -> result.
    """

    title: str
    users: int
    relevant: int
    n_items: int
    main_metric: str
    reference: str
    methods: dict[str, MethodResult]

    def table(self) -> str:
        """A row a method and a column a metric, as text; the last for cold items, where any are relevant."""
        names = list(next(iter(self.methods.values())).figures)
        rows: list[list[Cell]] = []
        for method, result in self.methods.items():
            cold = [] if result.cold_items is None else [result.cold_items.recall.mean]
            rows.append([method, *result.figures.values(), *cold])
        cold_items = next(iter(self.methods.values())).cold_items
        last = [] if cold_items is None else [f"cold recall@{cold_items.k}"]
        return format_table(["method", *names, *last], rows)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; what is not a number is None."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain

    def page(self) -> str:
        """One HTML page that needs no other file."""
        return render_page(self)


def write_report(folder: str | Path, report: EvaluationReport) -> list[Path]:
    """Write `report.txt`, `report.json` and `report.html` into `folder`, which is made if need be; returns their paths.

    Raises
    ------
    InvalidInput : the folder cannot be written to.
    """
    folder = Path(folder)
    contents = {
        "report.txt": report.table() + "\n",
        "report.json": json.dumps(report.as_dict(), ensure_ascii=False, allow_nan=False, indent=1) + "\n",
        "report.html": report.page(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in contents.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write the report to {folder}: {error}") from error
    return [folder / name for name in contents]


def compare_methods(
    recommended: Mapping[str, ArrayLike],
    relevant: Relevant,
    *,
    metrics: Sequence[str] | None = None,
    n_items: int | None = None,
    item_counts: ArrayLike | None = None,
    item_vectors: ArrayLike | None = None,
    item_categories: ArrayLike | None = None,
    item_ids: ArrayLike | None = None,
    gains: Gains | None = None,
    histories: Relevant | None = None,
    reference: str | None = None,
    title: str = "Evaluation of recommendations",
    resamples: int = 1_000,
    seed: int = 0,
) -> EvaluationReport:
    """Measure several methods on the same users.

    Parameters
    ----------
    recommended : method -> (users, width) ids, the best first, padded with -1; widths may differ, users may not.
    relevant, n_items, item_counts, item_vectors, item_categories, item_ids, gains, histories : as `evaluate` takes them.
        `n_items` or something of each item is needed; without `item_counts` there is no recall by popularity.
    metrics : names such as "ndcg@10". The first NDCG, or else the first metric with a value for each user, is the main
        one, that of the plots. Default: ndcg@10, recall@20, mrr@10, coverage@20, and with `item_counts` novelty@20.
    reference : the method to test the others against; default: the first.
    resamples : of the bootstrap intervals; randomisation tests take ten times as many. Cost: for 20,000 users about
        half a second for each method and metric.
    seed : of both.

    Raises
    ------
    InvalidInput : as `evaluate`; no method; an unknown reference; no metric with a value for each user.
    """
    if not isinstance(recommended, Mapping) or not recommended:
        raise InvalidInput("recommended must be a dict with at least one method, from its name to its recommendations")
    reference = next(iter(recommended)) if reference is None else reference
    if reference not in recommended:
        raise InvalidInput(f"reference {reference!r} is none of the methods {', '.join(recommended)}")
    size = Catalogue.check(n_items, item_counts, item_vectors, item_categories, item_ids).n_items
    if size is None:
        raise InvalidInput("the size of the catalogue is needed: give n_items= or item_counts=")
    if metrics is None:
        metrics = [
            "ndcg@10",
            "recall@20",
            "mrr@10",
            "coverage@20",
            *(["novelty@20"] if item_counts is not None else []),
        ]
    single = [name for name in dict.fromkeys(metrics) if not is_overall(name)]
    if not single:
        raise InvalidInput("metrics needs one that has a value for each user, such as 'ndcg@10'")
    main = next((name for name in single if name.startswith("ndcg")), single[0])
    cut = int(main.rpartition("@")[2])
    known: dict[str, Any] = {
        "n_items": n_items,
        "item_counts": item_counts,
        "item_vectors": item_vectors,
        "item_categories": item_categories,
        "item_ids": item_ids,
        "gains": gains,
        "histories": histories,
    }
    values: dict[str, dict[str, Float64Array]] = {}
    results: dict[str, MethodResult] = {}
    for method, lists in recommended.items():
        width = np.shape(lists)[-1] if np.ndim(lists) else 1
        cuts = [k for k in _CUTS if k < width] + [max(width, 1)]
        curves = [f"{metric}@{k}" for metric in CURVES for k in cuts]
        figures = evaluate(lists, relevant, [*metrics, *curves, f"coverage@{cut}"], **known)
        values[method] = evaluate_per_user(lists, relevant, single, **known)
        results[method] = MethodResult(
            figures={name: figures[name] for name in metrics},
            intervals=_intervals(values[method], resamples, seed),
            p_values={},
            curves={metric: [(k, figures[f"{metric}@{k}"]) for k in cuts] for metric in CURVES},
            coverage=figures[f"coverage@{cut}"],
            distribution=_distribution(values[method][main]),
            recall_by_popularity=[]
            if item_counts is None
            else recall_by_popularity(lists, relevant, item_counts, cut, item_ids=item_ids),
            cold_items=None
            if item_counts is None
            else summarize_cold_items(
                lists, relevant, item_counts, _COLD_CUT, item_ids=item_ids, resamples=resamples, seed=seed
            ),
        )
    users = {method: len(rows[main]) for method, rows in values.items()}
    if len(set(users.values())) > 1:
        raise InvalidInput(f"all methods must be for the same users; got {users} rows")
    for method, result in results.items():
        if method != reference:
            result.p_values.update(_p_values(values[method], values[reference], 10 * resamples, seed))
    judged = as_relevance(relevant, users[reference], gains).counts
    return EvaluationReport(title, int((judged > 0).sum()), int(judged.sum()), size, main, reference, results)


def _intervals(values: Mapping[str, Float64Array], resamples: int, seed: int) -> dict[str, Interval]:
    """Of the metrics that have a value for at least one user."""
    return {
        name: bootstrap_interval(users, resamples=resamples, seed=seed)
        for name, users in values.items()
        if not np.isnan(users).all()
    }


def _p_values(
    first: Mapping[str, Float64Array], second: Mapping[str, Float64Array], resamples: int, seed: int
) -> dict[str, float]:
    """Of the metrics that have a value for the same users, at least two, in both."""
    found = {}
    for name, values in first.items():
        defined = ~np.isnan(values)
        if defined.sum() >= 2 and (defined == ~np.isnan(second[name])).all():
            found[name] = randomization_test(values, second[name], resamples=resamples, seed=seed).p_value
    return found


def _distribution(values: Float64Array) -> list[tuple[float, float]]:
    defined = values[~np.isnan(values)]
    if len(defined) == 0:
        return []
    shares = np.linspace(0, 1, _QUANTILES)
    quantiles = np.quantile(defined, shares, method="inverted_cdf")
    return list(zip(quantiles.tolist(), shares.tolist(), strict=True))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
