"""The evaluator against the proved closed form at 60 digits, the round-off bound, and the claims'
hypotheses."""

import math
from dataclasses import replace
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

import ufm
from ufm.errors import InvalidProblemError
from ufm.theory import _recorded, row_sum
from ufm.theory._recorded import exact_row_sum, running_maximum
from ufm.theory.row_sum import growth, log_growth, log_nc0, nc0, recursion_matrix, round_off_bound

EPS = 2.0**-52
CLAIMS = {claim.name: claim for claim in row_sum.CLAIMS}


# ------------------------------------------------------------------------------------- evaluator


def random_settings(count: int) -> dict[str, np.ndarray]:
    """Parameters of all regimes: slow, fast, oscillating, growing, negative roots, beside the double root."""
    rng = np.random.default_rng(20260216)
    t = np.floor(10 ** rng.uniform(0, 7, count)).astype(np.int64)
    beta = np.where(rng.random(count) < 0.5, rng.random(count), 1 - 10 ** rng.uniform(-7, 0, count))
    beta[rng.random(count) < 0.1] = 0.0
    lr = 10 ** rng.uniform(-4, 1, count)
    x = 10 ** rng.uniform(-12, 0.7, count)
    by_one = rng.random(count) < 0.1  # eta lam next to 1
    x[by_one] = 1 + rng.choice([-1, 1], by_one.sum()) * 10 ** rng.uniform(-8, -1, by_one.sum())
    lam, kind, nesterov = x / lr, rng.integers(0, 4, count), rng.random(count) < 0.4
    coupled = np.where(kind == 0, 0.0, lam)
    decoupled = np.where(kind == 0, lam, np.where(kind == 1, lam * rng.random(count), 0.0))
    s = np.sqrt(lr * coupled)
    double = np.where(nesterov, (1 - s) / (1 + s), (1 - s) ** 2)
    double *= 1 + rng.choice([-1, 0, 1], count) * 10 ** rng.uniform(-16, -3, count)
    beside = (kind == 3) & (double >= 0) & (double < 1)
    beta = np.where(beside, double, beta)
    return {"t": t, "lr": lr, "beta": beta, "coupled": coupled, "decoupled": decoupled, "nesterov": nesterov}


def exact_growth(
    t: int, lr: float, beta: float, coupled: float, decoupled: float, nesterov: bool
) -> mpmath.mpf:
    """The proved closed form at the working precision of mpmath."""
    exact = [mpmath.mpf(float(value)) for value in (lr, beta, coupled, decoupled)]
    if not coupled:  # the roots form would cancel the whole of beta^t
        return row_sum.theorem_3_1(int(t), exact[0], exact[3])
    try:
        return mpmath.re(row_sum.growth_closed_form(int(t), *exact, nesterov, xp=mpmath))
    except ZeroDivisionError:
        return row_sum.growth_double_root(int(t), *exact, nesterov)


def kappa_and_largest_entry(t: int, lr: float, beta: float, coupled: float, decoupled: float, nesterov: bool):
    """kappa of the error model, and the largest entry of the t-step matrix with q in units of m/eta."""
    M = mpmath.matrix(
        recursion_matrix(*map(mpmath.mpf, (lr, beta if coupled else 0, coupled, decoupled)), nesterov)
    )
    unit = mpmath.mpf(2) ** round(float(mpmath.log(lr, 2)))
    M[0, 1], M[1, 0] = M[0, 1] / unit, M[1, 0] * unit
    radius = max(abs(root) for root in row_sum.roots(M[0, 0] + M[1, 1], mpmath.det(M), xp=mpmath))
    kappa = max(1.0, float(max(abs(entry) for entry in M) / radius)) if radius else 1.0
    return kappa, max(abs(entry) for entry in M ** int(t))


def test_evaluator_equals_closed_form_within_its_error_model() -> None:
    """10^4 parameter sets, t log-uniform to 10^7: growth where it is a float64, log_growth everywhere."""
    cases = random_settings(10_000)
    sign, log, g = (np.empty(len(cases["t"])) for _ in range(3))
    for nesterov in (False, True):
        part = cases["nesterov"] == nesterov
        arguments = [cases[name][part] for name in ("t", "lr", "beta", "coupled", "decoupled")]
        sign[part], log[part] = log_growth(*arguments, nesterov)
        g[part] = growth(*arguments, nesterov)
    worst_g = worst_log = 0.0
    far_below = negative = 0
    with mpmath.workdps(60):
        for i in range(len(g)):
            case = [cases[name][i].item() for name in ("t", "lr", "beta", "coupled", "decoupled", "nesterov")]
            exact = exact_growth(*case)
            kappa, largest = kappa_and_largest_entry(*case)
            spread = mpmath.mpf(2) ** -92 * (1 + mpmath.mpf(kappa) * case[0]) ** 2 * largest
            assert sign[i] == mpmath.sign(exact)
            exact_log = mpmath.log(abs(exact))
            allowed = 2 * EPS * abs(exact_log) + spread / abs(exact)
            worst_log = max(worst_log, float(abs(log[i] - exact_log) / allowed))
            far_below += exact_log < -700
            negative += exact < 0
            if -700 < exact_log < 700:
                worst_g = max(worst_g, float(abs(g[i] - exact) / (EPS * abs(exact) + spread)))
    assert worst_g <= 1
    assert worst_log <= 1
    assert far_below > 500
    assert negative > 500


def test_what_is_not_given_does_not_act() -> None:
    """No momentum, no decay, heavy ball: (1 - eta lam)^t and 1."""
    for evaluator in (growth, row_sum.growth_closed_form):
        assert evaluator(3, 0.5, coupled=0.25) == pytest.approx(0.875**3, rel=1e-14)
        assert evaluator(3, 0.5, decoupled=0.25) == pytest.approx(0.875**3, rel=1e-14)
        assert evaluator(3, 0.5, 0.5, coupled=0.25) == evaluator(3, 0.5, 0.5, 0.25, 0.0, False)
        assert evaluator(3, 0.5) == 1


