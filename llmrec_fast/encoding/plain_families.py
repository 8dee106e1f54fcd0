"""Which builder of standard operators a model goes to, and what the families' architectures have in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmrec_fast.encoding.architectures import Architecture, read_architecture
from llmrec_fast.encoding.decoder import DECODER_TYPES, DecoderArchitecture, read_decoder
from llmrec_fast.encoding.modernbert import ModernBertArchitecture, read_modernbert
from llmrec_fast.encoding.plain_attention import Heads, LayoutName
from llmrec_fast.encoding.plain_builder import PlainGraph, Precision
from llmrec_fast.encoding.plain_decoder import build_plain_decoder
from llmrec_fast.encoding.plain_graph import build_plain_graph
from llmrec_fast.encoding.plain_modernbert import build_plain_modernbert
from llmrec_fast.encoding.weights import WeightFiles

AnyArchitecture = Architecture | ModernBertArchitecture | DecoderArchitecture


def read_any(config: Mapping[str, Any], parameters: Collection[str]) -> AnyArchitecture:
    """The architecture of a config.json of any supported family; raises `InvalidInput` as the families' readers do."""
    kind = config.get("model_type")
    if kind == "modernbert":
        return read_modernbert(config, parameters)
    return read_decoder(config, parameters) if kind in DECODER_TYPES else read_architecture(config, parameters)


def positions_of(architecture: AnyArchitecture) -> int:
    """The most tokens of a text."""
    return architecture.positions if isinstance(architecture, ModernBertArchitecture) else architecture.max_length


def heads_of(architecture: AnyArchitecture) -> Heads:
    """How attention is divided."""
    if isinstance(architecture, DecoderArchitecture):
        return Heads(architecture.heads, architecture.key_value_heads, architecture.head_width)
    return Heads(architecture.heads, architecture.heads, architecture.hidden // architecture.heads)


def has_masks(architecture: AnyArchitecture, longest: int) -> bool:
    """Whether in texts of `longest` tokens, which ones see each other, or how well, depends on more than their order."""
    if isinstance(architecture, ModernBertArchitecture):
        return any(architecture.local) and longest - 1 > architecture.reach
    return isinstance(architecture, Architecture) and bool(architecture.relative_buckets)


def build_plain_model(
    architecture: AnyArchitecture, weights: WeightFiles, precision: Precision, layout: LayoutName, longest: int
) -> PlainGraph:
    """The graph of a model for texts of up to `longest` tokens.

    Raises
    ------
    CorruptFile : a parameter is missing or has the wrong shape.
    InvalidInput : another precision, or parameters beyond 2 GB.
    """
    if isinstance(architecture, ModernBertArchitecture):
        return build_plain_modernbert(architecture, weights, precision, layout, longest)
    if isinstance(architecture, DecoderArchitecture):
        return build_plain_decoder(architecture, weights, precision, layout, longest)
    return build_plain_graph(architecture, weights, precision, layout)
