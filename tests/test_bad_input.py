"""Bad input in Python: one sentence that names the field, never another error and never a warning."""

import copy
import pickle

import numpy as np
import pytest

import ufm
from ufm import metrics
from ufm.checks import real, whole
from ufm.errors import DivergedError, InterruptedRunError, UfmError, invalid
from ufm.schedules import rates

PROBLEM = ufm.UFM(classes=2, width=2)
W, H, LABELS = np.eye(2), np.eye(2), np.array([0, 1])
HUGE = 2**60


class Drawing:
    """An initialiser of the user's that returns what it was given."""

    def __init__(self, values):
        self.values = values

    def draw(self, place, rng):
        return self.values


class Giving(Drawing):
    """A schedule of the user's that returns what it was given."""

    def rates(self, steps):
        return self.values


def own_optimizer(lr):
    optimizer = copy.copy(ufm.GD(0.1))
    object.__setattr__(optimizer, "lr", lr)
    return optimizer


def simulated(**options):
    return lambda: ufm.simulate(PROBLEM, **{"optimizer": ufm.GD(0.1), "steps": 3} | options)


BAD = {
    "per_class text": (lambda: ufm.UFM(2, 2, b"\1\1"), "UFM.per_class is b'"),
    "per_class float": (lambda: ufm.UFM(2, 2, np.array(1.5)), "UFM.per_class is array"),
    "per_class too many": (lambda: ufm.UFM(2, 2, [1, 2, 3]), "one size, or 2 sizes"),
    "width": (lambda: ufm.UFM(2, HUGE), "GiB of one copy"),
    "width list": (lambda: ufm.DUFM(2, [2, 3], 3), "one width, or 3 widths"),
    "classes": (lambda: ufm.UFM(10**9, 1), "GiB of one copy .* is .*; allowed: at most 1024"),
    "per_class": (lambda: ufm.UFM(2, 1000, [10**9, 10**9]), "GiB of one copy"),
    "depth": (lambda: ufm.DUFM(2, 2, 100_000), "DUFM.depth is 100000"),
    "warmup": (lambda: ufm.Cosine(0.1, warmup=np.array([1, 2])), "Cosine.warmup is array"),
    "lr array": (lambda: ufm.GD(np.array([0.1])), "GD.lr is array"),
    "lr complex": (lambda: real("lr", np.complex64(1j)), "lr is"),
    "StepDecay": (lambda: rates(ufm.StepDecay(1.0, (1, 2), 1e308), 4), "StepDecay.rates.4. is"),
    "StepDecay nan": (lambda: rates(ufm.StepDecay(0.0, (1, 2), 1e308), 4), "StepDecay.rates.4. is"),
    "Cosine": (lambda: rates(ufm.Cosine(1e308, warmup=3), 4), "Cosine.rates.4. is"),
    "rates text": (lambda: rates(Giving(["a", "b"]), 2), "Giving.rates.2. is"),
    "rates objects": (lambda: rates(Giving([None, {}]), 2), "Giving.rates.2. is"),
    "rates complex": (lambda: rates(Giving([1j, 1]), 2), "Giving.rates.2. is"),
    "rates None": (lambda: rates(Giving(None), 2), "Giving.rates.2. is None"),
    "rates length": (lambda: rates(Giving([0.1]), 2), "2 finite rates"),
    "rates steps": (lambda: rates(0.1, HUGE), "simulate.steps is"),
    "own lr": (simulated(optimizer=own_optimizer(-1)), "optimizer.lr is -1"),
    "own lr text": (simulated(optimizer=own_optimizer("fast")), "optimizer.lr is 'fast'"),
    "own lr nan": (simulated(optimizer=own_optimizer(np.nan)), "optimizer.lr is nan"),
    "draw text": (simulated(init=Drawing([["a", "b"], ["c", "d"]])), "init.H is"),
    "draw complex": (simulated(init=Drawing(1j * np.eye(2))), "init.H is"),
    "draw None": (simulated(init=Drawing(None)), "init.H is None"),
    "draw shape": (simulated(init=Drawing(np.zeros(3))), r"init.H is 'an array of shape \(3,\)'"),
    "draw overflow": (
        simulated(init=ufm.Gaussian(1.7e308)),
        "init.* is 'an array with entries .* not finite",
    ),
    "frozen text": (lambda: ufm.UFM(2, 2, features=Drawing("x")), "init.H is 'x'"),
    "value": (lambda: PROBLEM.value([W, H]), "state is .*; allowed: arrays by block name, H, W1"),
    "gradient": (lambda: PROBLEM.gradient(None), "state is None"),
    "penalty": (lambda: PROBLEM.penalty("W"), "state is 'W'"),
    "pack": (lambda: PROBLEM.pack(3), "state is 3"),
    "decay self": (simulated(decay=ufm.Coupled(self=0.1)), "Coupled.self is 0.1"),
    "init self": (simulated(init=ufm.Start(self=ufm.Zeros())), "init.self is Zeros"),
    "given self": (simulated(init=ufm.Given(self=[0.1])), "init.self is Given"),
    "nc0 text": (lambda: metrics.nc0("W"), "metrics.W is 'W'; allowed: an array of real numbers"),
    "nc0 None": (lambda: metrics.nc0(None), "metrics.W is None"),
    "nc0 dict": (lambda: metrics.nc0({"W": W}), "metrics.W is {"),
    "nc0 complex": (lambda: metrics.nc0(W + 1j), "metrics.W is"),
    "nc0 ragged": (lambda: metrics.nc0([[1.0], [1.0, 2.0]]), "metrics.W is"),
    "nc0 empty": (lambda: metrics.nc0(np.zeros((0, 0))), "metrics.W.shape"),
    "nc0 normalisation": (lambda: metrics.nc0(W, np.array(["a", "b"])), "nc0.normalisation"),
    "nc2 empty": (lambda: metrics.nc2(np.zeros((2, 0)), np.zeros(0, int)), "shapes of H, labels"),
    "nc2 text": (lambda: metrics.nc2("H", LABELS), "class_means.H is 'H'"),
    "nc2 complex": (lambda: metrics.nc2(H + 1j, LABELS), "class_means.H is"),
    "nc3 None": (lambda: metrics.nc3(None, H, LABELS), "metrics.W is None"),
    "labels huge": (lambda: metrics.nc2(H, [0, HUGE]), "class_means.labels is"),
    "labels float": (lambda: metrics.nc2(H, [0.0, 1.0]), "class_means.labels is"),
    "labels ragged": (lambda: metrics.nc2(H, [[0], [0, 1]]), "class_means.labels is"),
    "int of many digits": (lambda: whole("n", -(10**5000)), "n is a int that cannot be shown"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case):
    call, sentence = BAD[case]
    with pytest.raises(UfmError, match=sentence) as caught:
        call()
    assert "; allowed: " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_scalar_array_is_a_number():
    assert ufm.UFM(2, np.array(3), np.array(4)) == ufm.UFM(2, 3, 4)
    assert ufm.DUFM(2, np.array(3), 2) == ufm.DUFM(2, 3, 2)
    assert ufm.DUFM(2, np.array([3, 4]), 2).widths == (3, 4)
    assert ufm.GD(np.array(0.5)) == ufm.GD(0.5)


@pytest.mark.parametrize("kind", [np.uint64, np.int8])
def test_labels_of_any_integer_dtype(kind):
    assert metrics.nc2(H, LABELS.astype(kind)) == metrics.nc2(H, LABELS)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300])
