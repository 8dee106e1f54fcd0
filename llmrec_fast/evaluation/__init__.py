"""Evaluation: splitting interactions in training and test, and measuring recommendations, predictions and policies.

Works on plain arrays; knows nothing of models. See `evaluate` for the rules that all ranking metrics share.
"""

from llmrec_fast.evaluation.adapters import EvaluationInput, from_dicts, from_frames, from_ranx
from llmrec_fast.evaluation.candidates import SampledEvaluationWarning, sample_candidates
from llmrec_fast.evaluation.cold import ColdItems, cold_item_recall, summarize_cold_items
from llmrec_fast.evaluation.feedback import FeedbackSummary, Rate, summarize_feedback
from llmrec_fast.evaluation.leaks import SequenceLeaks, SplitLeaks, find_leaks, find_sequence_leaks
from llmrec_fast.evaluation.metrics import METRICS, evaluate, evaluate_per_user
from llmrec_fast.evaluation.off_policy import PolicyEstimate, doubly_robust, inverse_propensity, self_normalized
from llmrec_fast.evaluation.popularity_buckets import PopularityBucket, recall_by_popularity
from llmrec_fast.evaluation.predictions import binary_accuracy, calibration_error, log_loss, mae, rmse
from llmrec_fast.evaluation.random_splits import cold_items, cold_users, k_fold
from llmrec_fast.evaluation.relevance import group_items, group_items_of
from llmrec_fast.evaluation.report import EvaluationReport, MethodResult, compare_methods, write_report
from llmrec_fast.evaluation.splits import Split, leave_one_out, split_at_time, split_by_global_time, split_by_time
from llmrec_fast.evaluation.trec import read_trec
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
    "ColdItems",
    "EvaluationInput",
    "EvaluationReport",
    "FeedbackSummary",
    "Interval",
    "MethodResult",
    "PairedTest",
    "PolicyEstimate",
    "PopularityBucket",
    "Rate",
    "SampledEvaluationWarning",
    "SequenceLeaks",
    "Split",
    "SplitLeaks",
    "binary_accuracy",
    "bootstrap_interval",
    "calibration_error",
    "cold_item_recall",
    "cold_items",
    "cold_users",
    "compare_methods",
    "doubly_robust",
    "evaluate",
    "evaluate_per_user",
    "find_leaks",
    "find_sequence_leaks",
    "from_dicts",
    "from_frames",
    "from_ranx",
    "group_items",
    "group_items_of",
    "inverse_propensity",
    "k_fold",
    "leave_one_out",
    "log_loss",
    "mae",
    "randomization_test",
    "read_trec",
    "recall_by_popularity",
    "rmse",
    "sample_candidates",
    "self_normalized",
    "split_at_time",
    "split_by_global_time",
    "split_by_time",
    "summarize_cold_items",
    "summarize_feedback",
    "t_test",
    "wilcoxon_test",
    "write_report",
]
