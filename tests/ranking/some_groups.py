"""Groups of rows in which the best by one feature is relevant and another feature is noise."""

import numpy as np

NAMES = ("signal", "noise")


def some_groups(groups=60, size=10, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.random((groups * size, 2)).astype(np.float32)
    best = features[:, 0].reshape(groups, size).argmax(axis=1)
    relevant = np.zeros((groups, size), np.float32)
    relevant[np.arange(groups), best] = 1
    return features, relevant.ravel(), np.full(groups, size)
