"""Weight decay: rates per trained block, names that would be ignored are refused."""

import pickle

import pytest

from ufm.decay import Coupled, Decoupled, Mixed, per_block, shrinks_after
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.initial import SimplexETF
from ufm.problems import DUFM, UFM

OBJECTS = [
    Coupled(5e-4),
    Coupled(0.0),
    Coupled(W=5e-4, H=1e-5),
    Decoupled(5e-4),
    Decoupled(W=5e-4),
    Mixed(1e-4, 4e-4),
    Mixed(Coupled(W=1e-4), Decoupled(4e-4), shrink="after"),
]
UFM_, DEEP = UFM(3, 4, bias=True), DUFM(3, 4, 2)
FIXED = UFM(3, 4, features=SimplexETF())


@pytest.mark.parametrize("decay", OBJECTS, ids=repr)
def test_objects_compare_hash_print_and_pickle(decay):
    again = pickle.loads(pickle.dumps(decay))
    assert again == decay
    assert hash(again) == hash(decay)
    assert eval(repr(decay)) == decay
    assert decay not in [other for other in OBJECTS if other is not decay]


def test_ways_to_say_the_same():
    assert Coupled(rate=1e-3) == Coupled(1e-3)
    assert Coupled(W=1, H=2) == Coupled(H=2.0, W=1.0)
    assert Mixed(1e-4, 4e-4) == Mixed(Coupled(1e-4), Decoupled(4e-4))


@pytest.mark.parametrize(
    ("decay", "problem", "coupled", "decoupled"),
    [
        (None, UFM_, {}, {}),
        (Coupled(0.1), UFM_, {"H": 0.1, "W1": 0.1, "b": 0.1}, {}),
        (Coupled(0.1), FIXED, {"W1": 0.1}, {}),
        (Coupled(W=0.1), DEEP, {"W2": 0.1}, {}),
        (Decoupled(W1=0.1, W=0.2), DEEP, {}, {"W1": 0.1, "W2": 0.2}),
        (Mixed(0.1, Decoupled(H=0.2)), DEEP, {"H": 0.1, "W1": 0.1, "W2": 0.1}, {"H": 0.2}),
    ],
)
def test_rates_per_block(decay, problem, coupled, decoupled):
    zero = dict.fromkeys(problem.trained, 0.0)
    assert per_block(decay, problem) == (zero | coupled, zero | decoupled)


@pytest.mark.parametrize(
    ("decay", "problem", "sentence"),
    [
        (Coupled(W3=0.1), DEEP, "Coupled.W3 is 0.1; allowed: trained blocks, H, W1, W2."),
        (Decoupled(b=0.1), DEEP, "Decoupled.b is 0.1"),
        (Coupled(H=0.1), FIXED, "Coupled.H is 0.1; allowed: trained blocks, W1."),
        (Coupled(W=0.1, W2=0.2), DEEP, "block W2 has a rate already"),
        (0.1, DEEP, "decay is 0.1; allowed: None, Coupled, Decoupled or Mixed, such as Coupled(5e-4)."),
        ({"W": 0.1}, DEEP, "decay is {'W': 0.1}"),
    ],
)
def test_a_rate_that_would_be_ignored_is_refused(decay, problem, sentence):
    with pytest.raises(IncompatibleError) as caught:
        per_block(decay, problem)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("kind", [Coupled, Decoupled])
def test_bad_rates_get_a_sentence(kind):
    name = kind.__name__
    for build, sentence in [
        (lambda: kind(), "allowed: one rate, or rates by block name, not both."),
        (lambda: kind(0.1, W=0.1), "not both"),
        (lambda: kind(-0.1), f"{name}.rate is -0.1; allowed: a finite number >= 0."),
        (lambda: kind(float("inf")), f"{name}.rate is inf"),
        (lambda: kind(True), f"{name}.rate is True"),
        (lambda: kind(W="x"), f"{name}.W is 'x'"),
    ]:
        with pytest.raises(InvalidProblemError) as caught:
            build()
        assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Mixed(-1, 1), "Mixed.coupled is -1"),
        (lambda: Mixed(1, None), "Mixed.decoupled is None"),
        (lambda: Mixed(1, Coupled(1)), "Mixed.decoupled is Coupled(1.0)"),
        (lambda: Mixed(1, 1, "never"), "Mixed.shrink is 'never'; allowed: 'before' or 'after'."),
    ],
)
def test_bad_mixtures_get_a_sentence(build, sentence):
    with pytest.raises(InvalidProblemError) as caught:
        build()
    assert sentence in str(caught.value)


def test_only_mixed_can_shrink_after_the_step():
    assert [shrinks_after(decay) for decay in (None, *OBJECTS)] == [False] * 7 + [True]


def test_decay_cannot_be_changed():
    with pytest.raises(AttributeError):
        Coupled(0.1).rate = 0.2
