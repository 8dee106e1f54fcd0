"""Small random ModernBERT and decoder models in the Hugging Face layout, and the float64 oracle of both.

The oracle is written from the papers, one text at a time, without padding, fusing or tables.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers
from safetensors.numpy import save_file
from scipy.special import erf, expit
from tokenizers import models, pre_tokenizers, processors

from tests.encoding.tiny_models import WORDS, write_json

Float64Array = npt.NDArray[np.float64]
DECODERS = ("llama", "mistral", "qwen2", "qwen3")
GATED_KINDS = ("modernbert", *DECODERS)
WIDTH, HEADS, LAYERS, INTERMEDIATE, POSITIONS = 16, 2, 4, 20, 40
HIDDEN = WIDTH * HEADS
_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS)
IDS = {token: place for place, token in enumerate(_TOKENS)}


def gated_config(kind: str) -> dict[str, Any]:
    """config.json of a tiny model of this type."""
    config: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": len(_TOKENS),
        "hidden_size": HIDDEN,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "pad_token_id": 0,
    }
    if kind == "modernbert":
        return config | {"local_attention": 6, "norm_eps": 1e-5, "hidden_activation": "gelu"}
    config |= {"num_key_value_heads": 1, "rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 1000.0}
    return config | ({"head_dim": 2 * WIDTH} if kind == "qwen3" else {})


def write_gated_model(
    folder: Path, kind: str, *, prefix: str = "", left_padding: bool = False, config: Mapping[str, Any] | None = None
) -> Path:
    """A complete model folder. Decoders end a text with [SEP]; ModernBERT puts [CLS] before it as well."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = gated_config(kind) | dict(config or {})
    write_json(folder / "config.json", settings)
    parameters = gated_parameters(settings)
    save_file({prefix + name: array for name, array in parameters.items()}, folder / "model.safetensors")
    tokenizer = tokenizers.Tokenizer(models.WordLevel(IDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    begin = "[CLS] " if kind == "modernbert" else ""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin}$A [SEP]", special_tokens=[("[CLS]", IDS["[CLS]"]), ("[SEP]", IDS["[SEP]"])]
    )
    tokenizer.add_special_tokens(list(_TOKENS[:4]))
    if left_padding:
        tokenizer.enable_padding(direction="left", length=POSITIONS)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def gated_ids(text: str, kind: str) -> list[int]:
    words = [IDS.get(word, IDS["[UNK]"]) for word in text.split()]
    return ([IDS["[CLS]"]] if kind == "modernbert" else []) + words + [IDS["[SEP]"]]


