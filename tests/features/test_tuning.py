import numpy as np
import pytest

from llmrec_fast.errors import InvalidInput
from llmrec_fast.features import tune

RNG = np.random.default_rng(0)
BEHAVIOUR, TEXT = RNG.standard_normal((2, 30, 12)).astype(np.float32)
PRIOR = RNG.standard_normal(12).astype(np.float32)
TARGET = BEHAVIOUR + np.float32(0.3) * TEXT + np.float32(0.1) * PRIOR


def closeness(scores):
    return -float(np.square(scores - TARGET).sum())


def scores():
    return {"behaviour": BEHAVIOUR, "text": TEXT, "popularity": PRIOR}


def test_finds_the_weights_that_made_the_target():
    tuned = tune({"only": scores}, closeness, anchor="behaviour")
    assert tuned.choice == "only"
    assert tuned.weights == {"behaviour": 1.0, "text": 0.3, "popularity": 0.1}
    assert tuned.quality == pytest.approx(0, abs=1e-6)


def test_picks_the_best_candidate_and_makes_one_set_of_scores_at_a_time():
    made = []

    def candidate(decay, noise):
        def make():
            made.append(decay)
            return {"behaviour": BEHAVIOUR + np.float32(noise), "text": TEXT, "popularity": PRIOR}

        return make

    tuned = tune({20: candidate(20, 1), 50: candidate(50, 0), 90: candidate(90, 2)}, closeness, anchor="behaviour")
    assert tuned.choice == 50
    assert made == [20, 50, 90]


def test_a_useless_feature_gets_no_weight_and_the_first_of_equal_candidates_wins():
    tuned = tune(
        {"first": lambda: {"a": BEHAVIOUR, "b": TEXT}, "second": lambda: {"a": BEHAVIOUR, "b": TEXT}},
        lambda _: 1.0,
        anchor="a",
    )
    assert tuned.choice == "first"
    assert tuned.weights == {"a": 1.0, "b": 0.0}


def test_no_setting_is_looked_at_twice():
    seen = []

    def quality(mixed):
        seen.append(mixed.tobytes())
        return closeness(mixed)

    tuned = tune({0: scores}, quality, anchor="behaviour", grid=(0, 0.1, 0.3))
    assert len(seen) == len(set(seen)) == tuned.tried


def test_the_next_candidate_starts_where_the_last_one_ended():
    seen = []

    def quality(mixed):
        seen.append(mixed.copy())
        return closeness(mixed)

    first = tune({1: scores}, quality, anchor="behaviour")
    tune({1: scores, 2: scores}, quality, anchor="behaviour")
    np.testing.assert_allclose(seen[2 * first.tried], TARGET, atol=1e-6)


def test_a_weight_that_changes_nothing_falls_back_to_none():
    silent = {"behaviour": TARGET, "text": np.zeros_like(TEXT), "popularity": np.zeros_like(PRIOR)}
    noisy = scores() | {"behaviour": BEHAVIOUR + 1}
    tuned = tune({"noisy": lambda: noisy, "silent": lambda: silent}, closeness, anchor="behaviour")
    assert tuned.choice == "silent"
    assert tuned.weights == {"behaviour": 1.0, "text": 0.0, "popularity": 0.0}


def test_the_anchor_alone_needs_no_search():
    tuned = tune({0: lambda: {"behaviour": BEHAVIOUR}}, closeness, anchor="behaviour")
    assert tuned.weights == {"behaviour": 1.0}
    assert tuned.tried == 1


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        ({}, {}, "at least one candidate"),
        ({0: scores}, {"anchor": "pictures"}, "anchor 'pictures' has no scores"),
        ({0: scores}, {"grid": (-1, 0)}, "not negative"),
        ({0: scores}, {"grid": ()}, "grid"),
        ({0: scores}, {"rounds": 0}, "rounds"),
        ({0: lambda: {"behaviour": BEHAVIOUR, "text": TEXT[:5]}}, {}, "alike"),
        ({0: lambda: {"behaviour": BEHAVIOUR, "text": PRIOR[:5]}}, {}, "for a prior"),
        ({0: lambda: {"behaviour": BEHAVIOUR * np.nan}}, {}, "scores of behaviour holds NaN"),
    ],
)
def test_bad_input(candidates, options, message):
    with pytest.raises(InvalidInput, match=message):
        tune(candidates, closeness, **{"anchor": "behaviour", **options})


def test_a_quality_that_is_no_number_is_refused():
    with pytest.raises(InvalidInput, match="finite number"):
        tune({0: scores}, lambda _: float("nan"), anchor="behaviour")
