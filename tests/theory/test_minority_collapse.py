"""Unequal classes: the merging rule on both sides, certified optima, the layer-peeled threshold, claims on runs."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import logsumexp

import ufm
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.theory import _class_groups as class_groups
from ufm.theory import minority_collapse as room
from ufm.theory._class_groups import Setting, nuclear_norm, solve
from ufm.theory._lower_bound import objective_error

CLAIM = {claim.name: claim for claim in room.CLAIMS}
BIASES = (None, 0.0, 0.02)  # none, free, decaying


def of_sizes(sizes, rate, bias=None):
    found = class_groups.groups_of(sizes)
    N = sum(sizes)
    shares, roots = tuple(n / N for n in found.sizes), tuple(n**0.5 for n in found.sizes)
    return Setting(found.counts, shares, roots, rate, bias)


def structures(count, seed=0):
    """Random groups: two to four sizes, the smaller ones shared by two classes or more."""
    rng = np.random.default_rng(seed)
    found = []
    while len(found) < count:
        G = rng.integers(2, 5)
        sizes, counts = rng.choice(np.arange(2, 60), G, replace=False), rng.integers(1, 5, G)
        if counts[np.argmin(sizes)] > 1:
            found.append(tuple(int(n) for n, c in zip(sizes, counts, strict=True) for _ in range(c)))
    return found


def check_both_sides(sizes, bias):
    """The merged state is optimal, by its certificate, just above each threshold, and beaten just below."""
    N, found = sum(sizes), class_groups.groups_of(sizes)
    for g, (size, count) in enumerate(zip(found.sizes, found.counts, strict=True)):
        if count == 1:
            continue
        threshold = float(room.merging_threshold(size, N))
        above, below = (solve(of_sizes(sizes, factor * threshold, bias)) for factor in (1.005, 0.995))
        assert above.amplitudes[g] == 0
        assert below.amplitudes[g] > 1e-3
        assert max(above.gap, below.gap) < 1e-13
        assert min(above.gap, below.gap) > -1e-14  # rounding


@pytest.mark.parametrize("bias", BIASES)
def test_merging_rule_on_both_sides_of_the_threshold(bias):
    for sizes in structures(5):
        check_both_sides(sizes, bias)


@pytest.mark.slow
@pytest.mark.parametrize("bias", BIASES)
def test_merging_rule_for_24_group_structures(bias):
    for sizes in structures(24, seed=1):
        check_both_sides(sizes, bias)


def check_direct(sizes, bias):
    """L-BFGS on W, H, b themselves, which knows nothing of groups: the logit spread of the smallest classes."""
    N, small = sum(sizes), min(sizes)
    members = np.flatnonzero(np.array(sizes) == small)
    rate = float(room.merging_threshold(small, N))
    problem = ufm.UFM(len(sizes), len(sizes), per_class=sizes, bias=bias is not None)
    for factor in (1.005, 0.995):
        decay = ufm.Coupled(W=2 * factor * rate, H=factor * rate / 2, **({"b": bias} if bias else {}))
        found = ufm.minimise(problem, decay, starts=1, tolerance=1e-13, iterations=20_000, certificate=False)
        least = room.optimum(problem, decay)
        assert -1e-13 < found.loss - least.value < 1e-9
        means = (found.state["W"] @ found.state["H"])[
            np.ix_(members, np.searchsorted(problem.labels, members))
        ]
        spread = np.abs(means - means.mean(axis=1, keepdims=True)).max()
        amplitude = least.amplitudes[-1] * (1 - 1 / len(members))
        assert spread == pytest.approx(amplitude, abs=3e-4)
        assert (amplitude > 1e-3) == (factor < 1)


def test_merging_rule_by_direct_minimisation():
    check_direct((5, 2, 2), None)


@pytest.mark.slow
@pytest.mark.parametrize("bias", BIASES)
def test_merging_rule_by_direct_minimisation_of_many_structures(bias):
    for sizes in structures(24, seed=1):
        check_direct(sizes, bias)


def test_certificate_refuses_what_is_not_optimal(monkeypatch):
    """Groups merged against the rule, or left apart with no reason to, leave a gap."""
    sizes = (20, 20, 2, 2)
    setting = of_sizes(sizes, 0.99 * 2**0.5 / 44)
    assert solve(setting).gap < 1e-14
    merged = class_groups._Solver(setting)
    merged.active = merged.active[:1]
    assert merged.solution().gap > 1e-7
    best = class_groups._Solver(setting)
    monkeypatch.setattr(class_groups, "NEWTON", 0)
    monkeypatch.setattr(class_groups, "ROUNDS", 0)
    assert best.solution().gap > 1e-3


def test_bound_lies_below_every_state(rng):
    """F >= bound + mean KL(q || softmax) at random states, for random distributions of the certificate."""
    for bias in BIASES:
        sizes = (6, 3, 3, 1)
        problem = ufm.UFM(4, 2, per_class=sizes, bias=bias is not None)
        decay = ufm.Coupled(W=0.03, H=0.05, **({"b": bias} if bias else {}))
        means = room.optimum(problem, decay)
        assert means.gap < 1e-13
        for scale in (0.01, 1.0, 3.0):
            state = {name: scale * rng.standard_normal(problem.shapes[name]) for name in problem.blocks}
            Z = state["W1"] @ state["H"] + (state["b"][:, None] if problem.bias else 0.0)
            log_p = Z - logsumexp(Z, axis=0)
            q = _distributions(problem, means)[:, problem.labels]
            divergence = float((q * (np.log(q) - log_p)).sum(axis=0).mean())
            assert problem.value(state, decay) >= means.bound + divergence - 1e-12


def _distributions(problem, means):
    """Columns q_k of the dual point, class by class."""
    found = room.groups(problem)
    q = np.empty((problem.classes, problem.classes))
    for g, members in enumerate(found.members):
        for h, rows in enumerate(found.members):
            q[np.ix_(rows, members)] = means.total[h, g] / len(rows)
        q[np.ix_(members, members)] = means.other[g]
        q[members, members] = means.own[g]
    np.testing.assert_allclose(q.sum(axis=0), 1, atol=1e-14)
    return q


def test_equal_classes_have_the_known_margin():
    for K, n, rate in ((4, 10, 0.01), (3, 1, 0.2), (7, 2, 0.05), (4, 1, 0.26)):
        kappa = n**0.5 * rate
        margin = np.log(max(1 / kappa - (K - 1), 1.0))
        found = solve(of_sizes([n] * K, rate))
        assert found.amplitudes[0] == pytest.approx(margin, abs=1e-12)
        assert found.value == pytest.approx(
            np.log1p((K - 1) * np.exp(-margin)) + (K - 1) * kappa * margin, abs=1e-14
        )
        assert (found.amplitudes[0] == 0) == (K * kappa >= 1)


@pytest.mark.parametrize(
    ("sizes", "rate", "bias", "spread"),
    [
        ([500] * 5 + [100] * 5, 0.0033, 0.02, 0.094),
        ([500] * 5 + [100] * 5, 0.0033, None, 0.066),
        ([299] * 5 + [100] * 5, 0.005, 0.02, 0.023),
        ([430] * 3 + [100] * 7, 0.005, 0.02, 0.049),
        ([500] * 5 + [100] * 5, 0.00335, 0.02, 0.0),
        ([301] * 5 + [100] * 5, 0.005, 0.02, 0.0),
        ([436] * 3 + [100] * 7, 0.005, 0.02, 0.0),
    ],
)
def test_settings_of_the_released_commands(sizes, rate, bias, spread):
    """Logit spreads computed by other means to two digits; lam_b = 0.01 without halves is 0.02 here."""
    found = solve(of_sizes(sizes, rate, bias))
    minority = sizes.count(100)
    assert found.amplitudes[1] * (1 - 1 / minority) == pytest.approx(spread, abs=6e-4)
    assert found.gap < 1e-14


def test_consequences_of_the_rule():
    assert room.critical_ratio(0.005, 100, 3, 7) * 100 == pytest.approx(433.3333, abs=1e-3)
    low, high = room.buffer_sizes(0.005, 1000, 5)
    for b, apart in ((low * 0.999, False), (low * 1.001, True), (high * 0.999, True), (high * 1.001, False)):
        assert (room.merging_threshold(b, 1000 + 5 * b) > 0.005) == apart
    assert np.isnan(room.buffer_sizes(0.01, 1000, 5)).all()  # 4 lam_Z^2 K_old N_new = 2


def test_buffer_sizes_keep_their_digits_at_small_decay():
    low, high = room.buffer_sizes(1e-12, 1000, 5)
    assert low == pytest.approx((1e-12 * 1000) ** 2, rel=1e-12)
    assert high == pytest.approx((1e-12 * 5) ** -2, rel=1e-12)


def test_coarse_threshold_is_that_of_the_merged_problem():
    """Three sizes of one class each never merge by the rule; two single classes meet at the coarse threshold."""
    sizes = (9, 4)
    threshold = float(room.coarse_threshold(9, 4, 1, 1))
    apart, met = (solve(of_sizes(sizes, factor * threshold, 0.0)) for factor in (0.995, 1.005))
    assert np.abs(apart.coarse).max() > 1e-3
    assert not met.coarse.any()
    np.testing.assert_allclose(met.bias[0] - met.bias[1], np.log(9 / 4), atol=1e-12)
    problem = ufm.UFM(3, 3, per_class=(9, 4, 4), bias=True)
    decay = ufm.Coupled(W=0.4, H=0.4)
    assert room.merged_groups(problem, decay) == ((0, 1, 2),)


def test_merged_groups_by_decay():
    problem = ufm.UFM(7, 7, per_class=(3, 30, 3, 12, 30, 12, 5))
    N = 95
    apart = tuple((k,) for k in range(7))
    steps = {
        0.9 * 3**0.5 / N: apart,
        1.1 * 3**0.5 / N: ((0, 2), (1,), (3,), (4,), (5,), (6,)),
        1.1 * 12**0.5 / N: ((0, 2), (1,), (3, 5), (4,), (6,)),
        1.1 * 30**0.5 / N: (tuple(range(7)),),
    }
    for rate, wanted in steps.items():
        assert room.merged_groups(problem, ufm.Coupled(rate)) == wanted


# ------------------------------------------------------------------------------------ layer-peeled model

TABLE = {  # R_0 at E = 0.5, 1, sqrt 5, 3, sqrt 10, 5, found by solving the convex problem
    (5, 5): (1.1924, 1.7354, 12.192, 57.77, 81.10, 3955),
    (3, 7): (1.4744, 4.1359, 245.5, 3588, 6350),
    (2, 2): (1.5840, 3.3805, 47.68, 283.0, 414.1),
}


@pytest.mark.parametrize("counts", TABLE)
def test_table_of_thresholds(counts):
    for budget, wanted in zip((0.5, 1, 5**0.5, 3, 10**0.5, 5), TABLE[counts], strict=False):
        assert room.peeled_threshold(*counts, budget) == pytest.approx(wanted, rel=2e-4)


def test_the_curve_is_where_the_multiplier_reaches_the_share(rng):
    for _ in range(8):
        K_A, K_B = int(rng.integers(1, 6)), int(rng.integers(2, 6))
        budget = rng.uniform(0.2, 2.0)
        ratio = room.peeled_threshold(K_A, K_B, budget)
        share = 1 / (K_A * ratio + K_B)
        setting = room.peeled_setting(K_A, K_B, ratio, share * (1 + 1e-12))
        means = solve(setting)
        assert means.amplitudes[1] == 0
        assert means.gap < 1e-12
        assert nuclear_norm(setting, means) == pytest.approx((K_A + K_B) * budget, rel=1e-9)
        apart = solve(room.peeled_setting(K_A, K_B, ratio, share * 0.99))
        assert apart.amplitudes[1] > 1e-3


def test_growth_of_the_threshold():
    for K_A, K_B in ((5, 5), (2, 3)):
        wanted = room.peeled_growth(K_A, K_B)
        low, high = (np.log(room.peeled_threshold(K_A, K_B, budget)) for budget in (80.0, 88.0))
        assert (high - low) / 8 == pytest.approx(wanted, rel=1e-3)


def peeled_minority_cosine(K_A, K_B, ratio, E_W, E_H):
    """Smallest cosine of two minority classifiers, at the end of a direct minimisation."""
    W = room.descend_peeled(K_A, K_B, ratio, E_W, E_H)[0][K_A:]
    W = W / np.linalg.norm(W, axis=1, keepdims=True)
    return float((W @ W.T).min())


def test_the_rank_does_not_depend_on_the_size_of_the_means():
    problem = ufm.UFM(6, 6, per_class=(20, 20, 9, 9, 2, 2))
    means = room.optimum(problem, ufm.Coupled(0.01))
    small = means._replace(coarse=1e-12 * means.coarse)
    assert room.rank(problem, means) == room.rank(problem, small) == 5


def test_the_layer_peeled_search_sees_the_product_of_the_budgets_alone():
    """Powers of two, so that both searches take the same steps bit for bit."""
    (W, H), (V, G) = (room.descend_peeled(2, 2, 3.0, *budgets) for budgets in ((1.0, 1.0), (16.0, 1 / 16)))
    np.testing.assert_array_equal(V, 4 * W)
    np.testing.assert_array_equal(4 * G, H)


@pytest.mark.parametrize(
    ("K_A", "K_B", "E_W", "E_H"),
    [
        (2, 2, 2.0, 0.5),
        (5, 5, 1.0, 5.0),
        (3, 7, 1.0, 1.0),
    ],
)
def test_layer_peeled_threshold_by_direct_minimisation(K_A, K_B, E_W, E_H):
    ratio = room.peeled_threshold(K_A, K_B, (E_W * E_H) ** 0.5)
    below, above = (peeled_minority_cosine(K_A, K_B, factor * ratio, E_W, E_H) for factor in (0.95, 1.05))
    assert above > 1 - 1e-6
    assert below < 0.95


# ----------------------------------------------------------------------------------------- claims on runs

PROBLEM = ufm.UFM(4, 4, per_class=(10, 10, 2, 2))
THRESHOLD = 2**0.5 / 24


@pytest.fixture(scope="module")
def runs():
    return {
        factor: ufm.simulate(
            PROBLEM, ufm.GD(1.0), ufm.Coupled(factor * THRESHOLD), steps=1500, record=ufm.Every(50)
        )
        for factor in (0.8, 1.2)
    }


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_claims_hold_on_a_converged_run_and_cannot_tell_at_its_start(runs, factor):
    report = ufm.compare(runs[factor])
    for name in ("hong2023.convex", "hong2023.merging"):
        assert report[name].verdict == "holds", report[name].reason
        assert report[name].control > 3
    short = ufm.simulate(PROBLEM, ufm.GD(1.0), ufm.Coupled(factor * THRESHOLD), steps=3)
    assert ufm.compare(short)["hong2023.merging"].verdict == "inconclusive"


def test_claims_fail_on_a_run_of_another_decay(runs):
    """A run judged as if its decay were larger has an objective below the optimum, and the wrong contrasts."""
    run = replace(runs[0.8].judged(), decay=ufm.Coupled(1.2 * THRESHOLD))
    assert ufm.compare(runs[0.8]).ok
    for name in ("hong2023.convex", "hong2023.merging"):
        assert CLAIM[name].predict(run).ratio > 100


@pytest.mark.parametrize(
    ("problem", "decay", "words"),
    [
        (ufm.UFM(4, 4, per_class=3), ufm.Coupled(0.1), "all classes have 3 samples"),
        (ufm.UFM(3, 4, per_class=(4, 2, 1)), ufm.Coupled(0.1), "no two of the class sizes"),
        (PROBLEM, ufm.Coupled(W=0.1), "no coupled decay acts on H"),
        (PROBLEM, ufm.Decoupled(0.1), "decoupled decay 0.1 acts on"),
        (PROBLEM, None, "no coupled decay acts on"),
        (ufm.DUFM(4, 4, 2, per_class=(3, 3, 2, 2)), ufm.Coupled(0.1), "2 layers of weights"),
        (ufm.UFM(4, 4, per_class=(3, 3, 2, 2), loss="mse"), ufm.Coupled(0.1), "the loss is"),
    ],
)
def test_hypotheses_that_fail(problem, decay, words):
    reason = ufm.claims.applicable(problem, ufm.GD(0.1), decay)["hong2023.merging"]
    assert words in reason


def test_bad_input():
    with pytest.raises(InvalidProblemError, match=r"UFM\.per_class is 0; allowed"):
        ufm.UFM(3, 3, per_class=(2, 0, 1))
    with pytest.raises(IncompatibleError, match="no coupled decay acts on H"):
        room.merged_groups(PROBLEM, ufm.Coupled(0.0))
    with pytest.raises(InvalidProblemError, match="width is 2; allowed: at least the rank 3"):
        room.merged_groups(ufm.UFM(4, 2, per_class=(10, 10, 2, 2)), ufm.Coupled(1e-3))
    with pytest.raises(InvalidProblemError, match=r"K_B is 1; allowed"):
        room.peeled_threshold(3, 1, 1.0)
    with pytest.raises(InvalidProblemError, match=r"K_A is 0; allowed"):
        room.peeled_threshold(0, 3, 1.0)
    with pytest.raises(InvalidProblemError, match=r"budget is 0.0; allowed"):
        room.peeled_threshold(2, 3, 0.0)
    assert room.merged_groups(ufm.UFM(3, 2), ufm.Coupled(0.5)) == ((0, 1, 2),)  # one group of classes


@pytest.mark.parametrize("rate", [1e-9, 1e12, 1e300])
def test_extreme_decays_are_solved(rate):
    means = room.optimum(PROBLEM, ufm.Coupled(rate))
    assert means.gap <= room.GAP * means.value


def test_a_decay_too_small_is_refused_in_one_sentence():
    with pytest.raises(InvalidProblemError, match="a number at which the optimum is certified to 1e-08"):
        room.optimum(PROBLEM, ufm.Coupled(1e-14))


def test_error_of_the_bound_is_that_of_the_objective_and_eight_roundings():
    problem, decay = ufm.UFM(4, 4, (4, 4, 1, 1)), ufm.Coupled(0.01)
    run = ufm.simulate(problem, ufm.GD(0.1), decay, steps=0).judged()
    found = room._at_least_the_optimum(run)
    least = room._solved(room._setting(problem, run.coupled)).bound
    rest = found.bound - objective_error(run, np.array([0]))
    assert rest == pytest.approx(8 * 2.0**-52 * abs(least), rel=1e-9, abs=0)
