"""Runs against the row-sum law, and how runs end, go on, and depend on their seed."""

import gc
import os
import pickle
import signal
import subprocess
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpmath
import numpy as np
import pytest

import ufm
from ufm import (
    DUFM,
    GD,
    UFM,
    Adam,
    Coupled,
    CrossEntropy,
    Decoupled,
    Mixed,
    Momentum,
    NormalisedGD,
    SignGD,
    Signum,
)
from ufm.epochs import batch_order
from ufm.errors import DivergedError, IncompatibleError, InterruptedRunError, InvalidProblemError
from ufm.initial import Gaussian, Given, LinearDefault, SimplexETF, Start, Zeros
from ufm.losses import MSE

ROOT = Path(__file__).resolve().parents[1]
EPS = 2.0**-52
LAW = "ufm.row_sum_law"
X = 1e-3  # eta lam of the momentum rows, critically damped at beta = (1 - sqrt(X))^2 = 0.9378
CRITICAL = (1 - X**0.5) ** 2
SOFT = np.random.default_rng(2).dirichlet(np.ones(6), 12).T


# ------------------------------------------------------------------------------------------ the row-sum law


def focal(Z, targets, R):
    """Mean of -(1 - p)^2 log p with p the probability of the true class; the true entry closes the column sum."""
    total = 0.0
    for i in range(Z.shape[1]):
        top, mass, y = Z[:, i].max(), 0.0, 0
        for k in range(Z.shape[0]):
            mass += np.exp(Z[k, i] - top)
            if targets[k, i] > 0.5:
                y = k
        p, others = np.exp(Z[y, i] - top) / mass, 0.0
        total -= (1 - p) ** 2 * np.log(p) / Z.shape[1]
        slope = (2 * p * (1 - p) * np.log(p) - (1 - p) ** 2) / Z.shape[1]
        for k in range(Z.shape[0]):
            if k != y:
                R[k, i] = -slope * np.exp(Z[k, i] - top) / mass
                others += R[k, i]
        R[y, i] = -others
    return total


def z_loss(Z, targets, R):
    """Cross-entropy plus 0.01 (log sum exp)^2: the second term sees a shift of the logits."""
    total = 0.0
    for i in range(Z.shape[1]):
        top = Z[:, i].max()
        mass = np.exp(Z[:, i] - top).sum()
        lse = top + np.log(mass)
        total += (lse - (targets[:, i] * Z[:, i]).sum() + 0.01 * lse**2) / Z.shape[1]
        for k in range(Z.shape[0]):
            R[k, i] = ((1 + 0.02 * lse) * np.exp(Z[k, i] - lse) - targets[k, i]) / Z.shape[1]
    return total


def row(problem, optimizer, decay, steps=3000, **options):
    return problem, optimizer, decay, {"steps": steps, "record": ufm.LogSpaced(200), **options}


