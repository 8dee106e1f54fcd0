"""The report: its figures are those of `evaluate`, its files are whole, its page needs nothing and trusts no name."""

import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import (
    bootstrap_interval,
    compare_methods,
    evaluate,
    evaluate_per_user,
    randomization_test,
    recall_by_popularity,
    summarize_cold_items,
    svg,
    write_report,
)

NASTY = "a <script>alert('x')</script> & \"b\" \x1b é"
METRICS = ["ndcg@3", "recall@5", "coverage@5", "novelty@5"]


@pytest.fixture(scope="module")
def case():
    generator = np.random.default_rng(2)
    users, n_items = 60, 30
    wish = generator.normal(size=(users, n_items))
    noisy = wish + generator.normal(size=wish.shape)
    relevant = [np.argsort(-row)[: user % 4] for user, row in enumerate(wish)]
    methods = {
        "chance": np.argsort(generator.random((users, n_items)), axis=1)[:, :12],
        NASTY: np.argsort(-noisy, axis=1)[:, :7],
    }
    return methods, relevant, generator.integers(0, 9, n_items)


@pytest.fixture(scope="module")
def report(case):
    methods, relevant, counts = case
    return compare_methods(methods, relevant, metrics=METRICS, item_counts=counts, resamples=200, title=NASTY)


def test_figures_are_those_of_the_single_functions(case, report):
    methods, relevant, counts = case
    per_user = {m: evaluate_per_user(lists, relevant, ["ndcg@3"])["ndcg@3"] for m, lists in methods.items()}
    for method, lists in methods.items():
        result = report.methods[method]
        assert result.figures == evaluate(lists, relevant, METRICS, item_counts=counts)
        assert result.intervals["ndcg@3"] == bootstrap_interval(per_user[method], resamples=200)
        assert result.recall_by_popularity == recall_by_popularity(lists, relevant, counts, 3)
        assert result.cold_items == summarize_cold_items(lists, relevant, counts, 20, resamples=200)
        assert f"{result.cold_items.recall.mean:.4f}<small>" in report.page()
        assert result.coverage == evaluate(lists, relevant, ["coverage@3"], n_items=30)["coverage@3"]
        width = lists.shape[1]
        assert [k for k, _ in result.curves["recall"]] == [1, 2, 3, 5, *([10] if width > 10 else []), width]
        for k, value in result.curves["recall"]:
            assert value == evaluate(lists, relevant, [f"recall@{k}"])[f"recall@{k}"]
        assert "coverage@5" not in result.intervals
        values, shares = zip(*result.distribution, strict=True)
        assert (list(values), list(shares)) == (sorted(values), sorted(shares))
        assert (values[0], values[-1]) == (np.nanmin(per_user[method]), np.nanmax(per_user[method]))
    assert report.methods["chance"].p_values == {}
    wanted = randomization_test(per_user[NASTY], per_user["chance"], resamples=2_000).p_value
    assert report.methods[NASTY].p_values["ndcg@3"] == wanted < 0.05
    assert (report.users, report.relevant, report.n_items) == (45, 90, 30)
    assert report.methods["chance"].cold_items.items == (counts == 0).sum() > 0
    assert (report.main_metric, report.reference) == ("ndcg@3", "chance")


def test_files(tmp_path, report):
    text, data, page = write_report(tmp_path / "new" / "folder", report)
    assert text.read_text().splitlines()[0].split() == ["method", *METRICS, "cold", "recall@20"]
    loaded = json.loads(data.read_text())
    assert list(loaded["methods"]) == ["chance", NASTY]
    assert loaded["methods"]["chance"]["figures"]["ndcg@3"] == report.methods["chance"].figures["ndcg@3"]
    assert loaded["methods"]["chance"]["recall_by_popularity"][0]["low"] == 0
    assert page.read_text() == report.page()
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot write the report to"):
        write_report(tmp_path / "file", report)


