"""The benchmark harness and a tiny run of every suite. No peer is needed: whoever is missing must be named, not required."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import benchmarks.retrieval
from benchmarks import peers, pool, report, threads
from benchmarks.__main__ import main
from benchmarks.harness import Comparison, Contender, Disagreement, Effort, Measurement, compare
from benchmarks.retrieval import data, grid, oracle, scale, stress
from benchmarks.retrieval.child import in_child


@pytest.fixture(autouse=True)
def quick_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about answers and bookkeeping, not about times: do not wait for threads, do not flush."""
    monkeypatch.setattr(threads, "SETTLE_AT_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "SETTLE_AT_MOST_SECONDS", 0.0)
    monkeypatch.setattr(threads, "FLUSH_BYTES", 1 << 16)


@pytest.fixture
def without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(names: list[str]) -> tuple[dict[str, object], dict[str, str]]:
        return {}, dict.fromkeys(names, "not imported in this test")

    monkeypatch.setattr(pool, "import_peers", nobody)
    monkeypatch.setattr(benchmarks.retrieval, "import_peers", nobody)


def _agrees(answer: int) -> str:
    return "" if answer == 42 else f"{answer} is not 42"


class TestHarness:
    def test_everyone_gets_the_same_repetitions_in_turn(self) -> None:
        calls: list[tuple[str, int]] = []

        def contender(name: str, ours: bool = False) -> Contender:
            return Contender(name, lambda repetition: calls.append((name, repetition)) or 42, _agrees, ours)

        effort = Effort(seconds=60.0, minimum=6, maximum=6)  # far longer than the calls: no time decides
        found = compare([contender("ours", True), contender("peer")], threads.Neutral(1), effort)
        assert {(m.contender, m.mode): len(m.seconds) for m in found.measurements} == {
            ("ours", "hot"): 6,
            ("peer", "hot"): 6,
            ("ours", "cold"): 6,
            ("peer", "cold"): 6,
        }
        cold = calls[-12:]
        assert cold[:4] == [("ours", 0), ("peer", 0), ("peer", 1), ("ours", 1)]
        assert found.ours().contender == "ours"

    def test_a_peer_that_disagrees_is_named_and_not_timed(self) -> None:
        contenders = [Contender("ours", lambda _: 42, _agrees, True), Contender("peer", lambda _: 41, _agrees)]
        found = compare(contenders, threads.Neutral(1), Effort(seconds=0.0))
        assert {m.contender for m in found.measurements} == {"ours"}
        assert found.notes == ["peer is not timed: 41 is not 42"]
        assert found.ratio() is None

    def test_our_own_wrong_answer_stops_the_run(self) -> None:
        with pytest.raises(Disagreement, match="41 is not 42"):
            compare([Contender("ours", lambda _: 41, _agrees, True)], threads.Neutral(1), Effort(seconds=0.0))

    @pytest.mark.parametrize(
        ("expected", "fastest", "repetitions"),
        [(1e-6, 1e-6, 31), (0.1, 0.1, 20), (10.0, 10.0, 3), (10.0, 9.0, 3), (10.0, 1.0, 1), (0.1, 0.001, 20)],
    )
    def test_only_a_hopelessly_slow_contender_gets_fewer_than_the_minimum(
        self, expected: float, fastest: float, repetitions: int
    ) -> None:
        assert Effort(seconds=2.0, minimum=3, maximum=31).repetitions(expected, fastest) == repetitions

    def test_a_suite_may_ask_for_more_of_the_hopeless_and_for_more_rounds(self) -> None:
        effort = Effort(seconds=0.01, minimum=5, maximum=5, modes=("hot",), hopeless=5, rounds=5)
        assert effort.repetitions(10.0, 1.0) == 5
        calls: list[tuple[str, int]] = []

        def contender(name: str, ours: bool = False) -> Contender:
            return Contender(name, lambda repetition: calls.append((name, repetition)) or 42, _agrees, ours)

        compare([contender("ours", True), contender("peer")], threads.Neutral(1), effort)
        # each turn is an untimed call and a timed one
        turns = calls[-20::2]
        assert [name for name, _ in turns] == [
            "ours",
            "peer",
            "peer",
            "ours",
            "ours",
            "peer",
            "peer",
            "ours",
            "ours",
            "peer",
        ]
        assert [number for _, number in turns] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]

    def test_ratio_is_between_medians_of_ours_and_the_fastest_peer_that_counts(self) -> None:
        found = Comparison(
            [
                Measurement("ours", "hot", [1.0, 2.0, 9.0], ours=True),
                Measurement("exact", "hot", [6.0]),
                Measurement("approximate", "hot", [1.0]),
            ],
            [],
        )
        assert found.ratio(among=["exact"]) == 3.0
        assert found.ratio() == 0.5
        assert found.of("ours").quartiles == (1.5, 5.5)
        assert found.of("exact").quartiles == (6.0, 6.0)