SMALL = UFM(6, 8, 2)
DEEP = {"activation": "relu", "loss": "ce", "per_class": 2}
ROWS = {
    "GD": row(SMALL, GD(0.1), Coupled(1e-2)),
    "GD decoupled": row(SMALL, GD(0.1), Decoupled(1e-2)),
    **{f"heavy ball {beta:g}": row(SMALL, Momentum(0.1, beta), Coupled(1e-2)) for beta in (0, 0.5, 0.7, 0.9)},
    "critical": row(SMALL, Momentum(0.1, CRITICAL), Coupled(1e-2)),
    "beside critical": row(SMALL, Momentum(0.1, CRITICAL + 1e-9), Coupled(1e-2)),
    **{f"heavy ball {beta:g}": row(SMALL, Momentum(0.1, beta), Coupled(1e-2)) for beta in (0.95, 0.98, 0.99)},
    **{
        f"nesterov {beta:g}": row(SMALL, Momentum(0.1, beta, True), Coupled(1e-2))
        for beta in (0.5, 0.9, 0.99)
    },
    "momentum decoupled": row(SMALL, Momentum(0.1, 0.9), Decoupled(1e-2)),
    "nesterov decoupled": row(SMALL, Momentum(0.1, 0.9, True), Decoupled(1e-2)),
    "mixed": row(SMALL, Momentum(0.1, 0.9), Mixed(1e-2, 5e-3)),
    "mixed nesterov": row(SMALL, Momentum(0.1, 0.9, True), Mixed(2e-3, 2e-2)),
    "mixed by block": row(SMALL, Momentum(0.1, 0.9), Mixed(Coupled(W=1e-2, H=1e-3), Decoupled(W=4e-3))),
    "decoupled after": row(SMALL, Momentum(0.1, 0.9), Mixed(0, 1e-2, shrink="after")),
    "W alone": row(SMALL, Momentum(0.1, 0.9), Coupled(W=1e-2)),
    "eta lam 1.5": row(SMALL, GD(0.5), Coupled(3.0), steps=40),
    "eta lam 1.9, decoupled": row(SMALL, GD(0.5), Decoupled(3.8), steps=300),
    "eta lam 2.8, momentum": row(SMALL, Momentum(0.5, 0.5), Coupled(W=5.6), steps=200),
    "unstable": row(SMALL, GD(0.5), Coupled(W=4.02), steps=200),
    "lr 5": row(SMALL, Momentum(5.0, 0.5), Coupled(1e-3)),
    "step decay": row(SMALL, Momentum(ufm.StepDecay(1.0), 0.9), Coupled(1e-2)),
    "step decay, mixed": row(SMALL, Momentum(ufm.StepDecay(1.0, (500, 1500)), 0.9), Mixed(1e-2, 1e-3)),
    "cosine": row(SMALL, Momentum(ufm.Cosine(0.5, warmup=100), 0.9), Coupled(1e-2)),
    "any rates": row(SMALL, GD(ufm.Rates(np.random.default_rng(1).uniform(0, 1, 3000))), Coupled(1e-2)),
    "mini-batches": row(UFM(6, 8, 5), Momentum(0.1, 0.9), Coupled(1e-2), batch=7),
    "batches of one": row(UFM(4, 5, 3), Momentum(0.05, 0.9, True), Mixed(1e-2, 1e-2), batch=1),
    "sum": row(UFM(4, 5, 2, loss=CrossEntropy(reduction="sum")), GD(0.1), Coupled(1e-2)),
    "smoothing": row(UFM(6, 8, 2, loss=CrossEntropy(smoothing=0.1)), Momentum(0.1, 0.9), Coupled(1e-2)),
    "soft targets": row(UFM(6, 8, 2, loss=CrossEntropy(targets=SOFT)), Momentum(0.1, 0.9), Coupled(1e-2)),
    "focal": row(UFM(6, 8, 2, loss=focal), Momentum(0.1, 0.9), Coupled(1e-2)),
    "bias": row(
        UFM(6, 8, 2, bias=True), Momentum(0.1, 0.9), Coupled(1e-2), init=Start(Gaussian(0.3), b=Gaussian(1))
    ),
    "unequal classes": row(UFM(5, 6, (20, 9, 4, 2, 1)), Momentum(0.1, 0.9), Coupled(1e-2)),
    "unequal, batches": row(UFM(5, 6, (20, 9, 4, 2, 1)), Momentum(0.1, 0.9), Coupled(1e-2), batch=8),
    "depth 2": row(DUFM(5, 8, 2, **DEEP), Momentum(0.1, 0.9), Coupled(1e-2), init=Gaussian(0.3)),
    "depth 3": row(DUFM(5, 8, 3, **DEEP, bias=True), Momentum(0.1, 0.9), Decoupled(1e-2), init=Gaussian(0.3)),
    "depth 4": row(
        DUFM(5, (9, 8, 7, 6), 4, **DEEP), Momentum(0.05, 0.9), Mixed(1e-2, 1e-2), init=Gaussian(0.4)
    ),
    "depth 4, linear": row(
        DUFM(5, 8, 4, 2, "identity", "ce"),
        Momentum(0.05, 0.9, True),
        Coupled(1e-2),
        init=Gaussian(0.3),
        batch=4,
    ),
    "fixed features": row(
        UFM(10, 10, features=SimplexETF()), Momentum(0.1, 0.9), Coupled(1e-2), init=Zeros()
    ),
    "default head": row(
        UFM(10, 32, 2), GD(0.1), Coupled(5e-3), init=Start(W=LinearDefault(), H=Gaussian(1.0))
    ),
    "K = 2": row(UFM(2, 3, 2), Momentum(0.1, 0.9), Coupled(1e-2)),
    "K = 20": row(UFM(20, 24), Momentum(0.1, 0.9), Coupled(1e-2)),
    "K = 50": row(UFM(50, 60), Momentum(0.1, 0.9), Coupled(1e-2), steps=1000),
    "1e5 steps": row(UFM(4, 5), Momentum(0.1, 0.9), Coupled(1e-4), steps=100_000),
    "1e5 steps, underdamped": row(UFM(4, 5), Momentum(0.01, 0.99), Coupled(1e-2), steps=100_000),
    "1e5 steps, decoupled": row(UFM(10, 12), GD(0.1), Decoupled(1e-3), steps=100_000),
    "1e5 steps, step decay": row(UFM(4, 5), Momentum(ufm.StepDecay(1.0), 0.9), Coupled(1e-4), steps=100_000),
    "1e5 steps, batches": row(UFM(4, 5, 3), Momentum(0.1, 0.9), Mixed(1e-4, 1e-4), steps=100_000, batch=5),
    "1e5 steps, depth 4": row(
        DUFM(10, 16, 4, **DEEP), Momentum(0.02, 0.9), Coupled(1e-3), 100_000, init=Gaussian(0.3)
    ),
    "1e5 steps, batches, depth 2": row(
        DUFM(10, 12, 2, **DEEP),
        Momentum(0.05, 0.95, True),
        Mixed(5e-4, 5e-4),
        100_000,
        batch=8,
        init=Gaussian(0.3),
    ),
    "1e5 steps, K = 50": row(UFM(50, 60, 2), Momentum(0.1, 0.9), Coupled(1e-3), steps=100_000),
}
SLOW = {"1e5 steps, K = 50"}
PARAMETERS = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in ROWS]