def test_evaluator_beats_the_closed_form_in_float64_beside_the_double_root() -> None:
    case = (10**5, 1.0, float(row_sum.critical_momentum(1.0, 1e-6)) * (1 + 1e-13), 1e-6, 0.0, False)
    with mpmath.workdps(60):
        exact = exact_growth(*case)
        stable = float(abs(growth(*case) / exact - 1))
        naive = float(abs(row_sum.growth_closed_form(*case) / exact - 1))
    assert stable <= 2 * EPS
    assert naive > 1e-10


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.5]), min_size=1, max_size=40),
    st.floats(0, 0.99),
    st.floats(0, 1),
    st.floats(0, 1),
    st.booleans(),
)
def test_schedules_multiply_the_one_step_matrices(rates, beta, coupled, decoupled, nesterov) -> None:
    """Against single steps at 60 digits; the momentum buffer is carried across changes of the rate."""
    t = np.arange(len(rates) + 1)
    found = growth(t, beta=beta, coupled=coupled, decoupled=decoupled, nesterov=nesterov, schedule=rates)
    with mpmath.workdps(60):
        m, q, largest = mpmath.mpf(1), mpmath.mpf(0), mpmath.mpf(1)
        for n in t:
            assert abs(found[n] - m) <= EPS * abs(m) + mpmath.mpf(2) ** -80 * largest
            if n < len(rates):
                lr, lam, mu = map(mpmath.mpf, (rates[n], coupled, beta))
                q_new = mu * q + lam * m
                step = lam * m + mu * q_new if nesterov else q_new
                m, q = (1 - lr * mpmath.mpf(decoupled)) * m - lr * step, q_new
                largest = max(largest, abs(m), abs(q))


def test_a_constant_schedule_is_a_constant_rate() -> None:
    t = np.array([0, 1, 7, 1000, 54321])
    constant = growth(t, 0.1, 0.9, 0.01, 0.02, True)
    scheduled = growth(t, None, 0.9, 0.01, 0.02, True, schedule=np.full(60000, 0.1))
    alternating = growth(t, None, 0.9, 0.01, 0.02, True, schedule=0.1 + np.resize([0.0, 1e-18], 60000))
    assert np.array_equal(constant, scheduled)
    assert np.array_equal(constant, alternating)


def test_cosine_to_zero_leaves_a_finite_row_sum() -> None:
    """sum eta_t is finite: lam 5e-4, lr 0.1, 10^4 steps leave m at 0.779 m_0."""
    schedule = 0.05 * (1 + np.cos(np.pi * np.arange(10_000) / 10_000))
    assert growth(10_000, schedule=schedule, decoupled=5e-4) == pytest.approx(0.779, abs=5e-4)


def test_broadcasting_over_steps_and_parameters() -> None:
    t, beta, lam = (
        np.array([3, 50])[:, None, None],
        np.array([0.0, 0.5, 0.9])[:, None],
        np.array([0.0, 0.1, 1.0, 3.0]),
    )
    schedule = np.linspace(0.3, 0.1, 50)
    for kind in ({"lr": 0.2}, {"schedule": schedule}):
        table = growth(t, beta=beta, coupled=lam, **kind)
        assert table.shape == (2, 3, 4)
        for i, j, k in np.ndindex(table.shape):
            one = growth(int(t[i, 0, 0]), beta=float(beta[j, 0]), coupled=float(lam[k]), **kind)
            assert table[i, j, k] == one


def test_alpha_is_the_square_and_its_logarithm_goes_far_below_float64() -> None:
    t = np.array([0, 1, 10, 100])
    g = growth(t, 0.3, 0.5, 0.2)
    assert nc0(t, 0.3, 0.5, 0.2, nc0_0=3.0) == pytest.approx(3.0 * g**2, rel=1e-15)
    assert log_nc0(10**7, 0.1, decoupled=0.5) == pytest.approx(2e7 * np.log1p(-0.05), rel=1e-14)
    assert nc0(10**7, 0.1, decoupled=0.5) == 0.0
    # alpha_0 lifts a g^2 below the smallest float64 back into range
    assert nc0(1, 1.0, decoupled=1 - 2.0**-52, nc0_0=1e300) == pytest.approx(2.0**-104 * 1e300, rel=1e-15)


@pytest.mark.parametrize("nesterov", [False, True])
def test_special_cases(nesterov: bool) -> None:
    t = np.array([0, 1, 2, 17])
    # no decay: constant; decoupled alone: theorem 3.1 at every momentum, also growing and alternating
    assert np.array_equal(growth(t, 0.1, 0.9, nesterov=nesterov), np.ones(4))
    for x in (0.5, 1.5, 2.5):
        found = growth(t[:, None], 0.5, np.array([0.0, 0.7, 0.99]), decoupled=2 * x, nesterov=nesterov)
        assert np.array_equal(found, np.repeat(((1 - x) ** t)[:, None], 3, axis=1))
    # beta = 0 and D = 0: one root is 0
    assert np.array_equal(growth(t, 0.5, 0.0, coupled=0.5, nesterov=nesterov), 0.75**t)
    assert np.array_equal(growth(t, 0.5, 0.9, decoupled=2.0, nesterov=nesterov), [1, 0, 0, 0])
    assert growth(3, 0.0, 0.9, coupled=0.5, nesterov=nesterov) == 1.0
    sign, log = log_growth(5, 0.5, 0.9, decoupled=2.0)
    assert (sign, log) == (0.0, -np.inf)


