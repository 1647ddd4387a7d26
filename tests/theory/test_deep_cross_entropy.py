"""Deep cross-entropy: published losses, thresholds, and patterns against softmax and a search over scales."""

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from ufm.errors import InvalidProblemError
from ufm.theory import deep_cross_entropy as theory
from ufm.theory.deep_collapse import geometric_decay

# K = 10, n = 5, all decays 2^-10, linear, by depth: DNC and opposed pairs
LOSSES = {
    2: (0.09066218, 0.08001266),
    3: (0.07694841, 0.06092082),
    4: (0.07262481, 0.05373368),
    5: (0.07196982, 0.05085009),
}


@pytest.mark.parametrize("depth", LOSSES)
def test_reference_losses(depth) -> None:
    lam = 2.0**-10
    found = [theory.loss(10, lam, [lam] * depth, 5, state) for state in theory.STATES]
    assert found == pytest.approx(LOSSES[depth], abs=0.6e-8)


def test_reference_scales() -> None:
    decay = geometric_decay(2.0**-10, [2.0**-10] * 2, 5)
    assert theory.critical_scale(10, 2, decay) == pytest.approx(7.03754, abs=0.6e-5)
    assert theory.critical_scale(10, 2, decay, "low_rank") == pytest.approx(7.04705, abs=0.6e-5)


def test_threshold_tables() -> None:
    linear = {(K, L) for K in range(2, 13) for L in range(1, 9) if theory.theorem_1(K, L)}
    assert linear == {
        (K, L) for K in range(2, 13) for L in range(1, 9) if (K >= 4 and L >= 3) or (K >= 6 and L == 2)
    }
    even = range(4, 60, 2)
    first = {L: next((K for K in even if theory.theorem_7(K, L)), None) for L in range(2, 8)}
    assert first == {2: None, 3: None, 4: 14, 5: 10, 6: 8, 7: 8}
    own = {L: next((K for K in even if theory.relu_low_rank_wins(K, L)), None) for L in range(2, 8)}
    assert own == {2: None, 3: None, 4: 8, 5: 6, 6: 4, 7: 4}


@pytest.mark.parametrize("K", [2, 3, 4, 5, 9, 12])
def test_thresholds_decide_which_loss_is_smaller(K) -> None:
    """Wherever pairs are cheaper their loss is smaller, at every decay that leaves DNC a minimum."""
    for activation, wins in (("identity", theory.theorem_1), ("relu", theory.relu_low_rank_wins)):
        if activation == "relu" and K % 2:
            continue
        for depth in range(2, 7):
            for decay in (1e-9, 1e-5, 1e-3, 0.02):
                c = theory.critical_scale(K, depth, decay, "dnc", activation)
                if not c or not wins(K, depth):
                    continue
                pairs = theory.objective(c, K, depth, decay, "low_rank", activation, K % 2 == 1)
                assert pairs < theory.objective(c, K, depth, decay, "dnc", activation)
    # and where they are dearer DNC wins once the decay is small
    for depth, K_below in ((2, 4), (1, 10)):
        lam = 1e-12
        dnc, pairs = (theory.loss(K_below, lam, [lam] * depth, 1, state) for state in theory.STATES)
        assert dnc < pairs


@pytest.mark.parametrize(
    ("K", "state"), [(4, "dnc"), (5, "dnc"), (6, "low_rank"), (7, "low_rank"), (2, "low_rank")]
)
def test_fit_is_that_of_softmax(K, state) -> None:
    P = np.eye(K) - 1 / K
    if state == "low_rank":
        P = np.zeros((K, K))
        for k in range(K - K % 2):
            P[k, k], P[k, k ^ 1] = 1, -1
        if K % 2:
            P[-1, -1] = 1
    for c in (0.3, 2.0, 11.0):
        wrong = np.exp(c * (P - np.diag(P)))[~np.eye(K, dtype=bool)].reshape(K, K - 1)
        expected = np.mean(np.log1p(wrong.sum(axis=1)))
        assert theory.fit(c, K, state, K % 2 == 1) == pytest.approx(expected, rel=1e-11, abs=0)
    values = np.linalg.svd(P, compute_uv=False)
    for depth in (1, 2, 5):
        schatten = np.sum(values[values > 1e-9] ** (2 / (depth + 1)))
        assert theory.cost(K, depth, state, odd=K % 2 == 1) == pytest.approx(schatten, rel=1e-12)


