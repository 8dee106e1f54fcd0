"""The whole evaluation protocol on the real ml-100k: popularity must give the reference figures to the fourth decimal."""

import numpy as np
import pytest

from llmrec_fast.datasets import load
from llmrec_fast.evaluation import evaluate, group_items, split_by_time


@pytest.mark.real
def test_popularity_on_ml_100k_gives_the_reference_figures():
    data = load("ml-100k", progress=False)
    items = data.item_positions()
    split = split_by_time(data.users, data.items, data.timestamps, ratio=0.8)
    liked = data.ratings >= 4
    assert (split.train & liked).sum() == 45_602
    users = np.intersect1d(data.users[split.train & liked], data.users[split.test & liked])
    assert len(users) == 908

    popularity = np.bincount(items[split.train & liked], minlength=len(data.item_ids))
    most_popular_first = np.argsort(-popularity, kind="stable")
    evaluated = np.isin(data.users, users)
    rows = np.searchsorted(users, data.users)
    seen = np.zeros((len(users), len(data.item_ids)), dtype=bool)
    seen[rows[evaluated & split.train], items[evaluated & split.train]] = True
    unseen_first = np.argsort(seen[:, most_popular_first], axis=1, kind="stable")
    recommended = most_popular_first[unseen_first[:, :20]]

    positives = evaluated & split.test & liked
    assert positives.sum() == 9_773
    relevant = group_items(rows[positives], items[positives], len(users))
    result = evaluate(recommended, relevant, ["ndcg@10", "recall@20"])
    assert {name: round(value, 4) for name, value in result.items()} == {"ndcg@10": 0.0982, "recall@20": 0.1246}
