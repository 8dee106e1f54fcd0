from uuid import UUID

import numpy as np
import pytest

from llmrec_fast import Index, Recommender
from llmrec_fast.errors import InvalidInput, NotFitted, UnknownId
from llmrec_fast.features import read_interactions, read_items

from .conftest import TOOLS, WINES, bag_of_words, interaction_table, item_table

WINE_IDS, TOOL_IDS = {f"i{n}" for n in range(5)}, {f"i{n}" for n in range(5, 10)}


def ids_of(row):
    return [item for item, _ in row]


def test_users_get_the_item_of_their_taste_that_they_do_not_know(fitted):
    answers = fitted.recommend(list(range(30)), k=1)
    for user, row in enumerate(answers):
        taste = WINE_IDS if user % 2 == 0 else TOOL_IDS
        assert set(ids_of(row)) == taste - set(fitted.history(user))


def test_seen_items_come_back_only_when_asked_for(fitted):
    known = set(fitted.history(0))
    assert not known & set(ids_of(fitted.recommend([0], k=6)[0]))
    assert known & set(ids_of(fitted.recommend([0], k=6, filter_seen=False)[0]))


def test_fewer_than_k_allowed_items_leave_padding(fitted):
    answer = fitted.recommend([0], k=10)
    assert (answer.positions[0, 6:] == -1).all()
    assert np.isneginf(answer.scores[0, 6:]).all()
    assert answer.items[0, 6:].tolist() == [None] * 4
    assert len(answer[0]) == 6


def test_exclude_and_allow_hold_for_everyone(fitted):
    answer = fitted.recommend([0, 1], k=3, exclude=["i0", "i9"], allow=["i0", "i1", "i8", "i9"], filter_seen=False)
    assert [sorted(ids_of(row)) for row in answer] == [["i1", "i8"]] * 2


def test_many_users_at_once_equal_one_at_a_time(fitted):
    together = fitted.recommend(list(range(30)), k=4)
    for user in range(30):
        alone = fitted.recommend([user], k=4)
        np.testing.assert_array_equal(alone.positions[0], together.positions[user])
        np.testing.assert_array_equal(alone.scores[0], together.scores[user])


def test_scores_are_the_stated_sum_of_cosines_and_prior(fitted):
    state = fitted._fitted()
    scores = fitted.recommend([3], k=10, filter_seen=False)
    items, item_weights = state.histories.of(state.user_ids.position(3))
    for position, score in zip(scores.positions[0], scores.scores[0], strict=True):
        expected = state.weights["popularity"] * float(state.space.prior[position])
        for name, vectors in state.space.features.items():
            profile = item_weights.astype(np.float64) @ vectors[items].astype(np.float64)
            vector = vectors[position].astype(np.float64)
            norms = np.linalg.norm(profile) * np.linalg.norm(vector)
            expected += state.weights[name] * (profile @ vector / norms if norms else 0.0)
        assert score == pytest.approx(expected, abs=2e-6)


def test_an_explanation_adds_up_to_the_score_that_ranked(fitted):
    answer = fitted.recommend([2], k=3)
    for item, score in answer[0]:
        explanation = fitted.explain(2, item)
        assert explanation.score == pytest.approx(score, abs=1e-12)
        assert sum(explanation.features.values()) == pytest.approx(score, abs=1e-12)
        for name, share in explanation.features.items():
            if name != "popularity":
                parts = [part.by_feature.get(name, 0.0) for part in explanation.history]
                assert sum(parts) == pytest.approx(share, abs=1e-6)
        totals = [part.total for part in explanation.history]
        assert totals == sorted(totals, reverse=True)
        assert {part.item for part in explanation.history} == set(fitted.history(2))


def test_similar_items_are_of_the_same_kind_and_never_the_item_itself(fitted):
    for item in ("i1", "i7"):
        near = ids_of(fitted.similar_items([item], k=3)[0])
        assert item not in near
        assert set(near) <= (WINE_IDS if item in WINE_IDS else TOOL_IDS)


def test_someone_new_is_served_from_a_few_items_or_a_text(fitted):
    assert set(ids_of(fitted.recommend_for_items(["i0", "i1"], k=2)[0])) <= WINE_IDS - {"i0", "i1"}
    by_text = fitted.recommend_for_text(["hammer tool", "port wine"], k=1)
    assert [ids_of(row) for row in by_text] == [["i5"], ["i3"]]
    np.testing.assert_array_equal(fitted.recommend_for_text("port wine", k=1).positions[0], by_text.positions[1])


def test_a_known_user_equals_someone_new_with_the_same_history(fitted):
    plain = Recommender(bag_of_words, weights={"text": 1, "collaborative": 1}).fit(
        item_table(), {"user": ["u", "u"], "item": ["i1", "i2"], "timestamp": [1, 2]}
    )
    np.testing.assert_array_equal(
        plain.recommend(["u"], k=5).positions, plain.recommend_for_items(["i1", "i2"], k=5).positions
    )


