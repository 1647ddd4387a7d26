"""The optimum behind batch normalisation attained and reached, what carries a simplex, what a gap of loss forces."""

from dataclasses import replace

import numpy as np
import pytest

import ufm
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.metrics import inter_class_cosine, intra_class_cosine
from ufm.solutions.normalised import frame, normalised_simplex
from ufm.theory import batch_normalisation as room

CLAIMS = {claim.name: claim for claim in room.CLAIMS}
OPTIMUM, GAP = CLAIMS["pan2023.optimum"], CLAIMS["ufm.gap_bounds_intra"]
VALUES = [(4, 4, 5, 1e-2, 0.09436169), (4, 6, 3, 1e-1, 0.58750093), (6, 10, 4, 5e-3, 0.07337321)]


def problem_of(C, d, n, **options):
    return ufm.UFM(C, d, n, normalisation=ufm.BatchNorm(), **options)


def both(lam, other=None):
    return ufm.Coupled(W=lam, gamma=lam if other is None else other)


# ------------------------------------------------------------------------------------------- the optimum


@pytest.mark.parametrize(("C", "d", "n", "lam", "loss"), VALUES)
def test_optimum_is_attained_and_reached_by_lbfgs(C, d, n, lam, loss):
    problem, decay = problem_of(C, d, n), both(lam)
    found = normalised_simplex(problem, decay)
    assert round(found.loss, 8) == loss
    assert problem.value(found.blocks, decay) == pytest.approx(found.loss, abs=1e-15)
    assert max(np.abs(g).max() for g in problem.gradient(found.blocks, decay).values()) < 1e-15
    reached = ufm.minimise(problem, decay, starts=2, init=ufm.Gaussian(0.5))
    assert np.abs(reached.losses - found.loss).max() < 1e-10
    norm = np.sqrt(C) * room.norm_product(C, lam / np.sqrt(C))
    for block in ("gamma", "W"):
        assert (reached.state[block] ** 2).sum() == pytest.approx(norm, abs=1e-5)
    if lam == 1e-2:
        assert round(norm, 5) == 7.92481


def test_a_run_of_gradient_descent_ends_at_the_optimum_and_the_claim_holds():
    problem, decay = problem_of(4, 4, 5), both(1e-2)
    traj = ufm.simulate(
        problem, ufm.Momentum(0.2, 0.9), decay, steps=2500, init=ufm.Gaussian(0.5), record=ufm.Every(25)
    )
    assert traj.loss[-1] == pytest.approx(normalised_simplex(problem, decay).loss, abs=1e-8)
    report = ufm.compare(traj)
    assert report.ok
    for name in ("pan2023.optimum", "ufm.gap_bounds_intra"):
        assert report[name].verdict == "holds", report[name].reason
        assert report[name].control > 10


def test_different_rates_and_a_bias():
    problem, decay = problem_of(5, 7, 2, bias=True), ufm.Coupled(W=2e-2, gamma=5e-3, b=1e-3)
    found = normalised_simplex(problem, decay)
    reached = ufm.minimise(problem, decay, starts=3, init=ufm.Gaussian(0.5))
    assert reached.loss == pytest.approx(found.loss, abs=1e-11)
    assert (reached.state["gamma"] ** 2).sum() == pytest.approx((found["gamma"] ** 2).sum(), abs=1e-4)
    assert 5e-3 * (found["gamma"] ** 2).sum() == pytest.approx(2e-2 * (found["W"] ** 2).sum(), rel=1e-14)


def test_beyond_the_threshold_everything_is_zero():
    problem = problem_of(4, 5, 2)
    for lam, zero in ((0.4, False), (0.51, True)):
        found = normalised_simplex(problem, both(lam))
        assert (found.rank == 0) == zero == (found.loss == np.log(4))
        reached = ufm.minimise(problem, both(lam), starts=3, init=ufm.Gaussian(1.0), certificate=False)
        assert reached.loss == pytest.approx(found.loss, abs=1e-10)