def test_metrics_of_a_diverged_state_are_silent(value):
    A = np.array([[value, 1.0], [value, -value]])
    found = [metrics.nc0(A, name) for name in metrics.NORMALISATIONS]
    found += [metrics.nc2(A, LABELS), metrics.nc2w(A), metrics.nc2m(A, A, LABELS), metrics.nc3(A, A, LABELS)]
    assert all(np.shape(number) == () for number in found)


@pytest.mark.parametrize("kind", [DivergedError, InterruptedRunError])
def test_an_error_with_its_trajectory_is_pickled(kind):
    trajectory = simulated()()
    again = pickle.loads(pickle.dumps(kind("the run ended.", trajectory)))
    assert type(again) is kind
    assert str(again) == "the run ended."
    assert np.array_equal(again.trajectory.states, trajectory.states)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_of_a_trajectory_is_read_only_and_whole(again):
    trajectory = simulated()()
    before = len(pickle.dumps(trajectory))
    assert trajectory["W"].shape == (4, 2, 2)
    assert len(pickle.dumps(trajectory)) == before
    found = again(trajectory)
    for name in ("steps", "states", "fit", "penalty"):
        assert not getattr(found, name).flags.writeable
        assert np.array_equal(getattr(found, name), getattr(trajectory, name))
    assert np.array_equal(found.resume(5).states, trajectory.resume(5).states)


def test_a_record_that_is_not_there_is_named():
    trajectory = simulated()()
    assert np.array_equal(trajectory.state(-1)["W"], trajectory["W"][-1])
    with pytest.raises(IndexError, match=r"Trajectory.state.i is 99; allowed: 0 ... 3\."):
        trajectory.state(99)


def test_a_long_or_unprintable_value_is_cut():
    class Broken:
        def __repr__(self):
            raise RuntimeError

    assert str(invalid("x", Broken(), "y")) == "x is a Broken that cannot be shown; allowed: y."
    assert len(str(invalid("x", "a" * 1000, "y"))) < 150