def test_fast_decoupled_decay_is_not_hidden_by_the_buffer() -> None:
    """(1 - eta lam)^t is far below beta^t: the product form must not lose it."""
    sign, log = log_growth(10**6, 0.5, 0.99, decoupled=1.0)
    assert (sign, log) == (1.0, pytest.approx(-(10**6) * np.log(2), rel=1e-15))


def test_stability_and_critical_momentum_as_seen_by_the_evaluator() -> None:
    for nesterov in (False, True):
        for beta in (0.0, 0.3, 0.9):
            end = row_sum.stability_range(beta, nesterov)
            assert abs(growth(10**6, 1.0, beta, coupled=end * (1 - 1e-3), nesterov=nesterov)) < 1e-20
            assert abs(growth(10**5, 1.0, beta, coupled=end * (1 + 1e-3), nesterov=nesterov)) > 1e4
        best = float(row_sum.critical_momentum(0.1, 0.1, nesterov))
        logs = [
            log_growth(20_000, 0.1, beta, 0.1, 0.0, nesterov)[1] for beta in (best, best - 0.01, best + 0.01)
        ]
        assert logs[0] == pytest.approx(20_000 * np.log(0.9), rel=1e-2)
        assert logs[0] < min(logs[1:])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"t": -1, "lr": 0.1}, "growth.t is -1; allowed: whole numbers"),
        ({"t": 1.5, "lr": 0.1}, "growth.t is 1.5"),
        ({"t": "many", "lr": 0.1}, "growth.t"),
        ({"t": 1, "lr": -0.1}, "growth.lr is -0.1"),
        ({"t": 1, "lr": np.inf}, "growth.lr is inf"),
        ({"t": 1}, "growth.lr is None"),
        ({"t": 1, "lr": 0.1, "beta": 1.0}, r"growth.beta is 1.0; allowed: numbers in \[0, 1\)"),
        ({"t": 1, "lr": 0.1, "beta": -0.5}, "growth.beta"),
        ({"t": 1, "lr": 0.1, "coupled": -1}, "growth.coupled is -1"),
        ({"t": 1, "lr": 0.1, "decoupled": np.nan}, "growth.decoupled is nan"),
        (
            {"t": 3, "schedule": [0.1, 0.1]},
            r"len\(growth.schedule\) is 2; allowed: at least the largest t, 3",
        ),
        ({"t": 1, "schedule": [[0.1]]}, "one rate per step"),
    ],
)
def test_bad_parameters_get_a_sentence(arguments, sentence) -> None:
    for function in (growth, log_growth, nc0, log_nc0):
        with pytest.raises(InvalidProblemError, match=sentence):
            function(**arguments)


def test_bad_questions_about_formulas_get_a_sentence() -> None:
    with pytest.raises(InvalidProblemError, match="0 < lr\\*lam < 4"):
        row_sum.critical_momentum(1.0, 4.0)
    with pytest.raises(InvalidProblemError, match="Nesterov"):
        row_sum.critical_momentum(1.0, 1.0, nesterov=True)
    with pytest.raises(InvalidProblemError, match=r"stability_range\.decay"):
        row_sum.stability_range(0.5, decay="both")
    with pytest.raises(InvalidProblemError, match="nc0_0"):
        nc0(1, 0.1, nc0_0=-1.0)
    with pytest.raises(InvalidProblemError, match=r"round_off_bound\.beta"):
        round_off_bound([1], 0.1, 1.0, classes=2, scale=1.0)


# -------------------------------------------------------------------------------------- round-off bound


def brute_force_sums(M: np.ndarray, inject: np.ndarray, t: int) -> list[float]:
    carried, injected, squares, product = 1.0, 0.0, 0.0, np.eye(2)
    for s in range(t - 1, -1, -1):
        error = (product @ inject[s])[0]
        injected, squares = injected + abs(error), squares + error**2
        product = product @ M[s]
        carried += abs(product[0, 0])
    return [carried, injected, squares]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", ["constant", "cosine", "steps"])
def test_bound_is_the_sum_it_says(nesterov: bool, shape: str) -> None:
    """The three sums against a loop, and the bound against its formula with every count written out."""
    steps = 701
    rates = {
        "constant": np.full(steps, 0.3),
        "cosine": 0.15 * (1 + np.cos(np.pi * np.arange(steps) / steps)),
        "steps": np.repeat([0.3, 0.03, 0.003], [300, 300, 101]),
    }[shape]
    t = np.array([0, 1, 2, 26, 27, 28, 299, 300, 301, 700, 701])
    parameters = {"beta": 0.9, "coupled": 0.5, "decoupled": 0.1, "nesterov": nesterov}
    M = recursion_matrix(rates, **parameters)
    inject = np.stack([-rates * (1.9 if nesterov else 1.0), np.ones(steps)], axis=1)
    carried, injected, squares = np.array([brute_force_sums(M, inject, n) for n in t]).T
    rate = {"lr": 0.3} if shape == "constant" else {"schedule": rates}
    S, G, e, K, eps = 2.0, 0.25, 0.125, 7, 1e-3
    found = round_off_bound(
        t, **rate, **parameters, classes=K, scale=S, eps=eps, gradient_scale=G, gradient_error=e
    )
    kept = np.abs(1 - 0.1 * rates)
    product = min((1 + kept.max()) * S, 0.3 * (0.5 * S + G) / (1 - 0.9))
    per_step = (0.1 * rates + 2 * kept).max() * S + product
    expected = eps / 2 * K * (carried * (S + np.where(t > 0, per_step, 0)) + injected * (2 * 0.5 * S + G))
    expected += np.sqrt(squares) * (eps / 2 * np.sqrt(K) * 2 * product / 0.3 + e)
    assert found == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("decoupled", [0.1, 3.0])