@pytest.mark.parametrize("gamma", [(0.8, 0.9, -1.0, 1.1), (1.0, 1.0, -1.0, 0.0), (1.2, 1.0, 0.7, -0.9)])
def test_fixed_scales(gamma):
    problem, decay = problem_of(4, 4, 3, frozen={"gamma": gamma}), ufm.Coupled(W=1e-2)
    if 3 * max(g**2 for g in gamma) > sum(g**2 for g in gamma) * (1 + 1e-12):
        with pytest.raises(InvalidProblemError, match=r"gamma_j\^2 <= \|\|gamma\|\|\^2"):
            normalised_simplex(problem, decay)
        reached = ufm.minimise(problem, decay, starts=4, init=ufm.Gaussian(1.0))
        assert reached.loss > room.least(problem, {"W1": 1e-2}) + 1e-4  # the bound is not attained
        return
    found = normalised_simplex(problem, decay)
    assert problem.value(found.blocks, decay) == pytest.approx(found.loss, abs=1e-14)
    assert max(np.abs(g).max() for g in problem.gradient(found.blocks, decay).values()) < 1e-14
    assert ufm.minimise(problem, decay, starts=2).loss == pytest.approx(found.loss, abs=1e-10)


def test_frames_have_the_norms_that_are_asked_for(rng):
    for _ in range(100):
        rows = int(rng.integers(1, 10))
        rank = int(rng.integers(1, rows + 1))
        Q = np.linalg.qr(rng.standard_normal((rows, rows)))[0][:, :rank]
        squares = (Q**2).sum(axis=1)  # norms that a frame has
        R = frame(squares, rank)
        assert np.abs(R.T @ R - np.eye(rank)).max() < 1e-14
        assert np.abs((R**2).sum(axis=1) - squares).max() < 1e-14


def test_refusals():
    decay = both(1e-2)
    cases = [
        (ufm.UFM(4, 4), ufm.Coupled(0.1), "allowed: a UFM with BatchNorm"),
        (ufm.UFM(4, 4, normalisation=ufm.BatchNorm(1e-5)), decay, "eps = 0"),
        (problem_of(4, 4, 2, loss="mse"), decay, "problem.loss"),
        (problem_of(4, 4, (1, 1, 1, 2)), decay, "classes of equal size"),
        (problem_of(4, 2, 1), decay, r"at least classes - 1 = 3"),
        (problem_of(4, 4, 2), ufm.Coupled(0.1), "coupled decay of H"),
        (problem_of(4, 4, 2), ufm.Coupled(W=0.1), "coupled decay of gamma"),
        (problem_of(4, 4, 2), ufm.Decoupled(W=0.1), "coupled decay alone"),
        (problem_of(4, 4, 2, classifier=ufm.SimplexETF()), ufm.Coupled(gamma=0.1), "block W1 is frozen"),
    ]
    for problem, given, sentence in cases:
        with pytest.raises((InvalidProblemError, IncompatibleError), match=sentence):
            normalised_simplex(problem, given)


# --------------------------------------------------------------------------------------- the claims on runs


def short_run(problem, decay=None, **options):
    return ufm.simulate(problem, ufm.GD(0.1), decay, steps=20, init=ufm.Gaussian(0.5), **options).judged()


def test_claims_name_the_hypothesis_that_fails():
    decay, plain = both(0.1), ufm.UFM(3, 3, 2)
    reasons = [
        (plain, ufm.Coupled(0.1), "not those of one layer behind a batch normalisation"),
        (problem_of(3, 3, 2), ufm.Coupled(W=0.1), "no coupled decay acts on gamma"),
        (problem_of(3, 3, 2, loss="mse"), decay, "the loss is MSE"),
        (problem_of(3, 3, (2, 2, 1)), decay, "classes have from 1 to 2 samples"),
        (problem_of(3, 3, 2, classifier=ufm.SimplexETF()), ufm.Coupled(gamma=0.1), "W1 is frozen"),
    ]
    for problem, given, sentence in reasons:
        assert sentence in OPTIMUM.applies(short_run(problem, given))
    assert "one sample" in GAP.applies(short_run(ufm.UFM(3, 3, 1)))
    assert GAP.applies(short_run(plain)) is None


def test_no_normalised_run_is_below_the_optimum():
    """With eps, decay of H, fixed scales, mini-batches and float32 too, where the optimum is not attained."""
    runs = [
        short_run(ufm.UFM(3, 3, 4, normalisation=ufm.BatchNorm(0.1)), both(0.1), batch=5),
        short_run(problem_of(3, 3, 2), ufm.Coupled(0.1), dtype="float32"),
        short_run(problem_of(3, 3, 2, frozen={"gamma": np.ones(3)}), ufm.Coupled(W=0.1)),
    ]
    for run in runs:
        assert OPTIMUM.applies(run) is None
        assert OPTIMUM.predict(run).ratio <= 1
    lower = replace(runs[0].trajectory, penalty=runs[0].trajectory.penalty - 1.0)
    assert OPTIMUM.predict(lower.judged()).ratio > 1e6