@pytest.mark.parametrize("name", PARAMETERS)
def test_row_sum_follows_the_closed_form(name):
    """Within the round-off bound everywhere, and a decay wrong by 1e-6 relative leaves it at least 100-fold."""
    problem, optimizer, decay, options = ROWS[name]
    traj = ufm.simulate(problem, optimizer, decay, seed=7, **{"init": Gaussian(0.5), **options})
    report = ufm.compare(traj)
    found = report[LAW]
    lemma = report["zhao2026.lemE.5"]
    print(f"{name:28s} ratio {found.ratio:8.3g}  control {found.control:9.3g}  lemma {lemma.ratio:8.3g}")
    assert found.verdict == "holds", found.reason
    assert found.ratio <= 1
    assert lemma.verdict == "holds", lemma.reason
    assert report.ok
    if np.any(traj["W"][0].sum(axis=0)):
        assert found.control >= 100


def scalar_recursion(traj, beta, coupled, decoupled, nesterov):
    """g_t at 40 digits by the recursion itself, one step after the other, rounded to float64 at the end."""
    found = []
    with mpmath.workdps(40):
        g, q = mpmath.mpf(1), mpmath.mpf(0)
        beta, coupled, decoupled = mpmath.mpf(beta), mpmath.mpf(coupled), mpmath.mpf(decoupled)
        for lr in [*traj.run.rates, 0.0]:
            found.append(float(g))
            q, lr = beta * q + coupled * g, mpmath.mpf(float(lr))
            g = (1 - lr * decoupled) * g - lr * (coupled * g + beta * q if nesterov else q)
    return np.array(found)


@pytest.mark.parametrize("name", [
    "GD", "GD decoupled", "critical", "heavy ball 0.99", "nesterov 0.9", "mixed", "mixed nesterov", "eta lam 1.5",
    "mini-batches", "batches of one", "depth 4, linear", "K = 2", "K = 20",
])  # fmt: skip
def test_row_sum_within_the_plain_bound(name):
    """|m_t - g_t m_0| <= (K/2) eps max|W| sum_{s <= t} |g_s| with g from the bare recursion, at every step."""
    problem, optimizer, decay, options = ROWS[name]
    steps = min(options["steps"], 1000)
    options = {**options, "steps": steps, "record": ufm.Every()}
    traj = ufm.simulate(problem, optimizer, decay, seed=8, **{"init": Gaussian(0.5), **options})
    last = problem.last
    g = scalar_recursion(
        traj, getattr(optimizer, "beta", 0.0), traj.run.coupled[last], traj.run.decoupled[last],
        getattr(optimizer, "nesterov", False),
    )  # fmt: skip
    W = traj["W"]
    m = W.sum(axis=1)
    error = np.abs(m - g[:, None] * m[0]).max(axis=1)
    largest = np.maximum.accumulate(np.abs(W).max(axis=(1, 2)))
    bound = problem.classes / 2 * EPS * largest * np.cumsum(np.abs(g))
    print(f"plain bound, {name:20s} ratio {(error / bound).max():.3g}")
    assert np.all(error <= bound)


@pytest.mark.parametrize("problem", [UFM(5, 6, 2, loss=MSE()), DUFM(5, 6, 3, 2)], ids=repr)
def test_squared_error_breaks_the_law_and_compare_says_why(problem):
    traj = ufm.simulate(problem, GD(0.1), Coupled(1e-2), steps=2000, init=Gaussian(0.3))
    found = ufm.compare(traj)[LAW]
    assert found.verdict == "not applicable"
    assert "1^T grad_W = (m^T H - 1^T Y) H^T/N" in found.reason
    m = traj["W"].sum(axis=1)
    g = (1 - 0.1 * 1e-2) ** traj.steps
    assert np.abs(m - g[:, None] * m[0]).max() > 1e-3


def test_user_losses_are_probed_for_shift_invariance():
    kept, broken = UFM(6, 8, 2, loss=focal), UFM(6, 8, 2, loss=z_loss)
    assert kept.loss.shift_invariant
    assert not broken.loss.shift_invariant
    traj = ufm.simulate(broken, GD(0.1), Coupled(1e-2), steps=100)
    found = ufm.compare(traj)[LAW]
    assert found.verdict == "not applicable"
    assert "was changed" in found.reason


