"""The neural scorer: it learns an order, explains it without remainder, is served without torch, and refuses nonsense."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from llmrec_fast.errors import CorruptFile, InvalidInput, MissingDependency
from llmrec_fast.ranking.neural import NeuralRanker, NeuralSettings
from llmrec_fast.ranking.neural.network import Network, Standardisation

from .some_groups import NAMES, some_groups

pytest.importorskip("onnxruntime")
SMALL = NeuralSettings(members=2, hidden=16, epochs=10, batch=8, learning_rate=0.02)


def some_network(width=3, hidden=5, seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    before = Standardisation.fit(draw(200, width) * np.array([1, 1000, 0.001], np.float32))
    return Network.joined(before, [(draw(hidden, width), draw(hidden), draw(1, hidden), draw(1)) for _ in range(3)])


@pytest.fixture(scope="module", params=["softmax", "lambda"])
def settings(request):
    return dataclasses.replace(SMALL, objective=request.param)


@pytest.fixture(scope="module")
def ranker(settings):
    pytest.importorskip("torch")
    return NeuralRanker.fit(*some_groups(), NAMES, settings)


def test_relevant_rows_come_first_in_groups_never_seen(ranker):
    features, relevant, sizes = some_groups(seed=1)
    scores = ranker.scores(features).reshape(len(sizes), -1)
    rank = (scores > scores.ravel()[relevant > 0][:, None]).sum(axis=1)
    assert rank.mean() < 1.0  # by chance 4.5


def test_contributions_add_up_to_the_score_and_name_the_signal(ranker):
    features, _, _ = some_groups(seed=2)
    shares = ranker.contributions(features)
    np.testing.assert_allclose(shares.sum(axis=1), ranker.scores(features), atol=1e-5)
    assert np.abs(shares[:, 0]).mean() > 2 * np.abs(shares[:, 1]).mean()


def test_groups_of_different_sizes_and_without_relevant_rows_are_no_trouble(settings):
    pytest.importorskip("torch")
    features, relevant, _ = some_groups()
    sizes = np.array([1, 0, 29, 70, 500])
    relevant[30:100] = 0
    scores = NeuralRanker.fit(features, relevant, sizes, NAMES, settings).scores(features)
    assert np.isfinite(scores).all()


def test_the_seed_decides_and_torch_is_left_as_it_was(ranker, settings):
    torch = pytest.importorskip("torch")
    torch.manual_seed(7)
    state = torch.get_rng_state()
    again = NeuralRanker.fit(*some_groups(), NAMES, settings)
    other = NeuralRanker.fit(*some_groups(), NAMES, dataclasses.replace(settings, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    features, _, _ = some_groups(seed=4)
    np.testing.assert_array_equal(again.scores(features), ranker.scores(features))
    assert (other.scores(features) != ranker.scores(features)).any()


def test_training_stops_early_and_keeps_the_best_epoch(monkeypatch):
    torch = pytest.importorskip("torch")
    from llmrec_fast.ranking.neural import training

    qualities, seen = iter([0.2, 0.5, 0.4, 0.3, 0.9, 0.9]), []
    monkeypatch.setattr(
        training._Training, "_quality", lambda self: (seen.append(self._parameters()), next(qualities))[1]
    )
    features, relevant, sizes = some_groups()
    settings = dataclasses.replace(SMALL, members=1, patience=2)
    network = training.train(features, relevant, sizes, settings, torch.get_num_threads(), False)
    assert len(seen) == 4
    np.testing.assert_array_equal(network.hidden, seen[1][0])


def test_each_member_is_stopped_by_another_part(monkeypatch):
    pytest.importorskip("torch")
    from llmrec_fast.ranking.neural import training

    parts = []
    run = training._Training.run
    monkeypatch.setattr(
        training._Training, "run", lambda self, *rest: (parts.append((self._taught, self._held)), run(self, *rest))[1]
    )
    NeuralRanker.fit(*some_groups(), NAMES, dataclasses.replace(SMALL, members=3, epochs=1))
    np.testing.assert_array_equal(np.sort(np.concatenate([held for _, held in parts])), np.arange(60))
    for taught, held in parts:
        np.testing.assert_array_equal(np.union1d(taught, held), np.arange(60))
        assert not np.intersect1d(taught, held).size


def test_contributions_are_the_integral_of_the_gradient():
    network = some_network()
    rows = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32) * np.array([1, 1000, 0.001], np.float32)
    end = Standardisation(network.scale, network.mean, network.factor)(rows).astype(np.float64)
    steps = (np.arange(20000) + 0.5) / 20000
    for row, share in zip(end, network.contributions(rows), strict=True):
        active = steps[:, None] * (network.hidden @ row) + network.bias > 0
        gradients = (active.mean(axis=0) * network.output[0]) @ network.hidden
        np.testing.assert_allclose(share[:3], row * gradients, atol=2e-3)
    scores = NeuralRanker(network.to_onnx(), "abc").scores(rows)
    np.testing.assert_allclose(network.contributions(rows).sum(axis=1), scores, atol=1e-4)


def test_the_mean_of_networks_is_one_network():
    rows = np.random.default_rng(2).normal(size=(7, 3)).astype(np.float32)
    rng = np.random.default_rng(3)
    before = Standardisation.fit(rows)
    members = [tuple(rng.normal(size=s).astype(np.float32) for s in ((4, 3), (4,), (1, 4), (1,))) for _ in range(3)]
    alone = [NeuralRanker(Network.joined(before, [member]).to_onnx(), "abc").scores(rows) for member in members]
    joined = NeuralRanker(Network.joined(before, members).to_onnx(), "abc").scores(rows)
    np.testing.assert_allclose(joined, np.mean(alone, axis=0), atol=1e-5)


def test_a_feature_that_never_varied_but_by_rounding_says_nothing_and_outliers_little():
    rows = np.ones((50, 4), np.float32)
    rows[:, 1] = np.arange(50)
    rows[:, 2] = 0
    rows[:, 3] = 1e-9 * np.arange(50)
    moved = Standardisation.fit(rows)(np.array([[9.0, 1e30, 5.0, 1e-8]], np.float32))
    np.testing.assert_array_equal(moved, [[0, 8, 0, 0]])


def test_the_model_alone_scores_alike_and_without_torch(tmp_path):
    network = some_network()
    rows = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)
    (tmp_path / "model.onnx").write_bytes(network.to_onnx())
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy, pathlib\n"
        "from llmrec_fast.ranking.neural import NeuralRanker\n"
        f"ranker = NeuralRanker(pathlib.Path({str(tmp_path / 'model.onnx')!r}).read_bytes(), 'abc')\n"
        f"rows = numpy.array({rows.tolist()}, numpy.float32)\n"
        "print(ranker.scores(rows).tolist(), ranker.contributions(rows)[:, 0].tolist(), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    scores, shares = (np.array(eval(line)) for line in done.stdout.splitlines())
    np.testing.assert_allclose(scores, NeuralRanker(network.to_onnx(), "abc").scores(rows), atol=1e-6)
    np.testing.assert_allclose(shares, network.contributions(rows)[:, 0], atol=1e-9)


def test_nonsense_is_refused():
    features, relevant, sizes = some_groups()
    with pytest.raises(InvalidInput, match="add up"):
        NeuralRanker.fit(features, relevant, sizes[1:], NAMES)
    with pytest.raises(InvalidInput, match="no row is relevant"):
        NeuralRanker.fit(features, np.zeros(len(features)), sizes, NAMES)
    for name, value in (("objective", "pairwise"), ("members", 0), ("learning_rate", 0.0), ("dropout", 1.0)):
        with pytest.raises(InvalidInput, match=name):
            NeuralSettings(**{name: value})
    model = some_network().to_onnx()
    with pytest.raises(CorruptFile, match="reads 3 features; expected 2"):
        NeuralRanker(model, NAMES)
    with pytest.raises(CorruptFile, match="the neural reranker"):
        NeuralRanker(b"no model", NAMES)
    ranker = NeuralRanker(model, "abc")
    with pytest.raises(InvalidInput, match="3 columns"):
        ranker.scores(np.zeros((3, 5)))
    assert ranker.scores(np.zeros((0, 3))).shape == (0,)


def test_without_torch_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"neural reranker needs torch: pip install 'llmrec-fast\[train\]'"):
        NeuralRanker.fit(*some_groups(), NAMES, SMALL)
