"""The optimum with a decaying bias: printed table, both ends, no lower state, claims on runs, its explicit state."""

import itertools
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize

import ufm
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.solutions import linear_optimum
from ufm.solutions.mse_bias import biased_optimum
from ufm.theory import linear_mse
from ufm.theory import mse_bias as room

CLAIM = {claim.name: claim for claim in room.CLAIMS}["ufm.mse_bias_optimum"]
TABLE = {  # lam_b: loss, cosine; K = 4, n = 5, lam_W = 5e-3, lam_H = 2e-3
    0.0: (0.020913203, -1 / 3),
    0.02: (0.023364184, -1 / 3),
    0.05: (0.025884271, -0.1703),
    0.0604: (0.026228642, -0.1370),
    0.08: (0.026634271, -0.1001),
    0.3: (0.027550938, -0.0249),
    5.0: (0.027864271, -0.0015),
    1e4: (0.027884261, 0.0),
}


def setting(K=4, n=5, width=6, reduction="mean", W=5e-3, H=2e-3, b=0.08):
    """Problem and decay; rates are relative to an average over samples."""
    scale = K * n if reduction == "sum" else 1
    problem = ufm.UFM(K, width, n, loss=ufm.MSE(reduction), bias=True)
    return problem, ufm.Coupled(W=scale * W, H=scale * H, b=scale * b)


@pytest.mark.parametrize("bias", TABLE)
def test_table_of_losses_and_cosines(bias):
    found = room.optimum(4, 5, 2e-3, 5e-3, bias)
    loss, cosine = TABLE[bias]
    assert round(found.loss, 9) == loss
    assert found.cosine == pytest.approx(cosine, abs=5e-5)
    assert round(found.transition, 7) == 0.0291076
    assert (found.mean == 0) == (bias < found.transition)


def test_ends_of_the_family_are_the_optima_with_a_free_bias_and_without():
    for K, n, H, W in ((4, 5, 2e-3, 5e-3), (3, 1, 0.1, 0.02), (6, 7, 0.02, 0.03), (5, 4, 0.3, 0.3)):
        free = linear_mse.optimum(linear_mse.directions([n] * K, bias=True).squares, H, [W], samples=K * n)
        none = linear_mse.optimum([n] * K, H, [W])
        ends = [room.optimum(K, n, H, W, bias) for bias in (0.0, np.inf)]
        assert ends[0].loss == pytest.approx(free.loss, rel=1e-14)
        assert ends[1].loss == pytest.approx(none.loss, rel=1e-14)
        assert (ends[0].mean, ends[0].beta) == (0, 1 / K)
        assert ends[1].beta == 0
        assert ends[1].mean == ends[1].centred == pytest.approx(none.gains[0], abs=1e-15)
        assert room.optimum(K, n, H, W, 1e13).loss == pytest.approx(none.loss, rel=1e-11)


def test_everything_is_lost_under_strong_decay():
    found = room.optimum(3, 4, 0.4, 0.4, 0.5)
    assert (found.centred, found.mean, found.transition) == (0, 0, np.inf)
    assert found.beta == pytest.approx(1 / (3 * 1.5))
    assert np.isnan(found.cosine)
    assert found.loss == pytest.approx(0.5 - 0.5 / 3 / 1.5, rel=1e-14)


def test_soft_thresholding_over_any_bias_has_its_least_value_at_the_closed_form(rng):
    """F(b) = min over M by singular values of Y - b 1^T, minimised over K free entries of b: beta 1 and the loss."""
    for K, n, bias in ((3, 2, 0.05), (4, 1, 0.3), (4, 3, 4.0)):
        W, H = 0.02, 0.03
        kap, N = np.sqrt(W * H), K * n
        Y = np.repeat(np.eye(K), n, axis=1)

        def value(b, kap=kap, N=N, Y=Y, bias=bias):
            s = np.linalg.svd(Y - b[:, None], compute_uv=False)
            t = room.soft_threshold(s, N * kap)
            return np.sum((t - s) ** 2) / (2 * N) + kap * t.sum() + bias / 2 * b @ b

        best = room.optimum(K, n, H, W, bias)
        found = minimize(value, rng.standard_normal(K), method="BFGS", options={"gtol": 1e-9})
        assert found.fun == pytest.approx(best.loss, rel=1e-9)
        np.testing.assert_allclose(found.x, best.beta, atol=1e-5)
        assert value(np.full(K, best.beta)) == pytest.approx(best.loss, rel=1e-13)


