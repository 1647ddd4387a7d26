"""Two scalars against the K x K simulation, at sizes and logit gaps that no matrix reaches, and its refusals."""

import os
import pickle
import signal
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest
from numba import njit

import ufm
from ufm.errors import DivergedError, IncompatibleError, InterruptedRunError, InvalidProblemError

K_LARGE = 10**6


@njit
def lion(theta, g, m, v, lr, t, p):
    c = p[0] * m + (1 - p[0]) * g
    return theta - lr * (1.0 * (c > 0) - 1.0 * (c < 0)), p[1] * m + (1 - p[1]) * g, v


OPTIMIZERS = [
    ufm.GD(0.1),
    ufm.Momentum(0.1, 0.9),
    ufm.Momentum(0.1, 0.9, nesterov=True),
    ufm.SignGD(0.1),
    ufm.Signum(0.01, 0.9),
    ufm.Adam(0.01),
    ufm.Adam(0.01, eps=0.0),
    ufm.Elementwise(lion, 0.01, (0.9, 0.99), scale_free=True),
]
DECAYS = [
    None,
    ufm.Coupled(1e-2),
    ufm.Decoupled(W=1e-3),
    ufm.Mixed(1e-3, 1e-3),
    ufm.Mixed(1e-3, 1e-3, shrink="after"),
]


def full(
    K, optimizer, decay, steps, start=(0.0, 0.0), norm="frobenius", per_class=1, reduction="mean", **options
):
    problem = ufm.UFM(
        K, K, per_class, loss=ufm.CrossEntropy(reduction=reduction), features=ufm.SimplexETF(norm)
    )
    init = ufm.Given(np.where(np.eye(K, dtype=bool), *start))
    return ufm.simulate(problem, optimizer, decay, steps=steps, init=init, **options)


def worst_difference(matrices, reduced):
    W = matrices["W"]
    two = np.stack([reduced.weights(i) for i in range(len(reduced))])
    assert np.array_equal(matrices.steps, reduced.steps)
    return np.abs(W - two).max() / np.abs(W).max()


@pytest.mark.parametrize("decay", DECAYS, ids=repr)
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: type(optimizer).__name__)
def test_two_scalars_are_the_matrix(optimizer, decay):
    """Scale-free rules bit for bit, all others to a few units in the last place."""
    for K, start in ((2, (0.0, 0.0)), (5, (0.0, 0.0)), (5, (-1.0, 0.75))):
        matrices = full(K, optimizer, decay, 1000, start, record=ufm.Every(10))
        reduced = ufm.simulate_symmetric(K, optimizer, decay, steps=1000, start=start, record=ufm.Every(10))
        signs = isinstance(optimizer, ufm.SignGD | ufm.Signum | ufm.Elementwise)
        assert worst_difference(matrices, reduced) <= (0.0 if signs else 1e-14)
        assert reduced.loss == pytest.approx(matrices.loss, rel=1e-12, abs=1e-15)
        assert reduced.fit == pytest.approx(matrices.fit, rel=1e-12, abs=1e-15)
        scale = np.abs(matrices["W"]).max()
        assert np.sqrt(reduced.alpha) == pytest.approx(np.sqrt(ufm.metrics.nc0(matrices)), abs=1e-13 * scale)


@pytest.mark.parametrize(
    ("norm", "per_class", "reduction"), [("columns", 3, "mean"), ("frobenius", 4, "sum")]
)
def test_norm_of_the_frame_samples_and_reduction(norm, per_class, reduction):
    schedule = ufm.StepDecay(0.2, at=(0.5,))
    settings = {"norm": norm, "per_class": per_class, "reduction": reduction}
    matrices = full(6, ufm.GD(schedule), ufm.Coupled(0.01), 400, **settings)
    reduced = ufm.simulate_symmetric(6, ufm.GD(schedule), ufm.Coupled(0.01), steps=400, **settings)
    assert worst_difference(matrices, reduced) <= 1e-14
    assert reduced.loss == pytest.approx(matrices.loss, rel=1e-12)
    number = ufm.simulate_symmetric(
        6, ufm.GD(schedule), ufm.Coupled(0.01), steps=400, **{**settings, "norm": reduced.norm}
    )
    assert np.array_equal(number.diagonal, reduced.diagonal)


