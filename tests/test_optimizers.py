"""Optimizers as descriptions: fields, bad values, and objects that compare, hash, print and pickle."""

import pickle
import re

import numpy as np
import pytest

from ufm.errors import InvalidProblemError
from ufm.optimizers import GD, Adam, Blockwise, Elementwise, Momentum, NormalisedGD, SignGD, Signum
from ufm.schedules import Cosine, Rates, StepDecay


def step(theta, g, m, v, lr, t, p):
    return theta - lr * g, m, v


def other_step(theta, g, m, v, lr, t, p):
    return theta - lr * p[0] * g, m, v


NAMED = [
    GD(0.1),
    GD(0.0),
    GD(StepDecay(0.1)),
    GD(Rates([0.1, 0.2])),
    Momentum(0.1, 0.9),
    Momentum(0.1, 0.9, nesterov=True),
    SignGD(0.1),
    Signum(0.1, 0.9),
    Signum(Cosine(0.1), 0.0),
    Adam(0.1),
    Adam(0.1, 0.8, 0.99, 0.0),
    NormalisedGD(0.1),
]
OBJECTS = [
    *NAMED,
    Elementwise(step, 0.1),
    Elementwise(step, 0.1, (1.0,), scale_free=True),
    Elementwise(other_step, 0.1),
    Blockwise(step, 0.1),
]


def name(optimizer):
    """The repr without addresses, so that every process collects the same tests."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(optimizer))


@pytest.mark.parametrize("optimizer", OBJECTS, ids=name)
def test_objects_compare_hash_and_pickle(optimizer):
    again = pickle.loads(pickle.dumps(optimizer))
    assert again == optimizer
    assert hash(again) == hash(optimizer)
    assert repr(again) == repr(optimizer)
    assert optimizer not in [other for other in OBJECTS if other is not optimizer]
    with pytest.raises(AttributeError):
        optimizer.lr = 1.0


@pytest.mark.parametrize("optimizer", NAMED, ids=repr)
def test_the_repr_builds_the_object(optimizer):
    assert eval(repr(optimizer)) == optimizer


@pytest.mark.parametrize(
    ("optimizer", "rule", "hyper", "scale_free"),
    [
        (GD(0.1), "gd", (), False),
        (Momentum(0.1, 0.9), "momentum", (0.9, 0.0), False),
        (Momentum(0.1, 0.9, True), "momentum", (0.9, 1.0), False),
        (SignGD(0.1), "signgd", (), True),
        (Signum(0.1, 0.5), "signum", (0.5,), True),
        (Adam(0.1), "adam", (0.9, 0.999, 1e-8), False),
        (NormalisedGD(0.1), "normalised_gd", (), True),
        (Elementwise(step, 0.1, [1, 2], True), step, (1.0, 2.0), True),
        (Blockwise(step, 0.1, [3]), step, (3.0,), False),
    ],
)
def test_what_the_kernels_read(optimizer, rule, hyper, scale_free):
    assert optimizer.rule == rule
    assert optimizer.hyper() == hyper
    assert optimizer.scale_free is scale_free


BUILDERS = {
    "GD": GD,
    "Momentum": lambda lr: Momentum(lr, 0.9),
    "SignGD": SignGD,
    "Signum": lambda lr: Signum(lr, 0.9),
    "Adam": Adam,
    "NormalisedGD": NormalisedGD,
    "Elementwise": lambda lr: Elementwise(step, lr),
    "Blockwise": lambda lr: Blockwise(step, lr),
}


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("lr", [-0.1, np.nan, np.inf, "0.1", None, True, [0.1], 1j, StepDecay], ids=repr)
def test_a_bad_rate_gets_a_sentence(name, lr):
    with pytest.raises(InvalidProblemError) as caught:
        BUILDERS[name](lr)
    assert str(caught.value).startswith(f"{name}.lr is {lr!r}; allowed: a finite number >= 0, or a schedule")


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Momentum(0.1, 1.0), "Momentum.beta is 1.0; allowed: a finite number >= 0 and < 1."),
        (lambda: Momentum(0.1, -0.1), "Momentum.beta is -0.1"),
        (lambda: Momentum(0.1, 0.9, 1), "Momentum.nesterov is 1; allowed: True or False."),
        (lambda: Signum(0.1, "x"), "Signum.beta is 'x'"),
        (lambda: Adam(0.1, beta1=1), "Adam.beta1 is 1"),
        (lambda: Adam(0.1, beta2=np.nan), "Adam.beta2 is nan"),
        (lambda: Adam(0.1, eps=-1e-8), "Adam.eps is -1e-08; allowed: a finite number >= 0."),
        (lambda: Elementwise("step", 0.1), "Elementwise.step is 'step'; allowed: a function"),
        (lambda: Elementwise(step, 0.1, 3.0), "Elementwise.parameters is 3.0; allowed: a sequence"),
        (lambda: Blockwise(step, 0.1, ["x"]), "Blockwise.parameters is 'x'"),
        (lambda: Blockwise(None, 0.1), "Blockwise.step is None"),
    ],
)
def test_bad_values_get_a_sentence(build, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        build()
    assert sentence in str(caught.value)


def test_numpy_numbers_become_plain_ones():
    assert (
        repr(Momentum(np.float64(0.1), np.float32(0.5), np.True_))
        == "Momentum(lr=0.1, beta=0.5, nesterov=True)"
    )


def test_scale_free_is_a_flag():
    with pytest.raises(InvalidProblemError, match=r"Elementwise\.scale_free is 3; allowed: True or False"):
        Elementwise(step, 0.1, scale_free=3)