# ------------------------------------------------------------------------------------------ the explicit state


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("K", "n", "width"), [(2, 1, 2), (4, 5, 6), (5, 2, 5)])
def test_explicit_state_has_the_value_of_the_closed_form_and_no_gradient(K, n, width, reduction):
    ranks = set()
    for bias in (0.0, 0.02, 0.05, 0.6, 50.0):
        problem, decay = setting(K, n, width, reduction, b=bias)
        found, best = biased_optimum(problem, decay), room.optimum(K, n, 2e-3, 5e-3, bias)
        scale = K * n if reduction == "sum" else 1
        assert found.loss == pytest.approx(scale * best.loss, rel=1e-13)
        assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-12)
        gradient = problem.gradient(found.blocks, decay)
        assert max(np.abs(gradient[name]).max() for name in problem.trained) < 1e-15 * scale * K
        W = found["W"]
        gram = best.centred_square * (np.eye(K) - 1 / K) + best.mean_square / K
        np.testing.assert_allclose(W @ W.T, gram, atol=1e-14)
        assert np.sum(W.sum(axis=0) ** 2) / K == pytest.approx(best.mean_square, abs=1e-14)  # NC0
        np.testing.assert_allclose(found["b"], best.beta, rtol=1e-15)
        assert np.linalg.matrix_rank(W) == found.rank == K - (best.mean == 0)
        ranks.add(found.rank)
    assert ranks == {K - 1, K}


def test_without_decay_of_the_bias_it_is_the_linear_optimum():
    problem, decay = setting(b=0.0)
    one, other = biased_optimum(problem, decay), linear_optimum(problem, decay)
    assert one.loss == pytest.approx(other.loss, rel=1e-14)
    assert one.rank == other.rank
    np.testing.assert_allclose(one["W"] @ one["H"], other["W"] @ other["H"], atol=1e-14)


def test_it_is_a_minimum_and_no_search_finds_less():
    for bias in (0.02, 0.3):
        problem, decay = setting(4, 2, 4, b=bias, W=0.02, H=0.02)
        state = biased_optimum(problem, decay)
        found = ufm.minimise(problem, decay, starts=3)
        assert found.loss == pytest.approx(state.loss, rel=1e-10)
        assert ufm.certify(problem, decay, state).verdict == "local minimum"


