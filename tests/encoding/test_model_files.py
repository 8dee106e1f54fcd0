"""Finding a model's files: what is read from them, and what is said when one is missing, damaged or not supported."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llmrec_fast.encoding.model_files import KNOWN_MODELS, find_model
from llmrec_fast.encoding.pooling import Pooling
from llmrec_fast.encoding.prompts import Prompts
from llmrec_fast.errors import CorruptFile, InvalidInput
from tests.encoding.tiny_models import write_json, write_model, write_modules

MEAN = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def test_a_plain_folder_means_mean_pooling_without_normalisation(bert: Path) -> None:
    files = find_model(bert)
    assert files.pooling == Pooling(("mean",))
    assert not files.normalize
    assert files.max_length == 512
    assert files.weights == (bert / "model.safetensors",)
    assert files.onnx is None
    assert files.prompts == Prompts({})


@pytest.mark.parametrize(
    ("pooling", "modes"),
    [
        (MEAN, ("mean",)),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("first",)),
        ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, ("first", "max")),
        ({"embedding_dimension": 16, "pooling_mode": "lasttoken"}, ("last",)),
        ({"pooling_mode": ["max", "mean"]}, ("max", "mean")),
        ({"pooling_mode": "weightedmean"}, ("weighted_mean",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, ("mean_sqrt_len",)),
    ],
)
def test_the_pooling_module_is_honoured_in_its_old_and_new_form(tmp_path: Path, pooling: dict, modes: tuple) -> None:
    files = find_model(write_model(tmp_path, pooling=pooling, normalize=True, settings={"max_seq_length": 12}))
    assert files.pooling.modes == modes
    assert files.normalize
    assert files.max_length == 12


def test_lower_casing_and_the_default_prompt_are_read(tmp_path: Path) -> None:
    write_model(tmp_path, settings={"max_seq_length": None, "do_lower_case": True})
    write_json(
        tmp_path / "config_sentence_transformers.json",
        {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "passage"},
    )
    files = find_model(tmp_path)
    assert files.lower_case
    assert files.prompts.choose(None, None) == "passage: "
    assert files.prompts.choose("query", None) == "query: "
    assert files.max_length == 512


def test_the_transformer_may_be_in_a_subfolder(tmp_path: Path) -> None:
    write_model(tmp_path / "0_Transformer")
    write_json(
        tmp_path / "modules.json",
        [
            {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling"},
        ],
    )
    (tmp_path / "1_Pooling").mkdir()
    write_json(tmp_path / "1_Pooling" / "config.json", MEAN)
    assert find_model(tmp_path).tokenizer == tmp_path / "0_Transformer" / "tokenizer.json"


def test_shards_come_from_the_index(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00002-of-00002.safetensors")
    shutil.copy(tmp_path / "model-00002-of-00002.safetensors", tmp_path / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"b": "model-00002-of-00002.safetensors", "a": "model-00001-of-00002.safetensors"}}
    write_json(tmp_path / "model.safetensors.index.json", index)
    names = [path.name for path in find_model(tmp_path).weights]
    assert names == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_model(tmp_path) / name).unlink()
    with pytest.raises(InvalidInput, match=rf"has n(o|either) {name.replace('.', '[.]')}"):
        find_model(tmp_path)


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    (write_model(tmp_path) / "config.json").write_text('{"model_type": "bert"')
    with pytest.raises(CorruptFile, match=r"config\.json is not valid JSON"):
        find_model(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "named"),
    [
        (["Transformer", "Pooling", "LSTM"], "LSTM"),
        (["Transformer", "Normalize"], "Normalize"),
        (["CLIPModel"], "CLIPModel"),
    ],
)
def test_a_module_that_is_not_supported_is_named(tmp_path: Path, kinds: list[str], named: str) -> None:
    write_modules(write_model(tmp_path, pooling=MEAN), kinds)
    with pytest.raises(InvalidInput, match=named):
        find_model(tmp_path)


def test_a_pooling_that_is_not_supported_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'median'"):
        find_model(write_model(tmp_path, pooling={"pooling_mode": "median"}))


def test_leaving_the_prompt_out_of_the_pooling_is_read(tmp_path: Path) -> None:
    assert find_model(write_model(tmp_path / "in", pooling=MEAN)).pooling.include_prompt
    left_out = write_model(tmp_path / "out", pooling=MEAN | {"include_prompt": False})
    assert not find_model(left_out).pooling.include_prompt


@pytest.mark.parametrize(
    ("names", "given"),
    [(None, True), (["input_ids", "token_type_ids"], True), (["input_ids", "attention_mask"], False)],
)
def test_whether_tokens_have_types_is_read(tmp_path: Path, names: list[str] | None, given: bool) -> None:
    write_model(tmp_path)
    assert find_model(tmp_path).token_types
    write_json(tmp_path / "tokenizer_config.json", {"model_input_names": names})
    assert find_model(tmp_path).token_types == given


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"'minilm2' is neither a folder nor a known model.*minilm"):
        find_model("minilm2")


def test_all_names_of_minilm_are_one_model() -> None:
    assert len({asset.name for asset in KNOWN_MODELS.values()}) == 1
    assert {"minilm", "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"} == set(KNOWN_MODELS)