def gated_parameters(config: Mapping[str, Any], seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Parameters under the names that transformers gives them, large enough that attention is far from uniform."""
    rng = np.random.default_rng(seed)
    kind = config["model_type"]
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    parameters: dict[str, npt.NDArray[np.float32]] = {}

    def add(name: str, *shape: int, centre: float = 0.0) -> None:
        parameters[name] = (rng.normal(0, 0.3, shape) + centre).astype(np.float32)

    def linear(name: str, rows: int, columns: int, bias: bool) -> None:
        add(f"{name}.weight", rows, columns)
        if bias:
            add(f"{name}.bias", rows)

    if kind == "modernbert":

        def norm(name: str) -> None:
            add(f"{name}.weight", hidden, centre=1.0)
            if config.get("norm_bias"):
                add(f"{name}.bias", hidden)

        attention, feed_forward = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
        add("embeddings.tok_embeddings.weight", config["vocab_size"], hidden)
        norm("embeddings.norm")
        for layer in range(config["num_hidden_layers"]):
            if layer:
                norm(f"layers.{layer}.attn_norm")
            linear(f"layers.{layer}.attn.Wqkv", 3 * hidden, hidden, attention)
            linear(f"layers.{layer}.attn.Wo", hidden, hidden, attention)
            norm(f"layers.{layer}.mlp_norm")
            linear(f"layers.{layer}.mlp.Wi", 2 * inner, hidden, feed_forward)
            linear(f"layers.{layer}.mlp.Wo", hidden, inner, feed_forward)
        norm("final_norm")
        return parameters
    width = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, shared = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    everywhere, feed_forward = bool(config.get("attention_bias")), bool(config.get("mlp_bias"))
    add("embed_tokens.weight", config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        place = f"layers.{layer}."
        add(f"{place}input_layernorm.weight", hidden, centre=1.0)
        for name, rows in (("q", queries), ("k", shared), ("v", shared)):
            linear(f"{place}self_attn.{name}_proj", rows, hidden, everywhere or kind == "qwen2")
        if kind == "qwen3":
            add(f"{place}self_attn.q_norm.weight", width, centre=1.0)
            add(f"{place}self_attn.k_norm.weight", width, centre=1.0)
        linear(f"{place}self_attn.o_proj", hidden, queries, everywhere)
        add(f"{place}post_attention_layernorm.weight", hidden, centre=1.0)
        for name, rows, columns in (("gate", inner, hidden), ("up", inner, hidden), ("down", hidden, inner)):
            linear(f"{place}mlp.{name}_proj", rows, columns, feed_forward)
    add("norm.weight", hidden, centre=1.0)
    return parameters


def gated_embeddings(
    config: Mapping[str, Any], parameters: Mapping[str, npt.NDArray[Any]], ids: Sequence[int]
) -> Float64Array:
    """(tokens, hidden) of one text; `ids` with its special tokens."""
    p = {name: np.asarray(array, np.float64) for name, array in parameters.items()}
    return (_modernbert if config["model_type"] == "modernbert" else _decoder)(config, p, list(ids))


def _modernbert(config: Mapping[str, Any], p: Mapping[str, Float64Array], ids: list[int]) -> Float64Array:
    heads, epsilon = config["num_attention_heads"], config["norm_eps"]
    x = _layer_norm(p["embeddings.tok_embeddings.weight"][ids], p, "embeddings.norm", epsilon)
    distance = np.abs(np.arange(len(ids))[:, None] - np.arange(len(ids)))
    for layer in range(config["num_hidden_layers"]):
        whole = layer % 3 == 0
        theta = config.get("global_rope_theta", 160_000.0) if whole else config.get("local_rope_theta", 10_000.0)
        seen = np.ones_like(distance, bool) if whole else distance <= config["local_attention"] // 2
        place = f"layers.{layer}."
        normed = x if layer == 0 else _layer_norm(x, p, f"{place}attn_norm", epsilon)
        q, k, v = np.split(_linear(normed, p, f"{place}attn.Wqkv"), 3, axis=1)
        frequencies = _frequencies(theta, x.shape[1] // heads)
        x = x + _linear(_attend(q, k, v, heads, heads, seen, frequencies), p, f"{place}attn.Wo")
        first, second = np.split(
            _linear(_layer_norm(x, p, f"{place}mlp_norm", epsilon), p, f"{place}mlp.Wi"), 2, axis=1
        )
        x = x + _linear(first * (1 + erf(first / math.sqrt(2))) / 2 * second, p, f"{place}mlp.Wo")
    return _layer_norm(x, p, "final_norm", epsilon)


def _decoder(config: Mapping[str, Any], p: Mapping[str, Float64Array], ids: list[int]) -> Float64Array:
    heads, shared, epsilon = config["num_attention_heads"], config["num_key_value_heads"], config["rms_norm_eps"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    frequencies = _stretched(config, _frequencies(config["rope_theta"], width))
    seen = np.tril(np.ones((len(ids), len(ids)), bool))
    x = p["embed_tokens.weight"][ids]
    for layer in range(config["num_hidden_layers"]):
        place = f"layers.{layer}."
        normed = _rms_norm(x, p[f"{place}input_layernorm.weight"], epsilon)
        q, k, v = (_linear(normed, p, f"{place}self_attn.{name}_proj") for name in "qkv")
        if config["model_type"] == "qwen3":
            q, k = (
                _rms_norm(
                    part.reshape(len(ids), -1, width), p[f"{place}self_attn.{name}_norm.weight"], epsilon
                ).reshape(part.shape)
                for part, name in ((q, "q"), (k, "k"))
            )
        x = x + _linear(_attend(q, k, v, heads, shared, seen, frequencies), p, f"{place}self_attn.o_proj")
        normed = _rms_norm(x, p[f"{place}post_attention_layernorm.weight"], epsilon)
        gate = _linear(normed, p, f"{place}mlp.gate_proj")
        x = x + _linear(gate * expit(gate) * _linear(normed, p, f"{place}mlp.up_proj"), p, f"{place}mlp.down_proj")
    return _rms_norm(x, p["norm.weight"], epsilon)


def _attend(
    q: Float64Array,
    k: Float64Array,
    v: Float64Array,
    heads: int,
    shared: int,
    seen: npt.NDArray[np.bool_],
    frequencies: Float64Array,
) -> Float64Array:
    """Head after head; a group of query heads uses the same keys and values."""
    width = q.shape[1] // heads
    outputs = []
    for head in range(heads):
        other = head * shared // heads
        query = _turn(q[:, head * width : (head + 1) * width], frequencies)
        key = _turn(k[:, other * width : (other + 1) * width], frequencies)
        scores = np.where(seen, query @ key.T / math.sqrt(width), -np.inf)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        outputs.append(shares @ v[:, other * width : (other + 1) * width])
    return np.concatenate(outputs, axis=1)


def _turn(x: Float64Array, frequencies: Float64Array) -> Float64Array:
    """Columns i and i + width/2 are a plane, turned by position * frequency: a product with a complex number."""
    half = x.shape[1] // 2
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * np.arange(len(x))[:, None] * frequencies)
    return np.concatenate([turned.real, turned.imag], axis=1)


def _frequencies(theta: float, width: int) -> Float64Array:
    return np.array([theta ** (-2 * plane / width) for plane in range(width // 2)])


def _stretched(config: Mapping[str, Any], frequencies: Float64Array) -> Float64Array:
    given = config.get("rope_scaling") or {}
    if given.get("rope_type") == "linear":
        return frequencies / given["factor"]
    if given.get("rope_type") != "llama3":
        return frequencies
    result = []
    for frequency in frequencies:
        wave, trained = 2 * math.pi / frequency, given["original_max_position_embeddings"]
        if wave < trained / given["high_freq_factor"]:
            result.append(frequency)
        elif wave > trained / given["low_freq_factor"]:
            result.append(frequency / given["factor"])
        else:
            smooth = (trained / wave - given["low_freq_factor"]) / (
                given["high_freq_factor"] - given["low_freq_factor"]
            )
            result.append((1 - smooth) * frequency / given["factor"] + smooth * frequency)
    return np.array(result)


def _linear(x: Float64Array, p: Mapping[str, Float64Array], name: str) -> Float64Array:
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)


def _layer_norm(x: Float64Array, p: Mapping[str, Float64Array], name: str, epsilon: float) -> Float64Array:
    centred = x - x.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + epsilon)
    return scaled * p[f"{name}.weight"] + p.get(f"{name}.bias", 0.0)


def _rms_norm(x: Float64Array, scale: Float64Array, epsilon: float) -> Float64Array:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * scale