def test_a_user_loss_equals_the_built_in_one():
    def squared(Z, targets, R):
        total = 0.0
        for k in range(Z.shape[0]):
            for i in range(Z.shape[1]):
                R[k, i] = (Z[k, i] - targets[k, i]) / Z.shape[1]
                total += (Z[k, i] - targets[k, i]) ** 2
        return 0.5 * total / Z.shape[1]

    for batch in (None, 4):
        options = {"steps": 200, "batch": batch, "init": Gaussian(0.3)}
        ours = ufm.simulate(
            DUFM(4, 5, 2, (3, 2, 1, 2), loss=squared), Momentum(0.05, 0.9), Coupled(1e-3), **options
        )
        theirs = ufm.simulate(DUFM(4, 5, 2, (3, 2, 1, 2)), Momentum(0.05, 0.9), Coupled(1e-3), **options)
        assert np.abs(ours.states - theirs.states).max() < 1e-13
        assert np.abs(ours.loss - theirs.loss).max() < 1e-13


# ----------------------------------------------------------------------------------------- users' optimizers


def heavy_ball(theta, g, m, v, lr, t, p):
    m = p[0] * m + g
    return theta - lr * m, m, v


def sign_step(theta, g, m, v, lr, t, p):
    return theta - lr * ((g > 0.0) * 1.0 - (g < 0.0) * 1.0), m, v


def unit_blocks(theta, grad, m, v, lr, t, p, table):
    for block in range(table.shape[0]):
        start, size = table[block, 0], table[block, 1] * table[block, 2]
        total = 0.0
        for j in range(start, start + size):
            total += grad[j] ** 2
        for j in range(start, start + size):
            theta[j] -= lr * grad[j] / np.sqrt(total)


def test_own_elementwise_optimizers():
    options = {"steps": 300, "batch": 4}
    ours = ufm.simulate(SMALL, ufm.Elementwise(heavy_ball, 0.1, (0.9,)), Mixed(1e-2, 1e-2), **options)
    theirs = ufm.simulate(SMALL, Momentum(0.1, 0.9), Mixed(1e-2, 1e-2), **options)
    assert np.abs(ours.states - theirs.states).max() < 1e-13
    # a scale-free rule of one's own gets exponents carried too
    problem = UFM(10, 10, features=SimplexETF())
    runs = [
        ufm.simulate(problem, rule, Decoupled(5e-4), steps=2000, init=Zeros())
        for rule in (ufm.Elementwise(sign_step, 1.0, scale_free=True), SignGD(1.0))
    ]
    assert runs[0].stats["exponents_from"] == runs[1].stats["exponents_from"] > 0
    assert np.array_equal(runs[0].states, runs[1].states)


def test_own_blockwise_optimizer():
    problem = DUFM(4, (5, 6), 2, 2, loss="ce", bias=True)
    init = Start(Gaussian(0.5), b=Gaussian(0.1))
    traj = ufm.simulate(problem, ufm.Blockwise(unit_blocks, 0.01), Coupled(1e-2), steps=20, init=init)
    for i in range(20):
        before = {name: traj[name][i] for name in problem.trained}
        gradient = problem.gradient(before, Coupled(1e-2))
        for name, value in before.items():
            expected = value - 0.01 * gradient[name] / np.linalg.norm(gradient[name])
            assert np.abs(traj[name][i + 1] - expected).max() < 1e-15


# ----------------------------------------------------------------------------------- how runs end and go on


def test_a_diverging_run_raises_with_the_records_so_far():
    problem = UFM(4, 5, loss="mse")
    options = {"steps": 1000, "init": Gaussian(1.0), "seed": 1}
    with pytest.raises(
        DivergedError, match=r"GD\(lr=10\.0\) diverged at step \d+: logits or loss are not finite"
    ):
        ufm.simulate(problem, GD(10.0), **options)
    traj = ufm.simulate(problem, GD(10.0), throw=False, **options)
    assert traj.status.name == "diverged"
    assert 0 < traj.status.step < 100
    assert "the last learning rate was 10" in traj.status.reason
    assert traj.steps.tolist() == list(range(traj.status.step))
    assert np.isfinite(traj.states).all()
    assert np.isfinite(traj.loss).all()
    with pytest.raises(IncompatibleError, match="diverged"):
        traj.resume(2000)
    error = pickle.loads(pickle.dumps(traj))
    assert error.status == traj.status
    with pytest.raises(DivergedError) as caught:
        ufm.simulate(problem, GD(10.0), **options)
    assert np.array_equal(caught.value.trajectory.states, traj.states)


@pytest.mark.parametrize("batch", [None, 3])
def test_too_much_decay_is_a_status_that_names_it(batch):
    traj = ufm.simulate(UFM(4, 5, 2), GD(1.0), Coupled(2.5), steps=20_000, batch=batch, throw=False)
    assert traj.status.name == "diverged"
    assert "lr * decay 2.5" in traj.status.reason
    assert ufm.compare(traj)[LAW].verdict == "holds"


