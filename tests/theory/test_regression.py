"""Regression with real targets: the problem itself, its optimum, NRC1 to NRC3, and the dynamics by mode."""

import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import ufm
from ufm import metrics, solutions
from ufm.config import from_table, run_from_table, run_from_toml, to_table
from ufm.ensemble import ensemble
from ufm.errors import DivergedError, IncompatibleError, InvalidProblemError
from ufm.kernels import reference
from ufm.run import Run
from ufm.solutions import aligned_modes, regression_optimum
from ufm.theory import regression as room
from ufm.theory._lower_bound import objective_error

CLAIMS = {claim.name: claim for claim in room.CLAIMS}
COVARIANCE = np.array([[4.0, 1.0, 0.5], [1.0, 2.0, -0.3], [0.5, -0.3, 1.0]])
EIGENVALUES = np.linalg.eigvalsh(COVARIANCE)[::-1]  # 4.45, 1.83, 0.72
TARGETS = ufm.correlated_targets(COVARIANCE, 12)
SHIFT = np.array([[1.0], [2.0], [-0.5]])
REGIMES = {"none lost": 0.05, "intermediate": 1.3, "all but one": 2.4, "zero": 5.0}


def rates(c: float, ratio: float = 1.0, samples: int = 12) -> ufm.Coupled:
    """Decay with l_H l_W = c and l_H/l_W = ratio."""
    return ufm.Coupled(W=np.sqrt(c / ratio), H=np.sqrt(c * ratio) / samples)


# ------------------------------------------------------------------------------------------------ the problem