def test_bound_where_the_shrink_follows_the_step(decoupled: float) -> None:
    """What is shrunk is at most W over the least factor, and at most W and the longest step away from it."""
    rates = np.array([0.02, 0.3, 0.1])
    kept, way = np.abs(1 - rates * decoupled), rates * (1 - rates * decoupled)
    beta, coupled, S, G, e, K, eps = 0.5, 0.25, 2.0, 0.25, 0.125, 7, 1e-3
    M = row_sum.matrix_of(row_sum.entries_shrunk_after(rates, beta, coupled, decoupled, False))
    inject = np.stack([-way, np.ones(3)], axis=1)
    carried, injected, squares = np.array([brute_force_sums(M, inject, n) for n in range(4)]).T
    found = round_off_bound(
        np.arange(4), schedule=rates, beta=beta, coupled=coupled, decoupled=decoupled, classes=K, scale=S, eps=eps,
        gradient_scale=G, gradient_error=e, shrunk_after=True,
    )  # fmt: skip
    direction = (coupled * S + G) / (1 - beta)
    shrunk = min(S / kept.min(), S + 0.3 * direction)
    assert (shrunk < S / kept.min()) == (decoupled == 3.0)
    product = min((1 + kept.max()) * S, np.abs(way).max() * direction)
    moved = np.where(np.arange(4) > 0, (rates * decoupled + 2 * kept).max() * shrunk + product, 0)
    expected = eps / 2 * K * (carried * (S + moved) + injected * (2 * coupled * S + G))
    expected += np.sqrt(squares) * (eps / 2 * np.sqrt(K) * 2 * product / np.abs(way).max() + e)
    assert found == pytest.approx(expected, rel=1e-11)


def test_gradient_terms_count_at_every_rate() -> None:
    """GD: K eps/2 per step for W, eta G for the product, and the gradient's own error in quadrature."""
    for lr in (0.1, 1.0, 1.5):
        terms = {"gradient_scale": 0.5, "gradient_error": 3.0}
        found = round_off_bound([4], lr, classes=4, scale=1.0, eps=0.5, **terms)
        assert found == pytest.approx([5 * (1 + lr * 0.5) + lr * np.sqrt(4) * 3.0])
    assert round_off_bound([4], 9.0, classes=4, scale=1.0, eps=0.5, gradient_scale=9.0) == pytest.approx(
        [5 * 3.0]
    )


def simulated_row_sums(lr, beta, coupled, decoupled, nesterov, rates=None, steps=3000, every=50, scale=0.5):
    """Cross-entropy UFM in plain numpy, step by step: m, max|W| and max|grad W| at the records."""
    K, d, n = 5, 8, 3
    rng = np.random.default_rng(7)
    W, H = scale * rng.standard_normal((K, d)), scale * rng.standard_normal((d, K * n))
    labels = np.repeat(np.arange(K), n)
    onehot = np.eye(K)[:, labels]
    V, U = np.zeros_like(W), np.zeros_like(H)
    kept, largest, gradients = [], [], []
    for step in range(steps + 1):
        P = np.exp(W @ H - (W @ H).max(axis=0))
        R = P / P.sum(axis=0) * (1 - onehot)
        R = (R - onehot * R.sum(axis=0)) / (K * n)
        G, F = R @ H.T, W.T @ R
        if step % every == 0:
            kept.append(W.sum(axis=0))
            largest.append(np.abs(W).max())
            gradients.append(np.abs(G).max())
        eta = lr if rates is None else (rates[step] if step < steps else 0.0)
        G, F = G + coupled * W, F + 1e-3 * H
        V, U = beta * V + G, beta * U + F
        W = (1 - eta * decoupled) * W - eta * (G + beta * V if nesterov else V)
        H = H - eta * (F + beta * U if nesterov else U)
    t = np.arange(0, steps + 1, every)
    return t, np.stack(kept), np.maximum.accumulate(largest), np.maximum.accumulate(gradients)


