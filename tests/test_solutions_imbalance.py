"""Unequal classes under cross-entropy: the certified optimum and the SELI geometry as states."""

import numpy as np
import pytest

import ufm
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.solutions.imbalance import imbalanced_optimum
from ufm.solutions.interpolating import seli

SIZES = (10, 10, 2, 2, 5)
DECAYS = {False: ufm.Coupled(W=0.02, H=0.05), True: ufm.Coupled(W=0.02, H=0.05, b=0.01)}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_optimum_is_critical_balanced_and_as_good_as_minimisation_finds(bias, factor):
    problem = ufm.UFM(5, 6, per_class=SIZES, bias=bias)
    rates = {name: factor * rate for name, rate in dict(DECAYS[bias].blocks).items()}
    decay = ufm.Coupled(**rates)
    found = imbalanced_optimum(problem, decay)
    assert problem.value(found.blocks, decay) == pytest.approx(found.loss, abs=1e-14)
    gradient = problem.gradient(found.blocks, decay)
    assert max(np.abs(gradient[name]).max() for name in gradient) < 1e-9
    W, H = found["W"], found["H"]
    np.testing.assert_allclose(rates["W"] * W.T @ W, rates["H"] * H @ H.T, atol=1e-13)
    assert np.linalg.matrix_rank(W @ H, tol=1e-8) == found.rank
    assert ufm.certify(problem, decay, found).verdict == "local minimum"
    reached = ufm.minimise(problem, decay, starts=1, tolerance=1e-11, certificate=False)
    assert -1e-13 < reached.loss - found.loss < 1e-9


def test_merged_classes_share_their_logits():
    problem = ufm.UFM(5, 5, per_class=SIZES)
    found = imbalanced_optimum(problem, ufm.Coupled(0.05))  # 2 < (0.05 * 29)^2 < 5
    Z = found["W"] @ found["H"]
    np.testing.assert_allclose(Z[:, 20], Z[:, 22], atol=1e-14)
    assert np.abs(Z[:, 0] - Z[:, 10]).max() > 0.1
    run = ufm.simulate(problem, ufm.GD(0.5), ufm.Coupled(0.05), steps=20, init=found.start)
    assert np.ptp(run.loss) < 1e-13


@pytest.mark.parametrize("decay", [None, ufm.Coupled(1e-3), ufm.Coupled(W=1e-5, H=1e-2)])
def test_seli_has_equal_margins_and_its_gram_matrices(decay):
    problem = ufm.UFM(5, 4, per_class=SIZES)
    found = seli(problem, decay)
    assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-13)
    Z = found["W"] @ found["H"]
    margins = Z[problem.labels, np.arange(29)] - Z
    scale = margins.max()
    np.testing.assert_allclose(margins[np.arange(5)[:, None] != problem.labels], scale, rtol=1e-12)
    if decay is None:
        from ufm.theory.seli import geometry

        assert scale == pytest.approx(1, rel=1e-12)
        np.testing.assert_allclose(found["W"] @ found["W"].T, geometry(SIZES).classifiers, atol=1e-13)
        norms = [float((found[name] ** 2).sum()) for name in ("W", "H")]
        np.testing.assert_allclose(norms, geometry(SIZES).norm, rtol=1e-13)
    else:
        assert imbalanced_optimum(problem, decay).loss < found.loss


def test_seli_is_the_optimum_of_equal_classes_and_else_not_stationary():
    decay = ufm.Coupled(1e-3)
    equal, unequal = ufm.UFM(4, 4, per_class=6), ufm.UFM(4, 4, per_class=(20, 20, 2, 2))
    assert seli(equal, decay).loss == pytest.approx(imbalanced_optimum(equal, decay).loss, abs=1e-14)
    sizes = [
        max(np.abs(problem.gradient(seli(problem, decay).blocks, decay)[name]).max() for name in ("W", "H"))
        for problem in (equal, unequal)
    ]
    assert sizes[0] < 1e-15
    assert sizes[1] > 1e-4


@pytest.mark.parametrize("build", [imbalanced_optimum, seli])
def test_other_problems_are_refused_in_one_sentence(build):
    problem = ufm.UFM(5, 5, per_class=SIZES)
    with pytest.raises(IncompatibleError, match="no coupled decay acts on H"):
        build(problem, ufm.Coupled(0.0))
    with pytest.raises(IncompatibleError, match="2 layers of weights"):
        build(ufm.DUFM(5, 5, 2, per_class=SIZES), ufm.Coupled(0.01))
    with pytest.raises(IncompatibleError, match="the loss is MSE"):
        build(ufm.UFM(5, 5, per_class=SIZES, loss="mse"), ufm.Coupled(0.01))
    with pytest.raises(IncompatibleError, match="decoupled decay"):
        build(problem, ufm.Mixed(0.01, 0.01))
    with pytest.raises(InvalidProblemError, match=r"width is 3; allowed: at least"):
        build(ufm.UFM(5, 3, per_class=SIZES), ufm.Coupled(1e-3))


def test_seli_needs_a_margin_and_no_bias():
    with pytest.raises(InvalidProblemError, match="else the best margin is 0"):
        seli(ufm.UFM(5, 5, per_class=SIZES), ufm.Coupled(1.0))
    with pytest.raises(IncompatibleError, match="the problem has a bias"):
        seli(ufm.UFM(5, 5, per_class=SIZES, bias=True), ufm.Coupled(0.01))
