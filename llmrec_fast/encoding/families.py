"""Which builder a model's weights go to, by the `model_type` of its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmrec_fast.encoding.architectures import BERT_TYPES, read_architecture
from llmrec_fast.encoding.decoder import DECODER_TYPES, build_decoder_graph, read_decoder
from llmrec_fast.encoding.gated_parameters import DecoderParameters, GatedParameters, ModernBertParameters
from llmrec_fast.encoding.graph import build_graph
from llmrec_fast.encoding.graph_builder import Graph
from llmrec_fast.encoding.modernbert import build_modernbert_graph, read_modernbert
from llmrec_fast.encoding.packed import Parameters
from llmrec_fast.encoding.spread_parameters import SpreadParameters
from llmrec_fast.encoding.weights import WeightFiles
from llmrec_fast.errors import InvalidInput

GRAPH_TYPES = (*BERT_TYPES, "modernbert", *DECODER_TYPES)


def build_model_graph(config: Mapping[str, Any], weights: WeightFiles) -> Graph:
    """The `Graph` of a model of any supported family.

    Raises
    ------
    InvalidInput : an architecture that no builder knows, or what its builder does not support.
    CorruptFile : a parameter is missing or has the wrong shape.
    """
    kind, names = config.get("model_type", "unknown"), weights.names()
    if kind == "modernbert":
        return build_modernbert_graph(read_modernbert(config, names), weights)
    if kind in DECODER_TYPES:
        return build_decoder_graph(read_decoder(config, names), weights)
    if kind in BERT_TYPES:
        return build_graph(read_architecture(config, names), weights)
    raise InvalidInput(
        f"no graph can be built from the weights of architecture {kind!r} (built are {', '.join(GRAPH_TYPES)}); "
        "export the model to ONNX (for example: optimum-cli export onnx --task feature-extraction) and put model.onnx "
        "into its folder"
    )


def gated_parameters(config: Mapping[str, Any], weights: Parameters) -> GatedParameters:
    """The parameters of a ModernBERT or a decoder model, for the package's kernels; a decoder's without outliers.

    Raises `InvalidInput` for what is not supported of these families; methods of the result raise `CorruptFile`.
    """
    if config.get("model_type") == "modernbert":
        return ModernBertParameters(read_modernbert(config, weights.names()), weights)
    return SpreadParameters(DecoderParameters(read_decoder(config, weights.names()), weights))
