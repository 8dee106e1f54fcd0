"""A recommender that changes while it is asked: events, items that come, change and go, snapshots."""

import datetime
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast import Recommender
from llmrec_fast.errors import InvalidInput, UnknownId

from .conftest import TOOLS, WINES, bag_of_words, interaction_table, item_table

WINE_IDS, TOOL_IDS = [f"i{n}" for n in range(5)], [f"i{n}" for n in range(5, 10)]


def make(**options):
    defaults = {"weights": {"text": 1, "collaborative": 0.5, "popularity": 0.1}, "decay": 5.0}
    return Recommender(bag_of_words, **(defaults | options)).fit(item_table(), interaction_table())


def ids_of(row):
    return [item for item, _ in row]


class TestEvents:
    def test_a_new_user_is_served_by_what_was_recorded(self):
        recommender = make()
        with pytest.raises(UnknownId):
            recommender.recommend(["ann"])
        recommender.record("ann", "i0")
        recommender.record("ann", "i1")
        assert recommender.history("ann") == ["i0", "i1"]
        answer = recommender.recommend(["ann"], k=3)
        assert set(ids_of(answer[0])) == set(WINE_IDS) - {"i0", "i1"}
        expected = recommender.recommend_for_items(["i0", "i1"], k=3)
        np.testing.assert_array_equal(answer.scores, expected.scores)
        assert recommender.user_ids[-1] == "ann"

    def test_a_known_users_vector_moves_at_once(self):
        recommender = make()
        before = recommender.recommend([0], k=5, filter_seen=False)
        for item in ("i5", "i6", "i7", "i8", "i9"):
            recommender.record(0, item, 5, timestamp=100)
        assert set(ids_of(before[0])) == set(WINE_IDS)
        assert set(ids_of(recommender.recommend([0], k=5, filter_seen=False)[0])) == set(TOOL_IDS)
        parts = {part.item for part in recommender.explain(0, "i9").history}
        assert parts == set(recommender.history(0))

    def test_an_item_chosen_again_counts_once_at_its_latest_time(self):
        recommender = make()
        recommender.record_many(["ann"] * 3, ["i0", "i1", "i2"], timestamps=[10, 20, 30])
        recommender.record("ann", "i0", timestamp=40)
        assert recommender.history("ann") == ["i1", "i2", "i0"]
        recommender.record("ann", "i2", timestamp=5)
        assert recommender.history("ann") == ["i1", "i2", "i0"]
        recommender.record("ann", "i1")
        assert recommender.history("ann") == ["i2", "i0", "i1"]

    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def test_events_in_any_order_leave_what_a_fit_on_all_of_them_would(self, data):
        rows = data.draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=2, max_size=24))
        times = data.draw(st.permutations(range(len(rows))))
        values = data.draw(st.lists(st.integers(1, 5), min_size=len(rows), max_size=len(rows)))
        fitted_count = data.draw(st.integers(1, len(rows)))
        options = {"weights": {"text": 1.0}, "rank": None, "liked_from": 3, "decay": 4.0}

        def table(stop):
            return {
                "user": [f"u{user}" for user, _ in rows[:stop]],
                "item": [f"i{item}" for _, item in rows[:stop]],
                "rating": values[:stop],
                "timestamp": times[:stop],
            }

        whole = Recommender(bag_of_words, **options).fit(item_table(), table(len(rows)))
        live = Recommender(bag_of_words, **options).fit(item_table(), table(fitted_count))
        for place in range(fitted_count, len(rows)):
            user, item = rows[place]
            live.record(f"u{user}", f"i{item}", values[place], times[place])
        for user in whole.user_ids:
            assert live.history(user) == whole.history(user)
        users = whole.user_ids
        for name in ("positions", "scores"):
            expected = getattr(whole.recommend(users, 5, filter_seen=False), name)
            np.testing.assert_array_equal(getattr(live.recommend(users, 5, filter_seen=False), name), expected)

    def test_without_fitted_times_events_follow_what_was_fitted(self):
        table = {"user": ["a", "a"], "item": ["i3", "i1"]}
        recommender = Recommender(bag_of_words, weights={"text": 1}).fit(item_table(), table)
        recommender.record("a", "i5", timestamp=-5)
        recommender.record("a", "i6", timestamp=-7)
        assert recommender.history("a") == ["i3", "i1", "i6", "i5"]

    def test_dates_are_times(self):
        recommender = make()
        early, late = datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, 3, tzinfo=datetime.UTC)
        recommender.record("ann", "i1", timestamp=late)
        recommender.record("ann", "i2", timestamp=early)
        recommender.record("ann", "i3", timestamp=np.datetime64("2019-12-31"))
        assert recommender.history("ann") == ["i3", "i2", "i1"]

    def test_a_value_below_what_was_liked_counts_less(self):
        recommender = make(liked_from=4, others=0.25, decay=None)
        recommender.record_many(["ann", "ann"], ["i0", "i5"], [5, 1])
        shares = {part.item: part.total for part in recommender.explain("ann", "i1").history}
        assert shares["i0"] > shares["i5"]
        history = recommender._fitted().histories.take(recommender._fitted().user_ids.positions(["ann"]))
        assert history.weights.tolist() == [1, 0.25]

    @pytest.mark.parametrize(
        ("event", "message"),
        [
            ({"item": "nowhere"}, "unknown item 'nowhere'"),
            ({"user": None}, "None is not a valid user id"),
            ({"user": ["x"]}, "must be hashable"),
            ({"value": float("nan")}, "must be finite"),
            ({"value": 1e39}, "must be finite"),
            ({"value": -1}, "must not be negative"),
            ({"value": "5"}, "must be a number"),
            ({"value": True}, "must be a number"),
            ({"timestamp": 1.5}, "must be an integer"),
            ({"timestamp": 2**63}, "64 bits"),
            ({"timestamp": np.datetime64("NaT")}, "NaT"),
        ],
    )
    def test_a_refused_event_changes_nothing(self, event, message):
        recommender = make()
        with pytest.raises(InvalidInput, match=message):
            recommender.record(**({"user": "ann", "item": "i0"} | event))
        good = {"users": ["bob", "ann"], "items": ["i1", "i0"], "values": [1, 1], "timestamps": [1, 1]}
        for name, value in event.items():
            good[f"{name}s"] = [good[f"{name}s"][0], value]
        with pytest.raises(InvalidInput, match=message):
            recommender.record_many(**good)
        assert recommender.user_ids == list(range(30))

    def test_ratings_need_a_value(self):
        with pytest.raises(InvalidInput, match="liked_from=4"):
            make(liked_from=4).record(0, "i0")

    def test_columns_of_events_must_be_of_one_length(self):
        recommender = make()
        with pytest.raises(InvalidInput, match="users and items"):
            recommender.record_many(["a"], ["i0", "i1"])
        with pytest.raises(InvalidInput, match="values must have 2"):
            recommender.record_many(["a", "b"], ["i0", "i1"], [1])

    def test_an_event_copies_neither_users_nor_items(self):
        recommender = make()
        before = recommender._fitted()
        recommender.record(0, "i5")
        after = recommender._fitted()
        assert after.histories.items is before.histories.items
        assert after.space is before.space
        assert after.index is before.index


