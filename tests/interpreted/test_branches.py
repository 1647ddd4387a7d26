"""Branches of the kernels that scripts of other tests do not reach, without the compiler: against twins and by hand."""

from dataclasses import replace

import numba
import numpy as np
import pytest

import ufm
from ufm.errors import DivergedError, IncompatibleError, InvalidProblemError
from ufm.initial import Gaussian, Given, SimplexETF
from ufm.kernels import doubt, reference
from ufm.losses import MSE, CrossEntropy
from ufm.optimizers import GD, Adam, Momentum, NormalisedGD, SignGD, Signum

pytestmark = pytest.mark.skipif(not numba.config.DISABLE_JIT, reason="run by python -m tests.interpreted")

K, SIZES = 3, (2, 1, 2)
W_FIXED = np.array(
    [[1.0, -0.5, 0.3, 0.2], [0.2, 0.8, -0.4, 0.6], [-0.7, 0.1, 0.5, 0.4], [0.3, 0.2, 0.1, -0.9]]
)
SOFT = np.random.default_rng(5).dirichlet(np.ones(K), sum(SIZES)).T
BOTH = ufm.Mixed(0.01, 0.02)
WORDS = {
    "one-hot": CrossEntropy(),
    "smoothed": CrossEntropy(smoothing=0.1),
    "soft": CrossEntropy(targets=SOFT),
    "squared": MSE(),
}


def deep(depth=2, **options):
    return ufm.DUFM(K, 4, depth, SIZES, **{"loss": "ce", **options})


def normalised(depth, activation="identity", **options):
    norm = ufm.BatchNorm(0.05, tuple(range(1, depth + 1)) if depth < 3 else (1, 3))
    if depth == 1:
        return ufm.UFM(K, 4, SIZES, normalisation=norm, **options)
    return deep(depth, activation=activation, normalisation=norm, **options)


# ------------------------------------------------------------------------------------ runs and the plain twin

PROBLEMS = {
    "sum": deep(loss=CrossEntropy(reduction="sum"), bias=True),
    "soft": deep(loss=CrossEntropy(targets=SOFT), activation="identity"),
    "smoothed": deep(loss=CrossEntropy(smoothing=0.1)),
    "squared": deep(3, loss=MSE(), bias=True),
    "real targets": ufm.RegressionUFM(np.random.default_rng(1).standard_normal((2, 5)), 3, bias=True),
    "first layers frozen": deep(3, features=W_FIXED[:, :1] * np.ones(5), frozen={"W1": W_FIXED}),
    "middle layer frozen": deep(3, frozen={"W2": W_FIXED}),
    "last layer frozen": deep(2, classifier=SimplexETF(), bias=True),
    "bias frozen": deep(2, bias=True, frozen={"b": np.arange(3.0)}),
    "normalised": normalised(1, bias=True),
    "normalised, depth 3": normalised(3, "relu"),
    "normalised, scale frozen": normalised(2, frozen={"gamma": np.ones(4)}),
    "normalised, features frozen": normalised(1, features=W_FIXED[:, :1] * np.arange(5.0)),
}


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize("elementwise", [True, False])
def test_runs_are_those_of_the_twin(name, batch, elementwise):
    problem, decay = PROBLEMS[name], ufm.Mixed(0.01, 0.02, shrink="after") if batch else BOTH
    # signs and carried exponents are not known behind a normalisation
    optimizer = Adam(0.01) if elementwise else GD(0.05) if problem.scales else NormalisedGD(0.05)
    traj = ufm.simulate(problem, optimizer, decay, steps=5, init=Gaussian(0.5), batch=batch)
    for block, values in reference.simulate(traj.run).items():
        assert np.abs(traj[block] - values).max() <= 1e-12