def test_fields_are_held_by_content_and_survive_files():
    problem = ufm.RegressionUFM(TARGETS, 4, bias=True)
    twin = ufm.RegressionUFM(TARGETS.tolist(), width=4, bias=True)
    assert problem == twin
    assert hash(problem) == hash(twin)
    assert problem != ufm.RegressionUFM(2 * TARGETS, 4, bias=True)
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert "3x12 array" in repr(problem)
    assert from_table(to_table(problem)) == problem
    assert problem.formula(rates(1.0)).startswith("F = (1/2) (1/12) ||Z - Y||_F^2 + (0.08")
    assert (problem.classes, problem.samples, problem.trained) == (3, 12, ("H", "W1", "b"))
    with pytest.raises(ValueError, match="read-only"):
        problem.targets.array[0, 0] = 1.0


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: ufm.RegressionUFM([[np.nan, 1.0]], 2),
            "targets is 'an array with entries that are not finite'",
        ),
        (
            lambda: ufm.RegressionUFM([1.0, 2.0], 2),
            r"targets is 'an array of shape \(2,\)'; allowed: a matrix",
        ),
        (lambda: ufm.RegressionUFM(np.zeros((0, 3)), 2), r"targets is 'an array of shape \(0, 3\)'"),
        (lambda: ufm.RegressionUFM([["a"]], 2), r"targets is \[\['a'\]\]; allowed: a finite real array"),
        (lambda: ufm.RegressionUFM(TARGETS, 0), r"RegressionUFM.width is 0; allowed: a whole number >= 1"),
        (lambda: ufm.RegressionUFM(TARGETS, 2**40), "GiB of one copy"),
        (lambda: ufm.RegressionUFM(TARGETS, 2, bias=1), r"bias is 1; allowed: True or False"),
        (lambda: ufm.RegressionUFM(TARGETS, 2, classifier=[[1.0]]), "Given for block W1"),
        (lambda: ufm.RegressionUFM(TARGETS, 2, features=ufm.SimplexETF()), "a start of classes; allowed"),
        (lambda: ufm.correlated_targets([[1.0, 1.0], [1.0, 1.0]], 9), "symmetric and positive definite"),
        (lambda: ufm.correlated_targets([[1.0, 0.5], [0.0, 1.0]], 9), "symmetric and positive definite"),
        (lambda: ufm.correlated_targets([[1.0, 0.5]], 9), "a square matrix"),
        (lambda: ufm.correlated_targets(np.eye(3), 3), r"samples is 3; allowed: a whole number >= 4"),
    ],
)
def test_bad_input_gets_one_sentence(make, sentence):
    with pytest.raises((InvalidProblemError, IncompatibleError), match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("allowed") == 1


OPTIMIZERS = (
    ufm.GD(0.1), ufm.Momentum(0.1, 0.9, nesterov=True), ufm.SignGD(0.01), ufm.Signum(0.01, 0.9), ufm.Adam(0.02),
    ufm.NormalisedGD(0.05),
)  # fmt: skip


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("batch", [None, 5])
def test_kernels_agree_with_plain_numpy(optimizer, batch):
    problem = ufm.RegressionUFM(TARGETS + SHIFT, 4, bias=True)
    run = Run(problem, optimizer, rates(0.5), ufm.Gaussian(0.3), steps=30, seed=3, batch=batch)
    plain = reference.simulate(run)
    found = ufm.simulate(
        problem, optimizer, rates(0.5), init=ufm.Gaussian(0.3), steps=30, seed=3, batch=batch
    )
    for block in problem.trained:
        np.testing.assert_allclose(found[block], plain[block], atol=1e-12)
    fit, _ = reference.fit_and_gradient(problem, dict(found.state(30)), np.arange(12))
    assert found.fit[-1] == pytest.approx(fit, rel=1e-13)


def test_one_output_single_precision_lanes_and_files(tmp_path):
    problem = ufm.RegressionUFM(TARGETS[:1], 1)
    runs = [
        Run(problem, ufm.GD(0.2), rates(0.5), ufm.Gaussian(0.3), steps=20, seed=seed) for seed in range(5)
    ]
    alone = ufm.simulate(problem, ufm.GD(0.2), rates(0.5), init=ufm.Gaussian(0.3), steps=20, seed=2)
    np.testing.assert_allclose(ensemble(runs)[2].states, alone.states, atol=1e-14)
    single = ufm.simulate(
        problem, ufm.GD(0.2), rates(0.5), init=ufm.Gaussian(0.3), steps=20, seed=2, dtype="float32"
    )
    np.testing.assert_allclose(single.states, alone.states, atol=1e-5)
    loaded = ufm.load(alone.save(tmp_path / "run.npz"))
    assert loaded.problem == problem
    np.testing.assert_array_equal(loaded.resume(40).states[:21], alone.states)
    table = to_table(alone.run)
    assert run_from_table(table).problem == problem
    data = alone.to_xarray()
    assert data["W1"].dims == ("step", "output", "feature1")
    assert "nc0" not in data


def test_runs_with_other_targets_do_not_share_an_ensemble():
    runs = [Run(ufm.RegressionUFM(k * TARGETS, 2), ufm.GD(0.1), steps=2) for k in (1.0, 2.0)]
    with pytest.raises(IncompatibleError, match=r"problem\.loss"):
        ensemble(runs)


def test_a_sweep_over_widths_and_seeds():
    data = ufm.sweep(
        ufm.RegressionUFM(TARGETS, 3), ufm.GD(0.2), rates(0.05), steps=400, width=[1, 3], seed=[0, 1],
        record=ufm.At([]), metrics=["loss", "nrc1", "nrc2", "nrc3"], init=ufm.Gaussian(0.3),
    )  # fmt: skip
    end = data.isel(record=-1)
    assert end["loss"].sel(width=3).max() < end["loss"].sel(width=1).min()
    assert float(end["nrc3"].sel(width=3).max()) < 1e-3
    for width in (1, 3):  # gamma is fitted at the end of each run, not of several together
        run = ufm.simulate(
            ufm.RegressionUFM(TARGETS, width),
            ufm.GD(0.2),
            rates(0.05),
            steps=400,
            init=ufm.Gaussian(0.3),
            seed=0,
        )
        expected = metrics.nrc3(run)[[0, -1]]
        np.testing.assert_allclose(data["nrc3"].sel(width=width, seed=0), expected, rtol=1e-6, atol=1e-12)
    with pytest.raises(IncompatibleError, match="real numbers; allowed"):
        ufm.sweep(ufm.RegressionUFM(TARGETS, 3), ufm.GD(0.2), steps=2, seed=[0, 1])


def test_what_needs_classes_refuses_in_one_sentence():
    run = ufm.simulate(ufm.RegressionUFM(TARGETS, 4), ufm.GD(0.1), rates(0.5), steps=2)
    for metric in (
        metrics.nc0,
        metrics.nc1,
        metrics.nc2,
        metrics.nc2w,
        metrics.nc3,
        metrics.nc4,
        metrics.dnc1,
    ):
        with pytest.raises(IncompatibleError, match="targets are real numbers; allowed: a UFM or DUFM"):
            metric(run)
    for build in (solutions.dnc, solutions.linear_optimum, solutions.low_rank, solutions.zero):
        with pytest.raises(IncompatibleError, match="allowed"):
            build(run.problem, rates(0.5))
    with pytest.raises(IncompatibleError, match="allowed"):
        metrics.classify_solution(run)
    assert metrics.spectrum(run).shape == (3, 3)
    assert metrics.spectrum(run, "features").shape == (3, 4)
    with pytest.raises(IncompatibleError, match="a start of classes"):
        ufm.simulate(run.problem, ufm.GD(0.1), steps=1, init=ufm.Spectral(1.0))
    rows = {row.name: row for row in ufm.compare(run)}
    applying = {name for name, row in rows.items() if row.verdict != "not applicable"}
    assert applying == {"andriopoulos2024.minimum"}
    classification = ufm.simulate(ufm.UFM(3, 4), ufm.GD(0.1), steps=1)
    for metric in (metrics.nrc1, metrics.nrc2, metrics.nrc3, metrics.nrc3_gamma):
        with pytest.raises(IncompatibleError, match="allowed: a RegressionUFM"):
            metric(classification)


def test_decided_signs_are_those_of_more_precise_arithmetic(rng):
    """Targets of size 1e3, outputs within 1e-10 of them: no sign that is called decided is wrong."""
    targets = 1e3 * TARGETS
    problem = ufm.RegressionUFM(targets, 4, bias=True)
    W = rng.standard_normal((3, 4))
    H = np.linalg.lstsq(W, targets, rcond=None)[0] + 1e-10 * rng.standard_normal((4, 12))
    state = {"W": W, "H": H, "b": 1e-11 * rng.standard_normal(3)}
    found, undecided = problem.signs(state), 0
    wide = {name: value.astype(np.longdouble) for name, value in state.items()}
    R = wide["W"] @ wide["H"] + wide["b"][:, None] - targets
    right = {"W1": R @ wide["H"].T, "H": wide["W"].T @ R, "b": R.sum(axis=1)}
    for block in problem.trained:
        decided = ~found.undecided[block]
        undecided += int((~decided).sum())
        np.testing.assert_array_equal(np.sign(right[block])[decided], found.sign[block][decided])
    assert 0 < undecided < problem.size


def test_a_run_from_toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'steps = 5\n[problem]\ntype = "RegressionUFM"\ntargets = [[1.0, -1.0], [0.5, 2]]\nwidth = 3\n'
        '[optimizer]\ntype = "GD"\nlr = 0.1\n[decay]\ntype = "Coupled"\nrate = 0.01\n'
    )
    assert run_from_toml(path).problem == ufm.RegressionUFM([[1.0, -1.0], [0.5, 2.0]], 3)
    path.write_text(path.read_text().replace("0.5, 2", "0.5, nan"))
    with pytest.raises(InvalidProblemError, match="not finite"):
        run_from_toml(path)


