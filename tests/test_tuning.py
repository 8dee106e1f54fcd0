import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from llmrec_fast import Recommender, tuning
from llmrec_fast.cli import main
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.evaluation import evaluate, group_items
from llmrec_fast.features import read_interactions, read_items
from llmrec_fast.recommender.validation import hold_out
from llmrec_fast.tuned import TunedSettings
from llmrec_fast.tuning import tune_recommender

from .encoding.tiny_models import write_model
from .recommender.conftest import bag_of_words, interaction_table, item_table
from .test_cli import write_csv

pytest.importorskip("optuna")


class Counting:
    calls = 0

    def encode(self, texts):
        self.calls += 1
        return bag_of_words(texts)


@pytest.fixture(scope="module")
def data():
    items = read_items(item_table())
    return items, read_interactions(interaction_table(), known_items=items.ids)


def test_the_search_repeats_encodes_once_and_fits_ease_once_a_setting(data, monkeypatch):
    encoder, fits = Counting(), []
    fit = tuning.fit_ease
    monkeypatch.setattr(
        tuning, "fit_ease", lambda *a, **k: (fits.append((k["regularization"], a[0].sum())), fit(*a, **k))[1]
    )
    found = tune_recommender(*data, encoder, liked_from=4, trials=15, seed=3)
    assert encoder.calls == 1
    assert len(fits) == len(set(fits))
    assert len(fits) > 1
    assert found.trials == 15
    assert found.quality >= found.default_quality
    assert found == tune_recommender(*data, encoder, liked_from=4, trials=15, seed=3)


@pytest.mark.parametrize("ranks", [(2,), (2, 8), tuning._RANKS])
def test_quality_is_what_a_recommender_with_these_settings_reaches_on_the_validation_part(data, ranks, monkeypatch):
    monkeypatch.setattr(tuning, "_RANKS", ranks)
    items, interactions = data
    found = tune_recommender(items, interactions, Counting(), liked_from=4, trials=4, seed=1)
    held = hold_out(interactions, interactions.values >= 4)
    recommender = Recommender(None, **found.arguments())
    recommender.fit(items, interactions.select(held.train), vectors={"text": bag_of_words(items.texts)})
    users = [interactions.user_ids[int(code)] for code in held.users]
    wanted = interactions.select(held.wanted)
    relevant = group_items(np.searchsorted(held.users, wanted.users), wanted.items, len(users))
    answers = recommender.recommend(users, 10).positions
    expected = np.mean(list(evaluate(answers, relevant, ("ndcg@10", "recall@20")).values()))
    assert found.quality == pytest.approx(expected, abs=1e-6)


def test_rerankers_are_tried_once_on_what_was_found_and_taken_if_they_are_better(data, tmp_path, monkeypatch):
    pytest.importorskip("lightgbm", exc_type=(ImportError, OSError))
    options = {"liked_from": 4, "trials": 2, "seed": 1, "storage": tmp_path / "study.sqlite"}
    plain = tune_recommender(*data, Counting(), **options)
    assert plain.reranker is False
    scored = []
    real = tuning._Search.reranked_quality
    monkeypatch.setattr(tuning._Search, "quality_of", lambda *_: 0.0)  # no later trial is better
    monkeypatch.setattr(
        tuning._Search, "reranked_quality", lambda *a: (scored.append(a[2].reranker), real(*a), plain.quality + 1)[2]
    )
    options |= {"trials": 1, "rerankers": ["trees"]}
    better = tune_recommender(*data, Counting(), **options)
    assert (better.reranker, scored) == ("trees", ["trees"])
    assert better.quality >= plain.quality + 1
    assert better.arguments()["reranker"] == "trees"
    better.write(tmp_path / "s.json")
    assert TunedSettings.read(tmp_path / "s.json") == better
    assert tune_recommender(*data, Counting(), **options) == replace(better, trials=4)
    assert scored == ["trees"]  # the same settings are still the best: nothing to train anew


