"""Every paper's objective, written out here in its own normalisation, against ours at the rates it maps to."""

import numpy as np
import pytest
from scipy.optimize import minimize

import ufm
from ufm.conventions import CONVENTIONS, convention, table
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.solutions import dnc, linear_optimum, simplex

K, n, d = 3, 2, 3
N = K * n
Y = np.kron(np.eye(K), np.ones((1, n)))
LAMBDAS = {"W": 0.013, "H": 0.0071, "b": 0.02}


def mean_cross_entropy(Z):
    top = Z.max(axis=0)
    return np.mean(top + np.log(np.exp(Z - top).sum(axis=0)) - (Z * Y).sum(axis=0))


def zhu2021(W, H, b, lam):
    fit = mean_cross_entropy(W @ H + b[:, None])
    return fit + lam["W"] / 2 * (W**2).sum() + lam["H"] / 2 * (H**2).sum() + lam["b"] / 2 * (b**2).sum()


def hong2023(W, H, b, lam):
    fit = mean_cross_entropy(W @ H + b[:, None])
    return fit + lam["W"] * (W**2).sum() + lam["H"] * (H**2).sum() + lam["b"] * (b**2).sum()


def tirer2022(W, H, b, lam):
    fit = ((W @ H + b[:, None] - Y) ** 2).sum() / (2 * K * n)
    return fit + lam["W"] / (2 * K) * (W**2).sum() + lam["H"] / (2 * K * n) * (H**2).sum()


def sukenik2024(W, H, b, lam):
    fit = ((W @ H + b[:, None] - Y) ** 2).sum() / (2 * N)
    return fit + lam["W"] / 2 * (W**2).sum() + lam["H"] / 2 * (H**2).sum()


def andriopoulos2024(W, H, b, lam):
    M = H.shape[1]
    fit = ((W @ H + b[:, None] - Y) ** 2).sum() / (2 * M)
    return fit + lam["H"] / (2 * M) * (H**2).sum() + lam["W"] / 2 * (W**2).sum()


PAPERS = {paper.__name__: paper for paper in (zhu2021, hong2023, tirer2022, sukenik2024, andriopoulos2024)}


def problem_of(name):
    loss = "ce" if convention(name).loss == "cross-entropy" else "mse"
    return ufm.UFM(K, d, n, loss=loss, bias=True)


def lambdas_of(name):
    return {block: value for block, value in LAMBDAS.items() if block != "b" or convention(name).bias}


def test_every_convention_is_written_out_here():
    assert set(PAPERS) == set(CONVENTIONS)


@pytest.mark.parametrize("name", PAPERS)
def test_objective_is_the_papers_at_any_state(name, rng):
    problem, lam = problem_of(name), lambdas_of(name)
    found = convention(name)
    for _ in range(3):
        state = {block: rng.standard_normal(shape) for block, shape in problem.shapes.items()}
        paper = PAPERS[name](state["W1"], state["H"], state["b"], LAMBDAS)
        assert paper == pytest.approx(problem.value(state, found.decay(problem, **lam)), rel=1e-13)
        assert found.value(problem, state, **lam) == pytest.approx(paper, rel=1e-13)
        wrong = {**lam, "H": lam["H"] * (1 + 1e-6)}
        assert abs(found.value(problem, state, **wrong) - paper) > 1e-12


@pytest.mark.parametrize("name", PAPERS)
def test_minimum_in_the_papers_normalisation_is_our_closed_form(name, rng):
    """L-BFGS on the paper's own formula, with numerical derivatives of numpy alone."""
    problem, lam, found = problem_of(name), lambdas_of(name), convention(name)
    decay = found.decay(problem, **lam)
    best = (simplex if found.loss == "cross-entropy" else linear_optimum)(problem, decay)
    assert best.optimum

    def of(theta):
        W, H, b = np.split(theta, [K * d, K * d + d * N])
        return PAPERS[name](W.reshape(K, d), H.reshape(d, N), b, LAMBDAS)

    start = 0.5 * rng.standard_normal(K * d + d * N + K)
    options = {"ftol": 0.0, "gtol": 1e-7, "maxfun": 10**6, "maxiter": 3000}
    end = minimize(of, start, jac="3-point", method="L-BFGS-B", options=options)
    assert end.fun == pytest.approx(best.loss, rel=1e-9)


@pytest.mark.parametrize("name", PAPERS)
def test_there_and_back(name):
    problem, lam, found = problem_of(name), lambdas_of(name), convention(name)
    back = found.parameters(problem, found.decay(problem, **lam))
    assert back == pytest.approx(
        {"W1": lam["W"], **{block: lam[block] for block in lam if block != "W"}}, rel=1e-15
    )


def test_closed_forms_of_the_papers():
    """Tirer and Bruna: c - c^2/2, c = sqrt(lam_W lam_H). Hong and Ling: kappa from 2 lam. Sukenik: a printed loss."""
    mse = ufm.UFM(K, d, n, loss="mse")
    tirer = convention("tirer2022").decay(mse, W=0.1, H=0.2)
    c = np.sqrt(0.1 * 0.2)
    assert linear_optimum(mse, tirer).loss == pytest.approx(c - c**2 / 2, rel=1e-14)
    hong = simplex(ufm.UFM(K, d, n), convention("hong2023").decay(ufm.UFM(K, d, n), W=0.01, H=0.02))
    kappa = 2 * np.sqrt(n * 0.01 * 0.02)
    m = np.log(1 / kappa - (K - 1))
    assert hong.loss == pytest.approx(np.log1p((K - 1) * np.exp(-m)) + (K - 1) * kappa * m, rel=1e-14)
    deep = ufm.DUFM(10, 30, 4)
    rates = dict.fromkeys(("W1", "W2", "W3", "W", "H"), 0.004)
    assert round(dnc(deep, convention("sukenik2024").decay(deep, **rates)).loss, 8) == 0.09917987


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: convention("zhu2022"), r"convention\.name is 'zhu2022'"),
        (lambda p: convention("tirer2022").decay(p, W=0.1), "allowed: MSE, averaged"),
        (lambda p: convention("zhu2021").decay(p, W=-0.1), "lambda of W1 is -0.1"),
        (lambda p: convention("zhu2021").decay(p, W=0.1, W1=0.1), "the same block"),
        (lambda p: convention("zhu2021").decay(p, W3=0.1), "Coupled.W3"),
        (lambda p: convention("zhu2021").parameters(p, ufm.Decoupled(0.1)), "decay is Decoupled"),
        (
            lambda p: convention("sukenik2024").decay(ufm.UFM(2, 2, loss="mse", bias=True), b=0.1),
            "no such term",
        ),
    ],
)
def test_bad_input_gets_a_sentence(call, words):
    with pytest.raises((InvalidProblemError, IncompatibleError), match=words):
        call(ufm.UFM(3, 4))


def test_table_has_a_line_for_every_convention():
    lines = table().splitlines()
    assert len(lines) == 2 + len(CONVENTIONS)
    assert all(line.count(" | ") == lines[0].count(" | ") for line in lines[2:])


def test_rates_without_a_problem_are_one_sentence():
    with pytest.raises(
        InvalidProblemError, match=r"zhu2021: problem is 0.0005; allowed: a problem, then rates by block"
    ):
        convention("zhu2021").decay(5e-4)