@pytest.mark.parametrize("record", [ufm.Every(), ufm.Every(1000)], ids=repr)
def test_an_interrupted_run_keeps_its_records_and_goes_on(record):
    def impatient(step, blocks):
        if step > 100:
            raise KeyboardInterrupt

    whole = ufm.simulate(SMALL, Momentum(0.1, 0.9), Coupled(1e-2), steps=3000, record=record)
    with pytest.raises(InterruptedRunError, match=r"continue with error\.trajectory\.resume") as caught:
        ufm.simulate(SMALL, Momentum(0.1, 0.9), Coupled(1e-2), steps=3000, record=record, callback=impatient)
    assert isinstance(caught.value, KeyboardInterrupt)
    part = caught.value.trajectory
    assert part.status.name == "interrupted"
    assert 100 < part.status.step < 3000
    assert part.steps[-1] == part.status.step == part.end.step
    assert np.array_equal(part.states[-1], part.end.theta[: part.states.shape[1]])
    again = part.resume()
    assert again.status.name == "completed"
    same(again, whole)
    quiet = ufm.simulate(
        SMALL, Momentum(0.1, 0.9), Coupled(1e-2), steps=3000, record=record, callback=impatient, throw=False
    )
    assert quiet.status.name == "interrupted"


def test_a_callback_stops_a_run_and_sees_its_blocks():
    seen = []

    def watch(step, blocks):
        seen.append((step, blocks["W"].copy()))
        return len(seen) == 2

    traj = ufm.simulate(SMALL, GD(0.1), steps=100_000, callback=watch)
    assert traj.status.name == "stopped"
    assert "callback" in traj.status.reason
    assert len(seen) == 2
    assert traj.status.step == seen[-1][0] == traj.steps[-1]
    for step, W in seen:
        assert np.array_equal(traj["W"][step], W)
    same(traj.resume(2000), ufm.simulate(SMALL, GD(0.1), steps=2000))


CTRL_C = """
import numpy as np
import ufm

problem = ufm.UFM(6, 8, 2)
options = {"steps": 20_000_000, "record": ufm.Every(1000)}
try:
    ufm.simulate(problem, ufm.GD(0.1), ufm.Coupled(1e-2), **options, callback=lambda t, b: print(t, flush=True))
except KeyboardInterrupt as error:
    traj = error.trajectory
    assert traj.status.name == "interrupted", traj.status
    assert traj.steps[-1] == traj.status.step > 0
    assert np.array_equal(np.diff(traj.steps[:-1]), np.full(len(traj) - 2, 1000))
    assert np.isfinite(traj.states).all()
    total = int(traj.status.step) + 500
    again = traj.resume(total)
    whole = ufm.simulate(problem, ufm.GD(0.1), ufm.Coupled(1e-2), steps=total, record=ufm.Every(1000))
    assert np.array_equal(again.states, whole.states)
    print("kept")
"""


def test_ctrl_c_keeps_what_was_recorded():
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CTRL_C], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    try:
        for _ in range(3):
            assert process.stdout.readline().strip().isdigit()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == "kept"


