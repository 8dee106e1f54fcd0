"""Every form gives the same arrays; users, ties and ids by the stated rules; what is refused."""

import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import evaluate, evaluate_per_user, from_dicts, from_frames, from_ranx, read_trec

RUN = {"u2": {"b": 0.5, "a": 2.0, "c": 1.0}, "u1": {"c": 3.0, "d": 3.0, "e": 3.0}, "u9": {"a": 1.0}}
QRELS = {"u1": {"d": 1, "a": 0}, "u2": {"a": 2, "b": 1}, "u3": {"e": 1}}
METRICS = ["ndcg@3", "map@3", "mrr@3", "recall@2"]


class Ranx:
    """What ranx's tables show of themselves, without ranx."""

    def __init__(self, table):
        self._table = table

    def to_dict(self):
        return self._table


def rows(data):
    """What was recommended to whom, as ids."""
    return {
        user: [data.items[item] for item in row if item != -1]
        for user, row in zip(data.users, data.recommended, strict=True)
    }


def measured(data):
    return evaluate(data.recommended, data.relevant, METRICS, gains=data.gains)


def frames(library):
    run = [(user, item, score) for user, row in RUN.items() for item, score in row.items()]
    judged = [(user, item, gain) for user, row in QRELS.items() for item, gain in row.items()]
    return (
        library(dict(zip(("user_id", "item_id", "score"), zip(*run, strict=True), strict=True))),
        library(dict(zip(("user_id", "item_id", "gain"), zip(*judged, strict=True), strict=True))),
    )


def trec_files(folder, run=RUN, judged=QRELS):
    lines = [f"{user} Q0 {item} 1 {score!r} me" for user, row in run.items() for item, score in row.items()]
    (folder / "run.txt").write_text("\n".join(lines) + "\n\n")
    lines = [f"{user}\t0 {item}  {gain}" for user, row in judged.items() for item, gain in row.items()]
    (folder / "qrels.txt").write_text("\n".join(lines))
    return folder / "qrels.txt", folder / "run.txt"


def test_every_form_says_the_same(tmp_path):
    wanted = from_dicts(RUN, QRELS)
    assert wanted.users == ["u1", "u2", "u3", "u9"]
    assert rows(wanted) == {"u1": ["e", "d", "c"], "u2": ["a", "c", "b"], "u3": [], "u9": ["a"]}
    forms = [read_trec(*trec_files(tmp_path)), from_ranx(Ranx(QRELS), Ranx({**RUN, "u1": dict.fromkeys("edc", 3.0)}))]
    for library in (dict, pd.DataFrame, pl.DataFrame, pa.table):
        forms.append(from_frames(*frames(library), score="score", gain="gain"))
    for data in forms:
        assert rows(data) == rows(wanted)
        assert measured(data) == measured(wanted)
    # u1 finds d at rank 2, u2 finds both, u3 gets nothing, u9 has nothing to find
    assert measured(wanted)["mrr@3"] == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert measured(wanted)["recall@2"] == pytest.approx((1 + 1 / 2 + 0) / 3)


TRIPLES = st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 2))


def nested(triples):
    table = {}
    for user, item, value in triples:
        table.setdefault(user, {})[item] = float(value)
    return table


@settings(max_examples=60, deadline=None)
@given(st.lists(TRIPLES, min_size=1, max_size=30), st.lists(TRIPLES, max_size=15))
def test_order_and_ties_against_sorting(listed, relevant):
    run, judged = nested(listed), nested(relevant)
    data = from_dicts(run, judged)
    assert set(data.users) == set(run) | set(judged)
    for user, row in rows(data).items():
        by_text = sorted(run.get(user, {}), key=str, reverse=True)
        assert row == sorted(by_text, key=lambda item: -run[user][item])
    indptr, positions = data.relevant
    for place, user in enumerate(data.users):
        own = slice(indptr[place], indptr[place + 1])
        found = {data.items[item]: gain for item, gain in zip(positions[own], data.gains[own].tolist(), strict=True)}
        assert found == judged.get(user, {})


def test_lists_are_in_order_and_binary():
    data = from_dicts({1: ["x", "y", "x"], 2: np.array(["z"])}, {1: {"y"}, 2: ("z", "y")})
    assert rows(data) == {1: ["x", "y", "x"], 2: ["z"]}
    assert data.gains.tolist() == [1.0] * 3
    assert evaluate_per_user(data.recommended, data.relevant, ["mrr@3"])["mrr@3"].tolist() == [0.5, 1.0]


