"""Write small random models in the Hugging Face layout, a few kilobytes each, the same ones on every run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import models, normalizers, pre_tokenizers, processors

_PHRASE = "a man is eating food piece of bread the movie about space and time in snow café 雪 ."
WORDS = tuple(_PHRASE.split())
HIDDEN, HEADS, LAYERS, INTERMEDIATE, POSITIONS = 16, 4, 2, 40, 24
KINDS = ("bert", "roberta", "xlm-roberta", "distilbert", "mpnet")


def write_model(
    folder: Path,
    kind: str = "bert",
    *,
    seed: int = 0,
    dtype: Any = np.float32,
    config: Mapping[str, Any] | None = None,
    pooling: Mapping[str, Any] | None = None,
    normalize: bool = False,
    prefix: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """A complete model folder. `config` overrides config.json; `pooling`, where given, adds the sentence-transformers files."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = model_config(kind) | dict(config or {})
    write_json(folder / "config.json", sizes)
    write_tokenizer(folder / "tokenizer.json", kind)
    write_json(folder / "tokenizer_config.json", {"model_max_length": 512})
    parameters = random_parameters(sizes, seed)
    save_file({prefix + name: array.astype(dtype) for name, array in parameters.items()}, folder / "model.safetensors")
    if settings is not None:
        write_json(folder / "sentence_bert_config.json", settings)
    if pooling is not None:
        write_modules(folder, ["Transformer", "Pooling"] + ["Normalize"] * normalize)
        (folder / "1_Pooling").mkdir(exist_ok=True)
        write_json(folder / "1_Pooling" / "config.json", pooling)
    return folder


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_modules(folder: Path, kinds: list[str]) -> None:
    """modules.json with these module types, each in the folder that sentence-transformers would give it."""
    steps = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{kind}" if i else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", steps)


def model_config(kind: str) -> dict[str, Any]:
    """config.json of a tiny model of this type."""
    offset = 0 if kind in ("bert", "distilbert") else 2
    common: dict[str, Any] = {
        "model_type": kind,
        "vocab_size": len(vocabulary(kind)),
        "max_position_embeddings": POSITIONS + offset,
        "pad_token_id": vocabulary(kind)[special_tokens(kind)[0]],
        "layer_norm_eps": 1e-5 if offset else 1e-12,
    }
    if kind == "distilbert":
        del common["layer_norm_eps"]
        sizes = {"dim": HIDDEN, "n_heads": HEADS, "n_layers": LAYERS, "hidden_dim": INTERMEDIATE, "activation": "gelu"}
    else:
        sizes = {
            "hidden_size": HIDDEN,
            "num_attention_heads": HEADS,
            "num_hidden_layers": LAYERS,
            "intermediate_size": INTERMEDIATE,
            "hidden_act": "gelu",
        }
    if kind == "bert":
        sizes["type_vocab_size"] = 2
    if kind in ("roberta", "xlm-roberta"):
        sizes["type_vocab_size"] = 1
    if kind == "mpnet":
        sizes["relative_attention_num_buckets"] = 32
    return common | sizes


def special_tokens(kind: str) -> tuple[str, str, str, str]:
    """Padding, unknown, begin, end."""
    if kind in ("bert", "distilbert"):
        return "[PAD]", "[UNK]", "[CLS]", "[SEP]"
    return "<pad>", "<unk>", "<s>", "</s>"


def vocabulary(kind: str) -> dict[str, int]:
    pad, unknown, begin, end = special_tokens(kind)
    first = [pad, unknown, begin, end] if kind in ("bert", "distilbert") else [begin, pad, end, unknown]
    return {token: place for place, token in enumerate([*first, *WORDS])}


def write_tokenizer(path: Path, kind: str) -> None:
    """One word, one token; words that are not in WORDS are unknown."""
    pad, unknown, begin, end = special_tokens(kind)
    ids = vocabulary(kind)
    tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=unknown))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A {end}",
        pair=f"{begin} $A {end} $B:1 {end}:1" if begin == "[CLS]" else f"{begin} $A {end} {end} $B {end}",
        special_tokens=[(begin, ids[begin]), (end, ids[end])],
    )
    tokenizer.add_special_tokens([pad, unknown, begin, end])
    tokenizer.enable_padding(length=7)  # as many published tokenizers: the encoder must not follow it
    tokenizer.save(str(path))


def random_parameters(config: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Parameters under the names that transformers gives them, large enough that attention is far from uniform."""
    kind, rng = str(config["model_type"]), np.random.default_rng(seed)
    hidden = int(config["dim" if kind == "distilbert" else "hidden_size"])
    inner = int(config["hidden_dim" if kind == "distilbert" else "intermediate_size"])
    layers = int(config["n_layers" if kind == "distilbert" else "num_hidden_layers"])
    parameters: dict[str, np.ndarray] = {}

    def add(name: str, *shape: int, centre: float = 0.0) -> None:
        # multiples of 1/64, which float16 and bfloat16 hold exactly within this range
        parameters[name] = (np.round(64 * rng.normal(0, 0.3, shape).clip(-1, 1)) / 64 + centre).astype(np.float32)

    def linear(name: str, rows: int, columns: int) -> None:
        add(f"{name}.weight", rows, columns)
        add(f"{name}.bias", rows)

    def norm(name: str) -> None:
        add(f"{name}.weight", hidden, centre=1.0)
        add(f"{name}.bias", hidden)

    add("embeddings.word_embeddings.weight", int(config["vocab_size"]), hidden)
    add("embeddings.position_embeddings.weight", int(config["max_position_embeddings"]), hidden)
    if "type_vocab_size" in config:
        add("embeddings.token_type_embeddings.weight", int(config["type_vocab_size"]), hidden)
    norm("embeddings.LayerNorm")
    if kind == "mpnet":
        add("encoder.relative_attention_bias.weight", int(config["relative_attention_num_buckets"]), HEADS)
    for layer in range(layers):
        if kind == "distilbert":
            place, attention = f"transformer.layer.{layer}", [f"attention.{x}_lin" for x in ("q", "k", "v", "out")]
            rest = ["sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"]
        elif kind == "mpnet":
            place, attention = f"encoder.layer.{layer}", [f"attention.attn.{x}" for x in ("q", "k", "v", "o")]
            rest = ["attention.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
        else:
            place = f"encoder.layer.{layer}"
            attention = [f"attention.self.{x}" for x in ("query", "key", "value")] + ["attention.output.dense"]
            rest = ["attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"]
        for name in attention:
            linear(f"{place}.{name}", hidden, hidden)
        norm(f"{place}.{rest[0]}")
        linear(f"{place}.{rest[1]}", inner, hidden)
        linear(f"{place}.{rest[2]}", hidden, inner)
        norm(f"{place}.{rest[3]}")
    return parameters