def test_weights_can_differ_for_one_call(fitted):
    popular = fitted.recommend([0], k=10, weights={"popularity": 1}, filter_seen=False)
    prior = fitted._fitted().space.prior
    np.testing.assert_allclose(popular.scores[0], np.sort(prior)[::-1], atol=1e-7)


def test_diversity_changes_the_order_and_brings_in_nothing_seen(fitted):
    plain, diverse = fitted.recommend([0], k=4), fitted.recommend([0], k=4, diversity=0.9)
    assert diverse.positions.tolist() != plain.positions.tolist()
    assert diverse.positions[0, 0] == plain.positions[0, 0]
    assert not set(fitted.history(0)) & set(ids_of(diverse[0]))


def test_new_items_are_recommended_by_text_alone():
    recommender = Recommender(bag_of_words).fit(item_table(), interaction_table())
    recommender.add_items({"id": ["new"], "text": ["old red wine"]})
    assert "new" in ids_of(recommender.recommend_for_text("old red wine", k=1)[0])
    assert "new" in ids_of(recommender.recommend([0], k=11, filter_seen=False)[0])
    assert recommender.title("new") == "new"
    with pytest.raises(InvalidInput, match="item 'i3' comes twice"):
        recommender.add_items({"id": ["fresh", "i3"], "text": ["a", "b"]})
    assert "fresh" not in recommender.item_ids


def test_items_added_to_one_recommender_stay_out_of_tables_and_other_recommenders():
    items = read_items(item_table())
    one, other = (Recommender(bag_of_words, weights={"text": 1}).fit(items, interaction_table()) for _ in range(2))
    one.add_items({"id": ["new"], "text": ["red wine"]})
    assert len(items.ids) == 10
    assert "new" not in other.item_ids


def test_ids_may_be_of_any_kind():
    items = {"id": [UUID(int=n) for n in range(3)], "text": WINES[:3]}
    interactions = {
        "user": ["ann", "ann", "bob"],
        "item": [UUID(int=0), UUID(int=1), UUID(int=1)],
        "timestamp": [1, 2, 3],
    }
    recommender = Recommender(bag_of_words, weights={"text": 1}).fit(items, interactions)
    assert ids_of(recommender.recommend(["ann"], k=1)[0]) == [UUID(int=2)]


def test_ready_vectors_replace_the_encoder_and_add_features():
    rng = np.random.default_rng(0)
    vectors = {"text": bag_of_words(WINES + TOOLS), "image": rng.standard_normal((10, 4))}
    weights = {"text": 0.5, "image": 0.5}
    recommender = Recommender(None, weights=weights, rank=None).fit(item_table(), interaction_table(), vectors=vectors)
    assert set(recommender.explain(0, "i9").features) == {"text", "image", "popularity"}
    with pytest.raises(InvalidInput, match="no encoder"):
        recommender.recommend_for_text("wine")


def test_a_catalogue_without_behaviour_serves_texts():
    recommender = Recommender(bag_of_words).fit(item_table())
    assert recommender.report_.weights_from == "default"
    assert recommender.report_.note == "there are no interactions"
    assert ids_of(recommender.recommend_for_text("drill tool", k=1)[0]) == ["i7"]


def test_weights_are_chosen_on_held_out_interactions(fitted):
    report = fitted.report_
    assert report.weights_from == "validation"
    assert set(report.weights) == {"text", "collaborative", "popularity"}
    assert 0 < report.quality <= 1


def test_dropped_rows_are_reported_with_their_reason():
    table = interaction_table(4)
    table["item"][0] = "nowhere"
    recommender = Recommender(bag_of_words, weights={"text": 1}).fit(item_table(), table)
    assert recommender.report_.interactions.dropped == {"unknown item": 1}


def test_ready_tables_are_taken_as_they_are(fitted):
    items = read_items(item_table())
    interactions = read_interactions(interaction_table(), known_items=items.ids)
    again = Recommender(bag_of_words, liked_from=4).fit(items, interactions)
    np.testing.assert_array_equal(again.recommend([5], 3).positions, fitted.recommend([5], 3).positions)
    stranger = read_interactions({"user": [1], "item": ["elsewhere"]})
    with pytest.raises(UnknownId, match="unknown item 'elsewhere'"):
        Recommender(bag_of_words).fit(items, stranger)


@pytest.mark.parametrize("k", [0, -1, 11, 2.5, True])
def test_a_wrong_k_is_refused(fitted, k):
    with pytest.raises(InvalidInput, match="k must be"):
        fitted.recommend([0], k=k)