def same(one, other):
    assert np.array_equal(one.steps, other.steps)
    for name in ("states", "fit", "penalty"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for name in ("theta", "m", "v", "unit"):
        assert np.array_equal(getattr(one.end, name), getattr(other.end, name)), name
    assert one.end.step == other.end.step


UNDERFLOW = UFM(10, 10, features=SimplexETF())
RESUMED = {
    "full batch": (SMALL, Momentum(0.1, 0.9), Coupled(1e-2), {}),
    "mini-batches": (UFM(6, 8, 5), Momentum(0.1, 0.9, True), Mixed(1e-2, 1e-2), {"batch": 7}),
    "adam": (SMALL, Adam(1e-2), Decoupled(1e-2), {"batch": 5}),
    "signum": (UNDERFLOW, Signum(20.0, 0.3), Decoupled(5e-4), {"init": Zeros()}),
    "adam without eps": (UNDERFLOW, Adam(20.0, 0.8, 0.5, 0.0), Decoupled(5e-4), {"init": Zeros()}),
    "signum, batches": (
        UFM(4, 5, 3), Signum(0.5, 0.6), Coupled(1e-9), {"batch": 5, "init": Gaussian(1.0)},
    ),
    "normalised": (UFM(4, 5, 3), NormalisedGD(1.0), None, {"batch": 5, "init": Gaussian(1.0)}),
    "float32": (DUFM(4, 5, 2, 3, bias=True), Momentum(0.05, 0.9), Coupled(1e-2), {"dtype": "float32"}),
    "float32, signs": (UNDERFLOW, SignGD(1.0), Decoupled(5e-3), {"dtype": "float32", "init": Zeros()}),
    "steps by number": (SMALL, GD(ufm.StepDecay(0.1, at=(100, 200))), Coupled(1e-2), {}),
}  # fmt: skip


@pytest.mark.parametrize("record", [ufm.Every(), ufm.Every(20)], ids=repr)
@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_has_the_same_bits(name, record):
    problem, optimizer, decay, options = RESUMED[name]
    options = {"seed": 5, "record": record, **options}
    whole = ufm.simulate(problem, optimizer, decay, steps=300, **options)
    if name in ("signum", "adam without eps", "signum, batches", "normalised", "float32, signs"):
        assert 0 <= whole.stats["exponents_from"] < 300
    for cuts in ([137], [0], [1, 2, 250], [300]):
        part = ufm.simulate(problem, optimizer, decay, steps=cuts[0], **options)
        for cut in cuts[1:]:
            part = part.resume(cut)
        same(part.resume(300), whole)


def test_resume_refuses_schedules_that_would_change_the_past():
    for schedule in (ufm.StepDecay(0.1), ufm.Cosine(0.1), ufm.Cosine(0.1, warmup=0.5)):
        traj = ufm.simulate(SMALL, GD(schedule), steps=90)
        with pytest.raises(IncompatibleError, match="gives other rates to the 90 steps already taken"):
            traj.resume(180)
    traj = ufm.simulate(SMALL, GD(0.1), steps=90)
    with pytest.raises(InvalidProblemError, match="at least the 90 steps"):
        traj.resume(50)
    with pytest.raises(InvalidProblemError):
        traj.resume(-1)


# --------------------------------------------------------------------------------------------- mini-batches


def test_unsampled_columns_feel_momentum_and_decay_alone():
    problem, lr, beta, lam, shrink = UFM(4, 5, 3), 0.1, 0.9, 0.3, 0.2
    traj = ufm.simulate(
        problem,
        Momentum(lr, beta),
        Mixed(Coupled(H=lam), Decoupled(H=shrink)),
        steps=30,
        batch=5,
        init=Gaussian(0.5),
    )
    order = batch_order(traj.run, 0, 30)
    v, H = np.zeros((5, 12)), traj["H"]
    unsampled = 0
    for t in range(30):
        columns = order[t][order[t] >= 0]
        gradient = lam * H[t]
        v = beta * v + gradient
        rest = np.setdiff1d(np.arange(12), columns)
        expected = (1 - lr * shrink) * H[t] - lr * v
        assert np.abs(H[t + 1] - expected)[:, rest].max() < 1e-15
        assert np.abs(H[t + 1] - expected)[:, columns].max() > 1e-4
        v = ((1 - lr * shrink) * H[t] - H[t + 1]) / lr  # what the sampled columns got too
        unsampled += len(rest)
    assert unsampled == 30 * 12 - (5 + 5 + 2) * 10


def test_batches_of_all_samples_are_the_full_batch():
    options = {"steps": 50, "seed": 3}
    same(ufm.simulate(SMALL, GD(0.1), batch=12, **options), ufm.simulate(SMALL, GD(0.1), **options))


def test_the_order_of_an_epoch_depends_on_the_seed_alone():
    def order(problem, optimizer, seed, start, stop, **options):
        run = ufm.simulate(problem, optimizer, steps=0, batch=5, seed=seed, **options).run
        return batch_order(run, start, stop)

    first = order(UFM(4, 5, 3), GD(0.1), 1, 0, 3 * 8000)
    assert np.array_equal(first, order(UFM(2, 9, 6, bias=True), Adam(0.1), 1, 0, 3 * 8000, dtype="float32"))
    assert np.array_equal(first[4000:20_001], order(UFM(4, 5, 3), GD(0.1), 1, 4000, 20_001))
    assert not np.array_equal(first, order(UFM(4, 5, 3), GD(0.1), 2, 0, 3 * 8000))
    assert first.shape == (24_000, 5)
    epochs = np.sort(first.reshape(8000, 15), axis=1)
    assert np.array_equal(epochs, np.tile(np.r_[[-1] * 3, np.arange(12)], (8000, 1)))
    assert len(np.unique(first.reshape(8000, 15), axis=0)) > 6000  # epochs differ
    # every sample meets every other equally often: 4/11 + 1/66 of all steps that it is in
    together = np.mean([(epoch == 0).any() and (epoch == 1).any() for epoch in first])
    assert together == pytest.approx((2 * 20 + 2) / 132 / 3, abs=0.01)


@pytest.mark.parametrize("batch", [0, -1, 13, 2.5, True])
def test_impossible_batches_are_refused(batch):
    with pytest.raises(InvalidProblemError, match=r"simulate\.batch"):
        ufm.simulate(SMALL, GD(0.1), steps=1, batch=batch)


# ---------------------------------------------------------------------------------- precision, seeds, starts


def test_single_precision_has_a_floor():
    """At g_t = e^-100 the row sum stands at a floor of about eps max|W|/(eta lam), far above the law."""
    final = {}
    for dtype in ("float64", "float32"):
        traj = ufm.simulate(
            SMALL, GD(0.1), Coupled(0.05), steps=20_000, record=ufm.LogSpaced(50), dtype=dtype
        )
        assert traj.states.dtype == dtype
        assert ufm.compare(traj)[LAW].ratio <= 1
        final[dtype] = np.linalg.norm(traj["W"][-1].astype(float).sum(axis=0))
        floor = np.finfo(dtype).eps * np.abs(traj["W"][-1]).max() / (0.1 * 0.05)
        print(
            f"{dtype}: ||W^T 1|| stands at {final[dtype]:.2e}, {final[dtype] / floor:.2g} of eps max|W|/(eta lam)"
        )
        assert 1e-3 * floor < final[dtype] < 2 * floor
    assert final["float32"] > 1e6 * final["float64"]


@pytest.mark.parametrize("loss", ["ce", "mse", CrossEntropy(smoothing=0.1)], ids=repr)
def test_single_precision_is_near_double(loss):
    problem = DUFM(4, 5, 3, 2, loss=loss, bias=True)
    runs = [
        ufm.simulate(problem, Momentum(0.02, 0.9), Coupled(1e-2), steps=100, init=Gaussian(0.5), dtype=dtype)
        for dtype in ("float64", "float32")
    ]
    assert np.abs(runs[0].states - runs[1].states).max() < 1e-4
    assert not np.array_equal(runs[0].states[1:], runs[1].states[1:])


def test_blocks_start_independently_of_each_other():
    def start(problem, init=Gaussian(0.1), seed=0):
        return ufm.simulate(problem, GD(0.1), steps=0, init=init, seed=seed)

    base = start(UFM(4, 5, 3))
    assert np.array_equal(start(UFM(4, 5, 3, bias=True))["W"], base["W"])
    assert np.array_equal(start(UFM(4, 5, 3, loss="mse"), Start(W=Zeros(), H=Gaussian(0.1)))["H"], base["H"])
    assert np.array_equal(start(UFM(4, 5, 3, features=Given(np.ones((5, 12)))))["W"], base["W"])
    assert np.array_equal(start(DUFM(5, (5, 4), 2, (3, 3, 3, 2, 1)))["W1"], base["W"])  # 4 x 5 too
    assert not np.array_equal(start(UFM(4, 5, 3), seed=1)["W"], base["W"])
    assert abs(np.corrcoef(base["W"].ravel(), base["H"].ravel()[:20])[0, 1]) < 0.7


BITS = """
import hashlib
import numpy as np
import ufm

digest = hashlib.sha256()
for problem, rule, options in [
    (ufm.UFM(10, 16, 3), ufm.Momentum(0.1, 0.9), {"batch": 8}),
    (ufm.DUFM(5, 12, 3, 4, loss="ce"), ufm.Adam(1e-2), {}),
    (ufm.UFM(40, 64, 3), ufm.GD(0.5), {}),
    (ufm.UFM(10, 10, features=ufm.SimplexETF()), ufm.Signum(20.0, 0.3), {"init": ufm.Zeros()}),
]:
    traj = ufm.simulate(problem, rule, ufm.Decoupled(5e-4), steps=200, seed=3, **options)
    digest.update(traj.states.tobytes() + traj.loss.tobytes())
print(digest.hexdigest())
"""


def test_two_processes_give_the_same_bits(python):
    first = python(BITS)
    assert python(BITS, env={"PYTHONHASHSEED": "7"}) == first


def test_threads_do_not_disturb_each_other():
    def bits(seed):
        return ufm.simulate(
            SMALL, Momentum(0.1, 0.9), Coupled(1e-2), steps=2000, seed=seed, batch=5
        ).states.tobytes()

    alone = [bits(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(bits, range(8))) == alone


def test_a_run_does_not_depend_on_how_it_is_recorded_or_watched():
    options = {"steps": 500, "batch": 5, "seed": 2}
    base = ufm.simulate(SMALL, Adam(1e-2), Coupled(1e-2), **options)
    for record in (ufm.Every(7), ufm.LogSpaced(10), ufm.At([3, 250])):
        traj = ufm.simulate(SMALL, Adam(1e-2), Coupled(1e-2), record=record, **options)
        assert np.array_equal(traj.states, base.states[traj.steps])
        assert np.array_equal(traj.loss, base.loss[traj.steps])
    watched = ufm.simulate(SMALL, Adam(1e-2), Coupled(1e-2), callback=lambda t, blocks: None, **options)
    same(watched, base)
    again = base.run
    assert again == watched.run


def test_records_hold_losses_of_their_states():
    problem, decay = DUFM(4, 5, 2, (3, 1, 2, 2), loss="ce", bias=True), Mixed(1e-2, 1e-2)
    traj = ufm.simulate(problem, Momentum(0.1, 0.9), decay, steps=40, batch=3, record=ufm.Every(8))
    assert traj.steps.tolist() == [0, 8, 16, 24, 32, 40]
    for i in range(len(traj)):
        state = {name: traj[name][i] for name in problem.trained}
        assert traj.fit[i] == pytest.approx(problem.value(state), rel=1e-14)
        assert traj.penalty[i] == pytest.approx(problem.penalty(state, decay), rel=1e-13)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": -1}, "simulate.steps"),
        ({"steps": 1.5}, "simulate.steps"),
        ({"steps": 1, "seed": -1}, "simulate.seed"),
        ({"steps": 1, "dtype": "float16"}, "simulate.dtype"),
        ({"steps": 1, "record": 5}, "simulate.record"),
        ({"steps": 1, "record": ufm.Every}, "simulate.record"),
        ({"steps": 1, "throw": 1}, "simulate.throw"),
    ],
)
def test_arguments_that_are_not_allowed(options, words):
    with pytest.raises(InvalidProblemError, match=words):
        ufm.simulate(SMALL, GD(0.1), **options)