class TestReport:
    def test_missing_peers_missed_targets_and_spread_are_in_both_files(self, tmp_path: Path) -> None:
        comparison = Comparison(
            [Measurement("ours", "hot", [0.001, 0.002, 0.004], ours=True)], ["peer is not timed: wrong"]
        )
        made = report.Report(
            "demo",
            "A demo",
            cells=[report.Cell({"N": 10}, comparison, {"share": 0.5})],
            targets=[report.Target("speed", 1.5, 2.0), report.Target("time", 1.0, 2.0, at_least=False, unit="s")],
            missing={"faiss": "cannot be imported; pip install faiss-cpu"},
        )
        data_path, text_path = made.write(tmp_path)
        text, loaded = text_path.read_text(), json.loads(data_path.read_text())
        assert "**faiss** took no part: cannot be imported; pip install faiss-cpu" in text
        assert "| speed | 1.5 x | ≥ 2 x | **no** |" in text
        assert "| 10 | 2 [1.5 to 3] of 3 |" in text
        assert "N 10: peer is not timed: wrong" in text
        assert [target["met"] for target in loaded["targets"]] == [False, True]
        assert loaded["cells"][0]["measurements"][0]["seconds"] == [0.001, 0.002, 0.004]
        assert loaded["machine"]["cores"] >= 1

    def test_a_peer_that_is_not_installed_comes_with_the_command_that_installs_it(self) -> None:
        modules, missing = peers.import_peers(["json", "no_such_engine"])
        assert list(modules) == ["json"]
        assert "pip install no_such_engine" in missing["no_such_engine"]


class TestOracle:
    def _find(self, chunk: int) -> oracle.Oracle:
        rng = np.random.default_rng(0)
        rows = rng.standard_normal((500, 8), dtype=np.float32)
        rows[300:310] = rows[20]  # ties
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return oracle.find(rows, rows[18:23], 20, chunk)

    @pytest.mark.parametrize("chunk", [7, 64, 1000])
    def test_equals_a_full_sort_with_ties_by_position(self, chunk: int) -> None:
        found = self._find(chunk)
        for query, ids in zip(found.queries, found.ids, strict=True):
            right = np.argsort(-oracle.exact_scores(found.rows, query), kind="stable")[:20]
            np.testing.assert_array_equal(ids, right)
        assert found.ids[2, :11].tolist() == [20, *range(300, 310)]

    def test_tells_wrong_rows_wrong_order_and_repeated_rows(self) -> None:
        found = self._find(64)
        right = found.ids[:, :5]
        assert found.wrong_order(right, 5) == ""
        assert found.too_far(right, 5) == ""
        assert found.recall(right, 5) == 1.0
        worse = right.copy()
        worse[1, 4] = found.ids[1, 15]
        assert "query 1" in found.wrong_order(worse, 5)
        assert "off by" in found.too_far(worse, 5)
        assert found.recall(worse, 5) == pytest.approx(24 / 25)
        repeated = right.copy()
        repeated[0, 1] = repeated[0, 0]
        assert found.too_far(repeated, 5)


class TestData:
    def test_tiled_rows_are_unit_vectors_near_their_original(self) -> None:
        rng = np.random.default_rng(0)
        base = data.tile(rng.standard_normal((40, 384), dtype=np.float32), 40, rng)
        rows = data.tile(base, 100, rng)
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(rows[:40], base, atol=1e-6)
        np.testing.assert_allclose((rows[40:80] * base).sum(1), 0.98, atol=0.01)

    @pytest.mark.parametrize("dimension", [3, 16, 40])
    def test_real_data_in_another_dimension(self, dimension: int) -> None:
        base = np.random.default_rng(0).standard_normal((200, 16), dtype=np.float32)
        made = data.make("real", 500, dimension, base, queries=8)
        assert made.rows.shape == (500, dimension)
        assert made.queries.shape == (8, dimension)
        # every column carries variance, so no engine gets free zeros
        assert made.rows.std(axis=0).min() > 0.01

    def test_vectors_come_from_the_file_named_by_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        np.save(tmp_path / "v.npy", np.full((4, 2), 3, np.float16))
        monkeypatch.setenv(data.VECTORS_VARIABLE, str(tmp_path / "v.npy"))
        vectors, source = data.load_real(None)
        np.testing.assert_allclose(vectors, np.sqrt(0.5), rtol=1e-6)
        assert source == "real vectors: 4 x 2 from v.npy"
        np.save(tmp_path / "v.npy", np.zeros((4, 2)))
        with pytest.raises(ValueError, match="float16 or float32"):
            data.load_real(None)

    @pytest.mark.parametrize("noise", [0.1, 1.0])
    def test_rows_drawn_for_the_scale_run_follow_the_spectrum_whatever_the_threads(
        self, tmp_path: Path, noise: float
    ) -> None:
        base = np.random.default_rng(0).standard_normal((500, 6), dtype=np.float32) * np.float32([3, 2, 1, 1, 1, 1])
        for name, count in (("one", 1), ("two", 2)):
            scale.write_rows(tmp_path / f"{name}.npy", 3000, data.Spectrum(base, noise), 6, count)
        one, two = np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy")
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-6)
        unit = base / np.linalg.norm(base, axis=1, keepdims=True)
        np.testing.assert_allclose(one.std(axis=0), unit.std(axis=0), rtol=0.1)
        assert len(np.unique(one, axis=0)) == 3000


