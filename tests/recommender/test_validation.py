import numpy as np
import pytest

from llmrec_fast.features import read_interactions
from llmrec_fast.recommender.space import FusedSpace
from llmrec_fast.recommender.validation import choose_weights


def interactions_of(users, timestamps=True):
    rows = {"user": [], "item": [], "timestamp": []}
    for user in range(users):
        for time in range(5):
            for name, value in zip(rows, (user, (user + time) % 6, time), strict=True):
                rows[name].append(value)
    if not timestamps:
        del rows["timestamp"]
    return read_interactions(rows).with_values(np.ones(5 * users))


def one_feature(interactions, seen):
    """Items on a circle: the next one is near the last. Records what was given to learn from."""
    angles = np.arange(6) * 2 * np.pi / 6
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def learn(part):
        seen.append(part.copy())
        return FusedSpace({"ring": ring, "noise": np.eye(6, dtype=np.float32)}, np.zeros(6, np.float32))

    return learn


def test_only_the_first_four_fifths_are_learned_from():
    interactions, seen = interactions_of(12), []
    tuned = choose_weights(interactions, np.ones(60, bool), one_feature(interactions, seen), "ring")
    assert not isinstance(tuned, str)
    assert len(seen) == 1
    assert (interactions.timestamps[seen[0]] < 4).all()
    assert seen[0].sum() == 48


def test_recency_is_found_where_the_next_item_is_near_the_last():
    interactions = interactions_of(12)
    tuned = choose_weights(interactions, np.ones(60, bool), one_feature(interactions, []), "ring", (None, 0.5))
    assert tuned.choice == 0.5
    assert tuned.weights["ring"] == 1
    assert tuned.quality == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("interactions", "liked", "reason"),
    [
        (interactions_of(3, timestamps=False), np.ones(15, bool), "no times"),
        (interactions_of(3), np.zeros(15, bool), "no user has both"),
    ],
)
def test_what_cannot_be_validated_says_why(interactions, liked, reason):
    assert reason in choose_weights(interactions, liked, one_feature(interactions, []), "ring")