def test_decay_on_a_block_that_is_not_trained_is_refused():
    with pytest.raises(IncompatibleError, match="trained blocks"):
        ufm.simulate(UFM(4, 5), GD(0.1), Coupled(b=0.1), steps=1)


def test_progress_bar_runs(capsys):
    ufm.simulate(SMALL, GD(0.1), steps=100, progress=True)
    assert "100" in capsys.readouterr().err


def test_a_start_without_finite_logits_is_a_record_that_everything_can_read(tmp_path):
    problem = ufm.UFM(3, 2, per_class=4)
    traj = ufm.simulate(problem, ufm.GD(0.1), steps=3, init=ufm.Gaussian(1e200), throw=False)
    assert (traj.status.name, traj.status.step) == ("diverged", 0)
    assert traj.steps.tolist() == [0]
    assert np.isinf(traj.loss[0])
    assert "diverged at step 0" in str(traj)
    assert {row.verdict for row in ufm.compare(traj)} <= {"inconclusive", "not applicable"}
    again = ufm.load(traj.save(tmp_path / "run.npz"))
    assert np.array_equal(again.states, traj.states)


class Planned:
    def __init__(self, steps):
        self.given = steps

    def steps(self, total):
        return self.given


@pytest.mark.parametrize("steps", [[0, 15], [-1], [0.5], [[0]], ["a"]])
def test_a_record_of_ones_own_must_name_steps_of_the_run(steps):
    with pytest.raises(ufm.InvalidProblemError, match=r"Planned\.steps\(10\).*whole numbers from 0 to 10"):
        ufm.simulate(ufm.UFM(3, 2), ufm.GD(0.1), steps=10, record=Planned(steps))


