"""Off-policy estimates: exact expectations by enumerating every log, known cases, and logs that cannot be."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmrec_fast.errors import InvalidInput
from llmrec_fast.evaluation import doubly_robust, inverse_propensity, self_normalized

LOGGING = np.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])  # (contexts, actions)
TARGET = np.array([[0.1, 0.0, 0.9], [0.7, 0.2, 0.1]])
REWARD = np.array([[1.0, 0.0, 2.0], [0.5, -1.0, 3.0]])
TRUE_VALUE = float((TARGET * REWARD).sum(axis=1).mean())  # both contexts equally often
MODEL = np.array([[0.3, 1.0, 1.5], [0.0, 0.0, 2.0]])


def expectation(estimate, rows=2):
    """The mean of an estimator over every log of `rows` decisions that the logging policy can make, by probability."""
    total = 0.0
    for log in itertools.product(itertools.product(range(2), range(3)), repeat=rows):
        contexts, actions = (np.array(part) for part in zip(*log, strict=True))
        total += np.prod(0.5 * LOGGING[contexts, actions]) * estimate(contexts, actions).value
    return total


def columns(contexts, actions):
    return REWARD[contexts, actions], LOGGING[contexts, actions], TARGET[contexts, actions]


def robust(contexts, actions, model, logging=LOGGING):
    return doubly_robust(
        REWARD[contexts, actions],
        logging[contexts, actions],
        TARGET[contexts, actions],
        predicted_rewards=model[contexts, actions],
        predicted_values=(TARGET * model).sum(axis=1)[contexts],
    )


def test_inverse_propensity_is_unbiased():
    assert expectation(lambda c, a: inverse_propensity(*columns(c, a))) == pytest.approx(TRUE_VALUE)


def test_cutting_weights_is_biased_towards_less():
    assert expectation(lambda c, a: inverse_propensity(*columns(c, a), largest_weight=2.0)) < TRUE_VALUE - 0.1


def test_doubly_robust_is_unbiased_if_either_half_is_right():
    wrong_logging = np.full_like(LOGGING, 1 / 3)
    assert expectation(lambda c, a: robust(c, a, MODEL)) == pytest.approx(TRUE_VALUE)
    assert expectation(lambda c, a: robust(c, a, REWARD, wrong_logging)) == pytest.approx(TRUE_VALUE)
    assert expectation(lambda c, a: robust(c, a, MODEL, wrong_logging)) != pytest.approx(TRUE_VALUE, abs=0.01)


def test_standard_errors_are_those_of_many_logs():
    generator = np.random.default_rng(3)
    found = {"ips": [], "snips": [], "dr": []}
    errors = {"ips": [], "snips": [], "dr": []}
    for _ in range(300):
        contexts = generator.integers(0, 2, 400)
        actions = (generator.random(400)[:, None] > LOGGING.cumsum(axis=1)[contexts]).sum(axis=1)
        for name, estimate in {
            "ips": inverse_propensity(*columns(contexts, actions)),
            "snips": self_normalized(*columns(contexts, actions)),
            "dr": robust(contexts, actions, MODEL),
        }.items():
            found[name].append(estimate.value)
            errors[name].append(estimate.standard_error)
    for name, values in found.items():
        # the deviation of 300 estimates is itself known to some 4%
        assert np.std(values) == pytest.approx(np.mean(errors[name]), rel=0.15), name
        assert np.mean(values) == pytest.approx(TRUE_VALUE, abs=4 * np.std(values) / math.sqrt(300)), name
    assert np.std(found["dr"]) < np.std(found["ips"])


LOGS = st.lists(st.tuples(st.floats(-5, 5), st.floats(0.05, 1), st.floats(0, 1)), min_size=2, max_size=20)


@settings(max_examples=100, deadline=None)
@given(LOGS)
def test_the_logging_policy_itself_earns_the_mean_reward(log):
    rewards, logging, _ = (np.array(column) for column in zip(*log, strict=True))
    for estimate in (inverse_propensity(rewards, logging, logging), self_normalized(rewards, logging, logging)):
        assert estimate.value == pytest.approx(rewards.mean(), abs=1e-12)
        assert estimate.effective_rows == pytest.approx(len(log))
    assert inverse_propensity(rewards, logging, logging).standard_error == pytest.approx(
        rewards.std(ddof=1) / math.sqrt(len(log))
    )


@settings(max_examples=100, deadline=None)
@given(LOGS)
def test_bounds(log):
    rewards, logging, target = (np.array(column) for column in zip(*log, strict=True))
    plain = inverse_propensity(rewards, logging, target)
    assert 0 <= plain.effective_rows <= len(log) + 1e-9
    cut = inverse_propensity(np.abs(rewards), logging, target, largest_weight=1.5)
    assert cut.value <= inverse_propensity(np.abs(rewards), logging, target).value + 1e-12
    zero_model = doubly_robust(rewards, logging, target, predicted_rewards=0 * rewards, predicted_values=0 * rewards)
    assert zero_model == plain
    if target.any():
        assert rewards.min() - 1e-9 <= self_normalized(rewards, logging, target).value <= rewards.max() + 1e-9


def test_the_smallest_weights_keep_their_ratios():
    assert self_normalized([0.0, 0.5], [1.0, 0.375], [0.0, 5e-324]).value == 0.5


def test_a_log_without_any_action_of_the_new_policy():
    assert inverse_propensity([1.0, 2.0], [0.5, 0.5], [0, 0]).value == 0.0
    assert inverse_propensity([1.0, 2.0], [0.5, 0.5], [0, 0]).effective_rows == 0.0
    with pytest.raises(InvalidInput, match="the log holds no action that the new policy would take"):
        self_normalized([1.0, 2.0], [0.5, 0.5], [0, 0])


@pytest.mark.parametrize("estimate", [inverse_propensity, self_normalized])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 1.0], [0.5, 0.0], [0.5, 0.5]), "the logged action was possible; got 0 in row 1"),
        (([1.0, 1.0], [0.5, 1.5], [0.5, 0.5]), "above 0 and at most 1.*got 1.5 in row 1"),
        (([1.0, 1.0], [0.5, math.nan], [0.5, 0.5]), "logging_probabilities holds NaN in row 1"),
        (([1.0, 1.0], [0.5, 0.5], [0.5, -0.1]), "from 0 to 1; got -0.1 in row 1"),
        (([1.0, math.nan], [0.5, 0.5], [0.5, 0.5]), "rewards holds NaN in row 1"),
        (([1.0], [1e-320], [1.0]), "gives an infinite weight"),
        (([1.0, 1.0], [0.5], [0.5, 0.5]), "logging_probabilities must have 2 values"),
        (([], [], []), "rewards is empty"),
    ],
)
def test_bad_logs_are_refused(estimate, arguments, message):
    with pytest.raises(InvalidInput, match=message):
        estimate(*arguments)


@pytest.mark.parametrize("largest", [0, -1.0, math.nan, True])
def test_a_largest_weight_is_positive(largest):
    with pytest.raises(InvalidInput, match="largest_weight must be above 0"):
        inverse_propensity([1.0], [0.5], [0.5], largest_weight=largest)


def test_the_reward_model_is_checked():
    with pytest.raises(InvalidInput, match="predicted_values must have 1 values"):
        doubly_robust([1.0], [0.5], [0.5], predicted_rewards=[1.0], predicted_values=[1.0, 2.0])
    assert math.isnan(inverse_propensity([1.0], [0.5], [0.5]).standard_error)
