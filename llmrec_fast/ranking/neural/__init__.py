"""A neural scorer f(u, v) of pair features: trained with torch, served by ONNX Runtime, explained without remainder."""

from llmrec_fast.ranking.neural.ranker import NeuralRanker
from llmrec_fast.ranking.neural.settings import NeuralSettings

__all__ = ["NeuralRanker", "NeuralSettings"]
