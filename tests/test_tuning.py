import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from llmrec_fast import Recommender, tuning, tuning_space
from llmrec_fast.cli import main
from llmrec_fast.errors import InvalidInput, MissingDependency
from llmrec_fast.evaluation import evaluate, group_items
from llmrec_fast.features import read_interactions, read_items
from llmrec_fast.recommender import collaborating
from llmrec_fast.recommender.collaborating import MODELS, fit_collaborative
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


def test_the_search_repeats_encodes_once_and_fits_a_model_once_a_setting(data, monkeypatch):
    encoder, fits = Counting(), []

    def counted(model, matrix, rank, regularization, threads):
        fits.append((model, rank, regularization, matrix.sum()))
        return fit_collaborative(model, matrix, rank, regularization, threads)

    monkeypatch.setattr(tuning_space, "fit_collaborative", counted)
    found = tune_recommender(*data, encoder, liked_from=4, trials=15, seed=3, threads=1)
    assert encoder.calls == 1
    assert len(fits) == len(set(fits))
    assert {model for model, *_ in fits} == set(MODELS)
    assert found.trials == 15
    assert found.quality >= found.default_quality
    assert found == tune_recommender(*data, encoder, liked_from=4, trials=15, seed=3, threads=1)


def validation_quality(recommender, items, interactions, vectors):
    """What a recommender that learns from the training side reaches on what was held out."""
    held = hold_out(interactions, interactions.values >= 4)
    recommender.fit(items, interactions.select(held.train), vectors=vectors)
    users = [interactions.user_ids[int(code)] for code in held.users]
    wanted = interactions.select(held.wanted)
    relevant = group_items(np.searchsorted(held.users, wanted.users), wanted.items, len(users))
    answers = recommender.recommend(users, 10).positions
    return np.mean(list(evaluate(answers, relevant, ("ndcg@10", "recall@20")).values()))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ranks", [(2,), (2, 8), (16, 32)])
def test_quality_is_what_a_recommender_with_these_settings_reaches_on_the_validation_part(
    data, model, ranks, monkeypatch
):
    choices = replace(tuning_space.MODEL_CHOICES[model], ranks=ranks)
    monkeypatch.setitem(tuning_space.MODEL_CHOICES, model, choices)
    items, interactions = data
    found = tune_recommender(*data, Counting(), liked_from=4, models=[model], trials=3, seed=1, threads=1)
    assert found.collaborative == model
    recommender = Recommender(None, **found.arguments(), threads=1)
    reached = validation_quality(recommender, items, interactions, {"text": bag_of_words(items.texts)})
    assert found.quality == pytest.approx(reached, abs=1e-6)


def test_the_pooling_of_texts_is_chosen_each_encoded_once(data, tmp_path, monkeypatch):
    model = write_model(tmp_path / "model", "bert")
    made = []

    class Pooled:
        def __init__(self, folder, *, pooling=None, threads=None):
            made.append(pooling)
            self.pooling = pooling

        def describe(self):
            return {"pooling": "mean"}

        def encode(self, texts):
            # only the largest tokens say what texts are about
            return bag_of_words(texts) if self.pooling == "max" else np.ones((len(texts), 2), np.float32)

    monkeypatch.setattr(tuning, "Encoder", Pooled)
    real = tuning_space.SearchSpace.quality_of
    monkeypatch.setattr(
        tuning_space.SearchSpace, "quality_of", lambda s, setting: real(s, setting) + (setting.pooling == "max")
    )
    found = tune_recommender(*data, model, liked_from=4, models=["ease"], trials=12, threads=1)
    assert found.pooling == "max"
    assert sorted(made, key=str) == [None, "first", "max"]  # the mean is the model's own
    assert tune_recommender(*data, model, liked_from=4, models=["ease"], poolings=[], trials=12).pooling is None
    monkeypatch.undo()
    items, interactions = data
    recommender = Recommender(model, **found.arguments()).fit(items, interactions)
    recommender.save(tmp_path / "saved")
    vectors = Recommender.load(tmp_path / "saved").text_encoder.encode(["port"])
    np.testing.assert_array_equal(vectors, tuning.Encoder(model, pooling="max").encode(["port"]))


def test_an_adapter_is_tried_where_it_is_allowed_and_its_quality_is_that_of_a_recommender(data, monkeypatch):
    pytest.importorskip("torch")
    items, interactions = data
    options = {"liked_from": 4, "models": ["ease"], "trials": 2, "threads": 1}
    assert not tune_recommender(*data, Counting(), **options).adapter
    trained = []
    real = tuning_space.adapt
    monkeypatch.setattr(tuning_space, "adapt", lambda *a: (trained.append(1), real(*a))[1])
    qualities = []
    plain = tuning_space.SearchSpace.quality_of

    def favoured(space, setting):
        qualities.append(plain(space, setting))
        return qualities[-1] + (setting.adapter is not None)

    monkeypatch.setattr(tuning_space.SearchSpace, "quality_of", favoured)
    found = tune_recommender(*data, Counting(), adapter=True, **options)
    assert found.adapter
    assert found.weights["adapter"] == 0.5
    assert len(trained) == 1
    recommender = Recommender(None, **found.arguments(), threads=1)
    reached = validation_quality(recommender, items, interactions, {"text": bag_of_words(items.texts)})
    assert found.quality == pytest.approx(reached + 1, abs=1e-6)