@pytest.mark.parametrize("activation", theory.ACTIVATIONS)
@pytest.mark.parametrize("state", theory.STATES)
def test_critical_scale_is_the_outer_minimum(state, activation, rng) -> None:
    for _ in range(20):
        K, depth = 2 * int(rng.integers(2, 9)), int(rng.integers(2, 7))
        decay = 10 ** rng.uniform(-9, -2.5)
        c = theory.critical_scale(K, depth, decay, state, activation)
        assert c > 0
        at = lambda x: theory.objective(x, K, depth, decay, state, activation)  # noqa: B023, E731
        found = minimize_scalar(at, bounds=(0.6 * c, 1.5 * c), method="bounded", options={"xatol": 1e-9})
        assert found.x == pytest.approx(c, rel=1e-5)
        assert theory.critical_decay(c, K, depth, state, activation) == pytest.approx(decay, rel=1e-12, abs=0)
        further = np.linspace(1.01 * c, 3 * c, 50)
        assert np.all(np.diff(at(further)) > 0)


@pytest.mark.parametrize("activation", theory.ACTIVATIONS)
@pytest.mark.parametrize("state", theory.STATES)
def test_scales_end_where_the_critical_decay_is_largest(state, activation) -> None:
    for K, depth in ((4, 2), (10, 5), (10, 50)):
        scales = np.geomspace(1e-3, 50, 20_001)
        decays = theory.critical_decay(scales, K, depth, state, activation)
        top, most = scales[np.argmax(decays)], decays.max()
        assert theory.critical_scale(K, depth, most * (1 - 1e-6), state, activation) > top
        assert theory.critical_scale(K, depth, most * (1 + 1e-6), state, activation) == 0


def test_extreme_decays() -> None:
    """Against 60 digits at a decay of 1e-300; and none left at a strong one."""
    for state, activation in (("dnc", "identity"), ("low_rank", "relu"), ("low_rank", "identity")):
        c = theory.critical_scale(10, 4, 1e-300, state, activation)
        with mpmath.workdps(60):
            exact = mpmath.findroot(
                lambda x, state=state, activation=activation: (
                    mpmath.log(theory.critical_decay(x, 10, mpmath.mpf(4), state, activation, xp=mpmath))
                    - mpmath.log(mpmath.mpf(1e-300))
                ),
                c,
            )
        assert c == pytest.approx(float(exact), rel=1e-14)
    assert theory.critical_scale(10, 3, 1.0) == 0
    assert theory.loss(10, 1.0, [1.0] * 3) == pytest.approx(np.log(10))
    assert theory.loss(9, 1.0, [1.0] * 3, state="low_rank") == pytest.approx(np.log(9))


def test_a_thousand_layers() -> None:
    for activation, ratio in (
        ("identity", 5 / 9),
        ("relu", 0.6),
    ):  # the costs tend to ranks, or to (K+2)/(2K)
        costs = [theory.cost(10, 1000, state, activation) for state in theory.STATES]
        assert costs[1] / costs[0] == pytest.approx(ratio, rel=1e-2)
        lam = 1e-5
        losses = [theory.loss(10, lam, [lam] * 1000, 1, state, activation) for state in theory.STATES]
        assert losses[1] < losses[0] < np.log(10)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((1, 2, 0.1), "K is 1"),
        ((4, 0, 0.1), "depth is 0"),
        ((4, 1, 0.1, "dnc", "relu"), "depth is 1"),
        ((4, 2, 0.0), "decay is 0.0"),
        ((4, 2, np.inf), "decay is inf"),
        ((4, 2, 0.1, "srg"), "state is 'srg'"),
        ((4, 2, 0.1, "dnc", "tanh"), "activation is 'tanh'"),
        ((5, 2, 0.1, "low_rank", "relu"), "K is 5; allowed: an even number"),
    ],
)
def test_refused_in_one_sentence(arguments, sentence) -> None:
    with pytest.raises(InvalidProblemError, match=sentence):
        theory.critical_scale(*arguments)


def test_losses_refuse_decays_that_are_not_positive() -> None:
    with pytest.raises(InvalidProblemError, match=r"loss.features, loss.weights is .*finite numbers > 0"):
        theory.loss(4, 1e-3, [1e-3, -1e-3])
    with pytest.raises(InvalidProblemError, match=r"loss.samples is 0"):
        theory.loss(4, 1e-3, [1e-3], 0)


@pytest.mark.parametrize("K", [5, 6, 9])
@pytest.mark.parametrize("state", ["dnc", "low_rank"])
def test_loss_is_the_least_of_all_scales_for_odd_and_even_numbers_of_classes(K, state):
    lam, depth = 2**-10, 3
    decay = theory.geometric_decay(lam, [lam] * depth, 2)
    values = theory.objective(np.geomspace(0.1, 30, 200_001), K, depth, decay, state, "identity", K % 2 == 1)
    assert theory.loss(K, lam, [lam] * depth, 2, state) == pytest.approx(values.min(), rel=1e-8)
