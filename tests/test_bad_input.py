"""Bad input in Python: one sentence that names the field, never another error and never a warning."""

import copy
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
from sentences import is_one_sentence

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


def right(Z, targets, R):
    value = 0.0
    for k in range(Z.shape[0]):
        for i in range(Z.shape[1]):
            R[k, i] = Z[k, i]
            value += 0.5 * Z[k, i] ** 2
    return value


class Submitting:
    """An executor that is never used."""

    def submit(self, *arguments):
        raise AssertionError


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


class Lying:
    """An object that answers every question with an error of its own."""

    def __array__(self, *arguments, **options):
        raise RuntimeError

    __float__ = __index__ = __iter__ = __len__ = __array__


def endless():
    nested = []
    nested.append(nested)
    return nested


def residual(Z, targets, R):
    R[:] = 0.0
    return Z[0, 0]


MASKED = np.ma.masked_array(np.eye(2), mask=[[True, False], [False, False]])
STATE = {"W": W, "H": H}
DEEP = ufm.DUFM(classes=3, width=4, depth=2)
SOFT = ufm.CrossEntropy(targets=np.full((2, 2), 0.5))

# a matrix in the place of features, of a start, of a state and of an argument of a metric
ARRAYS = {
    "shape": (np.eye(3), r"shape"),
    "one axis": (np.zeros(2), "shape|classes x samples"),
    "no axis": (np.array(1.0), "shape|classes x samples"),
    "empty": (np.zeros((0, 0)), "shape"),
    "nan": (np.full((2, 2), np.nan), "not finite|nan"),
    "inf": (np.full((2, 2), np.inf), "not finite|inf"),
    "object": (np.array([[1.0, None], [0.0, 1.0]], dtype=object), "dtype=object"),
    "bool": (np.eye(2, dtype=bool), "True, False"),
    "complex": (np.eye(2) * 1j, r"1\.?j"),
    "text": (np.array([["a", "b"], ["c", "d"]]), "array"),
    "dates": (np.zeros((2, 2), "M8[s]"), "1970"),
    "structured": (np.zeros((2, 2), [("a", float)]), r"\('a', '<f8'\)"),
    "masked": (MASKED, "mask"),
    "ragged": ([[1.0], [1.0, 2.0]], r"\[\[1.0\], \[1.0, 2.0\]\]"),
    "endless": (endless(), r"\[\[\.\.\.\]\]"),
    "lying": (Lying(), "Lying object"),
    "long double": (
        np.full((2, 2), np.longdouble("1e4000")) if np.finfo(np.longdouble).maxexp > 2000 else [np.inf],
        "not finite|e.4000",
    ),
    "int of many digits": ([[10**400, 1], [1, 1]], "10000"),
}
PLACES = {
    "features": lambda array: ufm.UFM(2, 2, features=array),
    "frozen": lambda array: ufm.UFM(2, 2, frozen={"W": array}),
    "start": lambda array: ufm.simulate(PROBLEM, ufm.GD(0.1), steps=1, init={"W": array, "H": H}),
    "state": lambda array: PROBLEM.value({"W": array, "H": H}),
    "certify": lambda array: ufm.certify(PROBLEM, None, {"W": array, "H": H}),
    "targets": lambda array: ufm.UFM(2, 2, loss=ufm.CrossEntropy(targets=array)),
}
BAD |= {
    f"{place} {name}": (lambda put=put, array=array: put(array), sentence)
    for place, put in PLACES.items()
    for name, (array, sentence) in ARRAYS.items()
}
BAD |= {
    f"metric {name}": (lambda array=array: metrics.nc3(array, H, LABELS), sentence)
    for name, (array, sentence) in ARRAYS.items()
    if name not in ("nan", "inf", "long double")  # a metric of a diverged state is nan
}
# arguments that would be ignored, and things that do not go together
BAD |= {
    "smoothing with targets": (
        lambda: ufm.CrossEntropy(smoothing=0.1, targets=np.eye(2)),
        "0 with soft targets, which it would",
    ),
    "init with starts": (
        lambda: ufm.minimise(PROBLEM, starts=[ufm.Zeros()], init=ufm.Zeros()),
        "minimise.init is Zeros",
    ),
    "start of a frozen block": (
        lambda: ufm.simulate(ufm.UFM(2, 2, features=H), ufm.GD(0.1), steps=1, init={"H": H, "W": W}),
        "init.H is Given.*; allowed: trained blocks, W1",
    ),
    "decay of a frozen block": (
        lambda: ufm.simulate(ufm.UFM(2, 2, features=H), ufm.GD(0.1), ufm.Coupled(H=0.1), steps=1),
        "Coupled.H is 0.1; allowed: trained blocks, W1",
    ),
    "decay of no block": (
        simulated(decay=ufm.Decoupled(W7=0.1)),
        "Decoupled.W7 is 0.1; allowed: trained blocks",
    ),
    "decay of a block twice": (
        simulated(decay=ufm.Coupled(W=0.1, W1=0.2)),
        "already; allowed: one for each block",
    ),
    "start of a block twice": (
        simulated(init={"W": W, "W1": W, "H": H}),
        "has a start already; allowed: one",
    ),
    "state with a block twice": (
        lambda: PROBLEM.value({"W": W, "W1": W, "H": H}),
        "names W1 twice, also as W",
    ),
    "block frozen twice": (
        lambda: ufm.UFM(2, 2, features=H, frozen={"H": H}),
        "H is frozen already; allowed: each block once",
    ),
    "another frozen value": (
        lambda: ufm.UFM(2, 2, features=H).pack({"W": W, "H": 2 * H}),
        "state.H is another than the frozen one",
    ),
    "workers with an executor": (
        lambda: ufm.sweep(PROBLEM, ufm.GD(0.1), steps=1, executor=Submitting(), workers=2),
        "sweep.workers is 2; allowed: None",
    ),
    "momentum with beta": (
        lambda: ufm.sweep(PROBLEM, ufm.Momentum, lr=0.1, beta=0.1, momentum=[0.2], steps=1),
        "given too; allowed: one",
    ),
    "decay with its total": (
        lambda: ufm.sweep(
            PROBLEM, ufm.GD(0.1), ufm.Coupled(0.1), steps=1, total_decay=0.1, coupled_share=[1.0]
        ),
        "allowed: both, without decay",
    ),
    "all frozen": (
        lambda: ufm.UFM(2, 2, features=H, classifier=W),
        "every block is frozen; allowed: at least one",
    ),
    "all frozen, deep": (
        lambda: ufm.DUFM(2, 2, 2, frozen={"H": H, "W1": W, "W2": W}),
        "every block is frozen",
    ),
    "frozen at random": (lambda: ufm.UFM(2, 2, features=ufm.Gaussian(1.0)), "a start without randomness"),
    "large batch": (simulated(batch=3), "simulate.batch is 3; allowed: at most the 2 samples"),
    "class without samples": (
        lambda: ufm.UFM(2, 2, [1, 0]),
        "UFM.per_class is 0; allowed: a whole number >= 1",
    ),
    "label without samples": (
        lambda: metrics.nc2(np.eye(3), [0, 2, 2]),
        r"classes without a sample is \[1\]; allowed: none",
    ),
    "targets of other classes": (
        lambda: ufm.UFM(3, 2, loss=SOFT),
        r"UFM.loss.targets is .*\(2, 2\)'; allowed: shape \(3, 3\)",
    ),
    "minimise decoupled": (
        lambda: ufm.minimise(PROBLEM, ufm.Decoupled(0.1)),
        "minimise.decay is Decoupled.*; allowed: None or Coupled",
    ),
    "minimise mixed": (lambda: ufm.minimise(PROBLEM, ufm.Mixed(0.1, 0.1)), "minimise.decay is Mixed"),
    "certify decoupled": (
        lambda: ufm.certify(PROBLEM, ufm.Decoupled(0.1), STATE),
        "certify.decay is Decoupled",
    ),
    "certify state": (
        lambda: ufm.certify(PROBLEM, None, 5),
        "certify.state is 5; allowed: arrays by block name",
    ),
    "certify infinite": (
        lambda: ufm.certify(PROBLEM, None, {"W": 1e200 * W, "H": 1e200 * H}),
        "certify.state is 'a state whose loss",
    ),
    "certify user loss": (
        lambda: ufm.certify(ufm.UFM(2, 2, loss=right), None, STATE),
        "certify.problem has the loss",
    ),
    "symmetric of matrices": (
        lambda: ufm.simulate_symmetric(3, ufm.NormalisedGD(0.1), steps=1),
        "that treat each entry of W alone",
    ),
    "wrong derivative": (
        lambda: ufm.UFM(2, 2, loss=residual),
        "fills R.0, 0. with 0.* where its value has the derivative 1",
    ),
    "sweep axis of no field": (
        lambda: ufm.sweep(PROBLEM, ufm.GD, lr=[0.1], mass=[1], steps=1),
        "sweep.mass is no field of these runs; allowed",
    ),
    "sweep axis of another class": (
        lambda: ufm.sweep(PROBLEM, [ufm.GD, ufm.Adam], lr=[0.1], eps=[0.1], steps=1),
        "sweep.eps is 0.1; allowed: the fields of GD, lr",
    ),
    "sweep axes that do not match": (
        lambda: ufm.Zipped(lr=[0.1], steps=[1, 2]),
        "Zipped: numbers of values is .*; allowed: the same",
    ),
    "sweep axis twice": (
        lambda: ufm.sweep(PROBLEM, ufm.GD, lr=[0.1], pair=ufm.Zipped(lr=[0.1], seed=[1]), steps=1),
        "sweep.lr is given twice; allowed: once",
    ),
    "sweep axis without values": (
        lambda: ufm.sweep(PROBLEM, ufm.GD, lr=[], steps=1),
        r"sweep.lr is \[\]; allowed: at least one",
    ),
    "sweep of too many": (
        lambda: ufm.sweep(PROBLEM, ufm.GD, lr=[0.1, 0.2], seed=range(2**70), steps=1),
        "number of runs is .*; allowed: at most 10000000",
    ),
    "sweep claims": (
        lambda: ufm.sweep(PROBLEM, ufm.GD(0.1), steps=1, claims=3),
        "sweep.claims is 3; allowed: True, or a sequence",
    ),
    "sweep claim": (
        lambda: ufm.sweep(PROBLEM, ufm.GD(0.1), steps=1, claims=["fermat"]),
        "sweep.claims is 'fermat'; allowed: True, or claims",
    ),
    "sweep metric": (
        lambda: ufm.sweep(PROBLEM, ufm.GD(0.1), steps=1, metrics=["nc5"]),
        "sweep.metrics is 'nc5'; allowed: loss",
    ),
    "sweep progress": (
        lambda: ufm.sweep(PROBLEM, ufm.GD(0.1), steps=1, progress="yes"),
        "sweep.progress is 'yes'; allowed: True or False",
    ),
    "compare": (lambda: ufm.compare(PROBLEM), "compare.trajectory is UFM.*; allowed: a Trajectory"),
    "compare a path": (
        lambda: ufm.compare("run.npz"),
        "compare.trajectory is 'run.npz'; allowed: a Trajectory",
    ),
    "compare nothing": (lambda: ufm.compare(None), "compare.trajectory is None"),
    "classify": (lambda: metrics.classify_solution(DEEP, {}, solutions=3), "state.H is None|solutions is 3"),
    "dnc of nothing": (lambda: ufm.solutions.dnc(None, None), "dnc.problem is None; allowed: a problem"),
    "srg of nothing": (lambda: ufm.solutions.srg("x", None), "srg.problem is 'x'; allowed: a problem"),
    "low rank of nothing": (
        lambda: ufm.solutions.low_rank(3, None),
        "low_rank.problem is 3; allowed: a problem",
    ),
    "zero of nothing": (lambda: ufm.solutions.zero(3), "zero.problem is 3; allowed: a problem"),
    "known of nothing": (lambda: ufm.solutions.known(3, None), "known.problem is 3; allowed: a problem"),
    "merged of nothing": (
        lambda: ufm.solutions.merged(3, None, [[0, 1]]),
        "merged.problem is 3; allowed: a problem",
    ),
    "aligned modes of nothing": (
        lambda: ufm.solutions.aligned_modes(3, 0.1, 0.1),
        "aligned_modes.problem is 3; allowed: a problem",
    ),
    "dnc without decay": (
        lambda: ufm.solutions.dnc(DEEP, None),
        "dnc: no coupled decay acts on H.*; allowed",
    ),
    "metric of another width": (
        lambda: metrics.nc3(np.eye(3), H, LABELS),
        r"nc3.W.shape is \(3, 3\); allowed: \(..., 2, 2\)",
    ),
    "metric of other records": (
        lambda: metrics.nc3(np.ones((3, 2, 2)), np.ones((4, 2, 2)), LABELS),
        "leading axes that broadcast",
    ),
    "metric of another bias": (
        lambda: metrics.nc4(W, H, LABELS, b=np.zeros(3)),
        r"nc4.b.shape is \(3,\); allowed: \(..., 2\)",
    ),
    "metric of a layer that is not": (
        lambda: metrics.nc0(W, layer=1),
        "nc0.layer is 1; allowed: None with plain arrays",
    ),
}
BAD |= {
    f"{name} of nothing": (
        lambda name=name: getattr(ufm.solutions, name)(None, ufm.Coupled(0.1)),
        f"{name}.problem is None; allowed: a problem",
    )
    for name in (
        "simplex", "polygon", "fixed_simplex", "imbalanced_optimum", "seli", "biased_optimum",
        "normalised_simplex", "regression_optimum",
    )
}  # fmt: skip
# what no machine holds is refused before memory is asked for it
BAD |= {
    "records": (
        simulated(steps=10**12),
        "Every.n: GiB of the records of 10.* is .*; allowed: at most .* here, with a larger n",
    ),
    "log-spaced": (
        simulated(steps=10**12, record=ufm.LogSpaced(2**32)),
        "LogSpaced.count: GiB of its records is",
    ),
    "states": (
        lambda: ufm.simulate(ufm.UFM(100, 1000), ufm.GD(0.1), steps=10**6),
        "simulate.record: GiB of recorded states is",
    ),
    "rates": (
        simulated(steps=10**12, optimizer=ufm.GD(ufm.Cosine(0.1)), record=ufm.LogSpaced()),
        "simulate.steps: GiB of the rates",
    ),
    "start": (lambda: ufm.UFM(2, 2, 10**10, features=ufm.SimplexETF()), "init.H: GiB of its start is"),
    "frame": (lambda: ufm.simplex_etf(10**6), "simplex_etf.K: GiB of the frame is"),
    "characters": (lambda: ufm.walsh(2**40), "walsh.K: GiB of the matrix is"),
    "sweep records": (
        lambda: ufm.sweep(PROBLEM, ufm.GD(0.1), steps=10**12, record=ufm.Every()),
        "Every.n: GiB of the records",
    ),
    "symmetric records": (
        lambda: ufm.simulate_symmetric(3, ufm.GD(0.1), steps=10**12),
        "Every.n: GiB of the records",
    ),
    "symmetric weights": (
        lambda: ufm.simulate_symmetric(10**9, ufm.GD(0.1), steps=1).weights(0),
        "SymmetricTrajectory.weights: GiB of W",
    ),
}


