"""Evaluation: splitting interactions in training and test, and measuring ranked recommendations against the test part.

Works on plain arrays; knows nothing of models. See `evaluate` for the rules that all metrics share.
"""

from llmrec_fast.evaluation.metrics import METRICS, evaluate, evaluate_per_user
from llmrec_fast.evaluation.relevance import group_items
from llmrec_fast.evaluation.splits import Split, leave_one_out, split_by_time

__all__ = [
    "METRICS",
    "Split",
    "evaluate",
    "evaluate_per_user",
    "group_items",
    "leave_one_out",
    "split_by_time",
]
