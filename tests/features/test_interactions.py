from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import Interactions, read_interactions
from llmrec_fast.ids import IdTable


def rows_of(interactions):
    """Interactions with their original ids, as tuples."""
    users = interactions.user_ids.at(interactions.users)
    items = interactions.item_ids.at(interactions.items)
    columns = [users.tolist(), items.tolist()]
    columns += [column.tolist() for column in (interactions.values, interactions.timestamps) if column is not None]
    return list(zip(*columns, strict=True))


def test_reads_users_items_values_and_times():
    interactions = read_interactions({"user": ["b", "a"], "item": [7, 7], "value": [1, 2.5], "timestamp": [20, 10]})
    assert rows_of(interactions) == [("b", 7, 1.0, 20), ("a", 7, 2.5, 10)]
    assert interactions.users.dtype == interactions.items.dtype == interactions.timestamps.dtype == np.int64
    assert interactions.values.dtype == np.float32
    assert interactions.report.kept == interactions.report.read == 2


@pytest.mark.parametrize(
    "columns",
    [
        ("userId", "movieId", "rating", "timestamp"),
        ("user_id", "item_id", "value", "time"),
        ("reviewerID", "asin", "overall", "unixReviewTime"),
    ],
)
def test_usual_column_names_are_recognised(columns):
    interactions = read_interactions(dict(zip(columns, [[1], [2], [3.0], [4]], strict=True)))
    assert rows_of(interactions) == [(1, 2, 3.0, 4)]


def test_columns_can_be_named():
    interactions = read_interactions(
        pd.DataFrame({"who": ["x"], "what": ["y"], "stars": [4], "user": ["not me"]}),
        user="who",
        item="what",
        value="stars",
    )
    assert rows_of(interactions) == [("x", "y", 4.0)]


def test_values_and_times_are_optional():
    interactions = read_interactions({"user": [1], "item": [2]})
    assert interactions.values is None
    assert interactions.timestamps is None


@pytest.mark.parametrize("ids", [["a", "b"], [2**62, -1], [UUID(int=1), UUID(int=2)], ["7", 7]])
def test_ids_of_any_kind(ids):
    assert [row[0] for row in rows_of(read_interactions({"user": ids, "item": [1, 2]}))] == ids


def test_ids_that_pandas_made_floats_are_whole_numbers_again():
    interactions = read_interactions(pd.DataFrame({"user": [1.0, np.nan, 3.0], "item": [5, 5, 6]}))
    assert rows_of(interactions) == [(1, 5), (3, 6)]
    assert interactions.report.dropped == {"missing user": 1}


def test_data_frames_and_files_read_alike(tmp_path):
    columns = {"user": ["a", "b", "a"], "item": [3, 1, 1], "rating": [4.5, 3.0, 1.0], "timestamp": [5, 6, 7]}
    pd.DataFrame(columns).to_csv(tmp_path / "r.csv", index=False)
    pl.DataFrame(columns).write_parquet(tmp_path / "r.parquet")
    expected = rows_of(read_interactions(columns))
    for source in (pd.DataFrame(columns), pl.DataFrame(columns), tmp_path / "r.csv", str(tmp_path / "r.parquet")):
        assert rows_of(read_interactions(source)) == expected


def test_events_are_worth_what_the_caller_says():
    interactions = read_interactions(
        {"user": [1, 1, 2, 2], "item": [1, 2, 1, 3], "event": ["view", "buy", "return", None]},
        event_values={"view": 1, "buy": 5},
    )
    assert rows_of(interactions) == [(1, 1, 1.0), (1, 2, 5.0)]
    assert interactions.report.dropped == {"event without a value in event_values": 2}


def test_events_multiply_values_that_were_asked_for_and_ignore_others():
    columns = {"user": [1, 1], "item": [1, 2], "event": ["buy", "view"], "value": [2.0, 3.0]}
    worth = {"view": 1, "buy": 5}
    assert read_interactions(columns, event_values=worth).values.tolist() == [5, 1]
    assert read_interactions(columns, event_values=worth, value="value").values.tolist() == [10, 3]


def test_known_items_fix_the_codes_and_drop_the_rest():
    catalogue = IdTable(["c", "b", "a"])
    interactions = read_interactions({"user": [1, 1, 2], "item": ["a", "z", "c"]}, known_items=catalogue)
    assert interactions.items.tolist() == [2, 0]
    assert interactions.item_ids is catalogue
    assert interactions.report.dropped == {"unknown item": 1}
    assert read_interactions({"user": [1], "item": ["a"]}, known_items=["b", "a"]).items.tolist() == [1]