def test_covariance_of_drawn_targets_is_exact():
    for seed in range(3):
        Y = ufm.correlated_targets(COVARIANCE, 7, seed)
        np.testing.assert_allclose(Y @ Y.T / 7, COVARIANCE, atol=1e-14)
        assert np.abs(Y.sum(axis=1)).max() < 1e-13
    assert not np.allclose(ufm.correlated_targets(COVARIANCE, 7, 0), ufm.correlated_targets(COVARIANCE, 7, 1))


# ------------------------------------------------------------------------------------------------ the optimum


@pytest.mark.parametrize("c", REGIMES.values(), ids=REGIMES)
@pytest.mark.parametrize(("width", "bias"), [(5, False), (3, True), (2, False), (1, True)])
def test_optimum_in_every_regime(c, width, bias):
    """Objective by L-BFGS to 1e-8, stationarity, and the printed consequences of the closed form."""
    problem = ufm.RegressionUFM(TARGETS + bias * SHIFT, width, bias=bias)
    ratio, M = 2.5, problem.samples
    decay = rates(c, ratio)
    found = regression_optimum(problem, decay)
    assert found.rank == min(width, int(np.sum(c < EIGENVALUES)))
    assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-14)
    assert max(np.abs(block).max() for block in problem.gradient(found.blocks, decay).values()) < 1e-14
    best = ufm.minimise(problem, decay, starts=2)
    assert best.loss == pytest.approx(found.loss, abs=1e-8)
    assert best.loss > found.loss - 1e-12
    l_W, l_H = room.published_rates(*(dict(decay.blocks)[name] for name in ("W", "H")), M)
    assert l_W * l_H == pytest.approx(c)
    if width >= 3:
        assert found.loss == pytest.approx(room.mode_loss(EIGENVALUES, l_W, l_H).sum(), rel=1e-13)
        gram = room.optimal_gram(COVARIANCE, l_W, l_H)
        np.testing.assert_allclose(found["W"] @ found["W"].T, gram, atol=1e-13)
        np.testing.assert_allclose(best.state["W"] @ best.state["W"].T, gram, atol=1e-5)
        E = found["W"] @ found["H"] - (TARGETS if bias else np.asarray(problem.targets))
        white = np.linalg.eigvalsh(E @ E.T / M)[::-1]
        np.testing.assert_allclose(white, np.sort(np.minimum(EIGENVALUES, c))[::-1], atol=1e-13)
    assert l_H * np.sum(found["H"] ** 2) == pytest.approx(M * l_W * np.sum(found["W"] ** 2))
    assert ufm.certify(problem, decay, found).verdict == "local minimum"


def test_uncentred_targets_without_bias_follow_their_second_moment():
    Y, decay = TARGETS + SHIFT, rates(0.3)
    problem = ufm.RegressionUFM(Y, 4)
    moment = np.linalg.eigvalsh(Y @ Y.T / 12)[::-1]
    found = regression_optimum(problem, decay)
    np.testing.assert_allclose(room.modes_of(problem).eigenvalues, moment, rtol=1e-12)
    assert found.loss == pytest.approx(ufm.minimise(problem, decay, starts=1).loss, abs=1e-8)
    assert found.loss > 1.01 * regression_optimum(ufm.RegressionUFM(Y, 4, bias=True), decay).loss


def test_singular_targets_and_few_samples_have_an_optimum_too():
    Y = np.array([[1.0, -1.0, 0.5], [2.0, -2.0, 1.0], [0.0, 0.0, 0.0]])  # rank 1
    for targets in (Y, Y[:, :1], 0 * Y):
        problem = ufm.RegressionUFM(targets, 2)
        decay = rates(0.01, samples=problem.samples)
        found = regression_optimum(problem, decay)
        assert found.rank == np.linalg.matrix_rank(targets)
        assert found.loss == pytest.approx(ufm.minimise(problem, decay, starts=1).loss, abs=1e-8)


def test_one_output_has_the_printed_norm():
    sigma, c, ratio = 2.0, 0.09, 4.0
    problem = ufm.RegressionUFM(ufm.correlated_targets([[sigma**2]], 5), 3, bias=True)
    found = regression_optimum(problem, rates(c, ratio, 5))
    assert np.sum(found["W"] ** 2) == pytest.approx(np.sqrt(ratio) * (sigma - np.sqrt(c)))
    assert metrics.nrc3(found["W"], problem.targets.array, c) == 0.0
    assert np.isnan(metrics.nrc3_gamma(found["W"], problem.targets.array))