def test_every_balanced_state_obeys_the_bound_on_cosines():
    """Runs with and without normalisation and bias, of several layers, and the distance of the bound from the truth."""
    runs = [
        short_run(ufm.UFM(3, 4, 5, bias=True)),
        short_run(ufm.DUFM(3, 4, 3, 4, loss="ce"), ufm.Coupled(0.01)),
        short_run(problem_of(4, 6, 3), both(1e-2), dtype="float32"),
        short_run(ufm.UFM(2, 1, 2)),
    ]
    for run in runs:
        assert GAP.applies(run) is None
        assert GAP.predict(run).ratio <= 1
    C, problem, decay = 4, problem_of(4, 6, 3), both(1e-2)
    best = normalised_simplex(problem, decay)
    moved = problem.unpack(
        problem.pack(best.blocks) + 1e-3 * np.random.default_rng(0).standard_normal(problem.size)
    )
    traj = ufm.simulate(problem, ufm.GD(0.0), decay, steps=0, init=ufm.Given(**moved))
    W, H = traj["W"][0], traj.features()[0]
    Wt = W - W.mean(axis=0)
    B = room.largest_margin(np.sqrt((H**2).sum() / 12), np.linalg.norm(Wt), C)
    gap = traj.fit[0] - room.fit_bound(B, C)
    share = (Wt**2).sum(axis=1) / (Wt**2).sum()
    bound = room.intra_bound(gap, B, share, C)
    spread = 1 - intra_class_cosine(H, problem.labels, "each")
    assert (spread < bound).all()
    assert (spread > bound / 200).all()  # as most of this gap is not spread within classes


def test_no_smaller_constant_bounds_the_cosines():
    """One sample of a class at margin 0 that points away, the rest stretched: 1 - intra nears the bound as B -> 0."""
    C, n, B = 3, 1000, 1e-3
    problem = ufm.UFM(C, C, n)
    W = np.sqrt(B) * (np.eye(C) - 1 / C)
    H = W[problem.labels].T.copy()
    away = int(np.flatnonzero(problem.labels == 0)[0])
    H[:, away] *= -1e-6
    largest = room.largest_margin(np.sqrt((H**2).sum(axis=0).mean()), np.linalg.norm(W), C)
    gap = problem.value({"H": H, "W1": W}) - room.fit_bound(largest, C)
    spread = 1 - intra_class_cosine(H, problem.labels)
    assert 0.99 < spread / room.intra_bound(gap, largest, 1 / C, C) < 1


def test_features_whose_variance_overflows_are_not_judged():
    problem = problem_of(3, 2, 4)
    H, W = (np.random.default_rng(seed).standard_normal(shape) for seed, shape in ((0, (2, 12)), (9, (3, 2))))
    start = ufm.Given(H=1e-3 * H, W1=W, gamma=np.ones(2))
    traj = ufm.simulate(problem, ufm.GD(1e8), both(1e-9), steps=60, init=start)
    assert np.abs(traj["H"]).max() > 1e154
    for claim in (OPTIMUM, GAP):
        assert claim.predict(traj.judged()).ratio <= 1


def test_subset_means_obey_the_lemma(rng):
    for _ in range(200):
        x, size = rng.standard_normal(12) * rng.exponential(), int(rng.integers(1, 12))
        f = x**4 + 0.5 * x**2  # f - x^2/2 is convex: s = 1
        gap = f.mean() - (x.mean() ** 4 + 0.5 * x.mean() ** 2)
        chosen = rng.permutation(12)[:size]
        assert abs(x[chosen].mean() - x.mean()) <= room.subset_mean_bound(gap, 1.0, size / 12) * (1 + 1e-12)


# ------------------------------------------------------------------------------------------- the exponents


def test_exponents_of_perturbations_are_one_and_a_half_and_not_the_published_ones():
    from proofs_check.batch_normalisation import exponents_of_perturbations

    found = exponents_of_perturbations()
    assert found == pytest.approx(room.EXPONENTS, rel=0.03)
    assert found != pytest.approx(room.PUBLISHED_EXPONENTS, rel=0.9)