def test_without_a_reranker_its_quality_is_that_of_the_search(data):
    items, interactions = data
    found = tune_recommender(items, interactions, Counting(), liked_from=4, trials=3, seed=1)
    search = tuning._Search.start(items, interactions, Counting(), 4)
    assert search.reranked_quality(items, found) == pytest.approx(found.quality, abs=1e-6)


def test_a_reranker_that_cannot_be_trained_is_named_before_the_search(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    encoder = Counting()
    with pytest.raises(MissingDependency, match=r"llmrec-fast\[train\]"):
        tune_recommender(*data, encoder, liked_from=4, trials=1, rerankers=["neural"])
    assert encoder.calls == 0


def test_a_stored_study_goes_on_and_refuses_other_data(data, tmp_path):
    storage = tmp_path / "study.sqlite"
    first = tune_recommender(*data, Counting(), liked_from=4, trials=2, storage=storage)
    second = tune_recommender(*data, Counting(), liked_from=4, trials=2, storage=storage)
    assert (first.trials, second.trials) == (2, 4)
    assert second.quality >= first.quality
    other = read_interactions(interaction_table(seed=1), known_items=data[0].ids)
    with pytest.raises(InvalidInput, match="other data"):
        tune_recommender(data[0], other, Counting(), liked_from=4, trials=1, storage=storage)


def test_a_storage_that_cannot_be_one_is_refused(data, tmp_path):
    (tmp_path / "notes.txt").write_text("no database, but long enough")
    for storage, message in ((tmp_path / "notes.txt", "no SQLite file"), (tmp_path / "none" / "s", "no folder")):
        with pytest.raises(InvalidInput, match=message):
            tune_recommender(*data, Counting(), trials=1, storage=storage)


def test_time_bounds_the_search_to_the_trial_it_makes_in_any_case(data):
    assert tune_recommender(*data, Counting(), liked_from=4, minutes=1e-9).trials == 1


def test_only_the_validation_split_of_what_is_given_is_looked_at(data):
    items, interactions = data
    untimed = replace(interactions, timestamps=None)
    with pytest.raises(InvalidInput, match="nothing to tune on: the interactions have no times"):
        tune_recommender(items, untimed, Counting(), liked_from=4, trials=1)
    with pytest.raises(InvalidInput, match="minutes"):
        tune_recommender(items, interactions, Counting(), minutes=0)


def test_settings_are_written_read_and_refused(data, tmp_path):
    found = tune_recommender(*data, Counting(), liked_from=4, trials=1)
    found.write(tmp_path / "s.json")
    assert TunedSettings.read(tmp_path / "s.json") == found
    (tmp_path / "bad.json").write_text('{"rank": 3}')
    with pytest.raises(InvalidInput, match="no settings"):
        TunedSettings.read(tmp_path / "bad.json")
    with pytest.raises(InvalidInput, match="cannot read"):
        TunedSettings.read(tmp_path / "none.json")


def test_a_missing_optuna_is_named(data, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependency, match=r"llmrec-fast\[tune\]"):
        tune_recommender(*data, Counting(), trials=1)


def test_commands_tune_and_use_what_was_tuned(capsys, tmp_path):
    model = str(write_model(tmp_path / "model", "bert"))
    words = ["--items", write_csv(tmp_path / "i.csv", item_table()), "--model", model]
    words += ["--interactions", write_csv(tmp_path / "x.csv", interaction_table())]
    settings = str(tmp_path / "s.json")
    assert main(["tune", *words, "--liked-from", "4", "--trials", "2", "--output", settings, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["trials"] == 2
    assert main(["evaluate", *words, "--settings", settings, "--metrics", "recall@3", "--json"]) == 0
    shown = capsys.readouterr()
    assert "tuned on these interactions" in shown.err
    assert "tuned" in json.loads(shown.out)["rows"]
    assert main(["recommend", *words, "--settings", settings, "--user", "0", "-k", "2"]) == 0
    assert main(["recommend", *words, "--settings", settings, "--user", "0", "--liked-from", "3"]) == 2