def test_saddles_of_missing_and_of_wrong_modes():
    """Keeping modes 1 and 3, or at width 1 mode 2, is critical and a strict saddle; the curvatures are the claimed."""
    c, M = 0.05, 12
    root_c = np.sqrt(c)
    for width, chosen, swapped in ((4, (0, 2), None), (1, (1,), 0)):
        problem, decay = ufm.RegressionUFM(TARGETS, width), rates(c)
        modes = room.modes_of(problem)
        squares = np.where(np.isin(np.arange(3), chosen), modes.roots - root_c, 0.0)
        a = np.sqrt(squares if width > 1 else squares[list(chosen)])
        if width == 1:  # the one column belongs to the second mode
            other = modes._replace(
                roots=modes.roots[1:], outputs=modes.outputs[:, 1:], samples=modes.samples[1:]
            )
            state = room.aligned_blocks(problem, other, a, a)
        else:
            state = room.aligned_blocks(problem, modes, a, a)
        found = ufm.certify(problem, decay, state)
        assert found.verdict == "strict saddle"
        assert found.gradient < 1e-14
        if swapped is None:
            lam_W, lam_H, missing = root_c, root_c / M, modes.roots[1] / np.sqrt(M)
            expected = np.linalg.eigvalsh([[lam_W, -missing], [-missing, lam_H]])[0]
            assert found.curvature == pytest.approx(expected, rel=1e-6)
        else:
            speed = a[0] ** 2 * (1 + M)  # of the state that is turned
            along = -2 * (modes.roots[1] - root_c) * (modes.roots[0] - modes.roots[1]) / speed
            assert found.curvature <= along < 0


def test_printed_truncation_is_off_for_correlated_targets_alone():
    basis = np.array([[2.0, -2.0, 1.0], [1.0, 2.0, 2.0], [2.0, 1.0, -2.0]]) / 3
    values, rate = np.array([4.0, 1.0, 0.25]), 0.75
    covariance = basis * values @ basis.T
    found, printed = (gram(covariance, rate, rate) for gram in (room.optimal_gram, room.printed_gram))
    least = room.mode_loss(values, rate, rate).sum()
    assert room.gram_loss(found, covariance, rate, rate) == pytest.approx(least, rel=1e-14)
    assert room.gram_loss(printed, covariance, rate, rate) - least == pytest.approx(77 / 800, rel=1e-12)
    assert np.abs(found - printed).max() > 0.3
    np.testing.assert_allclose(
        *(gram(np.diag(values), rate, rate) for gram in (room.optimal_gram, room.printed_gram))
    )
    problem = ufm.RegressionUFM(ufm.correlated_targets(covariance, 6), 3)
    best = ufm.minimise(problem, rates(rate**2, samples=6), starts=1)
    assert best.loss == pytest.approx(least, abs=1e-8)
    assert np.abs(best.state["W"] @ best.state["W"].T - found).max() < 1e-6


def test_no_decay_has_no_geometry_and_the_limit_is_another():
    problem = ufm.RegressionUFM(TARGETS, 4)
    rng = np.random.default_rng(1)
    for _ in range(3):
        W = rng.standard_normal((3, 4))
        H = np.linalg.pinv(W) @ TARGETS
        assert problem.value({"W": W, "H": H}) < 1e-25
        assert metrics.nrc3(W, TARGETS, 0.0) > 1e-3
    gram = room.optimal_gram(COVARIANCE, 1e-12, 1e-12)
    np.testing.assert_allclose(gram @ gram, COVARIANCE, atol=1e-10)


# ------------------------------------------------------------------------------------------------- the metrics


def naive(W, H, Y, gamma):
    """NRC1, NRC2 and NRC3 in loops over samples."""
    n, M = Y.shape
    values, vectors = np.linalg.eigh(np.cov(H, bias=True))
    components = vectors[:, np.argsort(values)[::-1][:n]]
    rows = np.linalg.qr(W.T)[0]
    first = second = 0.0
    for i in range(M):
        u = H[:, i] / np.linalg.norm(H[:, i])
        first += np.linalg.norm(u - components @ components.T @ u) ** 2 / M
        second += np.linalg.norm(u - rows @ rows.T @ u) ** 2 / M
    values, vectors = np.linalg.eigh(np.cov(Y, bias=True))
    A = (vectors * np.sqrt(values)) @ vectors.T - np.sqrt(gamma) * np.eye(n)
    G = W @ W.T
    return first, second, np.linalg.norm(G / np.linalg.norm(G) - A / np.linalg.norm(A)) ** 2


def test_metrics_are_their_definitions_also_in_batches(rng):
    W, H = rng.standard_normal((2, 4, 3, 6)), rng.standard_normal((2, 4, 6, 12)) + 1.0
    Y, gamma = TARGETS + SHIFT, 0.3
    found = metrics.nrc1(H, 3), metrics.nrc2(W, H), metrics.nrc3(W, Y, gamma)
    for i in np.ndindex(2, 4):
        np.testing.assert_allclose([value[i] for value in found], naive(W[i], H[i], Y, gamma), rtol=1e-11)
    centred = H - H.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(metrics.nrc1(H, 3, centred=True), metrics.nrc1(centred, 3), rtol=1e-12)
    np.testing.assert_allclose(metrics.nrc2(W, H, centred=True), metrics.nrc2(W, centred), rtol=1e-12)
    assert np.abs(metrics.nrc1(H, 3, centred=True) / found[0] - 1).min() > 1e-3
    np.testing.assert_array_equal(metrics.nrc3(W, Y), metrics.nrc3(W, Y, metrics.nrc3_gamma(W[1, 3], Y)))


