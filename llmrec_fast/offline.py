"""Offline evaluation of a recommender beside its parts, on a split by time: what `demo` and `llmrec-fast evaluate` run.

Each user's first interactions train and the later liked ones are to be predicted; everything in a user's training part is
left out of the ranking of the whole catalogue. Users without a liked item on both sides drop out. Weights are chosen
inside the training part.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec_fast.arrays import Int64Array
from llmrec_fast.encoding import TextEncoder
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.evaluation import EvaluationReport, Split, compare_methods, evaluate, group_items_of, split_by_time
from llmrec_fast.features import Interactions, Items, fit_ease, user_vectors
from llmrec_fast.ranking.adapter import AdapterSettings
from llmrec_fast.recommender import Recommender
from llmrec_fast.retrieval import Index
from llmrec_fast.tables import Cell, format_table
from llmrec_fast.timing import timed

DEFAULT_METRICS = ("ndcg@10", "recall@20", "hit_rate@10", "coverage@20", "novelty@20")


@dataclass(frozen=True)
class OfflineResult:
    """What was measured.

    Attributes
    ----------
    rows : method ("popularity", "text", "collaborative", "adapter" where it was asked for and torch is there, "fused", and
        "reranked" where trees can be grown) -> metric -> mean over users.
    seconds : stage -> time.
    row_seconds : method -> time to learn it and to answer, once texts are encoded; for "reranked" beyond "fused".
    recommender : the fused one, fitted on the training part.
    train : the training interactions.
    users : ids of the users that were measured.
    positives : number of liked interactions to predict.
    answers : method -> (users, k) recommended positions.
    relevant : the positions to predict, as CSR over `users`.
    liked_counts : (items,) how often each item is liked in the training part.
    left_out : method -> why it is not among the rows, and what to do about it.
    """

    rows: dict[str, dict[str, float]]
    seconds: dict[str, float]
    row_seconds: dict[str, float]
    recommender: Recommender
    train: Interactions
    users: list[Hashable]
    positives: int
    answers: dict[str, Int64Array]
    relevant: tuple[Int64Array, Int64Array]
    liked_counts: Int64Array
    left_out: dict[str, str]

    def report(self, metrics: Sequence[str] = DEFAULT_METRICS) -> EvaluationReport:
        """The methods side by side with confidence intervals, tests against popularity, and charts."""
        return compare_methods(
            self.answers,
            self.relevant,
            metrics=metrics,
            n_items=len(self.liked_counts),
            item_counts=self.liked_counts,
            reference="popularity",
            title="Recommendations on a split by time",
        )


def evaluate_offline(
    items: Items,
    interactions: Interactions,
    encoder: TextEncoder,
    *,
    liked_from: float | None = None,
    split: Split | None = None,
    metrics: Sequence[str] = DEFAULT_METRICS,
    rerank: bool = True,
    adapter: AdapterSettings | None = None,
    show_progress: bool | None = None,
) -> OfflineResult:
    """Measure popularity, text, collaborative and fused recommendations, and the fused ones reranked by trees.

    The adapter's row is the adapter alone, its histories weighed as in its training.

    Parameters
    ----------
    items, interactions : the data; item codes of `interactions` are positions in `items`.
    encoder : makes the text vectors.
    liked_from : from which value on an item counts as liked; None: all do.
    split : training and test part; by default each user's first 80% train (equal times in catalogue order).
    metrics : as `llmrec_fast.evaluate` takes them.
    rerank : whether to train a reranker; needs LightGBM.
    adapter : how to train one for a row of its own; needs torch, and more time than everything else. None: no such row.
    show_progress : whether that training shows bars on standard error; None: on a terminal.

    Raises
    ------
    InvalidInput : no times to split by, or nobody with liked items on both sides.
    """
    seconds: dict[str, float] = {}
    task = _task(interactions, liked_from, split)
    train, users, relevant = task.train, task.users, task.relevant
    k = min(_largest_cut(metrics), len(items))

    with timed(seconds, "encode"):
        text = encoder.encode(items.texts)
    answers: dict[str, Int64Array] = {}
    row_seconds: dict[str, float] = {}
    left_out: dict[str, str] = {}

    def learn(**options: Any) -> Recommender:
        recommender = Recommender(None, liked_from=liked_from, **options)
        return recommender.fit(items, train, vectors={"text": text}, show_progress=show_progress)

    with timed(seconds, "recommend"):
        single = learn(weights={"text": 1.0}, decay=None, others=0.0, rank=None)
        for name in ("popularity", "text"):
            with timed(row_seconds, name):
                # weights sit in the query, so one fit answers for each feature alone
                answers[name] = single.recommend(users, k, weights={name: 1.0}).positions
        with timed(row_seconds, "collaborative"):
            answers["collaborative"] = _collaborative(task, k)
    if adapter is not None:
        with timed(seconds, "adapt"), timed(row_seconds, "adapter"):
            try:
                adapted = learn(weights={"adapter": 1.0}, decay=adapter.decay, rank=None, adapter=adapter)
                answers["adapter"] = adapted.recommend(users, k).positions
            except (InvalidInput, MissingDependency) as error:
                left_out["adapter"] = str(error)
    with timed(row_seconds, "fused"):
        with timed(seconds, "fit"):
            recommender = Recommender(encoder, liked_from=liked_from).fit(items, train, vectors={"text": text})
        answers["fused"] = recommender.recommend(users, k).positions
    if rerank:
        with timed(seconds, "rerank"), timed(row_seconds, "reranked"):
            decay = None if recommender.report_ is None else recommender.report_.decay
            try:
                reranked = learn(weights=recommender.weights, decay=decay, reranker="trees")
                answers["reranked"] = reranked.recommend(users, k).positions
            except (InvalidInput, MissingDependency) as error:
                left_out["reranked"] = str(error)
    liked_counts = task.likes.item_counts()
    with timed(seconds, "evaluate"):
        figures = {
            name: evaluate(positions, relevant, metrics, n_items=len(items), item_counts=liked_counts)
            for name, positions in answers.items()
        }
    positives = len(relevant[1])
    return OfflineResult(
        figures, seconds, row_seconds, recommender, train, users, positives, answers, relevant, liked_counts, left_out
    )


def format_rows(rows: dict[str, dict[str, float]], row_seconds: Mapping[str, float] | None = None) -> str:
    """A table with a row a method and a column a metric, and with one of seconds where they are given."""
    header = ["row", *next(iter(rows.values()))]
    cells: list[list[Cell]] = [[method, *figures.values()] for method, figures in rows.items()]
    if row_seconds is not None:
        header.append("seconds")
        for row, method in zip(cells, rows, strict=True):
            row.append(f"{row_seconds[method]:.1f}")
    return format_table(header, cells)


def _largest_cut(metrics: Sequence[str]) -> int:
    """The longest list that a metric looks at; malformed names are left to `evaluate`, which says what is wrong."""
    cuts = [cut for _, _, cut in (name.rpartition("@") for name in metrics)]
    return max([int(cut) for cut in cuts if cut.isdecimal() and int(cut) > 0], default=1)


def _likes(interactions: Interactions, liked_from: float | None) -> Interactions:
    return interactions if liked_from is None else interactions.at_least(liked_from)


@dataclass(frozen=True)
class _Task:
    """Who is to be predicted from what."""

    train: Interactions
    likes: Interactions
    codes: Int64Array
    users: list[Hashable]
    relevant: tuple[Int64Array, Int64Array]


def _task(interactions: Interactions, liked_from: float | None, split: Split | None) -> _Task:
    if split is None:
        if interactions.timestamps is None:
            raise InvalidInput("the interactions have no times: a split by time needs them")
        split = split_by_time(interactions.users, interactions.items, interactions.timestamps)
    train, test = interactions.select(split.train), _likes(interactions.select(split.test), liked_from)
    likes = _likes(train, liked_from)
    codes = np.intersect1d(likes.users, test.users)
    if not len(codes):
        raise InvalidInput("no user has liked items in both the training and the test part")
    relevant = group_items_of(codes, test.users, test.items)
    return _Task(train, likes, codes, [interactions.user_ids[int(code)] for code in codes], relevant)


def _collaborative(task: _Task, k: int) -> Int64Array:
    """EASE alone, on what users liked, by its own score: a dot product, in which the lengths of vectors speak too."""
    vectors = fit_ease(task.likes.with_values(None).to_csr())
    histories, seen = task.likes.by_user(), task.train.by_user()
    queries = user_vectors(vectors.history_vectors, histories.indptr, histories.items, mode="sum")[task.codes]
    index = Index.build(vectors.item_vectors, metric="dot")
    exclude = [seen.items[seen.indptr[code] : seen.indptr[code + 1]] for code in task.codes]
    return index.search(queries, k, exclude=exclude).ids