def test_choices_that_cannot_be_made_are_refused_before_the_search(data, monkeypatch):
    encoder = Counting()
    monkeypatch.setattr(collaborating, "find_spec", lambda name: None if name == "implicit" else name)
    with pytest.raises(MissingDependency, match=r"bpr is not installed.*llmrec-fast\[als\]"):
        tune_recommender(*data, encoder, models=["ease", "bpr"])
    assert tune_recommender(*data, encoder, liked_from=4, trials=6).collaborative not in ("als", "bpr")
    encoder = Counting()
    for options, message in (
        ({"models": []}, "at least one of ease"),
        ({"models": ["magic"]}, "collaborative must be one of"),
        ({"poolings": ["max"]}, "a ready encoder pools as it does"),
    ):
        with pytest.raises(InvalidInput, match=message):
            tune_recommender(*data, encoder, **options)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"llmrec-fast\[train\]"):
        tune_recommender(*data, encoder, adapter=True)
    assert encoder.calls == 0


def test_a_stored_study_refuses_other_choices(data, tmp_path):
    options = {"liked_from": 4, "trials": 1, "storage": tmp_path / "study.sqlite", "threads": 1}
    tune_recommender(*data, Counting(), models=["ease", "svd"], **options)
    with pytest.raises(InvalidInput, match=r"other choices \(models ease, svd; .*; now models ease; .*another name"):
        tune_recommender(*data, Counting(), models=["ease"], **options)
    assert tune_recommender(*data, Counting(), models=["ease"], study="of its own", **options).trials == 1
    assert tune_recommender(*data, Counting(), models=["ease", "svd"], **options).trials == 2


def test_a_stored_study_that_does_not_say_what_it_chose_among_is_refused(data, tmp_path):
    import optuna

    storage = tmp_path / "study.sqlite"
    old = optuna.create_study(storage=f"sqlite:///{storage}", study_name="recommender", direction="maximize")
    old.tell(old.ask(), 0.1)
    with pytest.raises(InvalidInput, match="other data"):
        tune_recommender(*data, Counting(), liked_from=4, trials=1, storage=storage)


def test_settings_from_before_there_were_models_to_choose_are_those_of_ease(data, tmp_path):
    found = tune_recommender(*data, Counting(), liked_from=4, models=["ease"], trials=1)
    found.write(tmp_path / "s.json")
    saved = json.loads((tmp_path / "s.json").read_text())
    for name in ("collaborative", "pooling", "adapter"):
        del saved[name]
    (tmp_path / "s.json").write_text(json.dumps(saved))
    assert TunedSettings.read(tmp_path / "s.json") == found
    (tmp_path / "s.json").write_text(json.dumps(saved | {"collaborative": "magic"}))
    with pytest.raises(InvalidInput, match="collaborative must be one of"):
        TunedSettings.read(tmp_path / "s.json")


def test_rerankers_are_tried_once_on_what_was_found_and_taken_if_they_are_better(data, tmp_path, monkeypatch):
    pytest.importorskip("lightgbm", exc_type=(ImportError, OSError))
    options = {"liked_from": 4, "trials": 2, "seed": 1, "storage": tmp_path / "study.sqlite"}
    plain = tune_recommender(*data, Counting(), **options)
    assert plain.reranker is False
    scored = []
    space = tuning_space.SearchSpace
    real = space.quality_of_recommender
    monkeypatch.setattr(space, "quality_of", lambda *_: 0.0)  # no later trial is better
    monkeypatch.setattr(
        space, "quality_of_recommender", lambda *a: (scored.append(a[1].reranker), real(*a), plain.quality + 1)[2]
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
    texts = tuning_space.PooledTexts(items.texts, lambda _: Counting())
    space = tuning_space.SearchSpace(items, interactions, 4, texts, ["ease"], ["own"], False)
    assert space.quality_of_recommender(found) == pytest.approx(found.quality, abs=1e-6)


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
    settings, chosen = str(tmp_path / "s.json"), ["--collaborative", "svd", "--pooling", "first"]
    assert main(["tune", *words, "--liked-from", "4", *chosen, "--trials", "2", "--output", settings, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["trials"], found["collaborative"], found["regularization"]) == (2, "svd", None)
    assert found["pooling"] in (None, "first")
    # as if another pooling and a second pass over the texts had been better
    (tmp_path / "s.json").write_text(json.dumps(found | {"pooling": "max"}))
    assert main(["evaluate", *words, "--settings", settings, "--metrics", "recall@3", "--json"]) == 0
    shown = capsys.readouterr()
    assert "tuned on these interactions" in shown.err
    assert "tuned" in json.loads(shown.out)["rows"]
    saved = str(tmp_path / "saved")
    assert main(["recommend", *words, "--settings", settings, "--user", "0", "-k", "2", "--save", saved]) == 0
    loaded = Recommender.load(saved)
    np.testing.assert_array_equal(
        loaded.text_encoder.encode(["port"]), tuning.Encoder(model, pooling="max").encode(["port"])
    )
    assert main(["recommend", *words, "--settings", settings, "--user", "0", "--liked-from", "3"]) == 2
    assert main(["tune", *words, "--collaborative", "magic"]) == 2
    assert main(["tune", *words, "--pooling", "median"]) == 2
