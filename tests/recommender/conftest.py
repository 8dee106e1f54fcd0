"""A small world with two tastes: users like wine or tools, and texts say which is which."""

import numpy as np
import pytest

from llmrec_fast import Recommender

WINES = ["red wine", "white wine", "rose wine", "old port wine", "sparkling wine"]
TOOLS = ["claw hammer tool", "hand saw tool", "cordless drill tool", "wood plane tool", "bench vice tool"]


def bag_of_words(texts):
    """A callable that serves as the encoder: one column a word of the small world, and one for everything else."""
    words = sorted({word for text in WINES + TOOLS for word in text.split()})
    vectors = np.zeros((len(texts), len(words) + 1), np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            vectors[row, words.index(word) if word in words else len(words)] += 1
    return vectors


def item_table():
    names = WINES + TOOLS
    return {"id": [f"i{n}" for n in range(len(names))], "text": names, "title": [name.title() for name in names]}


def interaction_table(users: int = 30, seed: int = 0):
    """Each user takes four of the five items of one taste, in random order."""
    rng = np.random.default_rng(seed)
    rows = {"user": [], "item": [], "rating": [], "timestamp": []}
    for user in range(users):
        offset = 5 * (user % 2)
        for time, item in enumerate(rng.permutation(5)[:4] + offset):
            for name, value in zip(rows, (user, f"i{item}", (4.0, 3.0, 5.0, 4.0)[time], time), strict=True):
                rows[name].append(value)
    return rows


@pytest.fixture(scope="session")
def fitted() -> Recommender:
    """Shared by tests that only ask; those that change something fit their own."""
    return Recommender(bag_of_words, liked_from=4).fit(item_table(), interaction_table())
