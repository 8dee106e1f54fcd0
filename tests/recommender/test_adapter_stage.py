"""The adapter as a feature of a recommender: learned, weighed, explained, saved and served without torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from llmrec_fast import Recommender
from llmrec_fast.errors import InvalidInput
from llmrec_fast.ranking.adapter import AdapterSettings

from .conftest import TOOLS, WINES, bag_of_words, interaction_table, item_table

pytest.importorskip("onnxruntime")
SMALL = AdapterSettings(dimension=8, hidden=8, epochs=4, batch=64, learning_rate=0.02)
ALONE = {"adapter": 1.0}


@pytest.fixture(scope="module", params=["pooled", "sequential", "collaborative"])
def adapted(request):
    pytest.importorskip("torch")
    settings = replace(SMALL, recent=4, **({} if request.param == "pooled" else {request.param: True}))
    return Recommender(bag_of_words, liked_from=4, adapter=settings, threads=1).fit(item_table(), interaction_table())


def test_the_adapter_is_a_feature_among_others(adapted):
    assert set(adapted.weights) == {"text", "collaborative", "adapter", "popularity"}
    assert adapted.report_.weights_from == "validation"
    taste = {f"i{n}" for n in range(5)}
    answer = adapted.recommend([0], k=1, weights=ALONE)[0][0][0]
    assert answer in taste


def test_scores_of_the_adapter_alone_are_cosines_of_the_two_sides(adapted):
    state = adapted._fitted()
    items, weights = state.histories.of(state.user_ids.position(3))
    histories = state.space.features["adapter of histories"][items]
    if state.adapter.attention is not None:
        weights = weights * state.adapter.attention.weights(histories)
    profile = weights.astype(np.float64) @ histories
    vectors = state.space.features["adapter"]
    expected = vectors @ profile / np.linalg.norm(profile)
    answer = adapted.recommend([3], k=10, filter_seen=False, weights=ALONE)
    np.testing.assert_allclose(answer.scores[0], expected[answer.positions[0]], atol=1e-5)


def test_explanations_add_up_by_feature_and_by_history(adapted):
    explanation = adapted.explain(0, adapted.recommend([0], k=1)[0][0][0])
    assert explanation.score == pytest.approx(sum(explanation.features.values()))
    for name, share in explanation.features.items():
        if name != "popularity":
            assert sum(part.by_feature.get(name, 0.0) for part in explanation.history) == pytest.approx(share, abs=1e-5)


@pytest.mark.parametrize("collaborative", [False, True])
def test_a_new_item_is_scored_from_its_text_at_once(collaborative):
    pytest.importorskip("torch")
    settings = replace(SMALL, collaborative=collaborative)
    recommender = Recommender(bag_of_words, liked_from=4, adapter=settings, threads=1)
    recommender.fit(item_table(), interaction_table())
    recommender.add_items({"id": ["new wine", "new tool"], "text": [WINES[0], TOOLS[0]]})
    allowed = ["new wine", "new tool"]
    wine_lover, tool_lover = recommender.recommend([0, 1], k=2, allow=allowed, weights=ALONE)
    assert wine_lover[0][0] == "new wine"
    assert tool_lover[0][0] == "new tool"


def test_saved_recommenders_answer_alike_and_without_torch(adapted, tmp_path):
    adapted.save(tmp_path / "saved")
    loaded = Recommender.load(tmp_path / "saved", encoder=bag_of_words)
    before, after = adapted.recommend([0, 1], k=5), loaded.recommend([0, 1], k=5)
    np.testing.assert_array_equal(before.positions, after.positions)
    loaded.add_items({"id": ["new"], "text": [WINES[0]]})
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from llmrec_fast import Recommender\n"
        f"recommender = Recommender.load({str(tmp_path / 'saved')!r})\n"
        "print(recommender.recommend([0, 1], k=5).positions.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(before.positions.tolist())


def test_an_adapter_needs_vectors_to_adapt():
    with pytest.raises(InvalidInput, match="needs text or other vectors"):
        Recommender(None, adapter=True).fit(item_table(), interaction_table())


def test_a_known_item_that_is_described_anew_keeps_its_other_inputs(tmp_path):
    pytest.importorskip("torch")
    settings = replace(SMALL, collaborative=True, smoothing=0)
    recommender = Recommender(bag_of_words, liked_from=4, rank=4, adapter=settings, threads=1)
    recommender.fit(item_table(), interaction_table())
    assert dict(recommender._fitted().adapter.widths) == {"text": bag_of_words([""]).shape[1], "collaborative": 4}
    recommender.save(tmp_path / "saved")
    loaded = Recommender.load(tmp_path / "saved", encoder=bag_of_words)
    state = loaded._fitted()
    items = state.space.features["adapter"].copy()
    loaded.upsert_items({"id": ["i0", "new"], "text": [WINES[0], WINES[0]]})
    positions = loaded._fitted().item_ids.positions(["i0", "new"])
    same, without = loaded._fitted().space.vectors("adapter", positions)
    np.testing.assert_allclose(same, items[0], atol=1e-5)
    assert not np.allclose(without, items[0], atol=1e-2)


def test_an_adapter_cannot_read_collaborative_vectors_that_are_left_out():
    settings = replace(SMALL, collaborative=True)
    with pytest.raises(InvalidInput, match="needs a rank"):
        Recommender(bag_of_words, rank=None, adapter=settings).fit(item_table(), interaction_table())
