"""Evaluation: splitting interactions in training and test, and measuring recommendations, predictions and policies.

Works on plain arrays; knows nothing of models. See `evaluate` for the rules that all ranking metrics share.
"""

from llmrec_fast.evaluation.feedback import FeedbackSummary, Rate, summarize_feedback
from llmrec_fast.evaluation.metrics import METRICS, evaluate, evaluate_per_user
from llmrec_fast.evaluation.off_policy import PolicyEstimate, doubly_robust, inverse_propensity, self_normalized
from llmrec_fast.evaluation.predictions import binary_accuracy, calibration_error, log_loss, mae, rmse
from llmrec_fast.evaluation.relevance import group_items
from llmrec_fast.evaluation.splits import Split, leave_one_out, split_by_time
from llmrec_fast.evaluation.uncertainty import (
    Interval,
    PairedTest,
    bootstrap_interval,
    randomization_test,
    t_test,
    wilcoxon_test,
)

__all__ = [
    "METRICS",
    "FeedbackSummary",
    "Interval",
    "PairedTest",
    "PolicyEstimate",
    "Rate",
    "Split",
    "binary_accuracy",
    "bootstrap_interval",
    "calibration_error",
    "doubly_robust",
    "evaluate",
    "evaluate_per_user",
    "group_items",
    "inverse_propensity",
    "leave_one_out",
    "log_loss",
    "mae",
    "randomization_test",
    "rmse",
    "self_normalized",
    "split_by_time",
    "summarize_feedback",
    "t_test",
    "wilcoxon_test",
]
