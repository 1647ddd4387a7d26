"""The optimum of linear chains: printed examples, Dang's root, the window of the public code, claims on runs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import brentq

import ufm
from ufm.solutions import dnc, linear_optimum, zero
from ufm.theory import linear_mse as room
from ufm.theory.deep_collapse import existence_limit, zero_limit
from ufm.theory.linear_mse import (
    dang_constant,
    dang_curve,
    dang_gain,
    directions,
    optimum,
    tirer_bruna_gain,
    tirer_bruna_loss,
)

CLAIM = {claim.name: claim for claim in room.CLAIMS}["ufm.linear_mse_optimum"]


def of_sizes(sizes, lam, depth, **options):
    return optimum(sizes, lam, [lam] * depth, **options)


def test_printed_examples():
    found = of_sizes([40, 20, 10, 10], 1e-3, 3)
    assert found.gains.round(6).tolist() == [0.994958, 0.991505, 0.985671, 0.985671]
    assert round(found.loss, 12) == 0.016331532667
    assert round(of_sizes([40, 20, 10, 4], 3e-3, 3).loss, 12) == 0.046523157198
    unequal = {1: 0.018942136, 3: 0.012218400, 6: 0.013220353}
    equal = {1: 0.0198, 3: 0.012629047, 6: 0.013507408, 9: 0.015843895}
    for depth, loss in unequal.items():
        assert round(of_sizes([200, 100, 50, 50], 5e-4, depth).loss, 9) == loss
    for depth, loss in equal.items():
        assert round(of_sizes([100] * 4, 5e-4, depth).loss, 9) == loss


@pytest.mark.parametrize("depth", [1, 2, 3, 6])
def test_gain_is_the_largest_root_of_the_public_code(depth):
    sizes, lam = np.array([40.0, 20.0, 10.0, 10.0]), 1e-3
    N, found = sizes.sum(), of_sizes(sizes, lam, depth)
    b = dang_constant(depth, N, lam, lam)
    peak = ((depth - 1) / (depth + 1)) ** (1 / depth)
    for n, gain in zip(sizes, found.gains, strict=True):
        x = brentq(lambda x, n=n: dang_curve(x, depth) - b / n, peak, 1e6, xtol=1e-300, rtol=1e-15)
        assert dang_gain(x, depth) == pytest.approx(gain, rel=1e-12)


def test_small_classes_are_lost_first():
    found = of_sizes([40, 20, 2, 1], 0.02, 2)
    assert (found.gains > 0).tolist() == [True, True, False, False]
    one = of_sizes([40, 20, 10, 10], 0.06, 1)
    assert ((one.gains > 0) == (np.array([40, 20, 10, 10]) > 80**2 * 0.06**2)).all()
    for n, gain in zip((200, 100, 50, 50), of_sizes([200, 100, 50, 50], 5e-3, 1).gains, strict=True):
        assert gain == pytest.approx(1 - 400 * 5e-3 / np.sqrt(n), rel=1e-14)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_window_in_which_the_public_code_predicts_what_is_worse_than_zero(depth):
    """Between the two limits the untested root has an objective above 1/2, as its explicit state shows."""
    K = 4
    problem = ufm.DUFM(K, 5, depth, activation="identity")
    seen = 0
    for share in (-0.1, 0.1, 0.5, 0.9, 1.1):
        strength = zero_limit(depth) + share * (existence_limit(depth) - zero_limit(depth))
        lam = float(strength / K)
        tested, untested = (of_sizes([1] * K, lam, depth, tested=test) for test in (True, False))
        if share < 0:
            assert tested.loss == untested.loss < 0.5
        elif share > 1:  # no root at all, where the public code fails
            assert tested.loss == untested.loss == 0.5
        else:
            seen += 1
            assert (untested.gains > 0).all()
            assert not tested.gains.any()
            decay = ufm.Coupled(lam)
            state = dnc(problem, decay)
            assert problem.value(state.blocks, decay) == pytest.approx(untested.loss, rel=1e-13)
            assert untested.loss > tested.loss * (1 + 1e-4) == zero(problem, decay).loss * (1 + 1e-4)
            assert linear_optimum(problem, decay).rank == 0
    assert seen == 3
    # one small class in the window, the others outside it
    mixed = [of_sizes([60, 20, 5], 0.0125, 3, tested=test) for test in (True, False)]
    assert (mixed[0].gains > 0).tolist() == [True, True, False]
    assert (mixed[1].gains > 0).all()
    assert mixed[0].loss < mixed[1].loss


def test_bias_keeps_the_gain_of_equal_classes_and_saves_one_direction():
    for K, depth in ((3, 1), (4, 3), (7, 2)):
        plain = of_sizes([5] * K, 3e-3, depth)
        centred = directions([5] * K, bias=True)
        biased = of_sizes(centred.squares, 3e-3, depth, samples=5 * K)
        np.testing.assert_allclose(biased.gains, plain.gains[1:], rtol=1e-13)
        assert biased.loss == pytest.approx((K - 1) / K * plain.loss, rel=1e-13)
        np.testing.assert_allclose(centred.vectors @ centred.vectors.T, np.eye(K) - 1 / K, atol=1e-14)


def test_tirer_and_bruna_is_one_layer():
    K, n = 5, 7
    for lam_W, lam_H in ((0.1, 0.3), (0.005, 0.005), (1.2, 0.9)):
        W, H = room.tirer_bruna_decays(lam_W, lam_H, K, n)
        found = optimum([n] * K, H, [W])
        assert found.gains[0] == pytest.approx(max(0.0, tirer_bruna_gain(lam_W, lam_H)), rel=1e-14)
        assert found.loss == pytest.approx(
            tirer_bruna_loss(lam_W, lam_H) if lam_W * lam_H < 1 else 0.5, rel=1e-13
        )


def test_the_two_inequalities_behind_the_optimum_at_random_matrices(rng):
    worst = 0.0
    for _ in range(200):
        factors = [rng.standard_normal(shape) for shape in ((3, 5), (5, 4), (4, 4), (4, 6))]
        lam = 10 ** rng.uniform(-2, 1, 4)
        s = np.linalg.svd(np.linalg.multi_dot(factors), compute_uv=False)
        least = 2 * np.prod(lam) ** 0.25 * np.sum(s**0.5)  # (L+1)/2 ... s^(2/(L+1)) at L = 3
        decay = sum(rate / 2 * np.sum(A**2) for rate, A in zip(lam, factors, strict=True))
        worst = max(worst, least / decay)
        Y, Z = rng.standard_normal((2, 3, 6))
        gap = np.linalg.svd(Z, compute_uv=False) - np.linalg.svd(Y, compute_uv=False)
        assert np.sum((Z - Y) ** 2) >= np.sum(gap**2)
    assert 0.1 < worst < 1


# --------------------------------------------------------------------------------------------- claims about runs

CHAINS = {
    "equal classes": (ufm.DUFM(3, 5, 3, per_class=2, activation="identity"), ufm.Coupled(0.01)),
    "unequal classes, one layer": (ufm.UFM(4, 5, per_class=[4, 3, 2, 1], loss="mse"), ufm.Coupled(0.02)),
    "bias": (
        ufm.DUFM(3, 4, 2, per_class=[3, 2, 1], activation="identity", bias=True),
        ufm.Coupled(H=0.01, W1=0.02, W2=0.02),
    ),
    "narrow": (ufm.DUFM(4, [6, 2], 2, per_class=[4, 3, 2, 1], activation="identity"), ufm.Coupled(0.01)),
    "summed": (ufm.DUFM(3, 4, 2, activation="identity", loss=ufm.MSE("sum")), ufm.Coupled(0.03)),
}


@pytest.mark.parametrize("case", CHAINS)
def test_no_record_lies_below_the_optimum_and_a_converged_run_tells_a_millionth(case):
    problem, decay = CHAINS[case]
    run = ufm.simulate(
        problem, ufm.GD(0.3), decay, init=ufm.Gaussian(0.4), steps=4000, record=ufm.LogSpaced(60), seed=2
    )
    row = ufm.compare(run)["ufm.linear_mse_optimum"]
    assert row.verdict == "holds", row.reason
    assert row.control > 1e5
    least = linear_optimum(problem, decay).loss
    assert run.loss[-1] == pytest.approx(least, rel=1e-7)
    np.testing.assert_array_equal(row.prediction.predicted, np.maximum(run.loss, least))
    assert row.prediction.bound.max() < 1e-10
    below = replace(run, penalty=run.penalty * (1 - 1e-4))
    assert ufm.compare(below)["ufm.linear_mse_optimum"].verdict == "fails"


def test_the_bound_covers_single_precision_other_optimizers_and_batches():
    problem, decay = CHAINS["equal classes"]
    for options in ({"dtype": "float32"}, {"batch": 2}):
        run = ufm.simulate(problem, ufm.Adam(0.01), decay, steps=1500, record=ufm.LogSpaced(40), **options)
        row = ufm.compare(run)["ufm.linear_mse_optimum"]
        assert row.verdict in ("holds", "inconclusive")
        assert row.ratio <= 1
    short = ufm.simulate(problem, ufm.GD(0.1), decay, steps=3)
    assert ufm.compare(short)["ufm.linear_mse_optimum"].verdict == "inconclusive"
    wild = ufm.simulate(problem, ufm.GD(50.0), decay, steps=200, throw=False)
    assert wild.status.name == "diverged"
    assert ufm.compare(wild).ok


def test_round_off_at_the_optimum_itself_is_covered_and_needed():
    """Rounded to single precision the optimum comes out below the closed form; summed errors are N times averaged."""
    below, bounds = 0, []
    for n in (1, 2, 3, 50):
        for reduction in ("mean", "sum"):
            problem = ufm.DUFM(3, 5, 3, per_class=n, activation="identity", loss=ufm.MSE(reduction))
            decay = ufm.Coupled(1e-2 * (3 * n if reduction == "sum" else 1))
            start = linear_optimum(problem, decay).start
            run = ufm.simulate(problem, ufm.GD(1e-12), decay, steps=1, init=start, dtype="float32")
            found = CLAIM.predict(run.judged())
            assert found.ratio <= 1
            below += found.error.max() > 0
            bounds.append(found.bound[0])
    assert below >= 2
    np.testing.assert_allclose(bounds[1::2], np.array([3, 6, 9, 150]) * bounds[::2], rtol=1e-4)


def test_claim_says_which_hypothesis_fails():
    cases = {
        "the activation is relu": (ufm.DUFM(3, 4, 2), ufm.Coupled(0.1)),
        "the loss is cross-entropy": (ufm.UFM(3, 4), ufm.Coupled(0.1)),
        "no coupled decay acts on H": (ufm.UFM(3, 4, loss="mse"), ufm.Coupled(W=0.1)),
        "H is frozen": (ufm.UFM(3, 4, loss="mse", features=ufm.SimplexETF()), ufm.Coupled(0.1)),
    }
    for words, (problem, decay) in cases.items():
        assert CLAIM.applies(ufm.run.Run(problem, ufm.GD(0.1), decay)).startswith(words)


def test_error_of_the_recorded_objective_term_by_term():
    """Two classes, one feature: m = 1 + 1 + 2 terms, P = |W| |H|, sums of squares of 4 + 4 numbers and 2 more."""
    from ufm.theory._lower_bound import objective_error

    eps = 2.0**-52
    blocks = {"W": np.array([[1.0], [0.0]]), "H": np.array([[1.0, 1.0]])}
    states = (({name: 0 * block for name, block in blocks.items()}, 0.5, 0.0), (blocks, 0.5, 4 * eps))
    for state, fit, in_logits in states:
        traj = ufm.simulate(ufm.UFM(2, 1, loss="mse"), ufm.GD(0.1), steps=0, init=ufm.Given(**state))
        assert traj.loss[0] == fit
        in_fit = (
            in_logits + 2 * in_logits**2 / 2
        ) / 2  # one logit is off its target where P = 1, two have P = 1
        sums = eps * (4 + 4 + 2) * fit
        assert objective_error(traj.judged(), np.array([0])) == pytest.approx(
            [in_fit + sums], rel=1e-12, abs=0
        )