class TestItems:
    def test_a_new_item_is_found_and_a_known_one_described_anew(self):
        recommender = make()
        recommender.upsert_items(
            {"id": ["new", "i9"], "text": ["old red wine", "sparkling rose wine"], "title": ["N", "S"]}
        )
        assert recommender.title("new") == "N"
        assert recommender.title("i9") == "S"
        assert ids_of(recommender.recommend_for_text("sparkling rose wine", k=1)[0]) == ["i9"]
        assert len(recommender.item_ids) == 11
        assert ids_of(recommender.similar_items(["new"], k=1)[0])[0] in WINE_IDS

    def test_a_known_item_keeps_what_people_did_with_it(self):
        recommender = make()
        space = recommender._fitted().space
        before = space.vectors("collaborative", np.array([9]))
        recommender.upsert_items({"id": ["i9"], "text": ["red wine"]})
        space = recommender._fitted().space
        np.testing.assert_array_equal(space.vectors("collaborative", np.array([9])), before)
        assert recommender.explain(1, "i9").features["popularity"] > 0
        np.testing.assert_array_equal(space.vectors("text", np.array([9])), space.vectors("text", np.array([0])))
        index_row = recommender._fitted().index.vectors([9])
        np.testing.assert_array_equal(index_row, space.rows(np.array([9])))

    def test_a_history_is_read_with_the_new_description(self):
        recommender = make(weights={"text": 1.0}, rank=None)
        recommender.record("ann", "i9")
        recommender.upsert_items({"id": ["i9"], "text": ["red wine"]})
        assert ids_of(recommender.recommend(["ann"], k=1)[0]) == ["i0"]

    def test_a_removed_item_leaves_answers_and_histories(self):
        recommender = make()
        recommender.record_many(["ann"] * 3, ["i0", "i5", "i1"])
        recommender.remove_items(["i5"])
        assert recommender.history("ann") == ["i0", "i1"]
        assert "i5" not in recommender.item_ids
        answer = recommender.recommend(["ann"], k=9, filter_seen=False)
        assert "i5" not in ids_of(answer[0])
        np.testing.assert_array_equal(
            answer.scores, recommender.recommend_for_items(["i0", "i1"], k=9, filter_seen=False).scores
        )
        for call in (recommender.title, lambda item: recommender.record("ann", item)):
            with pytest.raises(UnknownId, match="unknown item 'i5'"):
                call("i5")
        with pytest.raises(InvalidInput, match="at most the number of items, 9"):
            recommender.recommend(["ann"], k=10)

    def test_many_users_at_once_equal_one_at_a_time_after_all_kinds_of_change(self):
        recommender = make()
        recommender.remove_items(["i2", "i7"])
        recommender.upsert_items({"id": ["i3", "new"], "text": ["hand saw tool", "wine"]})
        recommender.record_many([3, "ann", 4], ["new", "i3", "i0"])
        users = recommender.user_ids
        together = recommender.recommend(users, k=4)
        for place, user in enumerate(users):
            alone = recommender.recommend([user], k=4)
            np.testing.assert_array_equal(alone.positions[0], together.positions[place])
            np.testing.assert_array_equal(alone.scores[0], together.scores[place])

    def test_an_item_that_comes_back_is_new(self):
        recommender = make()
        recommender.record("ann", "i0")
        recommender.record("ann", "i1")
        recommender.remove_items(["i1"])
        recommender.upsert_items({"id": ["i1"], "text": ["white wine"], "title": ["Again"]})
        assert recommender.title("i1") == "Again"
        assert recommender.history("ann") == ["i0"]
        assert recommender.explain(0, "i1").features["collaborative"] == 0
        assert recommender.item_ids.count("i1") == 1
        recommender.record("ann", "i1")
        assert recommender.history("ann") == ["i0", "i1"]

    def test_ready_vectors_describe_items(self):
        rng = np.random.default_rng(0)
        vectors = {"text": bag_of_words(WINES + TOOLS), "image": rng.standard_normal((10, 4))}
        recommender = Recommender(None, weights={"text": 1, "image": 1}, rank=None).fit(item_table(), vectors=vectors)
        before = recommender._fitted().space.vectors("text", np.array([1]))
        with pytest.raises(InvalidInput, match="no encoder"):
            recommender.upsert_items({"id": ["i1"], "text": ["x"]}, vectors={"image": np.ones((1, 4))})
        both = {"text": bag_of_words(["white wine"]), "image": np.ones((1, 4))}
        recommender.upsert_items({"id": ["i1"], "text": ["x"]}, vectors=both)
        np.testing.assert_array_equal(recommender._fitted().space.vectors("text", np.array([1])), before)
        with pytest.raises(InvalidInput, match="no feature 'sound'"):
            recommender.upsert_items({"id": ["i1"], "text": ["x"]}, vectors=both | {"sound": np.ones((1, 4))})
        with pytest.raises(InvalidInput, match="4 columns"):
            recommender.upsert_items({"id": ["i1"], "text": ["x"]}, vectors=both | {"image": np.ones((1, 5))})

    def test_what_is_not_known_is_not_removed(self):
        recommender = make()
        with pytest.raises(UnknownId, match="'x'"):
            recommender.remove_items(["i0", "x"])
        with pytest.raises(InvalidInput, match="at least one"):
            recommender.remove_items(recommender.item_ids)
        assert len(recommender.item_ids) == 10

    def test_saved_and_loaded_answers_are_the_same_after_all_kinds_of_change(self, tmp_path):
        recommender = make()
        recommender.remove_items(["i2"])
        recommender.upsert_items({"id": ["i3", "new"], "text": ["hand saw tool", "wine"]})
        recommender.record_many([3, "ann", 4], ["new", "i3", "i0"])
        recommender.save(tmp_path / "saved")
        loaded = Recommender.load(tmp_path / "saved", encoder=bag_of_words)
        assert loaded.user_ids == recommender.user_ids
        assert set(loaded.item_ids) == set(recommender.item_ids)
        mine, theirs = (one.recommend(one.user_ids, 9, filter_seen=False) for one in (recommender, loaded))
        assert mine.items.tolist() == theirs.items.tolist()
        np.testing.assert_array_equal(mine.scores, theirs.scores)
        for user in loaded.user_ids:
            assert loaded.history(user) == recommender.history(user)
        for one in (recommender, loaded):
            one.record("ann", "i0", timestamp=1)
        assert loaded.history("ann") == recommender.history("ann")
        assert loaded.title("i3") == recommender.title("i3")


