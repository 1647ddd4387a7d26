"""Aligned starts against the recursion and the logistic law, strong collapse, both central-path laws on matrices."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import ufm
from ufm.compare import judge
from ufm.errors import InvalidProblemError
from ufm.flow import flow
from ufm.run import Run
from ufm.theory import mse_flow as room

CLAIMS = {claim.name: claim for claim in room.CLAIMS}
RECURSION, LOGISTIC = CLAIMS["ufm.aligned_recursion"], CLAIMS["ufm.logistic_flow"]


def setting(C=4, width=5, n=6, reduction="sum"):
    return ufm.UFM(C, width, n, loss=ufm.MSE(reduction), bias=True)


# ------------------------------------------------------------------------------------------- the flow


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_logistic_law_of_the_flow(reduction, rng):
    """Acceptance: C = 4, N = 6 samples each, to 1e-8, from matrices alone; eigenvectors stay."""
    problem, n = setting(reduction=reduction), 6
    start = room.aligned_blocks(0.2 * rng.standard_normal((4, 5)), n)
    times = np.linspace(0, 2.0, 6)
    found = flow(problem, times=times * (24 if reduction == "mean" else 1), init=start)
    g, U = np.linalg.eigh(start["W"] @ start["W"].T)
    law = room.logistic(g[1:], times[:, None], n)
    gram = np.einsum("ji,tjk,kl->til", U, found["W"] @ found["W"].swapaxes(1, 2), U)
    np.testing.assert_allclose(np.diagonal(gram, axis1=1, axis2=2)[:, 1:], law, atol=1e-8)
    assert law[-1].max() > 2.4  # the law is seen up to its end
    np.testing.assert_allclose(gram * (1 - np.eye(4)), 0, atol=1e-8)
    np.testing.assert_allclose(
        found["H"], np.repeat(found["W"].swapaxes(1, 2), n, axis=2) / np.sqrt(n), atol=1e-8
    )
    wrong = np.abs(np.diagonal(gram, axis1=1, axis2=2)[:, 1:] - room.logistic(g[1:], times[:, None] / 2, n))
    assert wrong.max() > 0.1


def test_small_random_starts_end_in_strong_collapse(rng):
    """Measured: from entries of 1e-3 the Gram matrix ends within 1e-4 of sqrt(n) (I - J/C), b within 1e-3 of 1/C."""
    problem, n = setting(), 6
    found = flow(problem, times=[8.0], init=ufm.Gaussian(1e-3), tolerance=1e-8)
    W = found["W"][0]
    np.testing.assert_allclose(W @ W.T, np.sqrt(n) * (np.eye(4) - 1 / 4), atol=1e-4)
    np.testing.assert_allclose(found["H"][0], np.repeat(W.T, n, axis=1) / np.sqrt(n), atol=1e-2)
    np.testing.assert_allclose(found["b"][0], 1 / 4, atol=1e-3)
    assert found.loss[0] < 1e-8
    # deviations within a class are outgrown, and do not fall
    H = found["H"][0].reshape(5, 4, n)
    first = flow(problem, times=[0.0], init=ufm.Gaussian(1e-3))["H"][0].reshape(5, 4, n)
    before, after = (np.linalg.norm(X - X.mean(axis=2, keepdims=True)) for X in (first, H))
    assert 0.3 * before < after < 1.1 * before


# --------------------------------------------------------------------------------- gradient descent and claims


def aligned_run(rng, steps=400, lr=0.01, scale=0.1, **options):
    C, width, n = (int(rng.integers(*limits)) for limits in ((2, 6), (2, 7), (1, 7)))
    problem = setting(C, width, n, str(rng.choice(["sum", "mean"])))
    factor = problem.samples if problem.loss.reduction == "mean" else 1
    start = room.aligned_blocks(scale * rng.standard_normal((C, width)), n)
    return ufm.simulate(problem, ufm.GD(lr * factor), steps=steps, init=start, **options)


def test_gradient_descent_from_aligned_starts_holds_both_claims(rng):
    controls, unused = [], []
    for lr in (0.003, 0.01, 0.03):
        for _ in range(6):
            run = aligned_run(rng, round(4 / lr), lr, record=ufm.LogSpaced(30)).judged()
            rows = [judge(claim, run) for claim in (RECURSION, LOGISTIC)]
            assert all(row.ratio <= 1 for row in rows), [row.reason for row in rows]
            controls.append([row.control for row in rows])
            unused.append([row.ratio for row in rows])
    assert np.median(controls, axis=0)[0] > 1e5
    assert np.median(controls, axis=0)[1] > 10
    assert np.max(unused, axis=0)[0] > 3e-3  # neither bound is idle
    assert np.max(unused, axis=0)[1] > 0.5


def test_deviation_from_the_law_is_first_order_in_the_step(rng):
    start = room.aligned_blocks(0.2 * rng.standard_normal((4, 5)), 6)
    errors, bounds = [], []
    for lr in (0.02, 0.01, 0.005):
        run = ufm.simulate(setting(), ufm.GD(lr), steps=round(1.0 / lr), init=start)
        found = LOGISTIC.predict(run.judged())
        errors.append(found.error[-1])
        bounds.append(found.bound[-1])
    np.testing.assert_allclose(np.divide(errors[:-1], errors[1:]), 2, rtol=0.15)
    np.testing.assert_allclose(np.divide(bounds[:-1], bounds[1:]), 2, rtol=0.35)


def test_defects_add_up_exactly(rng):
    """The log-odds of the recursion are those of the flow plus the sum of the defects, each within its limits."""
    n, rates = 6, rng.uniform(0.01, 0.15, 40)
    path = room.recursion(rng.uniform(0.05, 1.5, 3), rates, n) ** 2
    full = np.sqrt(n)
    h = rates[:, None] * full
    defects = room.step_defect(h, path[:-1] / full)
    odds = room.log_odds(path[:20], n)  # later the law is at its end, and a difference of 1 has few digits
    np.testing.assert_allclose(
        odds[1:] - odds[0], np.cumsum(2 * h + defects, axis=0)[:19], rtol=1e-9, atol=1e-9
    )
    least, most = room.defect_limits(h)
    assert (least <= defects).all()
    assert (defects <= most).all()
    assert (defects < 0).any()
    assert (defects > 0).any()


def test_schedules_and_starts_beyond_the_end(rng):
    W = room.aligned_blocks(rng.standard_normal((3, 4)), 2)["W"]
    run = ufm.simulate(
        setting(3, 4, 2), ufm.GD(ufm.Cosine(0.05)), steps=200, init=room.aligned_blocks(2 * W, 2)
    )
    assert judge(RECURSION, run.judged()).verdict == "holds"
    assert "starts at" in LOGISTIC.applies(run.run)
    inside = ufm.simulate(
        setting(3, 4, 2), ufm.GD(ufm.Cosine(0.05)), steps=200, init=room.aligned_blocks(0.1 * W, 2)
    )
    assert judge(LOGISTIC, inside.judged()).verdict == "holds"


@pytest.mark.parametrize(("share", "aligned"), [(0.95, True), (1.05, False)])
@pytest.mark.parametrize("scale", [0.05, 3.0])
def test_how_far_from_the_aligned_set_a_start_may_be(share, aligned, scale):
    """2^-46 (|W| + 1), of which counting round-off of the start itself takes a share."""
    W = room.aligned_blocks(scale * np.random.default_rng(0).standard_normal((3, 4)), 2)
    problem = setting(3, 4, 2)
    size = np.linalg.norm(W["W"])
    rounding = 8 * 4 * 2.0**-52 * size
    off = share * 2.0**-46 * (size + 1) - rounding
    start = {**W, "b": np.full(3, 1 / 3) + off / np.sqrt(3)}
    run = Run(problem, ufm.GD(0.01), None, ufm.Given(**start), 5)
    assert (RECURSION.applies(run) is None) == aligned


def test_a_wrong_record_fails_and_a_missing_direction_is_left_undecided(rng):
    run = aligned_run(rng)
    wrong = replace(run, states=run.states * (1 + 1e-9 * np.arange(len(run))[:, None]))
    assert judge(RECURSION, wrong.judged()).verdict == "fails"
    thin = room.aligned_blocks(
        0.1 * rng.standard_normal((4, 1)), 6
    )  # rank 1: a saddle, which amplifies round-off
    row = judge(RECURSION, ufm.simulate(setting(4, 1), ufm.GD(0.02), steps=2000, init=thin).judged())
    assert row.verdict == "inconclusive"


def test_hypotheses_say_which_one_fails(rng):
    start = room.aligned_blocks(0.1 * rng.standard_normal((4, 5)), 6)
    good = setting()

    def reason(problem=good, optimizer=None, decay=None, init=start, **options):
        return RECURSION.applies(Run(problem, optimizer or ufm.GD(0.01), decay, init, 10, **options))

    assert reason() is None
    assert "the loss is cross-entropy" in reason(ufm.UFM(4, 5, 6, bias=True))
    assert "there is no bias" in reason(ufm.UFM(4, 5, 6, loss="mse"), init=None)
    assert "there are 2 layers" in reason(ufm.DUFM(4, 5, 2, bias=True), init=None)
    assert "classes have" in reason(ufm.UFM(3, 4, (1, 2, 3), loss="mse", bias=True), init=None)
    assert "H is frozen" in reason(
        ufm.UFM(4, 5, 1, loss="mse", bias=True, features=np.eye(5)[:, :4]), init=None
    )
    assert "the decay is Coupled" in reason(decay=ufm.Coupled(0.1))
    assert "SignGD steps" in reason(optimizer=ufm.SignGD(0.1))
    assert "batches hold 3" in reason(batch=3)
    assert "float32" in reason(dtype="float32")
    assert "away from 1^T W = 0" in reason(init=ufm.Gaussian(0.1))
    assert "cannot be drawn" in reason(init={"W": np.zeros((2, 2))})
    assert "does not move" in reason(init=room.aligned_blocks(np.zeros((4, 5)), 6))
    steep = LOGISTIC.applies(Run(good, ufm.GD(0.3), None, start, 10))
    assert "the bound needs h < 1/2" in steep


# ------------------------------------------------------------------------------------------- central path


def whitened(rng, C, n, width):
    H = rng.standard_normal((width, C * n))
    D = H - np.repeat(H.reshape(width, C, n).mean(axis=2), n, axis=1)
    values, U = np.linalg.eigh(D @ D.T / (C * n))
    return (U / np.sqrt(values)) @ U.T @ H


LAWS = {"projected": room.projected_law, "rewhitened": room.rewhitened_law}


@pytest.mark.parametrize("dynamics", LAWS)
def test_laws_grow_by_the_time_that_matrices_take(dynamics, rng):
    """Acceptance: T = 400, C = 4, n = 6: each omega moves its law by 400; the other law it misses."""
    C, n, width, T = 4, 6, 5, 400.0
    H = whitened(rng, C, n, width)
    solution = solve_ivp(
        lambda t, x: room.central_path_velocity(x.reshape(width, -1), C, dynamics).ravel(),
        (0, T), H.ravel(), "DOP853", rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    end = solution.y[:, -1].reshape(width, -1)
    ends = [room.signal_to_noise(X, C) for X in (H, end)]
    grown = {name: law(ends[1], C, n) - law(ends[0], C, n) for name, law in LAWS.items()}
    np.testing.assert_allclose(grown.pop(dynamics), T, rtol=1e-7)
    [other] = grown.values()
    assert (np.abs(other - T) > 20).all()
    assert ends[1].max() / ends[1].min() < 0.5 * ends[0].max() / ends[0].min()
    deviations = end - np.repeat(end.reshape(width, C, n).mean(axis=2), n, axis=1)
    np.testing.assert_allclose(deviations @ deviations.T / (C * n), np.eye(width), atol=1e-8)


def test_velocity_of_whitening_is_the_limit_of_steps_and_whitening(rng):
    C, n, width, dt = 3, 4, 4, 1e-6
    H = whitened(rng, C, n, width)
    Y = np.repeat(np.eye(C), n, axis=1) - 1 / C
    centred = H - H.mean(axis=1, keepdims=True)
    W = Y @ centred.T @ np.linalg.inv(centred @ centred.T)
    moved = H - dt * W.T @ (W @ centred - Y) / (C * n)
    D = moved - np.repeat(moved.reshape(width, C, n).mean(axis=2), n, axis=1)
    values, U = np.linalg.eigh(D @ D.T / (C * n))
    step = ((U / np.sqrt(values)) @ U.T @ moved - H) / dt
    np.testing.assert_allclose(step, room.central_path_velocity(H, C, "rewhitened"), atol=1e-7)


def test_loss_of_the_central_path_is_that_of_the_least_squares_head(rng):
    C, n, width = 4, 3, 5
    H = whitened(rng, C, n, width)
    problem = ufm.UFM(C, width, n, loss="mse", bias=True)
    ones = np.vstack([H, np.ones(C * n)])
    head = np.repeat(np.eye(C), n, axis=1) @ np.linalg.pinv(ones)
    loss = problem.value({"W": head[:, :-1], "b": head[:, -1], "H": H})
    omega = room.signal_to_noise(H, C)
    assert loss == pytest.approx(room.central_loss(omega, C).sum(), rel=1e-12)
    gains = np.sort(np.linalg.svd(head[:, :-1], compute_uv=False))[::-1][: C - 1]
    np.testing.assert_allclose(gains, np.sort(room.least_squares_gain(omega, C))[::-1], rtol=1e-11)
    with pytest.raises(InvalidProblemError, match=r"central_path_velocity.dynamics is 'plain'"):
        room.central_path_velocity(H, C, "plain")


def test_values_that_round_off_may_have_made_count_as_zero(rng):
    """A second singular value of 5e-15 beside 1: below 40 eps of a wide W, above 3 eps."""
    left = np.linalg.qr((np.eye(3) - 1 / 3)[:, :2])[0]
    right = np.linalg.qr(rng.standard_normal((40, 2)))[0].T
    problem = setting(3, 40, 2)
    start = ufm.Given(**room.aligned_blocks((left * [1.0, 5e-15]) @ right, 2))
    assert room.start_of(Run(problem, ufm.GD(0.1), steps=0, init=start)).values == pytest.approx([1.0])


def test_error_of_the_recursion_term_by_term():
    """Two steps of one of two modes, C = 3, d = 4, n = 2."""
    eps, a, rates, n, N = 2.0**-52, (0.5, 0.7, 0.9), (0.1, 0.2), 2, 6
    E = expected = 1e-9
    found = room.round_off_bound(np.array(a)[:, None], np.array(rates), 3, 4, n, E)
    assert found[0] == E
    for t, rate in enumerate(rates):
        R = np.sqrt(n)  # of the mode at 0
        R_norm = np.hypot(np.sqrt(n), np.sqrt(n) - a[t] ** 2)
        in_residual = eps * (7 * a[t] ** 2 + 3 * np.sqrt(N))
        in_gradient = eps * (2 * N + 3) * R_norm * (a[t] + 1) + in_residual * (2 * a[t] + np.sqrt(N))
        local = 2 * eps * (np.sqrt(2) * a[t + 1] + 1) + rate * in_gradient
        expected = max(1 + rate * R, rate * (2 * a[t] ** 2 + N + R) - 1) * expected + local
        assert found[t + 1] == pytest.approx(expected, rel=1e-14, abs=0)
    exact = room.round_off_bound(np.array(a)[:, None], np.array(rates), 3, 4, n, 0.0)
    first = found - exact
    growth = [1 + 0.1 * np.sqrt(2), (1 + 0.1 * np.sqrt(2)) * (1 + 0.2 * np.sqrt(2))]
    assert first[1:] == pytest.approx(E * np.array(growth), rel=1e-6, abs=0)
    assert exact[1] == pytest.approx(
        2 * eps * (np.sqrt(2) * 0.7 + 1)
        + 0.1 * eps * (
            15 * np.hypot(np.sqrt(2), np.sqrt(2) - 0.25) * 1.5 + (7 * 0.25 + 3 * np.sqrt(6)) * (1 + np.sqrt(6))
        ),
        rel=1e-14, abs=0,
    )  # fmt: skip


def test_error_of_the_law_before_the_first_step(rng):
    """At t = 0 there are the rounding of the start, and eight roundings of each term of the law."""
    problem = setting(C=3, n=9)
    start = room.aligned_blocks(0.9 * rng.standard_normal((3, 5)), 9)
    run = ufm.simulate(problem, ufm.GD(1e-3), steps=0, init=ufm.Given(**start)).judged()
    top, d, modes = room.start_of(run).values[0], room.start_of(run).distance, 2
    expected = (2 * top + d) * d + 8 * modes * 2.0**-52 * (top**2 + 3)
    assert LOGISTIC.predict(run).bound == pytest.approx(expected, rel=1e-12, abs=0)