def test_fitted_gamma_is_the_best_one(rng):
    smallest = EIGENVALUES[-1]
    inside = 0
    for _ in range(20):
        W = np.linalg.cholesky(room.optimal_gram(COVARIANCE, 0.4, 0.4)) + 0.1 * rng.standard_normal((3, 3))
        found = metrics.nrc3_gamma(W, TARGETS)
        best = minimize_scalar(
            lambda g, W=W: metrics.nrc3(W, TARGETS, g), bounds=(0, smallest), method="bounded"
        )
        assert metrics.nrc3(W, TARGETS) <= best.fun * (1 + 1e-9)
        inside += 0 < found < smallest
        plain = metrics.nrc3_gamma(W, TARGETS, normalised=False)
        assert np.sqrt(plain) == pytest.approx(max(0, (np.sqrt(EIGENVALUES).sum() - np.sum(W**2)) / 3))
    assert inside > 5


def test_gamma_at_the_optimum_is_c_but_the_unnormalised_one_only_for_equal_rates():
    problem, c = ufm.RegressionUFM(TARGETS + SHIFT, 4, bias=True), 0.05
    for ratio in (1.0, 5.0, 0.2):
        W = regression_optimum(problem, rates(c, ratio))["W"]
        assert metrics.nrc3_gamma(W, TARGETS) == pytest.approx(c, rel=1e-9)
        assert metrics.nrc3(W, TARGETS, c) < 1e-28
        plain = metrics.nrc3_gamma(W, TARGETS, normalised=False)
        excess = (np.sqrt(EIGENVALUES) - np.sqrt(c)).mean()
        assert np.sqrt(plain) == pytest.approx(max(0, np.sqrt(c) + (1 - np.sqrt(ratio)) * excess), abs=1e-12)
        assert (abs(plain - c) < 1e-12) == (ratio == 1.0)


def test_metrics_of_a_run_fall_to_zero_and_degenerate_states_have_no_direction():
    problem, c = ufm.RegressionUFM(TARGETS + SHIFT, 6, bias=True), 0.05
    run = ufm.simulate(
        problem, ufm.GD(0.3), rates(c), init=ufm.Gaussian(0.3), steps=3000, record=ufm.LogSpaced(9)
    )
    for values in (metrics.nrc1(run), metrics.nrc2(run), metrics.nrc3(run, gamma=c), metrics.nrc3(run)):
        assert values.shape == (len(run),)
        assert values[-1] < 1e-6 < values[0]
    assert metrics.nrc3_gamma(run) == pytest.approx(c, rel=1e-2)
    assert np.isnan(metrics.nrc3(np.zeros((3, 4)), TARGETS, 0.1))
    assert metrics.nrc2(np.zeros((3, 4)), np.ones((4, 5))) == 1.0
    assert np.isnan(metrics.nrc1(np.full((4, 5), np.inf), 3))
    assert np.isnan(metrics.nrc3_gamma(np.full((3, 4), np.inf), TARGETS, normalised=False))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.nrc1(np.ones((2, 3))), "nrc1.outputs is None"),
        (lambda: metrics.nrc2(np.ones((2, 3)), np.ones((4, 5))), "the width of H"),
        (lambda: metrics.nrc3(np.ones((2, 3)), TARGETS), "a row for each output"),
        (lambda: metrics.nrc3(np.ones((3, 3)), TARGETS, -1.0), "nrc3.gamma is -1.0"),
        (lambda: metrics.nrc3(np.ones((3, 3)), TARGETS * np.nan), "a finite matrix"),
        (lambda: metrics.nrc3(np.ones((3, 3))), "nrc3.targets"),
        (lambda: room.optimal_gram([[1.0, 0.2], [0.0, 1.0]], 1.0, 1.0), "a symmetric matrix"),
    ],
)
def test_metrics_answer_bad_input_in_one_sentence(call, sentence):
    with pytest.raises(InvalidProblemError, match=sentence):
        call()


# ----------------------------------------------------------------------------------------- claims about runs


def test_no_record_lies_below_the_optimum():
    problem, decay = ufm.RegressionUFM(TARGETS + SHIFT, 2, bias=True), rates(0.3, 3.0)
    run = ufm.simulate(
        problem, ufm.GD(0.3), decay, init=ufm.Gaussian(0.3), steps=3000, record=ufm.LogSpaced(40)
    )
    row = ufm.compare(run)["andriopoulos2024.minimum"]
    assert row.verdict == "holds", row.reason
    assert row.control > 1e5
    assert run.loss[-1] == pytest.approx(regression_optimum(problem, decay).loss, rel=1e-9)
    below = replace(run, penalty=run.penalty * (1 - 1e-4))
    assert ufm.compare(below)["andriopoulos2024.minimum"].verdict == "fails"