def test_the_report_says_what_was_dropped_and_why(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,value\nu1,i1,5\n,i1,5\nu1,,5\nu2,i1,\nu2,i2,9\nu1,i1,4\nu3,i3,nan\n")
    interactions = read_interactions(path, value_range=(1, 5))
    assert rows_of(interactions) == [("u1", "i1", 4.0)]
    assert interactions.report.dropped == {
        "missing user": 1,
        "missing item": 1,
        "missing value": 1,
        "value that is not finite": 1,
        "value outside 1 to 5": 1,
        "repeated, the latest counts": 1,
    }
    assert interactions.report.read == interactions.report.kept + sum(interactions.report.dropped.values())
    printed = str(interactions.report)
    assert f"{path}: 1 of 7 rows kept" in printed
    assert f"1 dropped: value outside 1 to 5 ({path}, line 6: user u2, item i2)" in printed


def test_an_id_of_dropped_rows_only_is_not_in_the_tables():
    interactions = read_interactions({"user": [1, 2], "item": [1, 2], "value": [1.0, np.inf]})
    assert list(interactions.user_ids) == [1]
    assert list(interactions.item_ids) == [1]


def test_the_latest_of_repeated_interactions_counts_whatever_the_order_of_rows():
    columns = {"user": [1, 1, 1], "item": [5, 5, 5], "value": [1, 2, 3], "timestamp": [10, 30, 20]}
    assert rows_of(read_interactions(columns)) == [(1, 5, 2.0, 30)]


def test_repeated_interactions_can_add_up():
    columns = {"user": [1, 1, 2], "item": [5, 5, 5], "value": [1, 2, 4], "timestamp": [30, 10, 20]}
    assert rows_of(read_interactions(columns, duplicates="sum")) == [(1, 5, 3.0, 30), (2, 5, 4.0, 20)]
    counted = read_interactions({"user": [1, 1, 1], "item": [5, 5, 6]}, duplicates="sum")
    assert rows_of(counted) == [(1, 5, 2.0), (1, 6, 1.0)]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 5), st.integers(0, 4)), min_size=1))
def test_duplicates_agree_with_a_dictionary(rows):
    names = ("user", "item", "value", "timestamp")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    latest, sums = {}, {}
    for user, item, value, time in rows:
        if time >= latest.get((user, item), (0, -1))[1]:
            latest[user, item] = (value, time)
        sums[user, item] = sums.get((user, item), 0) + value
    last = {row[:2]: row[2:] for row in rows_of(read_interactions(columns))}
    assert last == latest
    summed = {row[:2]: row[2] for row in rows_of(read_interactions(columns, duplicates="sum"))}
    assert summed == sums


MICROSECONDS = 1_577_836_800_000_000  # 2020-01-01 00:00 UTC


@pytest.mark.parametrize(
    "time",
    [
        datetime(2020, 1, 1),
        datetime(2020, 1, 1, tzinfo=UTC),
        datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
        date(2020, 1, 1),
        "2020-01-01",
        "2020-01-01T00:00:00Z",
        np.datetime64("2020-01-01"),
        pd.Timestamp("2020-01-01"),
    ],
)
def test_dates_become_microseconds(time):
    for source in ({"time": [time]}, pd.DataFrame({"time": [time]})):
        interactions = read_interactions({"user": [1], "item": [1], "time": source["time"]})
        assert interactions.timestamps.tolist() == [MICROSECONDS]


@pytest.mark.parametrize("times", [[7], [7.0], ["7"], np.array([7], np.uint32)])
def test_integer_times_stay_as_they_are(times):
    assert read_interactions({"user": [1], "item": [1], "time": times}).timestamps.tolist() == [7]


def test_the_value_range_includes_its_ends():
    ratings = {"user": [1, 1, 1, 1], "item": [1, 2, 3, 4], "value": [0.9, 1, 5, 5.1]}
    assert read_interactions(ratings, value_range=(1, 5)).values.tolist() == [1, 5]


def test_rows_without_a_time_are_dropped():
    interactions = read_interactions({"user": [1, 1], "item": [1, 2], "time": pd.to_datetime(["2020-01-01", None])})
    assert interactions.report.dropped == {"missing time": 1}


def test_histories_are_sorted_by_time_then_item():
    interactions = read_interactions(
        {"user": [2, 1, 2, 2], "item": [9, 5, 3, 5], "value": [1, 2, 3, 4], "timestamp": [7, 1, 7, 2]},
        known_items=[3, 5, 9],
    )
    indptr, items, values, timestamps = interactions.by_user()
    assert indptr.tolist() == [0, 3, 4]
    assert items.tolist() == [1, 0, 2, 1]
    assert values.tolist() == [4, 3, 1, 2]
    assert timestamps.tolist() == [2, 7, 7, 1]


