"""Balancedness of adjacent layers: the law at every recorded step, its bound, and the runs it does not cover."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import ufm
from ufm.compare import judge
from ufm.losses import CrossEntropy
from ufm.run import Run
from ufm.theory import balancedness as room

LAW = {claim.name: claim for claim in room.CLAIMS}["ufm.balancedness"]
PROBLEMS = {
    "cross-entropy": (ufm.UFM(4, 6, 3), ufm.Coupled(5e-3)),
    "squared error, bias, decoupled": (ufm.UFM(4, 6, 3, loss="mse", bias=True), ufm.Decoupled(5e-3)),
    "both decays": (ufm.UFM(4, 3, (3, 1, 1, 1)), ufm.Mixed(1e-2, 2e-2)),
    "no decay, smoothed, a sum": (
        ufm.UFM(4, 6, 2, loss=CrossEntropy(smoothing=0.1, reduction="sum")), None,
    ),
    "three layers": (ufm.DUFM(4, (6, 5, 4), 3, activation="identity"), ufm.Coupled(5e-3)),
    "a pair of three layers": (
        ufm.DUFM(4, (6, 5, 4), 3, activation="identity", loss="ce"), ufm.Coupled(H=0.1, W1=0.01, W2=0.01),
    ),
}  # fmt: skip


def run_of(case, **options):
    problem, decay = PROBLEMS[case]
    options = {"steps": 150, "init": ufm.Gaussian(0.5), **options}
    return ufm.simulate(problem, options.pop("optimizer", ufm.GD(0.1)), decay, **options)


@pytest.mark.parametrize("case", PROBLEMS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_law_holds_from_step_to_step(case, dtype):
    row = judge(LAW, run_of(case, dtype=dtype).judged())
    assert row.verdict == "holds", row.reason
    assert row.ratio < 0.5
    assert row.control > (1e6 if dtype == "float64" else 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decay": ufm.Coupled(5e-3 * (1 + 1e-6))},
        {"decay": None},
        {"optimizer": ufm.GD(0.1 * (1 + 1e-6))},
    ],
)
def test_a_wrong_description_fails(wrong):
    run = run_of("cross-entropy")
    assert judge(LAW, replace(run, run=replace(run.run, **wrong)).judged()).verdict == "fails"


def test_probabilities_are_off_by_themselves_at_most():
    """Logits of 1e17 are off by more than 1: the error of p is p, and two roundings of p - y."""
    problem, eps = ufm.UFM(2, 1), 2.0**-52
    run = ufm.simulate(problem, ufm.GD(0.1), steps=0).judged()
    state = {"W1": np.array([[1e17], [-1e17]]), "H": np.array([[1.0, -1.0]])}
    gradients, errors = room._gradients(run, state)
    assert not gradients["W1"].any()  # p = y
    np.testing.assert_allclose(errors["W1"], np.full((2, 1), (1 + 4 * eps) / 2), rtol=1e-15)
    np.testing.assert_allclose(errors["H"], np.full((1, 2), 1e17 * (1 + 4 * eps) / 2), rtol=1e-15)


@pytest.mark.parametrize("decay", [ufm.Coupled(1e6), ufm.Decoupled(1e6)])
def test_a_shrink_far_above_one_rounds_more(decay):
    """eta lam = 1000 in single precision: what is rounded is eta lam B, not B."""
    run = ufm.simulate(
        ufm.UFM(3, 4, 3),
        ufm.GD(1e-3),
        decay,
        steps=1,
        init=ufm.Gaussian(0.5),
        dtype="float32",
        record=ufm.Every(1),
    )
    assert judge(LAW, run.judged()).ratio < 1


def test_a_tampered_state_fails():
    run = run_of("cross-entropy", steps=50)
    states = run.states.copy()
    states[20, 3] += 1e-9
    row = judge(LAW, replace(run, states=states).judged())
    assert row.verdict == "fails"
    assert "times what round-off can do" in row.reason


def test_schedules_use_the_rate_of_each_step():
    row = judge(LAW, run_of("cross-entropy", optimizer=ufm.GD(ufm.Cosine(0.3))).judged())
    assert row.verdict == "holds"


def test_records_further_apart_are_not_judged():
    every = run_of("cross-entropy", record=ufm.Every(2))
    row = judge(LAW, every.judged())
    assert row.verdict == "inconclusive"
    assert "not defined at any record" in row.reason
    spaced = judge(LAW, run_of("cross-entropy", steps=5000, record=ufm.LogSpaced(40)).judged())
    assert spaced.verdict == "holds"
    assert "records were judged" in spaced.reason


def test_flow_conserves_and_decay_shrinks():
    """To first order: half the step, half the drift of D over the same time; with decay D falls like e^(-2 lam t)."""
    problem = ufm.UFM(4, 6, 2)

    def ends(lr, decay):
        run = ufm.simulate(problem, ufm.GD(lr), decay, steps=round(20 / lr), init=ufm.Gaussian(0.5), seed=1)
        return [room.imbalance(run["W"][i], run.features()[i]) for i in (0, -1)]

    drift = [np.abs(end - start).max() for start, end in (ends(lr, None) for lr in (0.02, 0.01))]
    assert drift[0] / drift[1] == pytest.approx(2, rel=0.02)
    start, end = ends(0.01, ufm.Coupled(0.05))
    assert np.abs(end - np.exp(-2 * 0.05 * 20) * start).max() < 0.02 * np.abs(start).max()


def test_critical_points_are_balanced():
    decay = ufm.Coupled(W=8e-3, H=3e-3)
    least = ufm.minimise(ufm.UFM(4, 5, (3, 2, 1, 1)), decay, starts=1, certificate=False, progress=False)
    W, H = least.state["W"], least.state["H"]
    np.testing.assert_allclose(8e-3 * W.T @ W, 3e-3 * H @ H.T, atol=1e-8)


@pytest.mark.parametrize(
    ("problem", "optimizer", "decay", "words"),
    [
        (ufm.UFM(3, 4), ufm.Momentum(0.1, 0.9), None, "the optimizer is Momentum"),
        (ufm.UFM(3, 4), ufm.GD(0.1), ufm.Coupled(W=0.1, H=0.01), "no two adjacent blocks"),
        (ufm.UFM(3, 4, classifier=ufm.SimplexETF()), ufm.GD(0.1), None, "no two adjacent blocks"),
        (ufm.DUFM(3, 4, 2), ufm.GD(0.1), None, "ReLU"),
        (ufm.UFM(3, 4), ufm.GD(0.1), ufm.Mixed(0.1, 0.1, shrink="after"), "follows the step"),
    ],
)
def test_hypotheses(problem, optimizer, decay, words):
    assert words in ufm.claims.applicable(problem, optimizer, decay)["ufm.balancedness"]


def test_mini_batches_are_not_judged():
    assert "mini-batches of 2" in LAW.applies(Run(ufm.UFM(4, 6, 3), ufm.GD(0.1), steps=3, batch=2))
    assert LAW.applies(Run(ufm.UFM(4, 6, 3), ufm.GD(0.1), steps=3, batch=12)) is None


def test_a_run_that_diverges_is_judged_as_far_as_float64_goes():
    run = ufm.simulate(ufm.UFM(4, 6, 3), ufm.GD(1e3), ufm.Coupled(1.0), steps=300, throw=False)
    assert run.status.name == "diverged"
    assert judge(LAW, run.judged()).verdict != "fails"


def test_error_of_a_step_term_by_term():
    """U = 2 -> 1.5 with slope 0.5 known to 0.01, V = 3 -> 4 with slope 1 known to 0.02, eta = 0.5, lam = 1/4."""
    eps, lr, decay = 2.0**-52, 0.5, 0.25
    blocks = [
        {"U": np.array([[u]]), "V": np.array([[v]])} for u, v in ((2, 3), (1.5, 4), (0.5, 1), (0.01, 0.02))
    ]
    expected = 0.0
    for before, after, slope, error in ((2, 1.5, 0.5, 0.01), (3, 4, 1, 0.02)):
        off = 8 * eps * ((1 + lr * decay) * before + lr * slope) + lr * error
        expected += 2 * off * after + off**2 + lr**2 * 2 * error * slope
        expected += 9 * eps * (before**2 + after**2 + lr**2 * slope**2)
    found = room._rounding(SimpleNamespace(dtype="float64"), *blocks, ("U", "V"), lr, decay)
    assert found == pytest.approx(expected, rel=1e-15, abs=0)
    exact = [*blocks[:3], {name: 0 * error for name, error in blocks[3].items()}]
    terms = [(2.5, 1.5, 2, 0.5), (3.875, 4, 3, 1)]
    expected = sum(16 * eps * of * a + 9 * eps * (b**2 + a**2 + (lr * g) ** 2) for of, a, b, g in terms)
    found = room._rounding(SimpleNamespace(dtype="float64"), *exact, ("U", "V"), lr, decay)
    assert found == pytest.approx(expected, rel=1e-14, abs=0)