CONFIGURATIONS = [
    (0.1, 0.0, 0.0, 0.0, False),
    (0.1, 0.9, 0.0, 0.0, False),
    (0.1, 0.0, 5e-3, 0.0, False),
    (0.1, 0.9, 5e-3, 0.0, False),
    (0.1, 0.98, 5e-2, 0.0, False),
    (0.1, 0.9, 5e-3, 0.0, True),
    (0.1, 0.9, 0.0, 5e-2, False),
    (0.1, 0.9, 0.0, 5e-2, True),
    (0.1, 0.9, 2e-3, 3e-2, True),
    (1.0, 0.9, 1e-2, 0.0, False),
    (0.01, 0.5, 0.5, 0.0, False),
    (3.0, 0.5, 1e-2, 0.0, False),
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("cosine", [False, True])
def test_plain_simulation_follows_the_law_within_the_bound_and_refuses_the_control(
    configuration, cosine
) -> None:
    lr, beta, coupled, decoupled, nesterov = configuration
    steps = 3000
    rates = 0.5 * lr * (1 + np.cos(np.pi * np.arange(steps) / steps)) if cosine else None
    t, m, size, gradient = simulated_row_sums(*configuration, rates=rates, steps=steps)
    rate = {"schedule": rates} if cosine else {"lr": lr}
    law = {"beta": beta, "coupled": coupled, "decoupled": decoupled, "nesterov": nesterov, **rate}
    bound = round_off_bound(t, **law, classes=5, scale=size, gradient_scale=gradient)
    error = np.abs(m - growth(t, **law)[:, None] * m[0]).max(axis=1)
    assert (error <= bound).all()
    if coupled or decoupled:
        wrong = growth(t, **{**law, "coupled": coupled * (1 + 1e-6), "decoupled": decoupled * (1 + 1e-6)})
        assert (np.abs(m - wrong[:, None] * m[0]).max(axis=1) / bound).max() > 100


# --------------------------------------------------------------------------------------------- claims


def described(
    optimizer, loss_invariant=True, trained=("H", "W1"), coupled=0.0, decoupled=0.0, decay=None, steps=100
):
    """A run as the claims see it, without a simulator."""
    from ufm.schedules import rates

    problem = SimpleNamespace(
        last="W1",
        trained=trained,
        loss=SimpleNamespace(shift_invariant=loss_invariant, why="it is squared"),
        classes=5,
    )
    return SimpleNamespace(
        problem=problem,
        optimizer=optimizer,
        coupled={"W1": coupled},
        decoupled={"W1": decoupled},
        decay=decay,
        rates=rates(optimizer.lr, steps),
        steps=steps,
        dtype="float64",
    )


def test_claims_say_which_hypothesis_fails() -> None:
    from ufm.decay import Mixed
    from ufm.optimizers import GD, Adam, Momentum, NormalisedGD
    from ufm.schedules import Cosine, Rates, StepDecay

    lemma, first, second, law = (
        CLAIMS[name].applies
        for name in ("zhao2026.lemE.5", "zhao2026.thm3.1", "zhao2026.thm3.2", "ufm.row_sum_law")
    )
    heavy = Momentum(0.1, 0.9)
    assert [claim(described(heavy, coupled=1e-3)) is None for claim in (lemma, first, second, law)] == [
        True,
        False,
        True,
        True,
    ]
    assert [claim(described(GD(0.1), decoupled=1e-3)) is None for claim in (lemma, first, second, law)] == [
        True,
        True,
        False,
        True,
    ]
    assert first(described(Momentum(Cosine(0.1), 0.9, nesterov=True), decoupled=1.0)) is None
    assert "coupled decay 0.001 acts on W1" in first(described(heavy, coupled=1e-3))
    assert "no coupled decay" in second(described(heavy))
    assert "decoupled decay 0.5" in second(described(heavy, coupled=1.0, decoupled=0.5))
    assert "Nesterov" in second(described(Momentum(0.1, 0.9, nesterov=True), coupled=1.0))
    assert "learning rate changes" in second(described(Momentum(Cosine(0.1), 0.9), coupled=1.0))
    # what counts is the rates, not how they were written; Nesterov without momentum is GD
    for rate in (Rates([0.1] * 100), Cosine(0.1, final=0.1), StepDecay(0.1, factor=1.0)):
        assert second(described(Momentum(rate, 0.9), coupled=0.01)) is None
    assert second(described(Momentum(0.1, 0.0, nesterov=True), coupled=0.01)) is None
    unknown = described(Momentum(Cosine(0.1), 0.9), coupled=0.01)
    unknown.steps = None
    assert "number of steps is not given" in second(unknown)
    assert law(unknown) is None
    assert "1e+101" not in law(described(GD(1e101), coupled=0.01))
    assert "rate is above 5e+99" in law(described(GD(1e101), coupled=0.01))
    for claim in (lemma, first, second, law):
        assert "it is squared" in claim(described(heavy, loss_invariant=False))
        assert "W1 is frozen" in claim(described(heavy, trained=("H",)))
    for optimizer in (Adam(0.1), NormalisedGD(0.1)):
        for claim in (first, second, law):
            assert claim(described(optimizer)) == (
                f"{type(optimizer).__name__} steps are not linear in the gradients, as the recursion needs "
                "(GD and Momentum are)"
            )
        assert lemma(described(optimizer)) is None
    after = Mixed(coupled=1e-3, decoupled=1e-2, shrink="after")
    assert law(described(heavy, coupled=1e-3, decoupled=1e-2, decay=after)) is None


def test_specific_theorems_outrank_the_general_law() -> None:
    rank = {name: claim.rank for name, claim in CLAIMS.items()}
    assert rank["zhao2026.thm3.1"] > rank["ufm.row_sum_law"] > rank["zhao2026.lemE.5"]
    assert rank["zhao2026.thm3.2"] > rank["ufm.row_sum_law"]


def run_of(optimizer, decay=None, steps=200, problem=None, scale=0.5, **options):
    problem = problem or ufm.UFM(classes=5, width=8, per_class=3)
    start = ufm.Gaussian(scale)
    return ufm.simulate(
        problem, optimizer, decay, **{"steps": steps, "init": start, "seed": 7, **options}
    ).judged()


def changed(run, W=None, dtype=None):
    """The same description with other recorded weights."""
    traj = run.trajectory
    states = traj.states.copy()
    size = run.problem.shapes[run.problem.last]
    at = run.problem.offsets[run.problem.last]
    states[:, at : at + size[0] * size[1]] = W.reshape(len(states), -1)
    return replace(traj, states=states).judged()


@pytest.mark.parametrize("rate", [0.0, 5e-3])
@pytest.mark.parametrize("name", ["zhao2026.thm3.1", "ufm.row_sum_law"])
def test_predictions_hold_and_controls_are_refused(name: str, rate: float) -> None:
    run = run_of(
        ufm.Momentum(0.1, 0.9), ufm.Decoupled(W=rate) if rate else None, steps=3000, record=ufm.Every(50)
    )
    prediction, control = CLAIMS[name].predict(run), CLAIMS[name].control(run)
    assert prediction.ratio < 1
    assert control.ratio > 100
    alpha = ufm.metrics.nc0(run.trajectory["W"][0])
    assert prediction.nc0[-1] == pytest.approx((1 - 0.1 * rate) ** 6000 * alpha, rel=1e-12)


SHRUNK_AFTER = {
    "heavy ball": (ufm.Momentum(0.1, 0.9), 3e-3, 2e-2, {}),
    "Nesterov": (ufm.Momentum(0.1, 0.9, nesterov=True), 3e-3, 2e-2, {}),
    "schedule": (ufm.Momentum(ufm.Cosine(0.2), 0.9), 3e-3, 2e-2, {}),
    "mini-batches": (ufm.Momentum(0.1, 0.9), 3e-3, 2e-2, {"batch": 4}),
    "almost all of W": (ufm.Momentum(0.5, 0.9), 0.5, 1.99, {"steps": 20, "record": ufm.Every(1)}),
    "over the far side": (ufm.Momentum(0.1, 0.5), 0.5, 15.0, {"steps": 30, "record": ufm.Every(1)}),
    "decoupled alone": (ufm.Momentum(0.1, 0.9), 0.0, 2e-2, {}),
    "float32": (ufm.Momentum(0.1, 0.9), 3e-2, 2e-1, {"dtype": "float32", "steps": 300}),
}


@pytest.mark.parametrize("case", SHRUNK_AFTER)
def test_the_law_holds_where_the_shrink_comes_after_the_step(case: str) -> None:
    optimizer, coupled, decoupled, options = SHRUNK_AFTER[case]
    decay = ufm.Mixed(coupled, decoupled, shrink="after")
    run = run_of(optimizer, decay, **{"steps": 3000, "record": ufm.Every(50), **options})
    claim = CLAIMS["ufm.row_sum_law"]
    assert claim.applies(run) is None
    assert claim.predict(run).ratio <= 1
    assert claim.control(run).ratio >= (100 if run.dtype == "float64" else 10)
    if coupled:  # the law of the other order is refused
        before = replace(run, decay=ufm.Mixed(coupled, decoupled))
        assert claim.predict(before).ratio > 100


def test_shrinking_after_the_step_is_another_pair_of_rates() -> None:
    """Closed form at the changed rates against a product of the one-step matrices of the other order."""
    for lr, beta, coupled, decoupled, nesterov in ((0.1, 0.9, 0.01, 0.3, False), (0.3, 0.5, 0.2, 1.0, True)):
        M = row_sum.matrix_of(row_sum.entries_shrunk_after(lr, beta, coupled, decoupled, nesterov))
        expected = np.linalg.matrix_power(M, 40)[0, 0]
        rate, other = row_sum.rates_before(lr, decoupled)
        assert growth(40, rate, beta, coupled, other, nesterov) == pytest.approx(expected, rel=1e-12, abs=0)


def test_controls_are_hard() -> None:
    """The perturbed statements are off by one part in a million in float64, by a hundredth in float32."""
    assert _recorded.PERTURBATION == {"float64": 1e-6, "float32": 1e-2}
    run = run_of(ufm.GD(0.1), ufm.Coupled(0.5), steps=1)
    claim = CLAIMS["zhao2026.thm3.2"]
    moved = claim.control(run).predicted[1] - claim.predict(run).predicted[1]
    start = run.trajectory["W"][0].sum(axis=0)
    assert moved == pytest.approx(-0.1 * 0.5 * 1e-6 * start, rel=1e-6, abs=0)


@pytest.mark.parametrize("name", ["zhao2026.thm3.1", "ufm.row_sum_law"])
def test_the_control_has_power_without_a_row_sum_and_in_float32(name: str) -> None:
    run = run_of(ufm.Momentum(0.1, 0.9), ufm.Decoupled(W=5e-2), steps=3000, record=ufm.Every(50))
    W = run.trajectory["W"]
    single = run_of(
        ufm.Momentum(0.1, 0.9), ufm.Decoupled(W=5e-2), steps=3000, record=ufm.Every(50), dtype="float32"
    )
    for case in (changed(run, W - W.mean(axis=1, keepdims=True)), single):
        assert CLAIMS[name].predict(case).ratio < 1
        assert CLAIMS[name].control(case).ratio > 1


ADVERSE = {
    "many rows of one sign": (
        ufm.UFM(1000, 8),
        ufm.GD(0.5),
        ufm.Coupled(W=0.5),
        20,
        np.random.default_rng(0).uniform(0.5, 1, (1000, 8)),
    ),
    "every rounding alike": (
        ufm.UFM(2, 4),
        ufm.GD(0.7),
        ufm.Mixed(ufm.Coupled(W=0.5999148305669182), ufm.Decoupled(W=0.5999148305669182)),
        1,
        np.full((2, 4), 0.9861338354428019),
    ),
    "buffer": (
        ufm.UFM(3, 4),
        ufm.Momentum(0.5, 0.99, nesterov=True),
        ufm.Coupled(W=1.5),
        50,
        np.full((3, 4), 0.7),
    ),
    "smallest numbers": (ufm.UFM(3, 4), ufm.GD(0.3), ufm.Coupled(W=0.3), 5, np.full((3, 4), 3e-310)),
}


@pytest.mark.parametrize("case", ADVERSE)
def test_true_statements_do_not_fail_where_roundings_add_up(case: str) -> None:
    problem, optimizer, decay, steps, W = ADVERSE[case]
    run = run_of(optimizer, decay, steps, problem, init=ufm.Start(W=ufm.Given(W), H=ufm.Gaussian(0.1)))
    assert CLAIMS["ufm.row_sum_law"].predict(run).ratio < 1
    assert CLAIMS["zhao2026.lemE.5"].predict(run).ratio < 1


def test_bounds_are_not_inflated() -> None:
    """Over a few runs the largest error is a fair share of the bound, and the controls have room."""
    law, lemma, control = [], [], []
    for optimizer, decay in (
        (ufm.GD(0.1), ufm.Coupled(W=1e-2)),
        (ufm.Momentum(0.1, 0.9), ufm.Coupled(W=1e-2)),
        (ufm.Momentum(0.1, 0.9, nesterov=True), ufm.Coupled(W=1e-2)),
        (ufm.Momentum(0.1, 0.9), ufm.Decoupled(W=1e-2)),
        (ufm.Momentum(ufm.Cosine(0.1), 0.9), ufm.Mixed(1e-2, 1e-2)),
    ):
        run = run_of(optimizer, decay)
        law.append(CLAIMS["ufm.row_sum_law"].predict(run).ratio)
        lemma.append(CLAIMS["zhao2026.lemE.5"].predict(run).ratio)
        control += [CLAIMS[name].control(run).ratio for name in ("ufm.row_sum_law", "zhao2026.lemE.5")]
    assert 0.01 < max(law) < 1
    assert 0.01 < max(lemma) < 1
    assert min(control) > 1e4


def test_the_scale_of_a_record_covers_what_follows_until_the_next() -> None:
    assert running_maximum(np.array([[1.0], [-3.0], [2.0], [5.0]])).tolist() == [3.0, 3.0, 5.0, 5.0]


def test_parameters_are_those_that_the_precision_of_the_run_holds() -> None:
    optimizer = ufm.Momentum(0.1, 0.9, nesterov=True)
    for dtype in (np.float64, np.float32):
        found = row_sum._parameters(run_of(optimizer, ufm.Coupled(0.01), steps=2, dtype=np.dtype(dtype).name))
        assert found["nesterov"] is True
        expected = {"lr": 0.1, "beta": 0.9, "coupled": 0.01, "decoupled": 0.0}
        assert {name: found[name] for name in expected} == {k: float(dtype(v)) for k, v in expected.items()}


def test_row_sums_lose_nothing_to_the_order_of_summation(rng) -> None:
    W = rng.standard_normal((3, 101, 4)) * 10.0 ** rng.integers(-12, 12, (3, 101, 4))
    exact = [[math.fsum(W[r, :, j]) for j in range(4)] for r in range(3)]
    assert exact_row_sum(W).high.tolist() == exact


@njit
def scaled_cross_entropy(Z, targets, R):
    """1e8 times the sum of cross-entropies, its residual by subtraction."""
    value = 0.0
    for i in range(Z.shape[1]):
        total = np.exp(Z[:, i]).sum()
        for k in range(Z.shape[0]):
            R[k, i] = 1e8 * (np.exp(Z[k, i]) / total - targets[k, i])
            value -= 1e8 * targets[k, i] * (Z[k, i] - np.log(total))
    return value


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    "problem",
    [
        ufm.UFM(4, 5, (1, 2, 3, 1), bias=True, loss=ufm.CrossEntropy(0.1)),
        ufm.DUFM(4, 5, 3, per_class=2, loss="ce", activation="relu"),
        ufm.UFM(4, 4, loss=scaled_cross_entropy, features=ufm.SimplexETF()),
        ufm.UFM(3, 2, loss=ufm.CrossEntropy(targets=np.full((3, 3), 1 / 3), reduction="sum")),
    ],
    ids=["bias", "deep", "user loss", "soft"],
)
def test_recorded_gradients_are_those_of_the_problem(problem, dtype, monkeypatch) -> None:
    """At every record, and the same numbers whatever the records held at once."""
    run = run_of(ufm.SignGD(0.01), ufm.Coupled(1e-2), 20, problem, dtype=dtype)
    found = _recorded._evaluate_gradients(run)
    for i, values in enumerate(found.values):
        state = {name: run.trajectory[name][i] for name in problem.trained}
        expected = problem.gradient(state)[problem.last]
        assert values == pytest.approx(expected, rel=0, abs=1e-15 * np.abs(expected).max())
        assert found.largest[i] == pytest.approx(np.abs(expected).max(), rel=1e-14)
    monkeypatch.setattr(_recorded, "BLOCK", 100)
    for one, other in zip(found, _recorded._evaluate_gradients(run), strict=True):
        assert np.array_equal(one, other)