class Outline(HTMLParser):
    """Which elements there are, which are still open, and what loads something."""

    VOID = ("meta", "br", "line", "circle", "rect")

    def __init__(self):
        super().__init__()
        self.seen, self.open, self.loads = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_other_file(report):
    page = report.page()
    outline = Outline()
    outline.feed(page)
    outline.close()
    assert outline.open == []
    assert outline.loads == []
    assert "http" not in page
    assert "url(" not in page
    assert "script" not in outline.seen
    assert outline.seen.count("svg") == 5
    assert page.count("&lt;script&gt;") > 5
    assert "\x1b" not in page
    charts = [ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>") for part in page.split("<svg")[1:]]
    titles = [chart.get("aria-label") for chart in charts]
    assert titles == [
        "NDCG at k",
        "Recall at k",
        "Coverage against accuracy",
        "Recall by popularity",
        "Users by ndcg@3",
    ]
    numbers = [
        float(value)
        for chart in charts
        for element in chart.iter()
        for name, value in element.attrib.items()
        if name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height")
    ]
    assert 0 <= min(numbers) <= max(numbers) < 500


def test_without_counts_there_is_no_recall_by_popularity_and_defaults_apply(case):
    methods, relevant, _ = case
    report = compare_methods({"chance": methods["chance"]}, relevant, n_items=30, resamples=20)
    assert list(report.methods["chance"].figures) == ["ndcg@10", "recall@20", "mrr@10", "coverage@20"]
    assert report.methods["chance"].recall_by_popularity == []
    assert report.page().count("<svg") == 4
    assert report.methods["chance"].cold_items is None
    assert "Cold items" not in report.page()
    assert "randomisation" not in report.page()


def test_what_has_no_value_is_a_dash_and_null():
    nothing = np.full((3, 2), -1)
    report = compare_methods({"empty": nothing}, [[0], [1], []], metrics=["ndcg@2", "novelty@2"], item_counts=[1, 1])
    assert "<td>-</td>" in report.page()
    assert report.as_dict()["methods"]["empty"]["figures"] == {"ndcg@2": 0.0, "novelty@2": None}
    assert report.methods["empty"].intervals.keys() == {"ndcg@2"}
    assert "nan" not in report.page().lower()


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        ({}, {}, "a dict with at least one method"),
        ([[1]], {}, "a dict with at least one method"),
        ({"a": [[1]]}, {"reference": "b"}, "reference 'b' is none of the methods a"),
        ({"a": [[1]]}, {"metrics": ["coverage@1"]}, "one that has a value for each user"),
        ({"a": [[1]]}, {"metrics": ["nonsense@1"]}, "unknown metric 'nonsense@1'"),
        ({"a": [[1]]}, {"n_items": None}, "give n_items= or item_counts="),
        ({"a": [[1]], "b": [[1], [2]]}, {}, "relevant must have one array of ids for each of 2 users"),
        ({"a": [1]}, {}, "two dimensions"),
    ],
)
def test_bad_input_is_refused(methods, options, message):
    with pytest.raises(InvalidInput, match=message):
        compare_methods(methods, [[1]], **{"n_items": 3, **options})


def test_axes_have_round_ticks_that_hold_all_values():
    for high in (0.0003, 0.07, 0.31, 1.0, 12.0):
        scale = svg._linear(0.0, high, 300.0, 20.0)
        assert scale.ticks[0] == 0.0
        assert scale.ticks[-1] >= high
        assert 4 <= len(scale.ticks) <= 8
        assert scale.at(scale.ticks[0]) == 300.0
        assert scale.at(scale.ticks[-1]) == pytest.approx(20.0)
    flat = svg._linear(2.0, 2.0, 0.0, 100.0)
    assert flat.low <= 2.0 < flat.high
    single = svg._logarithmic([5.0], 0.0, 100.0)
    assert single.at(5.0) == pytest.approx(50.0)