@pytest.mark.parametrize("bias", [False, True])
def test_a_run_is_held_against_the_optimum_and_regression_collapse(bias):
    problem, decay = ufm.RegressionUFM(TARGETS + SHIFT, 4, bias=bias), rates(0.1, 3.0)
    run = ufm.simulate(problem, ufm.GD(0.3), decay, init=ufm.Gaussian(0.3), steps=3000, record=ufm.At([2]))
    ending = ufm.compare(run).ending
    assert ending.name == "regression optimum"
    assert ending.optimum.distance < 1e-3
    assert ending.gap < 1e-6
    assert ending.classification.nrc1 == metrics.nrc1(run)[-1]
    assert ending.verdict.startswith("at the global minimum to round-off")
    assert "NRC1" in ending.verdict
    assert "<- reached" in str(ending)
    early = ufm.simulate(problem, ufm.GD(0.3), decay, init=ufm.Gaussian(0.3), steps=2)
    assert ufm.compare(early).ending.name.startswith("rank ")
    assert ufm.compare(early).ending.optimum.distance > 0.1


def test_outputs_are_those_of_the_optimum_whatever_the_rotation():
    problem, decay = ufm.RegressionUFM(TARGETS + SHIFT, 4, bias=True), rates(0.1)
    best = regression_optimum(problem, decay)
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    turned = {"W": best["W"] @ Q, "H": Q.T @ best["H"], "b": best["b"]}
    run = ufm.simulate(problem, ufm.GD(0.1), decay, steps=0, init=ufm.Given(**turned))
    assert ufm.compare(run).ending.optimum.distance < 1e-12


def test_decay_that_leaves_nothing_ends_at_the_mean():
    problem, decay = ufm.RegressionUFM(TARGETS, 4), rates(50.0)
    run = ufm.simulate(problem, ufm.GD(0.01), decay, init=ufm.Zeros(), steps=3)
    ending = ufm.compare(run).ending
    assert ending.optimum.rank == 0
    assert ending.optimum.distance == 0.0


MODES = {
    "plain": (ufm.RegressionUFM(TARGETS, 3), rates(0.3, 2.0)),
    "bias": (ufm.RegressionUFM(TARGETS + SHIFT, 5, bias=True), rates(1.3)),
    "narrow, uncentred": (ufm.RegressionUFM(TARGETS + SHIFT, 2), rates(0.3)),
    "no decay": (ufm.RegressionUFM(TARGETS, 4), None),
    "one output": (ufm.RegressionUFM(TARGETS[:1], 2), rates(0.01, 0.1)),
}


@pytest.mark.parametrize("case", MODES)
def test_aligned_runs_follow_their_modes(case):
    problem, decay = MODES[case]
    start = aligned_modes(problem, 0.1, 0.05)
    run = ufm.simulate(problem, ufm.GD(0.2), decay, init=start, steps=600, record=ufm.LogSpaced(40))
    row = ufm.compare(run)["ufm.regression_modes"]
    assert row.verdict == "holds", row.reason
    assert row.ratio < 1 < row.control
    a, _ = room.mode_path(run.run)
    assert a.shape == (601, min(len(room.modes_of(problem).roots), problem.width))
    moved = replace(run, states=run.states * (1 + 1e-6))
    assert ufm.compare(moved)["ufm.regression_modes"].verdict == "fails"


def test_modes_grow_iff_their_eigenvalue_exceeds_c():
    for factor, grows in ((0.99, True), (1.01, False)):
        c = factor * EIGENVALUES[1]
        problem = ufm.RegressionUFM(TARGETS, 3)
        run = Run(problem, ufm.GD(0.2), rates(c), aligned_modes(problem, 1e-3, 1e-3), steps=40_000)
        a, _ = room.mode_path(run)
        assert (a[-1, 1] > 1e-2) == grows
        assert (a[-1, 1] < 1e-4) == (not grows)
        final = room.weight_square(EIGENVALUES, np.sqrt(c), np.sqrt(c))
        np.testing.assert_allclose(a[-1] ** 2, final, atol=2e-4)
        assert (room.escape_rate(EIGENVALUES, np.sqrt(c), np.sqrt(c), 12) > 0).tolist() == [
            True,
            grows,
            False,
        ]


def test_the_invariant_holds_along_slow_runs_without_decay():
    problem = ufm.RegressionUFM(TARGETS, 3)
    drift = []
    for lr in (0.02, 0.01):
        run = Run(problem, ufm.GD(lr), init=aligned_modes(problem, 0.5, 0.4), steps=round(20 / lr))
        kept = room.invariant(*room.mode_path(run), 12)
        drift.append(np.abs(kept[-1] - kept[0]).max())
    assert 0.4 < drift[1] / drift[0] < 0.6  # first order in the step
    assert drift[1] < 0.01 * abs(kept[0, 0])


def test_bound_of_the_modes_covers_the_linearised_growth(rng):
    """The growth factor bounds the norm of the Jacobian of a step, by finite differences, with bias and without."""
    for case in ("plain", "bias", "narrow, uncentred"):
        problem, decay = MODES[case]
        run = Run(problem, ufm.GD(0.3), decay, aligned_modes(problem, 0.3, 0.2), steps=3)
        start = room._aligned_start(run)
        a, q = room.mode_path(run)
        growth = room._growth(run, start, a, q)
        theta = problem.pack(room.aligned_blocks(problem, start.modes, a[0], q[0]))

        def step(x, problem=problem, decay=decay):
            gradient = problem.gradient(problem.unpack(x), decay)
            return x - 0.3 * np.concatenate([gradient[name].ravel() for name in problem.trained])

        eps = 1e-6
        columns = [(step(theta + eps * e) - step(theta - eps * e)) / (2 * eps) for e in np.eye(theta.size)]
        norm = np.linalg.norm(columns, 2)
        assert norm <= growth[0] * (1 + 1e-7)
        assert growth[0] < norm + 0.1