@pytest.mark.parametrize(
    "optimizer",
    [
        ufm.SignGD(0.5),
        ufm.Signum(0.5, 0.9),
        ufm.Adam(0.5, 0.0, 0.2, 0.0),
        ufm.Elementwise(lion, 0.5, (0.9, 0.99), scale_free=True),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
@pytest.mark.parametrize("decay", [ufm.Decoupled(1e-3), ufm.Coupled(1e-200)], ids=repr)
def test_where_probabilities_underflow(optimizer, decay):
    """As the K x K run that carries exponents; without coupled decay beyond exp(-745), the smallest float64."""
    if isinstance(optimizer, ufm.Adam) and isinstance(decay, ufm.Coupled):
        optimizer = ufm.Adam(0.5, 0.0, 0.0, 0.0)  # with memory it ends on a path that round-off leaves
    matrices = full(3, optimizer, decay, 4000, record=ufm.Every(100))
    reduced = ufm.simulate_symmetric(3, optimizer, decay, steps=4000, record=ufm.Every(100))
    assert matrices.stats["exponents_from"] > 0
    assert reduced.stats["exponents"]
    assert reduced.logit_gap[-1] > (750 if isinstance(decay, ufm.Decoupled) else 400)
    exact = isinstance(optimizer, ufm.SignGD | ufm.Signum | ufm.Elementwise)
    assert worst_difference(matrices, reduced) <= (0.0 if exact else 1e-13)


def test_signs_at_logit_gaps_of_a_hundred_thousand():
    """lam = 1e-5: theorem 3.3's closed form, with W = w (J - 2I) bit for bit."""
    lr, lam, t = 1.0, 1e-5, 10**6
    for optimizer in (ufm.SignGD(lr), ufm.Signum(lr, 0.9), ufm.Adam(lr, 0.0, 0.0, 0.0)):
        steps = t if isinstance(optimizer, ufm.SignGD) else t // 10
        run = ufm.simulate_symmetric(
            4, optimizer, ufm.Decoupled(lam), steps=steps, record=ufm.Every(steps // 10)
        )
        w = -np.expm1(run.steps * np.log1p(-lr * lam)) / lam
        assert run.stats["undecided_signs"] == 0
        assert run.diagonal == pytest.approx(w, rel=1e-10)
        assert run.off_diagonal == pytest.approx(-w, rel=1e-10)
    assert ufm.simulate_symmetric(2, ufm.SignGD(1.0), ufm.Decoupled(1e-5), steps=10**6).logit_gap[-1] > 1.9e5


def test_coupled_decay_is_compared_with_the_gradient_in_its_own_unit():
    """The diagonal stops where psi = lam b, with psi = e^-1000 far below the smallest float64."""
    lam = 1e-300
    run = ufm.simulate_symmetric(2, ufm.SignGD(1.0), ufm.Coupled(lam), steps=3000)
    peak = run.a.max()
    # psi(2a) = lam a at K = 2: log 2 + 2a + log(lam a) = 0
    crossing = next(a for a in range(1, 2000) if np.log(2) + 2 * a + np.log(lam) + np.log(a) > 0)
    assert peak == crossing
    assert run.stats["exponents"]


def test_signs_that_round_off_cannot_decide_are_counted():
    """psi + lam o is 0 up to rounding at the start, and again where exponents are carried."""
    for start in ((1.0, -0.5), (400.0, -300.0)):
        gap = start[0] - start[1]
        psi = 0.5 * np.exp(-gap) / (1 + np.exp(-gap))
        run = ufm.simulate_symmetric(2, ufm.SignGD(0.1), ufm.Coupled(psi / -start[1]), steps=1, start=start)
        assert (run.stats["undecided_signs"], run.stats["first_undecided_step"]) == (1, 0)
        decay = ufm.Coupled(psi / -start[1] * (1 + 1e-9))
        run = ufm.simulate_symmetric(2, ufm.SignGD(0.1), decay, steps=1, start=start)
        assert run.stats["undecided_signs"] == 0
    assert run.stats["exponents"]


def test_a_million_classes():
    """Theorem 3.4: a = b = eta t until the first flip of b, and alpha = (a - (K - 1) b)^2."""
    lr, lam = 1e-3, 1e-9
    run = ufm.simulate_symmetric(K_LARGE, ufm.SignGD(lr), ufm.Coupled(lam), steps=3000)
    psi = 1 / (K_LARGE * np.sqrt(K_LARGE - 1.0)) / (np.exp(run.logit_gap) + K_LARGE - 1)
    assert psi[0] == pytest.approx(1e-15, rel=1e-5, abs=0)
    flip = int(np.argmax(psi < lam * run.b))
    assert flip > 0
    assert np.array_equal(run.a[: flip + 1], run.b[: flip + 1])
    assert run.b[flip + 1] < run.b[flip]
    exact = [
        (int(a * 2**60) - (K_LARGE - 1) * int(b * 2**60)) ** 2 / 2**120
        for a, b in zip(run.a, run.b, strict=True)
    ]
    assert run.alpha == pytest.approx(exact, rel=1e-15)


def test_alpha_does_not_cancel():
    """d + (K - 1) o where the product is no float64 and d is the next one: what is left is the product's rounding."""
    o = 1 / 3
    d = -(K_LARGE - 1) * o
    run = ufm.simulate_symmetric(K_LARGE, ufm.GD(0.1), steps=0, start=(d, o))
    exact = Fraction(d) + (K_LARGE - 1) * Fraction(o)
    assert exact != 0
    assert float(run.alpha[0]) == pytest.approx(float(exact**2), rel=1e-15)


def test_records_schedule_and_start():
    run = ufm.simulate_symmetric(
        3, ufm.GD(ufm.Rates([1.0, 0.5, 0.25, 0.0])), steps=4, record=ufm.At([3]), start=(1, -1)
    )
    assert run.steps.tolist() == [0, 3, 4]
    assert (run.diagonal[0], run.off_diagonal[0]) == (1.0, -1.0)
    assert run.diagonal[1] == run.diagonal[2] > 1.0
    every = ufm.simulate_symmetric(3, ufm.GD(ufm.Rates([1.0, 0.5, 0.25, 0.0])), steps=4, start=(1, -1))
    assert every.diagonal[[0, 3, 4]].tolist() == run.diagonal.tolist()
    long = ufm.simulate_symmetric(3, ufm.Momentum(0.1, 0.9), steps=50_000, record=ufm.LogSpaced(20))
    again = ufm.simulate_symmetric(3, ufm.Momentum(0.1, 0.9), steps=50_000)
    assert np.array_equal(again.off_diagonal[long.steps], long.off_diagonal)
    assert ufm.simulate_symmetric(3, ufm.GD(0.1), steps=0).steps.tolist() == [0]


def test_the_result_cannot_be_changed_and_says_what_it_is():
    run = ufm.simulate_symmetric(10, ufm.SignGD(0.1), ufm.Decoupled(0.1), steps=20)
    for array in (run.steps, run.diagonal, run.off_diagonal):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        run.classes = 3
    assert "SignGD(lr=0.1), Decoupled(0.1), 10 classes" in str(run)
    assert "alpha 0 ->" in str(run)
    assert repr(run).startswith(
        "SymmetricTrajectory(classes=10, optimizer=SignGD(lr=0.1), decay=Decoupled(0.1)"
    )
    copy = pickle.loads(pickle.dumps(run))
    assert np.array_equal(copy.alpha, run.alpha)
    assert not copy.diagonal.flags.writeable
    data = run.to_xarray()
    assert data["nc0"].values == pytest.approx(run.alpha)
    assert np.array_equal(data["step"], run.steps)
    assert np.array_equal(run.a, run.diagonal)
    assert np.array_equal(run.b, -run.off_diagonal)
    assert run.penalty.tolist() == [0.0] * 21


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"classes": 1}, r"simulate_symmetric.classes is 1; allowed: a whole number >= 2"),
        ({"classes": 2**53 + 1}, "<= 9007199254740992"),
        ({"classes": 2.5}, "classes is 2.5"),
        ({"steps": -1}, "steps is -1"),
        ({"steps": None}, "steps is None"),
        ({"start": (0.0,)}, "start is .*; allowed: two finite numbers"),
        ({"start": 0.0}, "two finite numbers"),
        ({"start": (0.0, np.nan)}, "start is nan; allowed: two finite numbers"),
        ({"reduction": "max"}, "reduction is 'max'; allowed: 'mean' or 'sum'"),
        ({"norm": "unit"}, "norm is 'unit'"),
        ({"norm": 0.0}, "norm is 0.0; allowed: 'frobenius', 'columns' or a finite number > 0"),
        ({"per_class": 0}, "per_class is 0"),
        ({"optimizer": 0.1}, "optimizer is 0.1"),
        ({"record": 3}, "record is 3"),
        ({"record": ufm.At([9])}, "At.at is 9"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, sentence):
    given = {"classes": 3, "optimizer": ufm.GD(0.1), "steps": 5} | arguments
    with pytest.raises(InvalidProblemError, match=sentence):
        ufm.simulate_symmetric(**given)


@pytest.mark.parametrize(
    ("optimizer", "decay", "sentence"),
    [
        (ufm.NormalisedGD(0.1), None, "NormalisedGD.*allowed: optimizers that treat each entry of W alone"),
        (ufm.Blockwise(lambda *a: None, 0.1), None, "Blockwise.*each entry of W alone"),
        (ufm.GD(0.1), ufm.Coupled(H=0.1), "Coupled.H is 0.1; allowed: trained blocks, W1"),
        (ufm.GD(0.1), 0.1, "decay is 0.1"),
    ],
)
def test_what_does_not_fit_together(optimizer, decay, sentence):
    with pytest.raises(IncompatibleError, match=sentence):
        ufm.simulate_symmetric(3, optimizer, decay, steps=5)


def test_divergence_keeps_the_records():
    with pytest.raises(
        DivergedError, match=r"GD.*diverged at step .*weights or logits are not finite"
    ) as caught:
        ufm.simulate_symmetric(3, ufm.GD(1.0), ufm.Decoupled(10.0), steps=1000, start=(1.0, 0.0))
    run = caught.value.trajectory
    assert isinstance(run, ufm.SymmetricTrajectory)
    assert run.status.name == "diverged"
    assert len(run) == run.status.step
    assert np.isfinite(run.diagonal).all()
    with pytest.raises(DivergedError) as caught:
        ufm.simulate_symmetric(3, ufm.GD(1.0), steps=10, start=(1e308, -1e308))
    assert caught.value.trajectory.steps.tolist() == [0]


def test_ctrl_c_keeps_the_records(monkeypatch):
    @contextmanager
    def bar(progress, total, start):
        yield lambda step: os.kill(os.getpid(), signal.SIGINT) if step >= 10_000 else None

    with monkeypatch.context() as patch:
        patch.setattr("ufm.reduced.progress_bar", bar)
        with pytest.raises(InterruptedRunError, match="interrupted at step") as caught:
            ufm.simulate_symmetric(3, ufm.Adam(1e-3), steps=10**6, record=ufm.Every(9_999))
    run = caught.value.trajectory
    assert 10_000 <= run.status.step < 10**6
    assert run.steps[-1] == run.status.step
    assert run.steps[:2].tolist() == [0, 9_999]
    again = ufm.simulate_symmetric(3, ufm.Adam(1e-3), steps=run.status.step, record=ufm.Every(9_999))
    assert np.array_equal(again.diagonal, run.diagonal)


def test_a_second_process_compiles_nothing(tmp_path, python):
    code = """
import ufm
from numba.core import event

with event.install_recorder("numba:compile") as recorder:
    run = ufm.simulate_symmetric(10**6, ufm.SignGD(1e-4), ufm.Coupled(1e-6), steps=100)
print(len(recorder.buffer), run.alpha[-1])
"""
    first, second = (python(code, {"UFM_CACHE_DIR": str(tmp_path)}).split() for _ in range(2))
    assert int(first[0]) > 0
    assert second == ["0", first[1]]


def test_progress_is_shown(capsys):
    ufm.simulate_symmetric(3, ufm.GD(0.1), steps=10, progress=True)
    assert "10" in capsys.readouterr().err