class TestSnapshots:
    def test_a_snapshot_does_not_change(self):
        recommender = make()
        snapshot = recommender.snapshot()
        users, items = snapshot.user_ids, snapshot.item_ids
        answers = snapshot.recommend(users, 5)
        explained = snapshot.explain(0, "i1")
        recommender.record_many([0, "ann"], ["i9", "i1"])
        recommender.remove_items(["i1"])
        recommender.upsert_items(
            {"id": ["i1", "i2", "new"], "text": ["drill tool", "saw tool", "x"], "title": ["A", "B", "C"]}
        )
        recommender.record_many(["ann"], ["new"])
        assert (snapshot.user_ids, snapshot.item_ids) == (users, items)
        again = snapshot.recommend(users, 5)
        np.testing.assert_array_equal(again.positions, answers.positions)
        np.testing.assert_array_equal(again.scores, answers.scores)
        assert again.items.tolist() == answers.items.tolist()
        assert snapshot.explain(0, "i1") == explained
        assert snapshot.title("i1") == "White Wine"
        assert snapshot.history(0) != recommender.history(0)
        for call in (lambda: snapshot.title("new"), lambda: snapshot.recommend(["ann"])):
            with pytest.raises(UnknownId):
                call()

    def test_readers_always_see_a_whole_state(self):
        """A writer gives "ann" pairs of items, one of each taste; whoever asks must see as many of the one as of the other."""
        recommender = make()
        recommender.record_many(["ann", "ann"], ["i0", "i5"])
        stop, failures, asked = threading.Event(), [], 0

        def read():
            nonlocal asked
            while not stop.is_set():
                snapshot = recommender.snapshot()
                history = snapshot.history("ann")
                if len(set(history) & set(WINE_IDS)) != len(set(history) & set(TOOL_IDS)):
                    failures.append(history)
                seen = set(ids_of(snapshot.recommend(["ann"], k=3)[0])) & set(snapshot.history("ann"))
                if seen:
                    failures.append(seen)
                asked += 1

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        for turn in range(150):
            pair = [f"i{turn % 5}", f"i{5 + turn % 5}"]
            if turn % 10 == 9:
                recommender.remove_items(pair)
                recommender.upsert_items({"id": pair, "text": ["wine", "tool"]})
            recommender.record_many(["ann", "ann"], pair)
        stop.set()
        for reader in readers:
            reader.join()
        assert not failures
        assert asked
