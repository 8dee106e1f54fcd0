"""The collaborative methods on real data, against figures that independent implementations give on the same protocol.

Each user's first 80% of ratings in time train; later ratings of at least 4 are to be found; models learn from training ratings
of at least 4; everything rated in training is left out of the ranking; ties go to the item that comes first.
"""

import numpy as np
import pytest

from llmrec_fast import datasets
from llmrec_fast.evaluation import evaluate, group_items, split_by_time
from llmrec_fast.features import fit_ease, fit_svd, popularity_prior, read_interactions, user_vectors

pytestmark = pytest.mark.real


class Protocol:
    def __init__(self):
        data = datasets.load("ml-100k", progress=False)
        ratings = read_interactions(
            {"user": data.users, "item": data.items, "rating": data.ratings, "timestamp": data.timestamps},
            known_items=data.item_ids,
        )
        split = split_by_time(ratings.users, ratings.items, ratings.timestamps)
        self.seen = ratings.select(split.train)
        self.likes = self.seen.at_least(4).with_values(None)
        wanted = ratings.select(split.test).at_least(4)
        self.users = np.intersect1d(self.likes.users, wanted.users)
        kept = np.isin(wanted.users, self.users)
        rows = np.searchsorted(self.users, wanted.users[kept])
        self.relevant = group_items(rows, wanted.items[kept], len(self.users))

    def quality(self, scores):
        masked = scores.copy()
        masked[self.seen.to_csr().toarray()[self.users] > 0] = -np.inf
        top = np.argsort(-masked, axis=1, kind="stable")[:, :20]
        return list(evaluate(top, self.relevant, ["ndcg@10", "recall@20"]).values())

    def quality_of(self, vectors):
        histories = self.likes.by_user()
        users = user_vectors(vectors.history_vectors, histories.indptr, histories.items)[self.users]
        return self.quality(users @ vectors.item_vectors.T)


@pytest.fixture(scope="module")
def protocol():
    return Protocol()


def test_the_protocol_has_the_users_and_positives_that_it_should(protocol):
    assert len(protocol.likes) == 45_602
    assert len(protocol.users) == 908


def test_popularity(protocol):
    prior = popularity_prior(protocol.likes.item_counts())
    quality = protocol.quality(np.tile(prior, (908, 1)))
    np.testing.assert_allclose(quality, [0.0982, 0.1246], atol=5e-5)


def test_ease(protocol):
    quality = protocol.quality_of(fit_ease(protocol.likes.to_csr(), None, regularization=100.0))
    np.testing.assert_allclose(quality, [0.1847, 0.2425], atol=1e-4)


def test_pure_svd(protocol):
    quality = protocol.quality_of(fit_svd(protocol.likes.to_csr(), 16))
    np.testing.assert_allclose(quality, [0.1734, 0.2264], atol=1e-4)
