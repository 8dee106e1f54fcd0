"""The ranx shim: the library's public example, values that ranx 0.3.21 returned, and definitions by hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from llmrec_fast.compat.ranx import Qrels, Run, compare, evaluate
from llmrec_fast.errors import CorruptFile, InvalidInput

QRELS = {"q_1": {"d_12": 5, "d_25": 3}, "q_2": {"d_11": 6, "d_22": 1}}
RUN = {
    "q_1": {"d_12": 0.9, "d_23": 0.8, "d_25": 0.7, "d_36": 0.6, "d_32": 0.5, "d_35": 0.4},
    "q_2": {"d_12": 0.9, "d_11": 0.8, "d_25": 0.7, "d_36": 0.6, "d_22": 0.5, "d_35": 0.4},
}


class TestPublicExample:
    def test_one_metric_gives_a_number_and_several_a_dict(self) -> None:
        qrels, run = Qrels(QRELS), Run(RUN)
        assert evaluate(qrels, run, "ndcg@5") == pytest.approx(0.7861, abs=5e-5)
        found = evaluate(qrels, run, ["map@5", "mrr"])
        assert found == {"map@5": pytest.approx(0.64166667), "mrr": pytest.approx(0.75)}

    def test_results_are_saved_in_the_run(self) -> None:
        run = Run(RUN)
        evaluate(Qrels(QRELS), run, ["ndcg@5", "map@5", "mrr"])
        assert list(run.mean_scores) == ["ndcg@5", "map@5", "mrr"]
        assert run.scores["ndcg@5"] == {"q_1": pytest.approx(0.9430, abs=5e-5), "q_2": pytest.approx(0.6292, abs=5e-5)}
        assert run.scores["map@5"] == {"q_1": pytest.approx(0.8333, abs=5e-5), "q_2": pytest.approx(0.45)}
        untouched = Run(RUN)
        evaluate(Qrels(QRELS), untouched, "mrr", save_results_in_run=False)
        assert untouched.scores == {}

    def test_values_by_query_and_their_spread(self) -> None:
        values = evaluate(QRELS, RUN, "mrr", return_mean=False)
        assert values.tolist() == [1.0, 0.5]
        run = Run(RUN)
        found = evaluate(QRELS, run, ["mrr"], return_std=True)
        assert found == {"mean": 0.75, "std": 0.25}
        assert run.std_scores == {"mrr": 0.25}


def test_arrays_of_ids_with_gains_and_of_ids_with_falling_scores() -> None:
    judged = [np.array([[1, 5], [2, 3]]), np.array([[3, 6], [4, 1]])]
    ranked = [np.array([[1, 0.9], [7, 0.8], [2, 0.7]]), np.array([[1, 0.9], [3, 0.8], [4, 0.1]])]
    as_dicts = [
        {f"q{place}": {str(int(doc)): value for doc, value in array.tolist()} for place, array in enumerate(arrays)}
        for arrays in (judged, ranked)
    ]
    names = ["ndcg@2", "map", "mrr", "recall@1", "r-precision"]
    assert evaluate(judged, ranked, names) == evaluate(*as_dicts, names)
    assert evaluate(np.stack(judged), np.stack(ranked), "mrr", return_mean=False).tolist() == [1, 0.5]
    for wrong, message in (
        ((judged, ranked[:1]), "same queries; got 2 and 1"),
        (([judged[0][0]], [ranked[0]]), r"\(documents, 2\); got \(2,\)"),
        (([], []), "no query"),
    ):
        with pytest.raises(InvalidInput, match=message):
            evaluate(*wrong, "mrr")


def test_scores_are_open_to_reading_and_sorted_on_demand() -> None:
    run = Run()
    run.add_score("q", "b", 1)
    run.add_score("q", "a", 2)
    assert (run.sorted, run.run) == (False, {"q": {"b": 1, "a": 2}})
    run.sort()
    assert run.sorted
    assert list(run.run["q"]) == ["a", "b"]
    assert Qrels(QRELS).qrels == QRELS


# two queries: places of gains 3, 1, (unjudged), 0, 2 of judged {3, 1, 0, 2, 2}; and a list without hits
JUDGED = {"a": {"w": 3, "x": 1, "y": 0, "z": 2, "v": 2}, "b": {"x": 1, "y": 0}}
RANKED = {"a": {"w": 9, "x": 8, "?": 7, "y": 6, "z": 5}, "b": {"?": 2, "y": 1}}
LOG2_3, LOG2_6 = np.log2(3), np.log2(6)
DCG = 3 + 1 / LOG2_3 + 2 / LOG2_6
IDEAL = 3 + 2 / LOG2_3 + 2 / 2 + 1 / np.log2(5)


@pytest.mark.parametrize(
    ("metric", "wanted"),
    [
        ("hits", 3),
        ("hits@2", 2),
        ("hit_rate@1", 1),
        ("precision", 3 / 5),
        ("precision@10", 3 / 10),
        ("recall", 3 / 4),
        ("recall@1", 1 / 4),
        ("f1", 2 * 0.6 * 0.75 / 1.35),
        ("f1@2", 2 * 1 * 0.5 / 1.5),
        ("r-precision", 2 / 4),
        ("mrr", 1),
        ("mrr-l4", 0),
        ("map", (1 + 1 + 3 / 5) / 4),
        ("map@2", 2 / 4),
        ("map-l2", (1 + 2 / 5) / 3),
        ("dcg", DCG),
        ("dcg_burges@2", 7 + 1 / LOG2_3),
        ("ndcg", DCG / IDEAL),
        ("ndcg@2", (3 + 1 / LOG2_3) / (3 + 2 / LOG2_3)),
        ("ndcg@2-l2", 3 / (3 + 2 / LOG2_3)),
        ("ndcg_burges@1", 1),
        ("bpref", (1 + 1 + 0) / 4),
        ("rbp.50", 0.5 * (3 + 1 / 2 + 2 / 16)),
        ("rbp.5", 0.5 * (3 + 1 / 2 + 2 / 16)),
    ],
)
def test_a_metric_by_hand_and_zero_without_hits(metric: str, wanted: float) -> None:
    values = evaluate(JUDGED, RANKED, metric, return_mean=False)
    np.testing.assert_allclose(values, [wanted, 0], atol=1e-14)


class TestConventions:
    def test_a_query_without_relevant_documents_counts_with_zero(self) -> None:
        metrics = ["map", "recall", "precision", "ndcg", "mrr", "f1", "r-precision", "bpref", "rbp.9", "hits"]
        assert set(evaluate({"q": {"x": 0}}, {"q": {"x": 1.0, "y": 0.5}}, metrics).values()) == {0.0}

    def test_bpref_has_no_value_without_documents_that_are_judged_not_relevant(self) -> None:
        assert np.isnan(evaluate({"q": {"x": 1}}, {"q": {"x": 1.0}}, "bpref"))

    def test_equal_scores_keep_the_given_order(self) -> None:
        assert evaluate({"q": {"y": 1}}, {"q": {"x": 1.0, "y": 1.0}}, "mrr") == 0.5
        assert evaluate({"q": {"y": 1}}, {"q": {"y": 1.0, "x": 1.0}}, "mrr") == 1.0

    def test_queries_must_be_the_same_unless_made_comparable(self) -> None:
        run = Run({"q_1": RUN["q_1"], "q_9": {"x": 1.0}})
        with pytest.raises(InvalidInput, match="'q_2' is in one of them only"):
            evaluate(QRELS, run, "mrr")
        assert evaluate(QRELS, run, "mrr", make_comparable=True) == 0.5
        assert run.get_query_ids() == ["q_1", "q_2"]
        assert evaluate(QRELS, run, "precision", return_mean=False).tolist() == [1 / 3, 0]

    def test_the_order_of_queries_does_not_matter(self) -> None:
        turned = dict(reversed(RUN.items()))
        assert evaluate(QRELS, turned, "mrr", return_mean=False).tolist() == [1.0, 0.5]

    @pytest.mark.parametrize("metric", ["ncdg@5", "ndcg@", "ndcg@0", "rbp", "rbp@5", "map.5", "r-precision@5", "", 3])
    def test_unknown_metrics_are_refused(self, metric: str) -> None:
        with pytest.raises(InvalidInput, match="metric"):
            evaluate(QRELS, RUN, [metric])

    def test_nothing_cannot_be_measured(self) -> None:
        with pytest.raises(InvalidInput, match="no query"):
            evaluate({}, {}, "mrr")
        with pytest.raises(TypeError):
            evaluate(QRELS, RUN, "mrr", n_jobs=2)


class TestTables:
    def test_documents_come_by_falling_score_and_queries_by_id(self) -> None:
        run = Run({"b": {"x": 1.0, "y": 2.0}, "a": {"z": 0.5}}, name="bm25")
        assert list(run["b"]) == ["y", "x"]
        assert run.get_query_ids() == list(run.keys()) == ["a", "b"]
        assert (len(run), run.size, run.name) == (2, 2, "bm25")
        assert run.get_doc_ids_and_scores() == [{"z": 0.5}, {"y": 2.0, "x": 1.0}]

    def test_scores_are_added_one_by_one_or_in_bulk(self) -> None:
        qrels = Qrels()
        qrels.add_score("q", "x", 1)
        qrels.add_score("q", "y", 3)
        qrels.add_multi(["r", "s"], [["x"], ["z", "y"]], [[2], [1, 1]])
        assert qrels.to_dict() == {"q": {"y": 3, "x": 1}, "r": {"x": 2}, "s": {"z": 1, "y": 1}}
        qrels.set_relevance_level(2)
        assert qrels["q"] == {"y": 2, "x": 0}

    @pytest.mark.parametrize(
        ("table", "message"),
        [
            (lambda: Qrels({"q": {"x": 0.5}}), "must be integers"),
            (lambda: Run({"q": {"x": float("nan")}}), "has NaN"),
            (lambda: Run({1: {"x": 1.0}}), "query ids must be strings"),
            (lambda: Run({"q": {1: 1.0}}), "document ids must be strings"),
            (lambda: Run().add("q", ["x"], []), "1 documents and 0 scores"),
            (lambda: Run().add_multi(["q"], [], []), "got 1 queries"),
        ],
    )
    def test_what_is_no_table_is_refused(self, table: object, message: str) -> None:
        with pytest.raises(InvalidInput, match=message):
            table()  # type: ignore[operator]

    @pytest.mark.parametrize("name", ["table.json", "table.trec", "table.txt", "table.parquet"])
    def test_files_come_back_as_they_were_written(self, name: str, tmp_path: Path) -> None:
        for table in (Qrels(QRELS), Run(RUN, name="bm25")):
            table.save(tmp_path / name)
            assert type(table).from_file(tmp_path / name).to_dict() == table.to_dict()

    def test_trec_lines_have_their_usual_form(self, tmp_path: Path) -> None:
        Qrels({"q": {"x": 2}}).save(tmp_path / "qrels.trec")
        assert (tmp_path / "qrels.trec").read_text() == "q 0 x 2"
        Run({"q": {"x": 0.5, "y": 1.5}}, name="bm25").save(tmp_path / "run.trec")
        assert (tmp_path / "run.trec").read_text() == "q Q0 y 1 1.5 bm25\nq Q0 x 2 0.5 bm25"
        (tmp_path / "run.gz").write_bytes(gzip.compress((tmp_path / "run.trec").read_bytes()))
        assert Run.from_file(tmp_path / "run.gz").name == "bm25"

    def test_damaged_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "run.trec").write_text("q Q0 y 1 1.5 bm25\nq Q0 x\n")
        with pytest.raises(CorruptFile, match=r"run\.trec, line 2: expected 6 fields"):
            Run.from_file(tmp_path / "run.trec")
        (tmp_path / "run.json").write_text("{")
        with pytest.raises(CorruptFile, match=r"run\.json is not JSON"):
            Run.from_file(tmp_path / "run.json")
        with pytest.raises(InvalidInput, match="kind must be"):
            Run.from_file(tmp_path / "run.lz4")

    def test_data_frames(self) -> None:
        frame = pd.DataFrame({"q_id": ["q", "q"], "doc_id": ["x", "y"], "rank": [1.0, 2.0]})
        run = Run.from_df(frame, score_col="rank", name="m")
        assert run.to_dict() == {"q": {"y": 2.0, "x": 1.0}}
        assert run.to_dataframe().to_dict("list") == {"q_id": ["q", "q"], "doc_id": ["y", "x"], "score": [2.0, 1.0]}


class TestComparing:
    @staticmethod
    def runs() -> tuple[Qrels, list[Run]]:
        generator = np.random.default_rng(0)
        judged = {f"q{q:02}": {f"d{d}": 1 for d in range(3)} for q in range(30)}
        tables = []
        for strength in (0.0, 0.0, 3.0):
            tables.append(
                {
                    query: {f"d{d}": float(generator.standard_normal() + strength * (d < 3)) for d in range(12)}
                    for query in judged
                }
            )
        return Qrels(judged), [Run(table, name=name) for table, name in zip(tables, "abc", strict=True)]

    @pytest.mark.parametrize("test", ["student", "fisher", "tukey"])
    def test_a_real_difference_is_found_and_chance_is_not(self, test: str) -> None:
        qrels, runs = self.runs()
        report = compare(qrels, runs, ["map@10", "mrr"], stat_test=test)
        assert report.comparisons["a", "c"]["map@10"]["significant"]
        assert not report.comparisons["b", "a"]["map@10"]["significant"]
        assert report.comparisons["c", "a"] is report.comparisons["a", "c"]

    def test_p_values_are_those_of_scipy(self) -> None:
        qrels, runs = self.runs()
        found = compare(qrels, runs, "map").comparisons["a", "b"]["map"]["p_value"]
        values = [evaluate(qrels, run, "map", return_mean=False) for run in runs]
        assert found == pytest.approx(stats.ttest_rel(values[0], values[1]).pvalue)
        found = compare(qrels, runs, "map", stat_test="tukey").comparisons["a", "b"]["map"]["p_value"]
        assert found == pytest.approx(stats.tukey_hsd(*values).pvalue[0, 1])

    def test_randomization_of_few_queries_approaches_the_exact_share(self) -> None:
        # differences 1, 1, 1: of the 8 ways to swap, 2 have a mean of at least 1
        judged = {query: {"x": 1} for query in "abc"}
        good, bad = (Run({query: {doc: 1.0} for query in "abc"}, name=doc) for doc in "xy")
        report = compare(judged, [good, bad], "mrr", stat_test="fisher", n_permutations=20_000)
        assert report.comparisons["x", "y"]["mrr"]["p_value"] == pytest.approx(0.25, abs=0.01)
        assert compare(judged, [good, bad], "mrr").comparisons["x", "y"]["mrr"]["p_value"] == 0.0

    def test_runs_that_do_not_differ_have_no_p_value(self) -> None:
        qrels, runs = self.runs()
        twin = Run(runs[0].to_dict(), name="twin")
        comparison = compare(qrels, [runs[0], twin], "map").comparisons["a", "twin"]["map"]
        assert np.isnan(comparison["p_value"])
        assert not comparison["significant"]

    def test_the_report_reads_as_a_table_and_as_dicts(self, tmp_path: Path) -> None:
        qrels, runs = self.runs()
        runs[1].name = None
        report = compare(qrels, runs, ["map@10", "rbp.95"], rounding_digits=4)
        lines = str(report).splitlines()
        assert lines[0].split() == ["#", "Model", "MAP@10", "RBP.95"]
        assert lines[4].startswith("c  c      ")
        assert "ᵃᵇ" in lines[4]
        document = report.to_dict()
        assert document["model_names"] == ["a", "run_2", "c"]
        assert sum(document["a"]["win_tie_loss"]["c"]["map@10"].values()) == 30
        report.save(tmp_path / "report.json")
        assert json.loads((tmp_path / "report.json").read_text()) == document
        assert report.to_dataframe()["model_names"].tolist() == ["a", "run_2", "c"]
        percentages = compare(qrels, runs, "map@10", show_percentages=True)
        assert f"{100 * percentages.results['a']['map@10']:.1f}" in str(percentages)

    def test_results_are_printed_as_json(self, capsys: pytest.CaptureFixture[str]) -> None:
        report = compare(*self.runs(), "mrr")
        report.print_results()
        assert json.loads(capsys.readouterr().out) == report.results

    def test_what_cannot_be_compared_is_refused(self) -> None:
        qrels, runs = self.runs()
        with pytest.raises(InvalidInput, match="two or more"):
            compare(qrels, runs[:1], "map")
        with pytest.raises(InvalidInput, match="different names"):
            compare(qrels, [runs[0], runs[0]], "map")
        with pytest.raises(InvalidInput, match="stat_test"):
            compare(qrels, runs, "map", stat_test="Tukey")


def test_a_report_names_its_test_in_words() -> None:
    report = compare(Qrels(QRELS), [Run(RUN, name="x"), Run(RUN, name="y")], "mrr", stat_test="tukey")
    assert report.get_stat_test_label(report.stat_test) == "Tukey's HSD test"