@pytest.mark.parametrize("bias", [False, True])
def test_growth_at_a_large_rate_counts_the_curvature_term_by_term(bias):
    """Where a step overshoots: eta (decay and coupling + max q^2 + max a^2/M + 1 with a bias) - 1, at every step."""
    problem, M = ufm.RegressionUFM(TARGETS, 3, bias=bias), 12
    decay = ufm.Coupled(**{"W1": 0.2, "H": 0.5}, **({"b": 0.0} if bias else {}))
    run = Run(problem, ufm.GD(ufm.Rates([2.0, 3.0])), decay, aligned_modes(problem, 0.3, 0.2), steps=2)
    start = room._aligned_start(run)
    a = np.array([[3.0, 1.0, 0.5], [4.0, 0.5, 0.0], [0.0, 0.0, 0.0]])
    q = np.array([[0.5, 2.0, 0.1], [0.1, 3.0, 1.0], [0.0, 0.0, 0.0]])
    r = np.abs(start.modes.roots - a * q).max(axis=1) / np.sqrt(M)
    highest = 0.35 + np.sqrt(0.15**2 + r**2) + np.array([4 + 9 / M, 9 + 16 / M, 0.0]) + bias
    expected = np.array([2.0, 3.0]) * highest[:2] - 1
    np.testing.assert_allclose(room._growth(run, start, a, q), expected, rtol=1e-14)


def test_bound_of_the_modes_term_by_term():
    """One step: the start, grown, and twice (n + d + M + 8) eta |grad| and four times the state, all times eps."""
    problem, M, eps = ufm.RegressionUFM(TARGETS + SHIFT, 3, bias=True), 12, 2.0**-52
    decay = ufm.Coupled(W1=0.2, H=0.5, b=0.0)
    run = Run(problem, ufm.GD(0.3), decay, aligned_modes(problem, 0.3, 0.2), steps=1)
    start = room._aligned_start(run)._replace(distance=1e-13)
    a, q = np.array([[3.0, 1.0, 0.5], [2.0, 0.5, 0.0]]), np.array([[0.5, 2.0, 0.1], [0.1, 1.0, 1.0]])
    W, H, mean = np.sqrt(10.25), np.sqrt(12 * 4.26), np.linalg.norm(problem.targets.array.mean(axis=1))
    residual = W * H + np.linalg.norm(problem.targets.array) + np.sqrt(M) * mean
    gradient = residual * (W + H + np.sqrt(M)) / M + 0.2 * W + 0.5 * H
    first = 1e-13 + 4 * eps * (W + H + mean)
    second = room._growth(run, start, a, q)[0] * first
    second += 2 * eps * ((3 + 3 + 12 + 8) * 0.3 * gradient + 4 * (W + H + mean))
    np.testing.assert_allclose(room._path_bound(run, start, a, q), [first, second], rtol=1e-12)


def test_claims_say_which_hypothesis_fails():
    problem = ufm.RegressionUFM(TARGETS, 3)
    start = aligned_modes(problem, 0.1, 0.1)
    modes, least = CLAIMS["ufm.regression_modes"], CLAIMS["andriopoulos2024.minimum"]
    said = {
        "Momentum steps": Run(problem, ufm.Momentum(0.1, 0.9), rates(1.0), start),
        "the start is": Run(problem, ufm.GD(0.1), rates(1.0), ufm.Gaussian(0.1)),
        "batches hold 5": Run(problem, ufm.GD(0.1), rates(1.0), start, batch=5),
        "the decay is Decoupled": Run(problem, ufm.GD(0.1), ufm.Decoupled(0.1), start),
        "the run is in float32": Run(problem, ufm.GD(0.1), rates(1.0), start, dtype="float32"),
        "the loss is MSE": Run(ufm.UFM(3, 4, loss="mse"), ufm.GD(0.1)),
        "W1 is frozen": Run(ufm.RegressionUFM(TARGETS, 3, classifier=np.eye(3)), ufm.GD(0.1)),
        "the bias decays": Run(ufm.RegressionUFM(TARGETS, 3, bias=True), ufm.GD(0.1), ufm.Coupled(0.1)),
        "the start cannot be drawn": Run(problem, ufm.GD(0.1), None, ufm.Given([[1.0]])),
    }
    for words, run in said.items():
        assert str(modes.applies(run)).startswith(words)
    assert least.applies(Run(problem, ufm.GD(0.1))).startswith("no coupled decay acts on H")
    assert least.applies(Run(ufm.UFM(3, 4), ufm.GD(0.1))).startswith("the loss is cross-entropy")
    for call in (
        lambda: regression_optimum(ufm.UFM(3, 4, loss="mse"), rates(1.0)),
        lambda: regression_optimum(problem, ufm.Coupled(W=0.1)),
        lambda: regression_optimum(problem, ufm.Decoupled(0.1)),
        lambda: regression_optimum(ufm.RegressionUFM(TARGETS, 3, bias=True), ufm.Coupled(0.1)),
        lambda: aligned_modes(problem, [0.1, 0.2], 0.1),
    ):
        with pytest.raises((InvalidProblemError, IncompatibleError), match="allowed"):
            call()