class TestSuites:
    def test_pool(self, tmp_path: Path, without_peers: None) -> None:
        assert main(["pool", "--quick", "--seconds", "0.01", "--output", str(tmp_path)]) == 0
        written = json.loads((tmp_path / "pool.json").read_text())
        assert [cell["labels"]["tokens"] for cell in written["cells"]] == ["all valid", "ragged"]
        assert {m["contender"] for m in written["cells"][0]["measurements"]} == {
            "llmrec_fast",
            "numpy expression",
            "numpy copy",
        }
        assert written["missing_peers"]["torch"] == "not imported in this test"
        assert written["command"].startswith("python -m benchmarks pool --quick")

    def test_retrieval(self, tmp_path: Path, without_peers: None) -> None:
        words = "retrieval --data noise --rows 4100 --dimensions 8 --queries 1,16 --k 5 --seconds 0.01 --threads 2"
        parts = "--parts grid,exclusions,threads --stress-seconds 0.5 --output"
        assert main([*words.split(), *parts.split(), str(tmp_path)]) == 0
        written = json.loads((tmp_path / "retrieval.json").read_text())
        assert [(cell["section"], cell["labels"]["Q"]) for cell in written["cells"]] == [
            ("Grid", 1),
            ("Grid", 16),
            ("Exclusions", 1),
            ("Exclusions", 16),
        ]
        assert {m["contender"] for m in written["cells"][0]["measurements"]} == {"llmrec_fast", "numpy"}
        assert "faiss" in written["missing_peers"]
        assert any("beside a writer" in name for name in written["figures"])

    def test_unknown_suite_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["no-such-suite"])
        assert "invalid choice" in capsys.readouterr().err

    def test_unknown_peers_are_named_before_anything_runs(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["retrieval", "--peers", "numpy,sklearn"])
        assert "sklearn: not among faiss, torch, numpy" in capsys.readouterr().err

    def test_who_is_hopelessly_slow_is_not_asked_and_named(self) -> None:
        engines = [SimpleNamespace(name=name) for name in ("llmrec_fast", "torch", "usearch")]
        chosen, notes = grid._worth_asking(engines, {"llmrec_fast": 0.1, "torch": 0.005, "usearch": 0.5}, 256)
        assert [engine.name for engine in chosen] == ["llmrec_fast", "torch"]
        assert notes == ["usearch is not run: about 128 s a call by its time for fewer queries"]

    def test_stress_refuses_an_index_that_answers_wrongly(self) -> None:
        made = data.make("noise", 300, 8, None, queries=8)
        index = SimpleNamespace(search=lambda queries, k: SimpleNamespace(ids=np.arange(k)[None]))
        with pytest.raises(RuntimeError, match="wrong answer under threads"):
            stress.run(report.Report("r", "r"), made, index, 2, 0.1)

    def test_a_scale_run_that_is_terminated_leaves_nothing_behind(self, tmp_path: Path) -> None:
        np.save(tmp_path / "base.npy", np.random.default_rng(0).standard_normal((500, 64), dtype=np.float32))
        folder = tmp_path / "scale"
        folder.mkdir()
        program = (
            "import argparse, sys, numpy as np\n"
            "from pathlib import Path\n"
            "from benchmarks.report import Report\n"
            "from benchmarks.retrieval import scale\n"
            "options = argparse.Namespace(scale_rows=20_000_000, scale_folder=Path(sys.argv[2]), scale_noise=0.1, threads=1)\n"
            "scale._need_disk = lambda *_: None\n"
            "scale.run(Report('r', 'r'), options, np.load(sys.argv[1]), None)\n"
        )
        words = [sys.executable, "-c", program, str(tmp_path / "base.npy"), str(folder)]
        with subprocess.Popen(words, cwd=Path(__file__).parents[1]) as process:
            end = time.monotonic() + 60
            while not any(file.stat().st_size for file in folder.rglob("rows.npy")) and time.monotonic() < end:
                time.sleep(0.05)
            assert any(folder.iterdir())
            process.terminate()
            assert process.wait(60) == 128 + signal.SIGTERM
        assert not any(folder.iterdir())

    def test_a_child_process_reports_its_figures_or_its_error(self) -> None:
        assert in_child("first")["answer"] > 0
        with pytest.raises(RuntimeError, match="no-such-folder"):
            in_child("build", "no-such-folder/rows.npy", "nowhere", 1, "mapped")