def test_lemma_e5_for_losses_of_every_size() -> None:
    claim = CLAIMS["zhao2026.lemE.5"]
    losses = [ufm.CrossEntropy(), ufm.CrossEntropy(smoothing=0.1), ufm.CrossEntropy(reduction="sum")]
    losses.append(ufm.CrossEntropy(targets=np.random.default_rng(0).dirichlet(np.ones(4), 8).T))
    cases = [
        (ufm.UFM(4, 5, per_class=2, loss=loss), 1e6) for loss in [*losses, ufm.UserLoss(scaled_cross_entropy)]
    ]
    cases.append((ufm.UFM(10, 5, per_class=1000, loss=ufm.CrossEntropy(reduction="sum")), 1e3))
    cases.append((ufm.UFM(1500, 5), 1e3))
    for problem, power in cases:
        run = run_of(ufm.GD(1e-12), steps=1, problem=problem, scale=1.0)
        assert claim.applies(run) is None
        assert claim.predict(run).ratio < 1
        assert claim.control(run).ratio > power
    squared = SimpleNamespace(problem=ufm.UFM(classes=4, width=5, per_class=2, loss="mse"))
    assert "1^T grad_W = (m^T H - 1^T Y) H^T/N" in claim.applies(squared)


@njit
def late_penalty(Z, targets, R):
    """Cross-entropy plus the squares of what logits have above 8."""
    value = 0.0
    for i in range(Z.shape[1]):
        top = Z[:, i].max()
        total = np.exp(Z[:, i] - top).sum()
        for k in range(Z.shape[0]):
            above = max(Z[k, i] - 8.0, 0.0)
            R[k, i] = np.exp(Z[k, i] - top) / total - targets[k, i] + 2 * above
            value += above**2 - targets[k, i] * (Z[k, i] - top - np.log(total))
    return value