def test_frames_by_rank_or_by_row_order():
    judged = pd.DataFrame({"user": [7, 7], "item": [1, 2]})
    listed = pd.DataFrame({"user": [7, 8, 7, 7], "item": [3, 1, 2, 1], "rank": [3, 1, 1, 2]})
    by_rank = from_frames(listed, judged, user="user", item="item", rank="rank")
    assert rows(by_rank) == {7: [2, 1, 3], 8: [1]}
    assert rows(from_frames(listed, judged, user="user", item="item")) == {7: [3, 2, 1], 8: [1]}


def test_a_catalogue_gives_the_positions_of_other_arrays():
    catalogue = ["c", "a", "b", "e", "d"]
    data = from_dicts(RUN, QRELS, catalogue=catalogue)
    assert data.items == catalogue
    counts = [30, 10, 20, 50, 40]
    found = evaluate(data.recommended, data.relevant, ["average_popularity@1"], item_counts=counts)
    assert found["average_popularity@1"] == pytest.approx((50 + 10 + 10) / 3)
    with pytest.raises(InvalidInput, match="the item 'e' is not in the catalogue"):
        from_dicts(RUN, QRELS, catalogue=["c", "a", "b", "d"])
    with pytest.raises(InvalidInput, match="catalogue must not repeat"):
        from_dicts(RUN, QRELS, catalogue=["a", *catalogue])


def test_ranx_keeps_the_order_it_gave_to_ties():
    data = from_ranx(Ranx({"q": {"a": 1}}), Ranx({"q": {"b": 1.0, "c": 2.0, "a": 1.0, "z": 1.0}}))
    assert rows(data) == {"q": ["c", "b", "a", "z"]}


def test_trec_scores_are_compared_in_single_precision(tmp_path):
    data = read_trec(*trec_files(tmp_path, {"q": {"d1": 1.0 + 1e-9, "d8": 1.0, "d0": math.inf}}, {"q": {"d1": 1}}))
    assert rows(data) == {"q": ["d0", "d8", "d1"]}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: from_dicts({}, {}), "there is no user"),
        (lambda: from_dicts([], {}), "recommended must be a dict from user to items; got list"),
        (lambda: from_dicts({1: {"a": math.nan}}, {}), "the score of item 'a' for user 1 is not a number"),
        (lambda: from_dicts({1: {"a": "high"}}, {}), "numbers of recommended must be real numbers"),
        (lambda: from_dicts({1: {"a"}}, {}), r"recommended\[1\] must be a dict from item to number or a list"),
        (lambda: from_dicts({1: "abc"}, {}), r"recommended\[1\] must be a dict.*got str"),
        (lambda: from_dicts({1: 5}, {}), r"recommended\[1\] must be a dict.*got int"),
        (lambda: from_dicts({1: ["a"]}, {1: {"a": math.inf}}), "numbers of relevant holds an infinite value"),
        (lambda: from_dicts({1: [None]}, {}), r"items has a missing id \(None\)"),
        (lambda: from_dicts({1: [["a"]]}, {}), "items must be ids that can be hashed"),
        (lambda: from_ranx({}, {}), r"qrels must be a ranx object with to_dict\(\); got dict"),
        (lambda: from_ranx(Ranx({}), Ranx({"q": {"a": math.nan}})), "run has a score for 'q' that is not a number"),
        (lambda: from_frames({"u": [1]}, {}, user="u"), "recommended has no column 'item_id'; it has u"),
        (lambda: from_frames(7, {}), "recommended must be a data frame or a dict of columns; got int"),
        (lambda: from_frames({}, {}, score="s", rank="r"), "not by both"),
        (
            lambda: from_frames({"user_id": [1], "item_id": [1, 2]}, {"user_id": [1], "item_id": [1]}),
            "recommended has columns of unequal length, 1 and 2",
        ),
        (
            lambda: from_frames({"user_id": [[1]], "item_id": [1]}, {"user_id": [1], "item_id": [1]}),
            "column 'user_id' of recommended must have one dimension",
        ),
        (
            lambda: from_frames({"user_id": [1], "item_id": [math.nan]}, {"user_id": [1], "item_id": [1]}),
            r"items has a missing id \(nan\)",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(InvalidInput, match=message):
        call()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 0.5", "run.txt, line 2: expected the 6 fields"),
        ("q Q0 d 1 high me", "run.txt, line 2: 'high' is not a number"),
        ("q Q0 d 1 nan me", "run.txt, line 2: 'nan' is not a number"),
        ("u2 Q0 a 9 0.5 me", "run.txt, line 2: query 'u2' has the document 'a' twice"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    qrels, run = trec_files(tmp_path)
    run.write_text("u2 Q0 a 1 2.0 me\n" + line + "\n")
    with pytest.raises(InvalidInput, match=message):
        read_trec(qrels, run)
    with pytest.raises(InvalidInput, match="cannot read"):
        read_trec(qrels, tmp_path / "missing.txt")
