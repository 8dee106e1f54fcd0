"""Features: from tables of interactions and items to vectors of users and items, and to one readable score.

Reading and cleaning (`read_interactions`, `read_items`), values and text, user vectors, collaborative vectors, the popularity
prior, and fusion with its weights. Text embeddings come from `encoding`; nothing here searches or evaluates.
"""

from llmrec_fast.features.collaborative import CollaborativeVectors, fit_als, fit_bpr, fit_ease, fit_nmf, fit_svd
from llmrec_fast.features.fusion import Fusion
from llmrec_fast.features.interactions import Histories, Interactions, read_interactions
from llmrec_fast.features.items import Items, read_items, read_texts
from llmrec_fast.features.neighbours import ItemWeights, fit_exact_ease, fit_item_knn
from llmrec_fast.features.pairs import PairFeatures, PairHistories
from llmrec_fast.features.popularity import popularity_prior
from llmrec_fast.features.report import CleaningReport, Finding
from llmrec_fast.features.text import ENGLISH_STOP_WORDS, clean_text, deduplicate, tokens
from llmrec_fast.features.transitions import (
    count_transitions,
    nearest_items,
    smooth_transitions,
    transition_matrix,
    transition_scores,
)
from llmrec_fast.features.tuning import Tuned, tune
from llmrec_fast.features.users import Centring, HistoryWeighting, user_vectors
from llmrec_fast.features.values import centre, like_strengths, log_scale, min_max, z_scores

__all__ = [
    "ENGLISH_STOP_WORDS",
    "Centring",
    "CleaningReport",
    "CollaborativeVectors",
    "Finding",
    "Fusion",
    "Histories",
    "HistoryWeighting",
    "Interactions",
    "ItemWeights",
    "Items",
    "PairFeatures",
    "PairHistories",
    "Tuned",
    "centre",
    "clean_text",
    "count_transitions",
    "deduplicate",
    "fit_als",
    "fit_bpr",
    "fit_ease",
    "fit_exact_ease",
    "fit_item_knn",
    "fit_nmf",
    "fit_svd",
    "like_strengths",
    "log_scale",
    "min_max",
    "nearest_items",
    "popularity_prior",
    "read_interactions",
    "read_items",
    "read_texts",
    "smooth_transitions",
    "tokens",
    "transition_matrix",
    "transition_scores",
    "tune",
    "user_vectors",
    "z_scores",
]
