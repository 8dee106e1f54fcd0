"""scikit-learn's neighbour estimators for cosine and Euclidean distance: `from llmrec_fast.compat.sklearn import ...`.

They pass `check_estimator`. Refused: other metrics, sparse X, `metric="precomputed"`. Needs scikit-learn for its base classes.
"""

from llmrec_fast.compat.sklearn.estimators import KNeighborsTransformer, NearestNeighbors, RadiusNeighborsTransformer

__all__ = ["KNeighborsTransformer", "NearestNeighbors", "RadiusNeighborsTransformer"]