def test_a_loss_that_is_shift_invariant_at_small_logits_only_is_not() -> None:
    assert ufm.UserLoss(
        scaled_cross_entropy
    ).shift_invariant  # overflows at large logits, which decides nothing
    assert not ufm.UserLoss(late_penalty).shift_invariant


def test_a_run_that_left_the_finite_numbers_is_judged_before() -> None:
    run = run_of(ufm.GD(0.1), ufm.Decoupled(W=40.0), steps=3, scale=1e-3)
    W = run.trajectory["W"].copy()
    W[3] = np.inf
    prediction = CLAIMS["zhao2026.thm3.1"].predict(changed(run, W))
    assert len(prediction.bound) == 3
    assert prediction.ratio < 1


EXTREME = {
    "W = 0": (ufm.UFM(3, 5), ufm.GD(0.1), ufm.Zeros()),
    "features 0": (ufm.UFM(3, 5, per_class=2, features=ufm.Zeros()), ufm.GD(0.1), ufm.Gaussian(1.0)),
    "H = 0": (ufm.UFM(3, 5), ufm.GD(0.1), ufm.Start(W=ufm.Given(np.ones((3, 5))), H=ufm.Zeros())),
    "one feature for all": (
        ufm.UFM(3, 5, features=ufm.Given(np.full((5, 3), 0.7))),
        ufm.GD(0.1),
        ufm.Gaussian(1.0),
    ),
    "huge W": (ufm.UFM(3, 5), ufm.GD(0.1), ufm.Start(W=ufm.Gaussian(1e160), H=ufm.Gaussian(1e-160))),
    "tiny W": (ufm.UFM(3, 5), ufm.GD(0.1), ufm.Start(W=ufm.Gaussian(1e-310), H=ufm.Gaussian(1e-320))),
    "largest W": (ufm.UFM(3, 5), ufm.GD(0.1), ufm.Start(W=ufm.Gaussian(2e307), H=ufm.Gaussian(1e-320))),
    "huge rate": (ufm.UFM(3, 5), ufm.GD(1e101), ufm.Gaussian(0.1)),
    "rates far apart": (ufm.UFM(3, 5), ufm.Momentum(ufm.Rates([1e90, 1e-90] * 2), 0.9), ufm.Gaussian(0.1)),
    "no rate": (ufm.UFM(3, 5), ufm.GD(0.0), ufm.Gaussian(0.1)),
    "tiny rate": (ufm.UFM(3, 5), ufm.GD(1e-110), ufm.Gaussian(0.1)),
}


