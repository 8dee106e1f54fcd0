"""The demo: MovieLens 100K from texts and ratings to evaluated, explained recommendations, in one process.

Protocol: each user's ratings in order of time, then item id; the first 80% train, ratings of 4 and more among the rest are
the test positives. Everything rated in training is left out of the ranking of all 1,682 films. Weights are chosen inside
the training part; the test part is looked at once, for the table.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from llmrec_fast.datasets import MovieLens, load
from llmrec_fast.encoding import Encoder
from llmrec_fast.evaluation import split_by_time
from llmrec_fast.features import Interactions, Items
from llmrec_fast.ids import IdTable
from llmrec_fast.offline import OfflineResult, evaluate_offline, format_rows
from llmrec_fast.ranking.adapter import AdapterSettings
from llmrec_fast.recommender import Explanation
from llmrec_fast.timing import timed

LIKED_FROM = 4.0
# larger steps and fewer of them than by default, so that the demo stays quick
ADAPTER = AdapterSettings(learning_rate=3e-3, epochs=8)
_SHOWN_ITEMS = 5
_SHOWN_REASONS = 3


@dataclass(frozen=True)
class ShownUser:
    """One user's latest likes and recommendations, in titles, and why the first was chosen."""

    user: Hashable
    liked: list[str]
    recommended: list[tuple[str, float]]
    explanation: Explanation
    reasons: list[tuple[str, float]]


@dataclass(frozen=True)
class DemoResult:
    """What was measured, and what some users are shown. `seconds` maps each stage to its time."""

    offline: OfflineResult
    seconds: dict[str, float]
    shown: list[ShownUser]


def run_demo(*, shown_users: int = 3, progress: bool = True, adapt: bool = True) -> DemoResult:
    """Fetch, encode, fit, evaluate; see the module's docstring for the protocol. `adapt`: whether to train an adapter."""
    seconds: dict[str, float] = {}
    with timed(seconds, "data"):
        data = load("ml-100k", progress=progress)
        items, interactions = tables(data)
        # equal times are in the order of MovieLens' item id, not of the position in the item table
        split = split_by_time(data.users, data.items, data.timestamps)
    with timed(seconds, "model"):
        encoder = Encoder("minilm", progress=progress)
    offline = evaluate_offline(
        items,
        interactions,
        encoder,
        liked_from=LIKED_FROM,
        split=split,
        adapter=ADAPTER if adapt else None,
        show_progress=None if progress else False,
    )
    shown = [_show(offline, user) for user in offline.users[:shown_users]]
    return DemoResult(offline, seconds | offline.seconds, shown)


def format_demo(result: DemoResult) -> str:
    """The demo's result for people."""
    offline = result.offline
    report = offline.recommender.report_
    lines = [
        f"MovieLens 100K: {len(offline.users)} users, {offline.positives:,} liked films to predict, all films ranked",
        "",
        format_rows(offline.rows, offline.row_seconds),
        *(f"{method}: left out; {reason}" for method, reason in offline.left_out.items()),
        "",
        "fused: "
        + ", ".join(f"{name} {weight:g}" for name, weight in offline.recommender.weights.items())
        + (f", recency decay {report.decay or 'none'}; from {report.weights_from}" if report else ""),
    ]
    for shown in result.shown:
        lines += ["", f"user {shown.user} liked last: {'; '.join(shown.liked)}", "  recommended:"]
        lines += [f"    {score:.3f}  {title}" for title, score in shown.recommended]
        parts = ", ".join(f"{name} {share:.3f}" for name, share in shown.explanation.features.items())
        lines.append(f"  why {shown.recommended[0][0]}: {parts}; of the history, most by")
        lines += [f"    {share:.3f}  {title}" for title, share in shown.reasons]
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
    return "\n".join([*lines, "", f"time: {times}"])


def tables(data: MovieLens) -> tuple[Items, Interactions]:
    """The catalogue, with the texts that the demo encodes, and the ratings of a MovieLens data set."""
    item_ids = IdTable(data.item_ids.tolist(), kind="item")
    users, codes = np.unique(data.users, return_inverse=True)
    titles = tuple(
        f"{title} ({year})" if year else title for title, year in zip(data.titles, data.years.tolist(), strict=True)
    )
    interactions = Interactions(
        codes.astype(np.int64),
        data.item_positions(),
        data.ratings,
        data.timestamps,
        IdTable(users.tolist(), kind="user"),
        item_ids,
    )
    return Items(item_ids, tuple(data.item_text()), titles), interactions


def _show(offline: OfflineResult, user: Hashable) -> ShownUser:
    recommender, train = offline.recommender, offline.train.at_least(LIKED_FROM)
    best = recommender.recommend([user], _SHOWN_ITEMS)[0]
    histories, code = train.by_user(), train.user_ids.position(user)
    liked = histories.items[histories.indptr[code] : histories.indptr[code + 1]][::-1]
    explanation = recommender.explain(user, best[0][0])
    return ShownUser(
        user,
        [recommender.title(train.item_ids[int(item)]) for item in liked[:_SHOWN_ITEMS]],
        [(recommender.title(item), score) for item, score in best],
        explanation,
        [(recommender.title(part.item), part.total) for part in explanation.history[:_SHOWN_REASONS]],
    )
