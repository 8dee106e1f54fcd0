import json

import numpy as np

from benchmarks.__main__ import main
from benchmarks.live import make_recommender, measure


def test_calls_are_timed_while_events_arrive_at_the_given_rate():
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    recommender = make_recommender(vectors, users=20, history=5, threads=1, seed=0)
    before = sum(len(recommender.history(user)) for user in range(20))
    latencies = measure(recommender, calls=60, rate=500.0)
    assert len(latencies.search) == len(latencies.recommend) == len(latencies.beside_writer) == 60
    assert (latencies.recommend > 0).all()
    assert sum(len(recommender.history(user)) for user in range(20)) > before


def test_the_suite_reports_latencies_and_loses_nothing_in_a_crash(tmp_path):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32))
    words = ["live", "--quick", "--items", "1200", "--durable", "--crash-rounds", "1", "--output", str(tmp_path)]
    assert main([*words, "--vectors", str(tmp_path / "vectors.npy")]) == 0
    written = json.loads((tmp_path / "live.json").read_text())
    assert [cell["labels"]["call"] for cell in written["cells"]][-1] == "recommend beside the writer"
    assert [target["name"] for target in written["targets"]][:1] == ["recommend over the bare search, p50"]
    assert written["figures"]["events acknowledged before kills"] > 0
    assert written["figures"]["acknowledged events lost"] == 0