def test_without_times_histories_keep_the_order_of_rows():
    histories = read_interactions({"user": [1, 2, 1], "item": [9, 5, 3]}, known_items=[3, 5, 9]).by_user()
    assert histories.items.tolist() == [2, 0, 1]
    assert histories.values is None


def test_users_without_interactions_have_empty_histories():
    interactions = read_interactions({"user": [1, 2, 3], "item": [1, 1, 1], "value": [5, 1, 5]}).at_least(4)
    assert interactions.by_user().indptr.tolist() == [0, 1, 1, 2]
    assert len(interactions.user_ids) == 3


def test_selecting_and_replacing_values_leave_the_original_alone():
    interactions = read_interactions({"user": [1, 2], "item": [1, 1], "value": [5, 1]})
    assert interactions.select([False, True]).users.tolist() == [1]
    assert interactions.with_values([0.5, 0.25]).to_csr().toarray().tolist() == [[0.5], [0.25]]
    assert interactions.with_values(None).to_csr().toarray().tolist() == [[1], [1]]
    assert interactions.values.tolist() == [5, 1]


def test_matrix_and_counts_cover_the_whole_catalogue():
    interactions = read_interactions({"user": [1, 2], "item": ["b", "b"]}, known_items=["a", "b", "c"])
    assert interactions.to_csr().toarray().tolist() == [[0, 1, 0], [0, 1, 0]]
    assert interactions.item_counts().tolist() == [0, 2, 0]


def test_a_cell_that_is_no_number_is_named_with_its_line(tmp_path):
    path = tmp_path / "ratings.csv"
    path.write_text("user,item,rating,time\n1,2,4.5,10\n1,3,good,11\n")
    with pytest.raises(InvalidInput, match="'rating' holds 'good' where a number was expected") as caught:
        read_interactions(path)
    assert f"{path}, line 3:" in str(caught.value)


PAIR = {"user": [1], "item": [1]}


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"item": [1]}, {}, "no column for the user, none being called user or user_id"),
        (PAIR, {"value": "stars"}, "no column 'stars' for the value; it has user, item"),
        (PAIR, {"event": "event"}, "event needs event_values"),
        (PAIR, {"event_values": {"buy": 1}}, "no column for the event"),
        (PAIR, {"value_range": (1, 5)}, "value_range needs values"),
        (PAIR, {"duplicates": "first"}, "duplicates must be one of last, sum; got 'first'"),
        ({"user": [], "item": []}, {}, "no interaction is left"),
        (PAIR, {"known_items": [2]}, "no interaction is left after cleaning. interactions: 0 of 1 rows kept"),
        ({"user": [1.5], "item": [1]}, {}, "'user' holds .*1.5.* where a whole number was expected"),
        ({"user": [[1, 2]], "item": [1]}, {}, "list cannot be a user id"),
        ({"user": ["a", (1, [2])], "item": [1, 1]}, {}, "row 1 of interactions: tuple cannot be a user id"),
        (PAIR | {"time": [1.5]}, {}, "where a whole number was expected"),
        (PAIR | {"time": ["soon"]}, {}, "'time' holds 'soon' where a time"),
        (
            {"user": [1, 1], "item": [1, 2], "time": [5, date(2020, 1, 1)]},
            {},
            "integers in some rows and dates in others",
        ),
        (PAIR | {"time": np.array([2**63], np.uint64)}, {}, "does not fit in int64"),
    ],
)
def test_bad_input(columns, options, message):
    with pytest.raises(InvalidInput, match=message):
        read_interactions(columns, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i: i.select([1, 0]), "mask must be 2 booleans"),
        (lambda i: i.select([True]), "mask must be 2 booleans"),
        (lambda i: i.at_least(3), "no values to compare"),
        (lambda i: i.with_values([1.0]), "must have 2 values"),
        (lambda i: i.with_values([1.0, np.nan]), "NaN in row 1"),
        (
            lambda i: Interactions(i.users, i.items + 9, None, None, i.user_ids, i.item_ids),
            "items must be codes from 0 to 0",
        ),
        (lambda i: Interactions(i.users, i.items[:1], None, None, i.user_ids, i.item_ids), "equal length"),
    ],
)
def test_misuse(call, message):
    with pytest.raises(InvalidInput, match=message):
        call(read_interactions({"user": [1, 2], "item": [1, 1]}))
