"""The suite `encode` runs without its peer, on a tiny model, and its texts are what it says they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import encode, encode_service, encode_texts, threads
from benchmarks.__main__ import main
from benchmarks.harness import Disagreement
from llmrec_fast.encoding import Encoder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about answers, not about times, and need neither the peer nor the data set."""
    monkeypatch.setattr(threads, "SETTLE_AT_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "SETTLE_AT_MOST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "FLUSH_BYTES", 1 << 16)
    monkeypatch.setattr(encode, "import_peers", lambda names: ({}, dict.fromkeys(names, "left out")))
    monkeypatch.setattr(encode, "descriptions", encode_texts.awkward)
    monkeypatch.setattr(encode, "item_texts", list)


def test_the_suite_runs_without_its_peer_and_says_so(bert: Path, tmp_path: Path) -> None:
    words = ["encode", "--quick", "--seconds", "0.01", "--threads", "2", "--output", str(tmp_path)]
    assert main([*words, "--model", str(bert)]) == 0
    found = json.loads((tmp_path / "encode.json").read_text())
    assert found["missing_peers"]["sentence_transformers"] == "left out"
    assert [cell["labels"]["texts"] for cell in found["cells"]] == ["descriptions", "one alone"]


def test_callers_together_are_compared_with_calls_in_turn(bert: Path, tmp_path: Path) -> None:
    words = ["encode-service", "--quick", "--seconds", "0.01", "--threads", "2", "--output", str(tmp_path)]
    assert main([*words, "--model", str(bert), "--callers", "5"]) == 0
    found = json.loads((tmp_path / "encode-service.json").read_text())
    assert {measured["contender"] for measured in found["cells"][0]["measurements"]} == {
        encode_service.TOGETHER,
        encode_service.IN_TURN,
        encode_service.ONE_CALL,
    }
    assert found["cells"][0]["figures"]["p99, ms"] > 0


class Shifted:
    """A peer whose answers differ from ours by `shift`."""

    def __init__(self, encoder: Encoder, shift: float) -> None:
        self._encoder, self._shift = encoder, np.float32(shift)

    def encode(self, texts: list[str], show_progress_bar: bool = False) -> Any:
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