def test_unknown_ids_are_named(fitted):
    with pytest.raises(UnknownId, match="unknown user 'nobody'"):
        fitted.recommend(["nobody"])
    with pytest.raises(UnknownId, match=r"unknown user '3' .*; 3 \(int\) is known"):
        fitted.recommend(["3"])
    with pytest.raises(UnknownId, match="unknown item 'i99'"):
        fitted.explain(0, "i99")
    with pytest.raises(UnknownId, match="unknown item 'i99'"):
        fitted.recommend([0], exclude=["i99"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vectors": {"text": np.full((10, 3), np.nan)}}, r"vectors\['text'\] holds NaN in row 0"),
        ({"vectors": {"text": np.ones((9, 3))}}, r"vectors\['text'\] has 9 rows; expected 10"),
        ({"vectors": {"popularity": np.ones((10, 3))}}, "is learned from the interactions"),
        ({"items": {"id": [], "text": []}}, "no item is left"),
        ({"interactions": {"user": [1], "item": ["i0"], "rating": [-1.0]}}, "must not be negative"),
    ],
)
def test_a_refused_fit_keeps_what_was_fitted(arguments, message):
    recommender = Recommender(bag_of_words).fit(item_table(), interaction_table())
    before = recommender.recommend([0], 3)
    call = {"items": item_table(), "interactions": interaction_table(), **arguments}
    with pytest.raises(InvalidInput, match=message):
        recommender.fit(call.pop("items"), call.pop("interactions"), **call)
    np.testing.assert_array_equal(recommender.recommend([0], 3).positions, before.positions)


@pytest.mark.parametrize("weights", [{"txt": 1}, {"text": -1}, {"text": np.nan}])
def test_wrong_weights_are_refused(fitted, weights):
    with pytest.raises(InvalidInput, match="weight"):
        fitted.recommend([0], 1, weights=weights)
    with pytest.raises(InvalidInput, match="weight"):
        Recommender(bag_of_words, weights=weights).fit(item_table(), interaction_table())


def test_nothing_is_answered_before_fit():
    with pytest.raises(NotFitted, match="call fit"):
        Recommender(bag_of_words).recommend([0])


@pytest.mark.parametrize("decay", ["fast", 0, -1.0])
def test_a_wrong_decay_is_refused(decay):
    with pytest.raises(InvalidInput, match="decay must be"):
        Recommender(bag_of_words, decay=decay)


class TestStorage:
    def test_a_loaded_recommender_gives_the_same_answers(self, fitted, tmp_path):
        fitted.save(tmp_path / "saved")
        loaded = Recommender.load(tmp_path / "saved", encoder=bag_of_words)
        users = list(range(30))
        for mine, theirs in (
            (fitted.recommend(users, 5), loaded.recommend(users, 5)),
            (fitted.similar_items(["i3"], 5), loaded.similar_items(["i3"], 5)),
            (fitted.recommend_for_text("saw tool", 5), loaded.recommend_for_text("saw tool", 5)),
        ):
            np.testing.assert_array_equal(mine.positions, theirs.positions)
            np.testing.assert_array_equal(mine.scores, theirs.scores)
        assert loaded.title("i0") == fitted.title("i0")
        assert loaded.weights == fitted.weights

    def test_a_callable_encoder_is_asked_for_when_it_is_needed(self, fitted, tmp_path):
        fitted.save(tmp_path / "saved")
        loaded = Recommender.load(tmp_path / "saved")
        assert len(loaded.recommend([0], 2)[0]) == 2
        with pytest.raises(InvalidInput, match=r"pass one to Recommender\(...\) or Recommender.load"):
            loaded.recommend_for_text("wine")

    def test_a_saved_recommender_can_be_saved_over(self, fitted, tmp_path):
        fitted.save(tmp_path / "saved")
        fitted.save(tmp_path / "saved")
        assert Recommender.load(tmp_path / "saved").user_ids == fitted.user_ids

    def test_a_flipped_byte_is_found_and_the_file_named(self, fitted, tmp_path):
        from llmrec_fast.errors import CorruptFile

        fitted.save(tmp_path / "saved")
        for path in sorted((tmp_path / "saved").iterdir()):
            original = path.read_bytes()
            damaged = bytearray(original)
            damaged[len(damaged) // 2] ^= 1
            path.write_bytes(damaged)
            with pytest.raises(CorruptFile, match=path.name.split("-")[0]):
                Recommender.load(tmp_path / "saved")
            path.write_bytes(original)

    def test_an_index_is_not_taken_for_a_recommender(self, tmp_path):
        from llmrec_fast.errors import CorruptFile

        Index.build(np.eye(3, dtype=np.float32)).save(tmp_path / "index")
        with pytest.raises(CorruptFile, match="not a"):
            Recommender.load(tmp_path / "index")
