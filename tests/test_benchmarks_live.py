import numpy as np

from benchmarks.live import make_recommender, measure


def test_calls_are_timed_while_events_arrive_at_the_given_rate():
    vectors = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    recommender = make_recommender(vectors, users=20, history=5, threads=1, seed=0)
    before = sum(len(recommender.history(user)) for user in range(20))
    latencies = measure(recommender, calls=60, rate=500.0)
    assert len(latencies.search) == len(latencies.recommend) == len(latencies.beside_writer) == 60
    assert (latencies.recommend > 0).all()
    assert sum(len(recommender.history(user)) for user in range(20)) > before
    assert any(line.startswith("recommend / search") for line in latencies.lines())
