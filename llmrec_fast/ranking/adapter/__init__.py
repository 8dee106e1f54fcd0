"""Adapter towers: small maps over frozen language-model embeddings, trained on behaviour (needs torch), served by ONNX Runtime.

In the manner of AlphaRec (Sheng et al., "Language Representations Can be What Recommenders Need", ICLR 2025): a small
network takes text embeddings to a space of behaviour, vectors are smoothed over the interaction graph, and a softmax loss on
cosines (InfoNCE) trains both. Here items of a history and items that are scored have towers of their own, and a user is the
weighted sum of the history, so that a new user and a new item need no training.
"""

from llmrec_fast.ranking.adapter.adapter import Adapter
from llmrec_fast.ranking.adapter.settings import AdapterSettings
from llmrec_fast.ranking.adapter.towers import Attention, Tower
from llmrec_fast.ranking.adapter.training import fit_adapter

__all__ = ["Adapter", "AdapterSettings", "Attention", "Tower", "fit_adapter"]
