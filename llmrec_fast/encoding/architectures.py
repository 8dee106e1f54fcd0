"""What distinguishes the BERT-family architectures: sizes, parameter names, positions. `graph.py` builds from it.

Every architecture here is the post-norm transformer encoder of BERT (arXiv 1810.04805) and differs from it in names and in
how positions enter. What cannot be expressed here is refused by name, never approximated.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmrec_fast.errors import InvalidInput

Activation = Literal["gelu", "gelu_tanh", "relu", "silu"]
_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class ParameterNames:
    """Where a layer's parameters are, below `layer` with {} for its number; each has `.weight` and `.bias`."""

    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str


_BERT_NAMES = ParameterNames(
    layer="encoder.layer.{}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
)
_MPNET_NAMES = ParameterNames(
    layer="encoder.layer.{}.",
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
)
_DISTILBERT_NAMES = ParameterNames(
    layer="transformer.layer.{}.",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
)


@dataclass(frozen=True)
class Architecture:
    """One model's shape.

    Attributes
    ----------
    prefix : what every parameter name begins with (`bert.` in a checkpoint with a task head).
    names : the names of a layer's parameters.
    layers, heads, hidden, intermediate, vocabulary : sizes.
    positions : rows of the position table.
    padding_id : where positions count from this id + 1 and skip padding (RoBERTa), that id; None: they count from 0 (BERT).
    token_types : whether there is a token type table, of which only type 0 is used.
    relative_buckets : buckets of MPNet's relative position bias; 0: none.
    epsilon : of the layer norms.
    activation : of the intermediate layer.
    """

    prefix: str
    names: ParameterNames
    layers: int
    heads: int
    hidden: int
    intermediate: int
    vocabulary: int
    positions: int
    padding_id: int | None
    token_types: bool
    relative_buckets: int
    epsilon: float
    activation: Activation

    @property
    def max_length(self) -> int:
        """The most tokens that the position table allows."""
        return self.positions if self.padding_id is None else self.positions - self.padding_id - 1


_ROBERTA_TYPES = ("roberta", "xlm-roberta", "camembert")
BERT_TYPES = ("bert", *_ROBERTA_TYPES, "distilbert", "mpnet")


def read_architecture(config: Mapping[str, Any], parameters: Collection[str]) -> Architecture:
    """The `Architecture` of a config.json, given the names of the parameters in the weights.

    Raises
    ------
    InvalidInput : an architecture, a position scheme or an activation that the graph builder does not have, or a missing key.
    """
    kind = str(config.get("model_type", "unknown"))
    if kind not in BERT_TYPES:
        raise InvalidInput(f"{kind!r} is not an architecture of the BERT family, which is {', '.join(BERT_TYPES)}")
    scheme = config.get("position_embedding_type", "absolute")
    if scheme != "absolute":
        raise InvalidInput(
            f"{kind} with position_embedding_type {scheme!r} is not supported, only 'absolute'; use ONNX"
        )
    if config.get("is_decoder"):
        raise InvalidInput(f"{kind} as a decoder (is_decoder in config.json) is not supported; use ONNX")
    distilbert = kind == "distilbert"
    names = {"distilbert": _DISTILBERT_NAMES, "mpnet": _MPNET_NAMES}.get(kind, _BERT_NAMES)
    hidden, heads = (
        read_size(config, "dim" if distilbert else "hidden_size"),
        read_size(config, "n_heads" if distilbert else "num_attention_heads"),
    )
    columns_of_a_head(hidden, heads)
    return Architecture(
        prefix=find_prefix(kind, parameters, "embeddings.word_embeddings.weight"),
        names=names,
        layers=read_size(config, "n_layers" if distilbert else "num_hidden_layers"),
        heads=heads,
        hidden=hidden,
        intermediate=read_size(config, "hidden_dim" if distilbert else "intermediate_size"),
        vocabulary=read_size(config, "vocab_size"),
        positions=read_size(config, "max_position_embeddings"),
        padding_id=_padding_id(kind, config),
        token_types=kind in ("bert", *_ROBERTA_TYPES),
        relative_buckets=int(config.get("relative_attention_num_buckets", 32)) if kind == "mpnet" else 0,
        epsilon=float(config.get("layer_norm_eps", 1e-12)),
        activation=read_activation(config.get("activation" if distilbert else "hidden_act", "gelu")),
    )


def _padding_id(kind: str, config: Mapping[str, Any]) -> int | None:
    if kind == "mpnet":
        return 1  # transformers counts from there whatever the configuration says
    return int(config.get("pad_token_id", 1)) if kind in _ROBERTA_TYPES else None


def read_size(config: Mapping[str, Any], key: str) -> int:
    """A size of config.json. Raises `InvalidInput` unless it is a positive integer."""
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise InvalidInput(f"config.json must give {key} as a positive integer; it gives {value!r}")
    return value


def columns_of_a_head(hidden: int, heads: int) -> int:
    """Columns that each of the attention heads has. Raises `InvalidInput` where they cannot be shared out evenly."""
    if hidden % heads:
        raise InvalidInput(f"config.json: {hidden} columns cannot be shared by {heads} attention heads")
    return hidden // heads


def read_activation(name: Any) -> Activation:
    """An activation by the name that config.json gives it. Raises `InvalidInput` for one that is not supported."""
    if name not in _ACTIVATIONS:
        raise InvalidInput(f"config.json asks for the activation {name!r}; supported are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def find_prefix(kind: str, parameters: Collection[str], suffix: str) -> str:
    """What stands before `suffix`, the first table's name: checkpoints with a head keep the encoder below a name."""
    found = sorted((name for name in parameters if name.endswith(suffix)), key=len)
    if not found:
        raise InvalidInput(f"the weights have no parameter {suffix}: they are not those of a {kind} model")
    return found[0].removesuffix(suffix)