@pytest.mark.parametrize("decay", [None, ufm.Coupled(0.01), ufm.Decoupled(W=0.01)], ids=repr)
@pytest.mark.parametrize("case", EXTREME)
def test_every_trajectory_can_be_compared(case: str, decay) -> None:
    problem, optimizer, init = EXTREME[case]
    report = ufm.compare(ufm.simulate(problem, optimizer, decay, steps=3, init=init, throw=False))
    assert report.ok, str(report)


def test_lemma_e5_where_soft_targets_are_met_exactly() -> None:
    """The residual is what is left of numbers of size 1: its rounding error does not shrink with it."""
    rng = np.random.default_rng(5)
    W, H = rng.standard_normal((4, 5)), rng.standard_normal((5, 8))
    P = np.exp(W @ H)
    problem = ufm.UFM(4, 5, per_class=2, loss=ufm.CrossEntropy(targets=P / P.sum(axis=0)))
    run = run_of(ufm.GD(0.1), problem=problem, steps=0, init=ufm.Start(W=ufm.Given(W), H=ufm.Given(H)))
    prediction = CLAIMS["zhao2026.lemE.5"].predict(run)
    assert 1e-3 < prediction.ratio < 1


def test_no_step_needs_no_rate() -> None:
    """g_0 = 1, at any rates and at a schedule of none."""
    assert row_sum.growth(0, schedule=[]) == 1.0
    assert row_sum.growth([0, 0], 0.1, beta=0.9, coupled=0.5).tolist() == [1.0, 1.0]


def test_without_a_start_alpha_is_that_of_one() -> None:
    parameters = {"lr": 0.5, "beta": 0.5, "coupled": 0.25}
    assert nc0(3, **parameters) == pytest.approx(growth(3, **parameters) ** 2, rel=1e-15)
    assert log_nc0(3, **parameters) == pytest.approx(math.log(nc0(3, **parameters)), rel=1e-14)


def test_what_is_not_given_is_zero() -> None:
    """No momentum in the range of stability; no decay of the other kind at a double root."""
    assert row_sum.trace_determinant(0.5, 0.5, coupled=1.0) == (1.0, 0.5)
    assert row_sum.trace_determinant(0.5, 0.5, decoupled=1.0) == (1.0, 0.25)
    assert row_sum.stability_range() == 2
    assert row_sum.stability_range(nesterov=True) == 2
    coupled = {"lr": 0.25, "beta": 0.25, "coupled": 1.0}  # sqrt(beta) = 1 - sqrt(lr lam)
    decoupled = {"lr": 0.5, "beta": 0.5, "decoupled": 1.0}  # beta = 1 - lr lam
    for parameters in (coupled, decoupled):
        for t in (0, 1, 7):
            assert row_sum.growth_double_root(t, **parameters) == pytest.approx(
                growth(t, **parameters), rel=1e-14
            )


def test_control_of_the_lemma_is_off_by_a_millionth_of_one_row() -> None:
    run = run_of(ufm.GD(0.1), steps=1)
    claim, trajectory = CLAIMS["zhao2026.lemE.5"], run.trajectory
    moved = claim.control(run).observed - claim.predict(run).observed
    rows = [run.problem.gradient(trajectory.state(i))["W"][-1] for i in range(2)]
    assert moved == pytest.approx(1e-6 * np.array(rows), rel=1e-6, abs=1e-15)


def test_one_rate_outside_is_enough_to_refuse_all() -> None:
    with pytest.raises(InvalidProblemError, match="allowed"):
        row_sum.critical_momentum([0.1, 5.0], 1.0)