def own_optimizer(**more):
    """An object with all that an optimizer has, but for the number of its buffers."""
    return SimpleNamespace(lr=0.1, rule="gd", hyper=tuple, scale_free=False, elementwise=True, **more)


# what is called, and is no function; progress; options of other kinds
BAD |= {
    "callback": (simulated(callback=3), "simulate.callback is 3; allowed: None, or a function"),
    "progress": (simulated(progress="yes"), "progress is 'yes'; allowed: True or False"),
    "throw": (simulated(throw=1), "simulate.throw is 1; allowed: True or False"),
    "decay class": (simulated(decay=ufm.Coupled), "decay is <class .*; allowed: None, Coupled"),
    "optimizer class": (
        simulated(optimizer=ufm.GD),
        "simulate.optimizer is <class .*; allowed: an optimizer such as",
    ),
    "own optimizer without buffers": (
        simulated(optimizer=own_optimizer()),
        "simulate.optimizer is .*; allowed: an optimizer such as",
    ),
    "own optimizer with many buffers": (
        simulated(optimizer=own_optimizer(buffers=7)),
        r"simulate.optimizer.buffers is 7; allowed: 0, 1 \(m\) or 2 \(m and v\)",
    ),
    "record class": (simulated(record=ufm.Every), "simulate.record is <class .*; allowed: Every"),
    "init class": (simulated(init=ufm.Zeros), "simulate.init is <class .*; allowed: an initialiser"),
    "loss class": (lambda: ufm.UFM(2, 2, loss=ufm.MSE), "UFM.loss is <class .*; allowed: 'ce', 'mse'"),
    "loss name": (lambda: ufm.UFM(2, 2, loss="hinge"), "UFM.loss is 'hinge'; allowed: 'ce', 'mse'"),
    "MSE reduction": (lambda: ufm.MSE("max"), "MSE.reduction is 'max'; allowed: 'mean' or 'sum'"),
    "dtype": (simulated(dtype="float16"), "simulate.dtype is 'float16'; allowed: 'float64' or"),
    "lying number": (lambda: ufm.GD(Lying()), "GD.lr is .*Lying"),
    "lying whole number": (lambda: ufm.UFM(2, Lying()), "UFM.width is .*Lying"),
    "masked number": (lambda: ufm.GD(np.ma.masked), "GD.lr is masked"),
    "minimise init": (lambda: ufm.minimise(PROBLEM, init=3), "minimise.init is 3; allowed: an initialiser"),
    "minimise starts": (
        lambda: ufm.minimise(PROBLEM, starts=[3]),
        "minimise.starts is 3; allowed: an initialiser",
    ),
    "features of records": (
        lambda: simulated()().features(1, 0),
        "Trajectory.features.records is 0; allowed: a slice",
    ),
    "weights of a record": (
        lambda: ufm.simulate_symmetric(3, ufm.GD(0.1), steps=1).weights(7),
        "weights.i is 7; allowed: .* <= 1",
    ),
    "load options": (lambda: ufm.load(3), "load.path is 3; allowed: the name of a file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case):
    call, sentence = BAD[case]
    with pytest.raises(UfmError, match=sentence) as caught:
        call()
    assert is_one_sentence(str(caught.value)), str(caught.value)


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