REFUSED = {
    "cross-entropy": (ufm.UFM(3, 4, bias=True), ufm.Coupled(0.1), "the loss is cross-entropy"),
    "no bias": (ufm.UFM(3, 4, loss="mse"), ufm.Coupled(0.1), "there is no bias"),
    "two layers": (ufm.DUFM(3, 4, 2, bias=True), ufm.Coupled(0.1), "there are 2 layers"),
    "unequal": (ufm.UFM(3, 4, (2, 1, 1), loss="mse", bias=True), ufm.Coupled(0.1), "classes have .2, 1, 1. samples"),
    "narrow": (ufm.UFM(3, 2, loss="mse", bias=True), ufm.Coupled(W=0.01, H=0.01, b=9.0), "the width is 2, and"),
    "no decay of H": (ufm.UFM(3, 4, loss="mse", bias=True), ufm.Coupled(W=0.1), "no coupled decay acts on H"),
    "frozen": (ufm.UFM(3, 4, loss="mse", bias=True, frozen={"b": [0.0] * 3}), ufm.Coupled(0.1), "b is frozen"),
    "decoupled": (ufm.UFM(3, 4, loss="mse", bias=True), ufm.Decoupled(0.1), "decay is Decoupled"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_other_problems_are_refused_in_one_sentence(case):
    problem, decay, words = REFUSED[case]
    with pytest.raises(IncompatibleError, match=f"biased_optimum: {words}.*allowed") as caught:
        biased_optimum(problem, decay)
    assert str(caught.value).count(". ") == 0
    if case != "decoupled":
        assert CLAIM.applies(ufm.run.Run(problem, ufm.GD(0.1), decay)) is not None
    problem = ufm.UFM(3, 4, loss="mse", bias=True)
    with pytest.raises(InvalidProblemError, match="coupled decay of W1 is 1e\\+200"):
        biased_optimum(problem, ufm.Coupled(W=1e200, H=0.1))


def test_extreme_rates_warn_of_nothing():
    """Any pair of rates gives a state or a sentence."""
    problem, built = ufm.UFM(3, 4, 2, loss="mse", bias=True), 0
    rates = (1e-300, 1e-150, 1e-3, 1e150, 1e300)
    for W, H, b in itertools.product(rates, rates, (0.0, 1e-310, 1e-3, 1e140)):
        decay = ufm.Coupled(W=W, H=H, b=b)
        assert CLAIM.applies(ufm.run.Run(problem, ufm.GD(0.1), decay)) is None
        try:
            found = biased_optimum(problem, decay)
        except InvalidProblemError:
            assert not {W, H} <= set(rates[1:4])
        else:
            assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-9, abs=1e-15)
            built += 1
    assert built == 36


# ------------------------------------------------------------------------------------------- claims about runs


@pytest.mark.parametrize(("bias", "reduction"), [(0.1, "mean"), (0.6, "mean"), (1.0, "sum")])
def test_no_record_lies_below_the_optimum_and_a_converged_run_tells_a_millionth(bias, reduction):
    problem, decay = setting(3, 2, 4, reduction, W=0.05, H=0.05, b=bias)
    lr = 0.5 / (6 if reduction == "sum" else 1)
    run = ufm.simulate(
        problem, ufm.GD(lr), decay, steps=4000, init=ufm.Gaussian(0.4), record=ufm.LogSpaced(50)
    )
    row = ufm.compare(run)["ufm.mse_bias_optimum"]
    assert row.verdict == "holds", row.reason
    assert row.control > 1e5
    assert run.loss[-1] == pytest.approx(biased_optimum(problem, decay).loss, rel=1e-8)
    assert (
        ufm.compare(run)["ufm.linear_mse_optimum"].verdict == "inconclusive"
    )  # the free bias is further below
    below = replace(run, penalty=run.penalty * (1 - 1e-4))
    assert ufm.compare(below)["ufm.mse_bias_optimum"].verdict == "fails"
    short = ufm.simulate(problem, ufm.GD(lr), decay, steps=5)
    assert ufm.compare(short)["ufm.mse_bias_optimum"].verdict == "inconclusive"


def test_cross_entropy_has_no_such_transition():
    """Below and above the rate at which squared error turns: bias 0 and a simplex ETF."""
    for bias in (0.02, 5.0):
        found = ufm.minimise(
            ufm.UFM(4, 5, 2, bias=True), ufm.Coupled(W=5e-3, H=2e-3, b=bias), starts=1, certificate=False
        )
        W, b = found.state["W"], found.state["b"]
        assert np.abs(b).max() < 1e-6
        unit = W / np.linalg.norm(W, axis=1)[:, None]
        np.testing.assert_allclose((unit @ unit.T)[~np.eye(4, dtype=bool)], -1 / 3, atol=1e-5)


def test_soft_threshold_in_mpmath_is_that_of_numpy():
    values = [3.0, 2.0, 1.0]
    found = [float(room.soft_threshold(mpmath.mpf(value), 2.0, mpmath)) for value in values]
    assert found == room.soft_threshold(np.array(values), 2.0).tolist() == [1.0, 0.0, 0.0]
