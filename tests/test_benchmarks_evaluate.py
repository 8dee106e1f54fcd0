"""The evaluate suite: its oracle, its check, and a tiny run without peers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import evaluate as suite
from benchmarks import threads
from benchmarks.__main__ import main
from benchmarks.harness import Comparison, Measurement
from llmrec_fast.evaluation import evaluate, from_dicts
from tests.evaluation import oracle


@pytest.fixture(autouse=True)
def quick_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SETTLE_AT_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "SETTLE_AT_MOST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "FLUSH_BYTES", 1 << 16)


@pytest.fixture(scope="module")
def work() -> suite.Work:
    return suite.make_work(12)


def test_the_oracle_of_the_suite_agrees_with_plain_definitions(work: suite.Work) -> None:
    found = suite.oracle(work)
    rows = list(zip(work.recommended.tolist(), work.rows(), strict=True))
    for name, value in found.items():
        metric, k = name.split("@")
        if metric.startswith("ndcg"):
            define = oracle.graded_ndcg if metric == "ndcg" else oracle.ndcg_exponential
            each = [define(row, dict(zip(ids, gains, strict=True)), int(k)) for row, (ids, gains) in rows]
        else:
            each = [oracle.ACCURACY[metric](row, ids.tolist(), int(k)) for row, (ids, _) in rows]
        assert value == pytest.approx(sum(each) / len(each), abs=1e-12), name


def test_dictionaries_say_the_same_as_arrays(work: suite.Work) -> None:
    names = [f"{metric}@{k}" for metric in suite.METRICS for k in suite.CUTS]
    made = from_dicts(work.run(), work.qrels())
    assert evaluate(made.recommended, made.relevant, names, gains=made.gains) == pytest.approx(suite.oracle(work))


def test_answers_may_lack_metrics_but_not_differ() -> None:
    wanted = {"map@10": 0.5, "mrr@10": 0.25}
    assert suite._problem({"map@10": 0.5}, wanted) == ""
    assert "mrr@10 differs from float64 by 1.00e-03" in suite._problem({"map@10": 0.5, "mrr@10": 0.251}, wanted)
    assert "answers" in suite._problem({"other@10": 0.5}, wanted)
    assert "answers" in suite._problem({}, wanted)


def test_targets_are_ratios_of_medians() -> None:
    warm = Comparison([Measurement(suite.OURS, "hot", [0.1]), Measurement("pytrec_eval", "hot", [2.0])], [])
    fresh = Comparison([Measurement(suite.OURS, "hot", [1.0]), Measurement("ranx", "hot", [50.0])], [])
    reached = {target.name: (target.reached, target.met) for target in suite._targets(warm, fresh)}
    assert reached == {
        "speed over pytrec_eval, data ready": (20.0, True),
        "ranx from dictionaries in a fresh process, over ours with data ready": (500.0, True),
    }


def test_a_tiny_run_names_the_missing_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "import_peers", lambda names: ({}, dict.fromkeys(names, "not imported in this test")))
    monkeypatch.setattr(suite, "FRESH_REPETITIONS", 1)
    assert main(["evaluate", "--users", "40", "--seconds", "0.01", "--threads", "2", "--output", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "evaluate.json").read_text())
    assert set(written["missing_peers"]) == {"ranx", "pytrec_eval", "rectools.metrics"}
    ready, fresh = written["cells"]
    assert {m["contender"] for m in ready["measurements"]} == {"llmrec_fast"}
    assert {m["contender"] for m in fresh["measurements"]} == {"llmrec_fast", "llmrec_fast from dicts"}
    assert written["targets"] == []


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-file"):
        suite._child(suite.OURS, tmp_path / "no-such-file", 1)