# ------------------------------------------------------------------------------------------ published numbers


def test_published_covariances_are_what_is_printed():
    found = {entry.name: entry for entry in room.published_covariances()}
    assert list(found) == ["Swimmer", "Reacher", "Hopper", "CARLA 2D", "CARLA 1D", "UTKFace"]
    for entry in found.values():
        values = np.linalg.eigvalsh(entry.assumed)
        assert values[0] == pytest.approx(entry.smallest, rel=1e-12)
        size = np.sqrt(np.diag(entry.assumed))
        np.testing.assert_allclose(entry.assumed / np.outer(size, size), entry.correlation_matrix, rtol=1e-12)
        assert len(entry.correlations) == entry.outputs * (entry.outputs - 1) // 2
        # a regression with these targets has its NRC3 at c, whatever the share that networks had
        problem = ufm.RegressionUFM(ufm.correlated_targets(entry.assumed, 8), 4, bias=True)
        c = 0.3 * entry.smallest
        W = regression_optimum(problem, rates(c, 2.0, 8))["W"]
        assert metrics.nrc3(W, problem.targets.array, c) < 1e-25
    shares = {name: entry.best_share for name, entry in found.items() if entry.best_share is not None}
    assert shares == {"Swimmer": 0.691, "Reacher": 0.749, "Hopper": 0.011, "CARLA 2D": 0.149}


def test_norms_over_the_decay_of_the_features():
    """l_W = 0.01, l_H from 1e-1 down: features shrink relative to the weights, the balance is exact."""
    norms = [
        (room.weight_square(EIGENVALUES, 0.01, l_H).sum(), room.feature_square(EIGENVALUES, 0.01, l_H).sum())
        for l_H in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
    ]
    for (w, h), l_H in zip(norms, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5), strict=True):
        assert l_H * h == pytest.approx(0.01 * w)
    assert all(later[0] < earlier[0] and later[1] > earlier[1] for earlier, later in pairwise(norms))


@pytest.mark.parametrize("covariance", [np.eye(2), 3 * np.eye(3), [[2.0]]], ids=["I", "3 I", "one output"])
def test_no_gamma_is_best_where_the_covariance_is_a_multiple_of_I(covariance, rng):
    targets = ufm.correlated_targets(covariance, 9)
    W = rng.standard_normal((len(covariance), 4))
    assert np.isnan(metrics.nrc3_gamma(W, targets))
    assert metrics.nrc3(W, targets) == pytest.approx(metrics.nrc3(W, targets, 0.5), abs=1e-14)


def test_metrics_of_constant_targets_and_of_no_matrices_are_nan():
    W = np.eye(2, 3)
    for targets in (np.zeros((2, 5)), np.ones((2, 1))):
        assert np.isnan(metrics.nrc3(W, targets))
        assert np.isnan(metrics.nrc3_gamma(W, targets))
    assert metrics.nrc3(np.zeros((0, 2, 3)), TARGETS[:2]).shape == (0,)
    assert np.isnan(metrics.nrc3_gamma(np.zeros((0, 2, 3)), TARGETS[:2]))
    assert metrics.nrc3_gamma(np.eye(2), ufm.correlated_targets(np.diag([2.0, 1.0]), 9)) == 0.0


# --------------------------------------------------------------------------------------- bounds of round-off


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_error_of_the_objective_counts_residuals_of_any_size(dtype):
    """Large means, residuals above 1: the squared error's own bound holds, a bound of another loss does not."""
    u = np.finfo(dtype).eps
    targets = 0.1 / u * (1 + 1e-3 * TARGETS[:1, :4])
    problem, worst = ufm.RegressionUFM(targets, 1, bias=True), 0.0
    for seed in range(6):
        start = {"H": np.zeros((1, 4)), "W": [[0.0]], "b": targets.mean(axis=1) * (1 + 1e-3 * seed)}
        traj = ufm.simulate(problem, ufm.GD(1e-3), rates(0.1), steps=3, init=ufm.Given(**start), dtype=dtype)
        b = traj["b"].astype(np.longdouble)[:, :, None]
        right = ((b - targets.astype(np.longdouble)) ** 2).sum(axis=(1, 2)) / 8
        error = np.abs(traj.fit - right).astype(float)
        worst = max(worst, float((error / objective_error(traj.judged(), np.arange(4))).max()))
    assert worst <= 1


def test_targets_below_the_range_of_the_precision_refute_nothing():
    problem, decay = ufm.RegressionUFM(1e-120 * TARGETS, 3), rates(1.0)
    start = ufm.Given(**regression_optimum(problem, decay).blocks)
    traj = ufm.simulate(problem, ufm.GD(0.1), decay, steps=5, init=start, dtype="float32")
    assert ufm.compare(traj)["andriopoulos2024.minimum"].verdict == "inconclusive"


def test_an_aligned_run_that_diverges_is_judged_while_it_is_finite():
    problem = ufm.RegressionUFM(TARGETS, 3)
    with pytest.raises(DivergedError) as caught:
        ufm.simulate(problem, ufm.GD(20.0), rates(0.5), steps=60, init=aligned_modes(problem, 0.3, 0.2))
    assert ufm.compare(caught.value.trajectory)["ufm.regression_modes"].verdict != "fails"