@pytest.mark.parametrize(
    "optimizer", [GD(0.1), SignGD(0.01), Signum(0.01, 0.5), Momentum(0.05, 0.5)], ids=repr
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_runs_in_both_precisions(optimizer, dtype):
    problem = deep(3, bias=True)
    traj = ufm.simulate(problem, optimizer, BOTH, steps=3, init=Gaussian(0.5), dtype=dtype)
    for block, values in reference.simulate(traj.run).items():
        assert np.abs(traj[block] - values).max() <= (1e-5 if dtype == "float32" else 1e-12)


def test_a_gradient_of_zero_leaves_everything_in_place():
    problem = ufm.UFM(2, 2, loss="mse")
    start = Given(W=np.eye(2), H=np.eye(2))
    for optimizer in (NormalisedGD(0.1), Adam(0.1), SignGD(0.1)):
        traj = ufm.simulate(problem, optimizer, steps=2, init=start)
        assert np.array_equal(traj["W"][2], np.eye(2))


# ------------------------------------------------------------------------------------------- users' functions


def squared(Z, targets, R):
    R[:] = Z - targets
    return 0.5 * np.sum((Z - targets) ** 2)


def heavy_ball(theta, g, m, v, lr, t, p):
    m = p[0] * m + g
    return theta - lr * m, m, v


def whole(theta, grad, m, v, lr, t, p, table):
    theta -= lr * grad


def test_functions_of_a_user_are_those_of_the_package():
    own = ufm.UserLoss(squared)
    assert not own.shift_invariant
    given, ours = deep(loss=MSE("sum")), deep(loss=own)
    pairs = [
        (ufm.simulate(ours, GD(0.01), BOTH, steps=4), ufm.simulate(given, GD(0.01), BOTH, steps=4)),
        (
            ufm.simulate(given, ufm.Elementwise(heavy_ball, 0.01, (0.9,)), BOTH, steps=4),
            ufm.simulate(given, Momentum(0.01, 0.9), BOTH, steps=4),
        ),
        (
            ufm.simulate(given, ufm.Blockwise(whole, 0.01), BOTH, steps=4),
            ufm.simulate(given, GD(0.01), BOTH, steps=4),
        ),
    ]
    for one, other in pairs:
        assert np.abs(one.states - other.states).max() <= 1e-13
        assert one.loss == pytest.approx(other.loss, rel=1e-13, abs=0)


def test_losses_of_a_user_are_probed():
    def shifted(Z, targets, R):
        R[:] = 2 * (Z - Z.mean(axis=0))
        return np.sum((Z - Z.mean(axis=0)) ** 2)

    def wrong(Z, targets, R):
        R[:] = Z
        return np.sum(Z**2)

    def never(Z, targets, R):
        R[:] = 0.0
        return np.inf

    def breaks(Z, targets, R):
        raise ZeroDivisionError

    from ufm.kernels.probe import shift_invariant

    assert ufm.UserLoss(shifted).shift_invariant
    assert not shift_invariant(ufm.UserLoss(never))
    assert not shift_invariant(ufm.UserLoss(breaks))
    with pytest.raises(IncompatibleError, match="derivative"):
        deep(loss=wrong)


def test_a_rule_that_does_not_exist_is_named():
    from ufm.errors import UfmError
    from ufm.kernels.updates import rule

    class Wrong(GD):
        rule = "downhill"

    with pytest.raises(UfmError, match="downhill"):
        rule(Wrong(0.1), "float64")


# ----------------------------------------------------------------------------------- logits that are not finite


@pytest.mark.filterwarnings("ignore")  # what overflows on the way is what is asked for
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("loss", ["one-hot", "smoothed", "soft", "squared"])
def test_runs_that_diverge_say_so(loss, batch):
    problem = deep(loss=WORDS[loss], activation="identity")
    with pytest.raises(DivergedError, match="not finite"):
        ufm.simulate(problem, GD(1e100), ufm.Coupled(1.0), steps=20, init=Gaussian(2.0), batch=batch)


@pytest.mark.filterwarnings("ignore")
def test_other_losses_that_diverge_say_so():
    real = ufm.RegressionUFM(np.eye(3), 3)
    for problem in (real, deep(loss=squared)):
        with pytest.raises(DivergedError):
            ufm.simulate(problem, GD(1e100), ufm.Coupled(1.0), steps=20, init=Gaussian(2.0))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("record", [ufm.Every(1), ufm.Every(100)], ids=repr)
@pytest.mark.parametrize("batch", [None, 2])
def test_exponents_do_not_hide_what_is_not_finite(record, batch):
    """Signs grow the weights without bound; the matrix product overflows while exponents are carried."""
    start = Given(W=1e145 * np.eye(3), H=1e145 * np.eye(3))
    with pytest.raises(DivergedError):
        ufm.simulate(ufm.UFM(3, 3), SignGD(1e155), steps=100, init=start, record=record, batch=batch)


# --------------------------------------------------------------------------------------- exponents are carried


FAR = Given(W=40 * np.eye(3), H=40 * np.repeat(np.eye(3), 2, axis=1))  # logit gaps of 1600


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("decay", [None, ufm.Coupled(1e-3), ufm.Coupled(W=1e-30), BOTH], ids=repr)
@pytest.mark.parametrize("batch", [None, 4])
def test_units_of_every_coordinate(dtype, decay, batch):
    """At gaps of 1600 a step of SignGD moves every coordinate with a gradient or decay by lr; without loss of state."""
    problem, lr = ufm.UFM(3, 3, 2), 0.5
    for optimizer in (SignGD(lr), Signum(lr, 0.5), Adam(lr, 0.5, 0.5, 0.0), NormalisedGD(lr)):
        traj = ufm.simulate(problem, optimizer, decay, steps=3, init=FAR, batch=batch, dtype=dtype)
        assert traj.stats["exponents_from"] == 0
        moved = np.abs(traj.states[1] - traj.states[0]).astype(float)
        if isinstance(optimizer, NormalisedGD):
            assert np.linalg.norm(moved) <= lr * (1 + 1e-3) + 0.02 * np.linalg.norm(traj.states[0])
        else:
            assert moved.max() <= lr * (1 + 1e-3) + 0.02 * 40 * lr
        assert moved.max() > 0.01


def test_units_of_a_stored_run_may_be_any():
    """Buffers in other units continue to the same states; whole strides are found for them."""
    options = {"steps": 6, "init": Given(W=3000 * np.eye(4))}
    problem = ufm.UFM(4, 4, features=SimplexETF())
    decay = ufm.Decoupled(0.01)
    for optimizer in (Signum(2.0, 0.5), Adam(2.0, 0.5, 0.5, 0.0)):
        first = ufm.simulate(problem, optimizer, decay, **{**options, "steps": 3})
        assert first.stats["exponents_from"] == 0
        end = first.end
        moved = replace(end, m=end.m * np.exp(-1.5), v=end.v * np.exp(-3.0), unit=end.unit + 1.5)
        again = replace(first, end=moved).resume(6)
        assert np.abs(again.states[-1] - first.resume(6).states[-1]).max() <= 1e-12


@pytest.mark.parametrize("decay", [None, ufm.Coupled(1e-3)], ids=repr)
def test_buffers_that_fall_far_below_their_unit_get_a_smaller_one(decay):
    """A gradient falls by whole strides a step, and the average with it; coupled decay, where there is some, rules."""
    problem = ufm.UFM(3, 3, features=SimplexETF())
    optimizer, start = Signum(30.0, 1e-9), Given(W=800 * np.eye(3))
    traj = ufm.simulate(problem, optimizer, decay, steps=30, init=start)
    moved = np.sign(np.diff(traj["W"], axis=0))
    assert traj.stats["exponents_from"] >= 0
    assert (moved[:5, range(3), range(3)] == (1 if decay is None else -1)).all()


# ------------------------------------------------------------------------------------ signs that are in doubt


def huge(problem, scale, seed=0):
    rng = np.random.default_rng(seed)
    return {name: scale * rng.standard_normal(problem.shapes[name]) for name in problem.trained}


def onehot(sizes):
    return np.eye(len(sizes))[:, np.repeat(np.arange(len(sizes)), sizes)]


@pytest.mark.parametrize("scale", [1.0, 5.0, 1e9])
def test_the_same_loss_in_other_words_has_the_same_signs(scale):
    """One-hot targets as soft ones, smoothing next to none, and squared error as a user's: decided signs agree."""
    pairs = [
        (deep(), deep(loss=CrossEntropy(targets=onehot(SIZES)))),
        (deep(), deep(loss=CrossEntropy(smoothing=1e-300))),
        (deep(loss=MSE("sum")), deep(loss=ufm.UserLoss(squared))),
    ]
    for one, other in pairs:
        state = huge(one, scale)
        for samples in (None, [0, 2, 4]):
            first, second = (problem.signs(state, samples=samples) for problem in (one, other))
            for name in one.trained:
                decided = ~(first.undecided[name] | second.undecided[name])
                assert np.array_equal(first.sign[name][decided], second.sign[name][decided])
                if scale < 10:
                    assert decided.mean() > 0.5
                else:
                    assert first.undecided["W2"].any() or isinstance(one.loss, MSE)


@pytest.mark.filterwarnings("ignore")
def test_states_without_signs_are_refused():
    with pytest.raises(InvalidProblemError, match="logits are finite"):
        ufm.UFM(3, 3).signs({"W": 1e200 * np.eye(3), "H": 1e200 * np.eye(3)})


@pytest.mark.filterwarnings("ignore:overflow encountered")  # the interpreted head compares float32 with 1e300
@pytest.mark.parametrize("loss", WORDS)
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_the_cheap_bound_lets_nothing_pass(loss, depth, activation, monkeypatch):
    """Where a sign is undecided the alarm sounds: bias, ReLU, batches, frozen layers, both precisions, ties."""
    seen = {True: 0, False: 0}
    count = doubt.count

    def checked(*arguments):
        alarm, found = doubt.alarm(*arguments) != 0, count(*arguments)
        assert alarm or found == 0
        seen[alarm] += 1
        return found

    monkeypatch.setattr(doubt, "count", checked)
    options = {"loss": WORDS[loss], "bias": True}
    if depth == 1:
        problems = [
            ufm.UFM(K, 4, SIZES, **options),
            ufm.UFM(K, 4, SIZES, frozen={"b": np.ones(3)}, **options),
        ]
        problems.append(ufm.UFM(K, 4, SIZES, features=np.ones((4, 5)), **options))
    else:
        problems = [deep(depth, activation=activation, **options)]
        problems.append(deep(depth, activation=activation, frozen={"W1": W_FIXED}, **options))
        problems.append(deep(depth, activation=activation, features=np.ones((4, 5)), **options))
    for problem in problems:
        for scale in (0.5, 5.0, 10 ** (18 / (depth + 1)) / 3):
            state = huge(problem, scale)
            tied = {name: np.full(block.shape, scale) for name, block in state.items()}  # residuals cancel
            for blocks in (state, tied):
                for dtype in ("float64", "float32"):
                    problem.signs(blocks, samples=[0, 3], dtype=dtype)
                    problem.signs(blocks, ufm.Coupled(1e-9), dtype=dtype)
    assert seen[True] > 3
    assert seen[False] > 3


def test_signs_of_a_run_are_counted_again_after_an_alarm():
    """A tie at the start: the alarm sounds, and the step is counted entry by entry."""
    for problem, decay in ((deep(2, bias=True), ufm.Coupled(1e-20)), (ufm.UFM(3, 3, 2), None)):
        state = huge(problem, 0.5)
        state[problem.last] = np.ones(problem.shapes[problem.last])
        for batch in (None, 2):
            traj = ufm.simulate(problem, SignGD(1e-3), decay, steps=2, init=Given(**state), batch=batch)
            assert traj.stats["undecided_signs"] > 0
            assert traj.stats["first_undecided_step"] == 0


# -------------------------------------------------------------------------------------------- two scalars


@pytest.mark.parametrize("optimizer", [SignGD(0.1), Adam(0.1), Signum(1.0, 0.5), GD(0.5)], ids=repr)
def test_disturbed_copies_stay_within_the_bound(optimizer):
    """The claim's copies of a run: every kind of deviation, before and after exponents are carried."""
    for scale, decay in ((1.0, ufm.Mixed(1e-3, 1e-3)), (600.0, ufm.Coupled(1e-9)), (-400.0, None)):
        start = Given(W=scale * (np.eye(4) - 0.25))
        problem = ufm.UFM(4, 4, features=SimplexETF())
        run = ufm.simulate(problem, optimizer, decay, steps=6, init=start)
        rows = [row for row in ufm.compare(run) if row.name.endswith("symmetric_path")]
        assert all(row.verdict != "fails" for row in rows)
        assert any(row.verdict == "holds" for row in rows) or abs(scale) > 1


@pytest.mark.filterwarnings("ignore:overflow")
def test_two_scalars_diverge_in_a_sentence():
    with pytest.raises(DivergedError):
        ufm.simulate_symmetric(3, GD(1e200), ufm.Coupled(1e200), steps=9, start=(1.0, 0.0))


@pytest.mark.parametrize("gap", [1.5, 700.0])
def test_two_scalars_count_undecided_signs(gap):
    """psi + lam o = 0 up to rounding, as numbers and with exponents carried."""
    start = (gap / 2, -gap / 2)
    psi = 0.5 * np.exp(-gap) / (1 + np.exp(-gap))
    run = ufm.simulate_symmetric(2, SignGD(0.1), ufm.Coupled(psi / (gap / 2)), steps=2, start=start)
    assert run.stats["undecided_signs"] >= 1
    assert run.stats["first_undecided_step"] == 0
