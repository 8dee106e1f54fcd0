"""The demo on the real model and the real ratings: its figures are the project's first promise."""

import json
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def demo():
    done = subprocess.run(
        [sys.executable, "-m", "llmrec_fast", "demo", "--json", "--no-adapter"],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.real
def test_the_popularity_row_proves_the_protocol(demo):
    row = demo["rows"]["popularity"]
    assert (round(row["ndcg@10"], 4), round(row["recall@20"], 4)) == (0.0982, 0.1246)


@pytest.mark.real
def test_texts_and_the_fused_list_reach_their_floors(demo):
    rows = demo["rows"]
    assert rows["text"]["ndcg@10"] >= 0.0530
    assert rows["text"]["recall@20"] >= 0.0770
    assert rows["fused"]["ndcg@10"] >= 0.1850
    assert rows["fused"]["recall@20"] >= 0.2400


@pytest.mark.real
def test_the_fused_list_is_better_than_each_of_its_parts(demo):
    rows = demo["rows"]
    for name in ("popularity", "text", "collaborative"):
        for metric in ("ndcg@10", "recall@20"):
            assert rows["fused"][metric] > rows[name][metric]


@pytest.mark.real
def test_reranking_by_trees_is_better_still(demo):
    pytest.importorskip("lightgbm", exc_type=(ImportError, OSError))
    rows = demo["rows"]
    for metric in ("ndcg@10", "recall@20"):
        assert rows["reranked"][metric] > rows["fused"][metric]


@pytest.mark.real
def test_every_stage_is_timed(demo):
    stages = {"data", "model", "encode", "fit", "recommend", "rerank", "evaluate"}
    assert set(demo["seconds"]) == stages
    assert set(demo["row_seconds"]) >= set(demo["rows"])