def test_a_record_of_ones_own_is_put_in_order():
    traj = ufm.simulate(ufm.UFM(3, 2), ufm.GD(0.1), steps=10, record=Planned([7, 3, 3]))
    assert traj.steps.tolist() == [0, 3, 7, 10]


def returns_one(theta, g, m, v, lr, t, p):
    return theta


def takes_two(theta, g):
    return theta, g, g


def names_nothing(theta, g, m, v, lr, t, p):
    return undefined_name, m, v  # noqa: F821


def imports(theta, g, m, v, lr, t, p):
    import math

    return theta - lr * math.tanh(g), m, v


@pytest.mark.parametrize("step", [returns_one, takes_two, names_nothing, imports])
def test_an_optimizer_that_does_not_compile_is_one_sentence(step):
    with pytest.raises(
        ufm.IncompatibleError, match=f"Elementwise.step {step.__name__} does not compile"
    ) as caught:
        ufm.simulate(ufm.UFM(3, 2), ufm.Elementwise(step, 0.1), steps=2)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; next: help(ufm.Elementwise) shows its arguments.")


def test_a_solution_as_a_start_is_told_of_its_start():
    problem, decay = ufm.UFM(3, 2), ufm.Coupled(0.01)
    with pytest.raises(
        ufm.InvalidProblemError, match=r"simulate.init is Solution.*or the \.start of a solution"
    ):
        ufm.simulate(problem, ufm.GD(0.1), decay, steps=1, init=ufm.solutions.simplex(problem, decay))


def test_a_run_in_place_of_a_state_is_told_how_to_take_its_end():
    problem = ufm.UFM(3, 2)
    run = ufm.simulate(problem, ufm.GD(0.1), ufm.Coupled(0.01), steps=3)
    with pytest.raises(
        ufm.InvalidProblemError, match=r"allowed: shape \(2, 3\), one state, such as run.state\(-1\)"
    ):
        problem.value(run.blocks)
    assert problem.value(run.state(-1), ufm.Coupled(0.01)) == pytest.approx(run.loss[-1])


@pytest.mark.parametrize("function", [print, np.sin, ufm.GD])
def test_only_functions_are_losses_and_steps(function):
    with pytest.raises(ufm.InvalidProblemError, match="allowed: a function"):
        ufm.UserLoss(function)
    with pytest.raises(ufm.InvalidProblemError, match="allowed: a function"):
        ufm.Elementwise(function, 0.1)


def test_a_dropped_trajectory_is_freed_at_once():
    gc.disable()
    try:
        traj = ufm.simulate(ufm.UFM(3, 2), ufm.GD(0.1), ufm.Coupled(0.1), steps=5)
        ufm.compare(traj)
        gone = weakref.ref(traj)
        del traj
        assert gone() is None
    finally:
        gc.enable()
