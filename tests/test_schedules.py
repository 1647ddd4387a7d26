"""Learning rates over steps: closed forms, bad values, and objects that compare, hash, print and pickle."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ufm.errors import InvalidProblemError
from ufm.schedules import Cosine, Rates, Schedule, StepDecay, checked, rates

OBJECTS = [
    StepDecay(0.1),
    StepDecay(1.0, at=(5, 0.5), factor=0.0),
    Cosine(0.1, final=0.01, warmup=10),
    Cosine(0.1, warmup=0.25),
    Rates([0.1, 0.2]),
    Rates(np.linspace(0, 1, 40)),
]


@pytest.mark.parametrize("schedule", OBJECTS, ids=repr)
def test_objects_compare_hash_and_pickle(schedule):
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert isinstance(schedule, Schedule)
    assert schedule not in [other for other in OBJECTS if other is not schedule]


@pytest.mark.parametrize("schedule", OBJECTS[:5], ids=repr)
def test_the_repr_builds_the_object(schedule):
    assert eval(repr(schedule)) == schedule


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: StepDecay(-0.1), "StepDecay.lr is -0.1; allowed: a finite number >= 0."),
        (lambda: StepDecay(np.nan), "StepDecay.lr is nan"),
        (lambda: StepDecay("0.1"), "StepDecay.lr is '0.1'"),
        (lambda: StepDecay(0.1, factor=-1), "StepDecay.factor is -1"),
        (lambda: StepDecay(0.1, factor=np.inf), "StepDecay.factor is inf"),
        (lambda: StepDecay(0.1, at=1.5), "StepDecay.at is 1.5; allowed: a sequence"),
        (lambda: StepDecay(0.1, at=(1.5,)), "StepDecay.at is 1.5; allowed: fractions"),
        (lambda: StepDecay(0.1, at=(0.0,)), "StepDecay.at is 0.0; allowed: fractions"),
        (lambda: StepDecay(0.1, at=(1.0,)), "StepDecay.at is 1.0; allowed: fractions"),
        (lambda: StepDecay(0.1, at=(0,)), "StepDecay.at is 0"),
        (lambda: StepDecay(0.1, at=(True,)), "StepDecay.at is True"),
        (lambda: StepDecay(0.1, at="12"), "StepDecay.at is '1'"),
        (lambda: Cosine(-1), "Cosine.lr is -1"),
        (lambda: Cosine(1, final=-1), "Cosine.final is -1"),
        (lambda: Cosine(1, warmup=-1), "Cosine.warmup is -1"),
        (lambda: Cosine(1, warmup=1.0), "Cosine.warmup is 1.0; allowed: fractions"),
        (lambda: Rates([]), "Rates.values is []; allowed: a non-empty vector"),
        (lambda: Rates([[1.0]]), "Rates.values is [[1.0]]"),
        (lambda: Rates([0.1, -0.1]), "Rates.values is [0.1, -0.1]"),
        (lambda: Rates([np.nan]), "entries that are not finite"),
        (lambda: Rates(["a"]), "Rates.values is ['a']"),
        (lambda: Rates([0.1]).rates(2), "Rates.values is 'a vector of 1'; allowed: at least 2 rates."),
        (lambda: checked("GD.lr", None), "GD.lr is None; allowed: a finite number >= 0, or a schedule"),
        (lambda: checked("GD.lr", StepDecay), "GD.lr is <class 'ufm.schedules.StepDecay'>"),
        (lambda: checked("GD.lr", True), "GD.lr is True"),
        (lambda: checked("GD.lr", [0.1]), "GD.lr is [0.1]"),
    ],
)
def test_bad_values_get_a_sentence(build, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        build()
    assert sentence in str(caught.value)


@given(lr=st.floats(0, 10), factor=st.floats(0, 1), moments=st.lists(st.integers(1, 60), max_size=4))
def test_step_decay_counts_the_moments_passed(lr, factor, moments):
    expected = [lr * factor ** sum(moment <= t for moment in moments) for t in range(50)]
    assert StepDecay(lr, at=moments, factor=factor).rates(50).tolist() == pytest.approx(expected, rel=1e-15)


def test_step_decay_at_fractions_of_the_run():
    assert StepDecay(1.0, at=(0.5, 0.75), factor=0.5).rates(8).tolist() == [1] * 4 + [0.5] * 2 + [0.25] * 2


def test_zero_factor_keeps_the_first_rates():
    assert StepDecay(1.0, at=(2,), factor=0.0).rates(4).tolist() == [1, 1, 0, 0]


@given(lr=st.floats(0, 10), final=st.floats(0, 10), steps=st.integers(1, 50), warmup=st.integers(0, 60))
def test_cosine_stays_between_its_ends(lr, final, steps, warmup):
    found = Cosine(lr, final, warmup).rates(steps)
    assert found.shape == (steps,)
    warm = min(warmup, steps)
    assert np.allclose(found[:warm], lr * np.arange(1, warm + 1) / max(warm, 1), rtol=1e-15)
    low, high = min(lr, final), max(lr, final)
    rounding = 4 * np.finfo(float).eps * high + 1e-300  # the last for subnormal rates
    assert (found[warm:] >= max(low - rounding, 0.0)).all()
    assert (found[warm:] <= high + rounding).all()
    if warm < steps:
        assert found[warm] == pytest.approx(lr, rel=0, abs=rounding)


@pytest.mark.parametrize("schedule", [0.3, StepDecay(0.3), Cosine(0.3, warmup=3), Rates([0.1] * 9)], ids=repr)
def test_every_number_of_steps_has_that_many_rates(schedule):
    for steps in range(10):
        assert rates(schedule, steps).shape == (steps,)


def test_a_schedule_of_ones_own_is_checked_when_used():
    class Own:
        def rates(self, steps):
            return -np.ones(steps)

    assert isinstance(checked("GD.lr", Own()), Own)
    with pytest.raises(InvalidProblemError, match=r"Own.rates\(2\) is .*; allowed: 2 finite rates >= 0"):
        rates(Own(), 2)


def test_rates_are_a_copy():
    schedule = Rates([0.1, 0.2])
    schedule.rates(2)[0] = 5.0
    assert schedule.rates(2).tolist() == [0.1, 0.2]
