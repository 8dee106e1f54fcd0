"""The suite `encode` runs without its peer, on a tiny model, and its texts are what it says they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from benchmarks import encode, encode_limit, encode_peers, encode_service, encode_texts, threads
from benchmarks.__main__ import main
from benchmarks.harness import Disagreement
from llmrec_fast.encoding import Encoder
from llmrec_fast.encoding.model_files import find_model


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about answers, not about times, and need neither the peer nor the data set."""
    monkeypatch.setattr(threads, "SETTLE_AT_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "SETTLE_AT_MOST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "FLUSH_BYTES", 1 << 16)
    monkeypatch.setattr(encode_limit, "_SIZE", 64)
    monkeypatch.setattr(encode_limit, "_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(encode, "load_peers", lambda name, folder, threads: ({}, {encode.PEER: "left out"}))


def test_the_suite_runs_without_its_peer_and_says_so(bert: Path, tmp_path: Path) -> None:
    words = ["encode", "--quick", "--seconds", "0.01", "--threads", "2", "--output", str(tmp_path)]
    assert main([*words, "--model", str(bert)]) == 0
    found = json.loads((tmp_path / "encode.json").read_text())
    assert found["missing_peers"] == {encode.PEER: "left out"}
    assert [cell["labels"]["texts"] for cell in found["cells"]] == ["short", "mixed", "long", "one alone"]
    for cell in found["cells"]:
        assert {m["contender"] for m in cell["measurements"]} == {encode.OURS, encode.INT8}
    assert found["cells"][0]["figures"][f"{encode.INT8}, tokens/s"] > 0
    assert found["cells"][3]["figures"][f"{encode.OURS}, p99 ms"] > 0
    assert found["targets"] == []


def test_with_a_peer_every_target_is_judged(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peers = {encode.PEER: Shifted(Encoder(bert), 5e-5), "liar": Shifted(Encoder(bert), 5e-4)}
    monkeypatch.setattr(encode, "load_peers", lambda name, folder, threads: (peers, {}))
    monkeypatch.setattr(encode, "COUNTS", encode.QUICK_COUNTS)
    words = ["encode", "--seconds", "0.01", "--threads", "2", "--output", str(tmp_path), "--model", str(bert)]
    assert main(words) == 0
    found = json.loads((tmp_path / "encode.json").read_text())
    assert [(target["name"], target["wanted"]) for target in found["targets"]] == [
        ("largest difference", 1e-4),
        ("int8: mean cosine to float32", 0.996),
        ("int8: least cosine to float32", 0.985),
        ("int8: top-10 overlap with float32", 0.92),
        ("short: share of the matrix products' rate", 85),
        ("llmrec_fast, short: over sentence-transformers", 1.8),
        ("llmrec_fast, mixed: over sentence-transformers", 2.2),
        ("llmrec_fast, int8, short: over sentence-transformers", 2.5),
        ("llmrec_fast, one alone: p50 over sentence-transformers", 0.5),
    ]
    for cell in found["cells"]:
        assert any("liar is not timed: differs from llmrec_fast by" in note for note in cell["notes"])


def test_accuracy_is_cosines_and_shared_neighbours() -> None:
    exact = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    assert encode.accuracy(exact, 3 * exact) == pytest.approx((1, 1, 1))
    turned = exact.copy()
    turned[7] = -turned[7]
    mean, least, overlap = encode.accuracy(exact, turned)
    assert (mean, least) == pytest.approx((38 / 40, -1))
    assert 0.5 < overlap < 1


def test_operations_of_a_known_shape(bert: Path) -> None:
    # two layers, 16 columns, 40 intermediate: 2 (8 16^2 + 4 16 40) a token, 2 * 4 * 16 t^2 a text
    assert encode.operations(find_model(bert), [3, 5]) == 2 * (2048 + 2560) * 8 + 128 * (9 + 25)


def test_the_product_of_the_limit_is_one() -> None:
    right = np.arange(9, dtype=np.float32).reshape(3, 3)
    (product,) = encode_limit._one_product(right).run(None, {"left": np.eye(3, dtype=np.float32)[::-1].copy()})
    np.testing.assert_array_equal(product, right[::-1])


def test_passages_have_the_lengths_asked_for(bert: Path) -> None:
    counter = encode.TokenCounter(find_model(bert))
    assert counter(encode_texts.passages([3, 17, 250], counter)) == [3, 17, 250]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_callers_together_are_compared_with_calls_in_turn(bert: Path, tmp_path: Path, precision: str) -> None:
    words = ["encode-service", "--quick", "--seconds", "0.01", "--threads", "2", "--output", str(tmp_path)]
    assert main([*words, "--model", str(bert), "--callers", "5", "--precision", precision]) == 0
    found = json.loads((tmp_path / "encode-service.json").read_text())
    assert {measured["contender"] for measured in found["cells"][0]["measurements"]} == {
        encode_service.TOGETHER,
        encode_service.IN_TURN,
        encode_service.ONE_CALL,
    }
    assert found["cells"][0]["figures"]["p99, ms"] > 0
    assert f"2 threads, {precision}" in found["notes"]


class Shifted:
    """A peer whose answers differ from ours by `shift`."""

    def __init__(self, encoder: Encoder, shift: float) -> None:
        self._encoder, self._shift = encoder, np.float32(shift)

    def encode(self, texts: list[str]) -> Any:
        return self._encoder.encode(texts) + self._shift


def test_a_difference_stops_the_run(bert: Path) -> None:
    ours = Encoder(bert)
    texts = encode_texts.awkward(20)
    near = {encode.OURS: ours, encode.PEER: Shifted(ours, 5e-5)}
    assert encode._largest_difference(near, texts) == pytest.approx(5e-5, rel=0.01)
    for shift in (2e-4, np.nan):
        far = {encode.OURS: ours, encode.PEER: Shifted(ours, shift)}
        with pytest.raises(Disagreement, match="differs from sentence-transformers"):
            encode._largest_difference(far, texts)


def test_awkward_texts_reach_600_words_and_are_the_same_each_time() -> None:
    texts = encode_texts.awkward(520)
    assert len(texts) == 520
    assert texts == encode_texts.awkward(520)
    assert "" in texts
    assert max(len(text.split()) for text in texts) > 500
    assert {"я", "的", "ك", "😀"} <= set("".join(texts))


def test_the_plain_graph_pools_normalises_and_keeps_the_order(bert: Path) -> None:
    class Session:
        """Token embeddings are (id, 1)."""

        def run(self, outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
            assert feed["input_ids"].shape[0] <= 32
            return [np.stack([feed["input_ids"], np.ones_like(feed["input_ids"])], axis=2).astype(np.float32)]

    tokenizer = tokenizers.Tokenizer.from_file(str(find_model(bert).tokenizer))
    texts = [" ".join(["snow"] * (1 + number % 7)) for number in range(70)]
    tokenizer.no_padding()
    expected = [np.array([np.mean(tokenizer.encode(text).ids), 1]) for text in texts]
    tokenizer.enable_padding(pad_id=9)  # padding has embeddings too, which must not count
    found = encode_peers.PlainGraph(Session(), tokenizer).encode(texts)
    np.testing.assert_allclose(found, [row / np.linalg.norm(row) for row in expected], atol=1e-6)