def test_along_a_run_cosines_between_classes_may_fall_with_exponent_one():
    """What vanishes last moves features within their classes, and class means at second order only."""
    problem, decay = problem_of(4, 6, 3), both(1e-1)
    best = normalised_simplex(problem, decay).loss
    traj = ufm.simulate(
        problem, ufm.GD(0.5), decay, steps=2000, init=ufm.Gaussian(0.5), seed=1, record=ufm.Every(50)
    )
    gap = traj.loss - best
    late = (gap < 1e-4) & (gap > 1e-10)
    logs = np.log([gap, 1 - intra_class_cosine(traj), inter_class_cosine(traj) + 1 / 3])[:, late]
    slopes = [np.polyfit(logs[0], logs[i], 1)[0] for i in (1, 2)]
    assert slopes == pytest.approx([1, 1], rel=0.03)


@pytest.mark.parametrize(
    ("settings", "spread", "window", "exponents"),
    [((4, 6, 3), 0.1, (1e-4, 1e-2), (4.45, 0.79)), ((2, 3, 4), 0.3, (1e-9, 1e-5), (1.5, 1.5))],
)
def test_along_a_run_exponents_depend_on_the_spread_of_its_start(settings, spread, window, exponents):
    """A row of small spread turns fast: its features collapse within classes long before norms and means settle."""
    C, d, n = settings
    problem, decay, rng = problem_of(C, d, n), both(0.1), np.random.default_rng(0)
    H, W = spread * rng.standard_normal((d, C * n)), 0.5 * rng.standard_normal((C, d))
    start = ufm.Given(H=H, W1=W, gamma=np.ones(d))
    traj = ufm.simulate(problem, ufm.GD(0.1), decay, steps=3000, init=start, record=ufm.Every(10))
    gap, intra = traj.loss - normalised_simplex(problem, decay).loss, 1 - intra_class_cosine(traj)
    seen = (gap > window[0]) & (gap < window[1]) & (intra > 1e-13)
    logs = np.log(np.array([gap, intra, inter_class_cosine(traj) + 1 / (C - 1)])[:, seen])
    assert [np.polyfit(logs[0], one, 1)[0] for one in logs[1:]] == pytest.approx(exponents, rel=0.1)


def test_fixed_gap_and_relative_gap_order_decays_differently():
    """A larger decay forces more at the same gap, but less at the same share of m_reg."""
    kappas = np.array([1e-4, 1e-3, 1e-2])
    margin = np.array([room.critical_margin(4, kappa) for kappa in kappas])
    absolute = 2 / (3 * kappas * margin)
    relative = np.array([room.relative_constant(4, kappa) for kappa in kappas])
    assert (np.diff(absolute) < 0).all()
    assert (np.diff(relative) > 0).all()
    assert (relative > 2).all()


def test_size_of_logits_is_the_largest_of_each_sample_in_the_mean():
    W, H = np.array([[[1.0, -2.0], [3.0, 0.0]]]), np.array([[[1.0, -1.0, 0.0], [2.0, 0.0, 4.0]]])
    # sums of absolute terms [[5, 1, 8], [3, 3, 0]]
    assert room._sizes_of_logits(W, H).tolist() == [(5 + 3 + 8) / 3]


def test_error_of_the_bound_on_cosines_term_by_term(rng):
    problem = ufm.UFM(3, 4, 2)
    state = {name: rng.standard_normal(problem.shapes[name]) for name in problem.trained}
    W, H = state["W1"], state["H"]
    _, _, [rounding] = room._spread_and_bound(problem, W[None], H[None], (W @ H)[None])
    Wt = W - W.mean(axis=0)
    squares = (Wt**2).sum(axis=1)
    B = room.largest_margin(np.sqrt((H**2).sum() / 6), np.sqrt(squares.sum()), 3)
    per_gap = room.intra_bound(1.0, B, squares / squares.sum(), 3)
    logits = (np.abs(W) @ np.abs(H)).max(axis=0).mean()
    expected = 2.0**-52 * (4 + 6 + 8) * (2 + 4 * logits + problem.value(state)) * (1 + per_gap)
    assert rounding == pytest.approx(expected, rel=1e-12, abs=0)
