"""The global minimum of the cross-entropy UFM, its saddles, the bound from duality, and the claims on runs."""

from dataclasses import replace
from itertools import pairwise

import mpmath
import numpy as np
import pytest
from scipy.optimize import minimize

import ufm
from ufm.compare import judge
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.fenchel import lower_bound, optimality
from ufm.kernels.hessian import Objective
from ufm.losses import CrossEntropy
from ufm.metrics import nc2, nc2w, nc3
from ufm.solutions import dnc, fixed_simplex, known, merged, polygon, simplex
from ufm.solutions.imbalance import imbalanced_optimum
from ufm.solutions.known import partitions
from ufm.theory import cross_entropy_optimum as room
from ufm.theory.cross_entropy_optimum import (
    critical_loss,
    critical_margin,
    dual_value,
    optimum,
    polygon_slope,
)
from ufm.theory.necessity import merged_class_saddle, saddle_curvature

CLAIMS = {claim.name: claim for claim in room.CLAIMS}
PRINTED = [  # K, n, d, lam_W, lam_H, lam_b: loss, ||w||^2, ||h||^2 found by L-BFGS elsewhere
    (4, 5, 6, 5e-3, 1e-3, 1e-2, 0.0943616937, 3.962403, 3.962403),
    (10, 3, 10, 1e-3, 2e-3, 0.0, 0.1543348494, 13.204281, 2.200714),
    (5, 4, 4, 2e-3, 1e-3, 1e-3, 0.0776386977, 6.626050, 3.313025),
    (6, 2, 8, 2e-2, 5e-2, 1e-2, 0.8913164642, 5.318502, 1.063700),
]


@pytest.mark.parametrize("row", PRINTED)
def test_printed_table(row):
    K, n, d, lam_W, lam_H, lam_b, loss, w, h = row
    problem, decay = ufm.UFM(K, d, n, bias=True), ufm.Coupled(W=lam_W, H=lam_H, b=lam_b)
    found = simplex(problem, decay)
    assert round(found.loss, 10) == loss
    assert (found["W"] ** 2).sum(axis=1) == pytest.approx(w, abs=6e-7)
    assert (found["H"] ** 2).sum(axis=0) == pytest.approx(h, abs=6e-7)
    assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-14)
    assert max(np.abs(g).max() for g in problem.gradient(found.blocks, decay).values()) < 1e-15
    assert not found["b"].any()
    assert (
        max(nc2(found["H"], problem.labels), nc2w(found["W"]), nc3(found["W"], found["H"], problem.labels))
        < 1e-14
    )
    assert lower_bound(problem, decay, found) == pytest.approx(found.loss, rel=1e-12)


def random_problem(seed):
    """K, n, d >= K - 1, rates over four decades, some with bias, smoothing or a sum; K kappa from 1e-3 to 0.9."""
    rng = np.random.default_rng(seed)
    K, n = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    d = K - 1 + int(rng.integers(0, 4))
    smoothing = float(rng.choice([0.0, 0.0, 0.1]))
    decay = (1 - smoothing) * 10 ** rng.uniform(-2.5, np.log10(0.9)) / K
    ratio = 10 ** rng.uniform(-1, 1)
    scale = 1 if rng.integers(2) else K * n
    bias = bool(rng.integers(2))
    loss = CrossEntropy(smoothing=smoothing, reduction="mean" if scale == 1 else "sum")
    rates = {"W": scale * decay / np.sqrt(n) * ratio, "H": scale * decay / np.sqrt(n) / ratio}
    if bias:
        rates["b"] = scale * 10 ** rng.uniform(-3, 0)
    return ufm.UFM(K, d, n, loss=loss, bias=bias), ufm.Coupled(**rates)


def agrees_with_lbfgs(seed):
    """Relative difference of L-BFGS from the closed form in loss, and the larger one in the squared norms."""
    problem, decay = random_problem(seed)
    found = simplex(problem, decay)
    near = ufm.minimise(
        problem, decay, starts=1, init=ufm.Gaussian(0.3), seed=seed, certificate=False, progress=False
    )
    # on until the gradient stalls: the objective no longer tells norms that are off by 1e-6
    objective = Objective(problem, decay, "test")
    options = {"ftol": 0.0, "gtol": 1e-14, "maxcor": 20, "maxiter": 500}
    end = minimize(objective, problem.pack(near.state), jac=True, method="L-BFGS-B", options=options)
    state = problem.unpack(end.x)
    norms = [abs(np.sum(state[block] ** 2) / np.sum(found[block] ** 2) - 1) for block in ("W", "H")]
    return abs(end.fun - found.loss) / found.loss, max(norms)


@pytest.mark.parametrize(
    "seeds", [range(20), range(20, 40), pytest.param(range(40, 1000), marks=pytest.mark.slow)], ids=len
)
def test_lbfgs_reaches_the_closed_form(seeds):
    in_loss, in_norms = np.max([agrees_with_lbfgs(seed) for seed in seeds], axis=0)
    assert in_loss < 1e-9
    assert in_norms < 1e-6


def test_dual_value_counts_a_class_without_probability_as_nothing():
    P, weights = [[0.5, 1.0], [0.5, 0.0]], [0.5, 0.5]
    assert float(dual_value(P, weights, mpmath)) == pytest.approx(dual_value(P, weights), rel=1e-15)
    assert dual_value(P, weights) == pytest.approx(0.5 * np.log(2), rel=1e-15)


@pytest.mark.parametrize("probabilities", [[[0.5], [0.5]], [[0.5, 0.5], [0.5]]])
def test_dual_value_of_matrices_that_do_not_fit(probabilities):
    with pytest.raises(ValueError, match="shorter"):
        dual_value(probabilities, [0.5, 0.5], xp=mpmath)


def test_all_classes_merged_into_one_group_are_zero():
    found = room.merged_optimum((3,), 1e-3)
    assert found.rows.shape == found.columns.shape == (1, 0)
    assert found.bias.tolist() == [0.0]
    assert found.loss == pytest.approx(np.log(3), rel=1e-15)


def test_slope_of_the_polygon_where_exponentials_overflow():
    """At c = 1000 one class has all the weight: the slope is K kappa to e^-691."""
    assert polygon_slope(1e3, 5, 0.01) == pytest.approx(0.05, rel=1e-14)


def test_formula_at_fifty_digits():
    """Stable at tiny decay and beside the threshold."""
    with mpmath.workdps(50):
        for kappa in (1e-300, 1e-30, 1e-3, 0.1, 0.2 * (1 - 1e-12)):
            exact = mpmath.log(1 / mpmath.mpf(kappa) - 4)
            assert critical_margin(5, kappa) == pytest.approx(
                float(exact), rel=1e-15 if kappa < 0.19 else 1e-4
            )
            value = mpmath.log1p(4 * mpmath.exp(-exact)) + 4 * mpmath.mpf(kappa) * exact
            assert critical_loss(5, kappa) == pytest.approx(float(value), rel=3e-15)
            assert critical_loss(5, mpmath.mpf(kappa), xp=mpmath) == pytest.approx(float(value), rel=1e-15)


def test_threshold_with_and_without_smoothing():
    for smoothing in (0.0, 0.1):
        loss, n, K = CrossEntropy(smoothing=smoothing), 3, 4
        edge = room.origin_threshold(K, smoothing) / np.sqrt(n)
        problem = ufm.UFM(K, 5, n, loss=loss)
        below, above = (simplex(problem, ufm.Coupled(edge * (1 + x))) for x in (-1e-6, 1e-6))
        assert (below.name, below.rank, above.name, above.rank) == ("simplex ETF", 3, "zero", 0)
        assert above.loss == pytest.approx(np.log(K), rel=1e-15)
        assert below.loss < np.log(K)


def test_smoothing_margin_of_a_printed_example():
    kappa = room.smoothed(room.nuclear_decay(2, 3e-3, 2e-3), 5, 0.1)
    assert round(float(critical_margin(5, kappa)), 7) == 3.6537261


def test_deep_formula_at_one_layer_is_this_one():
    problem, decay = ufm.UFM(6, 7, 3), ufm.Coupled(W=4e-3, H=1e-3)
    assert dnc(problem, decay).loss == pytest.approx(simplex(problem, decay).loss, rel=1e-14)


# ------------------------------------------------------------------------------------------------ saddles


def groups_of(sizes):
    edges = np.cumsum([0, *sizes])
    return [list(range(start, stop)) for start, stop in pairwise(edges)]


MERGERS = [(K, sizes) for K in range(3, 7) for sizes in partitions(K) if 2 <= len(sizes) < K]


def curvature(problem, decay, state, direction):
    """v^T Hess v by exact products of the kernels."""
    objective, theta = Objective(problem, decay, "test"), problem.pack(state)
    objective(theta)
    v = problem.pack(direction)
    return float(v @ objective.curvature(theta, np.ones(objective.buffers.X.size))(v))


@pytest.mark.parametrize(("K", "sizes"), MERGERS)
def test_every_merged_class_saddle_up_to_six_classes(K, sizes):
    """Critical, curvature as predicted, and a descent along the direction ends at the global minimum."""
    n = 2
    for options, rates in (({}, {}), ({"bias": True, "loss": CrossEntropy(smoothing=0.05)}, {"b": 0.02})):
        problem, decay = ufm.UFM(K, K - 1, n, **options), ufm.Coupled(W=8e-3, H=3e-3, **rates)
        saddle = merged(problem, decay, groups_of(sizes))
        assert saddle.rank == len(sizes) - 1
        assert np.linalg.matrix_rank(saddle["W"]) == saddle.rank
        assert problem.value(saddle.blocks, decay) == pytest.approx(saddle.loss, rel=1e-13)
        assert max(np.abs(g).max() for g in problem.gradient(saddle.blocks, decay).values()) < 1e-14
        smoothing = problem.loss.smoothing
        found = optimality(problem, decay, saddle)
        assert found.operator_norm == pytest.approx(room.merged_sigma(K, n, smoothing), rel=1e-10)
        assert found.curvature == pytest.approx(
            curvature(problem, decay, saddle.blocks, found.escape), rel=1e-6
        )
        certificate = ufm.certify(problem, decay, saddle)
        assert certificate.verdict == "strict saddle"
        state = {block: saddle[block] + 1e-3 * found.escape[block] for block in problem.blocks}
        for _ in range(K):  # one direction breaks one group at a time: the next saddle has its own
            down = ufm.minimise(problem, decay, starts=[state], certificate=False, progress=False)
            found = optimality(problem, decay, down.state)
            if found.escape is None or found.operator_norm < found.threshold * (1 + 1e-4):
                break
            state = {block: down.state[block] + 1e-3 * found.escape[block] for block in problem.blocks}
        assert down.loss == pytest.approx(simplex(problem, decay).loss, rel=1e-9)


@pytest.mark.parametrize(("sizes", "share"), [((2, 3), 7.6e-9), ((2, 4), 1.5e-9), ((1, 3, 4), 1e-6)])
@pytest.mark.parametrize("bias_decay", [None, 1e-6, 1e3])
def test_unequal_groups_at_tiny_decay_are_critical_or_refused(sizes, share, bias_decay):
    decay = share / sum(sizes)
    try:
        found = room.merged_optimum(sizes, decay, 0.0, bias_decay)
    except InvalidProblemError:
        return
    reduced = room._Reduced(np.array(sizes, float), decay, 0.0, bias_decay)
    bias = [] if bias_decay is None else found.bias
    theta = np.concatenate([found.rows.ravel(), found.columns.ravel(), bias])
    assert np.linalg.norm(reduced(theta)[1]) < 1e-4 * decay * np.linalg.norm(theta)


def test_two_groups_are_the_saddle_of_the_necessity_room():
    problem, decay = ufm.UFM(7, 8, 4), ufm.Coupled(W=1e-4, H=1e-3)
    state = merged_class_saddle(7, 8, 4, 1e-4, 1e-3, 3)
    found = merged(problem, decay, groups_of((3, 4)))
    assert problem.value(state, decay) == pytest.approx(found.loss, rel=1e-13)
    assert optimality(problem, decay, found).curvature == pytest.approx(
        saddle_curvature(7, 4, 1e-4, 1e-3), rel=1e-10
    )


def test_zero_is_a_saddle_with_the_curvature_of_merged_classes():
    problem, decay = ufm.UFM(4, 6, 3), ufm.Coupled(W=5e-3, H=1e-3)
    zero = {block: np.zeros(shape) for block, shape in problem.shapes.items()}
    found = optimality(problem, decay, zero)
    assert round(found.operator_norm, 7) == 0.1443376
    assert round(found.curvature, 7) == -0.2842030
    assert found.curvature == pytest.approx(curvature(problem, decay, zero, found.escape), rel=1e-12)


def test_below_classes_minus_one_the_optimum_is_higher_and_has_no_certificate():
    """Printed values; the certificate is sufficient at every width, necessary from K - 1 on."""
    decay = ufm.Coupled(W=4e-3, H=2e-3, b=1e-2)
    losses = {}
    for d, printed in ((4, 0.1236280), (3, 0.1372011), (2, 0.1778283)):
        problem = ufm.UFM(5, d, 3, bias=True)
        least = ufm.minimise(problem, decay, starts=6, certificate=False, progress=False)
        losses[d] = least.loss
        assert round(least.loss, 7) == printed
        found = optimality(problem, decay, least.state)
        if d == 4:
            assert found.gap < 1e-6
        else:
            assert found.operator_norm > 1.05 * found.threshold
            assert found.escape is None
            assert found.bound < losses[4] + 1e-9 < least.loss
    with pytest.raises(InvalidProblemError, match=r"simplex\.problem\.width is 3"):
        simplex(ufm.UFM(5, 3, 3, bias=True), decay)


@pytest.mark.parametrize("K", [4, 5, 7])
def test_polygon_is_critical_and_for_few_classes_the_best_that_is_found_at_width_two(K):
    problem, decay = (
        ufm.UFM(K, 2, 2, bias=True, loss=CrossEntropy(smoothing=0.02)),
        ufm.Coupled(W=4e-3, H=2e-3, b=0.01),
    )
    found = polygon(problem, decay)
    assert found.rank == 2
    assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-14)
    assert max(np.abs(g).max() for g in problem.gradient(found.blocks, decay).values()) < 1e-15
    least = ufm.minimise(problem, decay, starts=4, certificate=False, progress=False)
    if K < 7:
        assert least.loss == pytest.approx(found.loss, rel=1e-9)
    else:  # seven corners are too close to each other
        assert least.loss < 0.95 * found.loss
    wide = ufm.UFM(K, K - 1, 2, bias=True, loss=problem.loss)
    assert polygon(wide, decay).loss > simplex(wide, decay).loss
    assert ufm.certify(wide, decay, polygon(wide, decay)).verdict == "strict saddle"


# ------------------------------------------------------------------------------------------------ the dual bound


@pytest.mark.parametrize(("sizes", "rate"), [((20, 5, 1), 1e-6), ((100, 1), 1e-5), ((50, 50, 2, 2), 1e-6)])
def test_bound_with_a_free_bias_is_none_of_the_problem_without(sizes, rate):
    """The optimum without a bias lies far above that with one, and scaling to row sums is slow there."""
    K, decay = len(sizes), ufm.Coupled(W=rate, H=rate)
    without, with_bias = (ufm.UFM(K, K, per_class=sizes, bias=bias) for bias in (False, True))
    start, best = (imbalanced_optimum(problem, decay) for problem in (without, with_bias))
    bound = ufm.optimality(with_bias, decay, {**start.blocks, "b": np.zeros(K)}).bound
    assert best.loss * (1 + 1e-3) < start.loss
    assert bound <= best.loss + 1e-15


def test_bound_with_a_free_bias_where_probabilities_are_zero():
    problem = ufm.UFM(3, 3, per_class=(2, 1, 1), bias=True)
    state = {"W1": np.zeros((3, 3)), "H": np.zeros((3, 4)), "b": np.array([2000.0, 0.0, -900.0])}
    found = ufm.optimality(problem, ufm.Coupled(W=0.01, H=0.01), state)
    assert (
        0
        <= found.bound
        < ufm.minimise(problem, ufm.Coupled(W=0.01, H=0.01), starts=2, certificate=False).loss
    )


@pytest.mark.parametrize("seed", range(12))
def test_bound_holds_at_any_state_and_closes_at_the_minimum(seed):
    """Unequal classes, with and without bias, both losses: no closed form is used."""
    rng = np.random.default_rng(seed)
    loss = ("ce", "mse", CrossEntropy(smoothing=0.1))[seed % 3]
    problem = ufm.UFM(4, 5, (5, 3, 2, 1), loss=loss, bias=bool(seed & 4))
    rates = {"W": 0.01, "H": 0.03} | ({"b": 0.05} if seed & 8 and problem.bias else {})
    decay = ufm.Coupled(**rates)
    least = ufm.minimise(problem, decay, starts=2, tolerance=1e-11, certificate=False, progress=False)
    assert lower_bound(problem, decay, least.state) == pytest.approx(least.loss, rel=1e-7)
    for size in (1e-3, 0.1, 1.0, 30.0):
        state = {
            block: least.state[block] + size * rng.standard_normal(shape)
            for block, shape in problem.shapes.items()
        }
        assert lower_bound(problem, decay, state) <= least.loss * (1 + 1e-12)


@pytest.mark.parametrize(
    ("problem", "decay", "words"),
    [
        (ufm.DUFM(3, 4, 2), ufm.Coupled(0.1), "a problem of one layer"),
        (ufm.UFM(3, 4), ufm.Coupled(W=0.1), "a rate > 0 for W and H"),
        (ufm.UFM(3, 4), ufm.Decoupled(0.1), "coupled decay alone"),
        (ufm.UFM(3, 4, classifier=ufm.SimplexETF()), ufm.Coupled(0.1), "W1 is frozen"),
    ],
)
def test_problems_without_a_bound_get_a_sentence(problem, decay, words):
    state = {block: np.zeros(problem.shapes[block]) for block in problem.trained}
    with pytest.raises((InvalidProblemError, IncompatibleError), match=words):
        optimality(problem, decay, state)


# ------------------------------------------------------------------------------------------------ fixed simplex


@pytest.mark.parametrize("width", [4, 5, 9])
@pytest.mark.parametrize("norm", ["columns", "frobenius"])
def test_fixed_simplex_is_the_minimum_of_the_features(width, norm):
    problem = ufm.UFM(
        5, width, 3, classifier=ufm.SimplexETF(norm), bias=True, loss=CrossEntropy(smoothing=0.02)
    )
    decay = ufm.Coupled(H=2e-3, b=1e-3)
    found = fixed_simplex(problem, decay)
    assert max(np.abs(g).max() for g in problem.gradient(found.blocks, decay).values()) < 1e-15
    assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-14)
    least = ufm.minimise(problem, decay, starts=1, certificate=False, progress=False)
    assert least.loss == pytest.approx(found.loss, rel=1e-10)


def test_fixed_simplex_of_the_printed_example():
    problem = ufm.UFM(5, 5, 3, classifier=ufm.SimplexETF("columns"))
    found = fixed_simplex(problem, ufm.Coupled(H=2e-3))
    assert round(found.loss, 10) == 0.2238726053
    assert np.linalg.norm(found["H"], axis=0) == pytest.approx(3.1202073, abs=5e-8)


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: simplex(ufm.UFM(3, 4, loss="mse"), ufm.Coupled(0.1)), "cross-entropy against class labels"),
        (lambda: simplex(ufm.UFM(3, 4, (1, 2, 2)), ufm.Coupled(0.1)), "classes of equal size"),
        (lambda: simplex(ufm.UFM(3, 4), ufm.Coupled(W=0.1)), "coupled decay of H is 0"),
        (lambda: simplex(ufm.UFM(3, 4), ufm.Decoupled(0.1)), "decoupled decay"),
        (lambda: simplex(ufm.DUFM(3, 4, 2, loss="ce"), ufm.Coupled(0.1)), "depth is 2"),
        (lambda: merged(ufm.UFM(3, 4), ufm.Coupled(0.1), [[0], [1]]), "a partition of the classes"),
        (lambda: merged(ufm.UFM(3, 4), ufm.Coupled(0.1), [[0], [1], [2]]), "a partition"),
        (lambda: merged(ufm.UFM(3, 4), ufm.Coupled(0.1), [[0, 1, 2]]), "a partition"),
        (lambda: merged(ufm.UFM(3, 4), ufm.Coupled(0.1), 3), "a partition"),
        (lambda: merged(ufm.UFM(3, 4), ufm.Coupled(1.0), [[0], [1, 2]]), "a weaker decay"),
        (lambda: merged(ufm.UFM(4, 1), ufm.Coupled(0.1), [[0], [1], [2, 3]]), "at least groups - 1 = 2"),
        (lambda: fixed_simplex(ufm.UFM(3, 4), ufm.Coupled(0.1)), "the classifier frozen"),
        (
            lambda: fixed_simplex(ufm.UFM(2, 2, classifier=np.eye(2)), ufm.Coupled(H=0.1)),
            "a simplex ETF",
        ),
        (lambda: polygon(ufm.UFM(3, 4), ufm.Coupled(0.1)), "classes is 3"),
        (lambda: polygon(ufm.UFM(4, 1), ufm.Coupled(0.1)), "at least 2"),
        (lambda: optimum(3, 0.0), r"optimum\.kappa is 0\.0"),
    ],
)  # fmt: skip
def test_other_problems_get_a_sentence(call, words):
    with pytest.raises((InvalidProblemError, IncompatibleError), match=words):
        call()


def test_known_lists_every_merger_and_the_optimum_once():
    problem, decay = ufm.UFM(5, 6, 2), ufm.Coupled(0.01)
    found = known(problem, decay)
    names = [one.name for one in found]
    assert names[0] == "simplex ETF"
    assert len(names) == len(set(names))
    assert {name for name in names if name.startswith("merged")} == {
        "merged 4+1", "merged 3+2", "merged 3+1+1", "merged 2+2+1", "merged 2+1+1+1",
    }  # fmt: skip
    assert [one.name for one in found if one.optimum] == ["simplex ETF"]
    assert min(one.loss for one in found) == found[0].loss
    assert known(problem, None) == ()


# ------------------------------------------------------------------------------------------------ claims on runs


def run_of(decay=None, problem=None, **options):
    problem = problem or ufm.UFM(4, 6, 3)
    decay = decay or ufm.Coupled(W=5e-3, H=5e-3)
    return ufm.simulate(
        problem, ufm.GD(1.0), decay, **{"steps": 4000, "record": ufm.LogSpaced(30), **options}
    )


@pytest.fixture(scope="module")
def settled():
    return run_of()


@pytest.mark.parametrize(
    "name", ["zhu2021.global_optimum", "ufm.cross_entropy_gap", "ufm.cross_entropy_norms"]
)
def test_a_settled_run_holds_and_refuses_the_perturbed_statement(settled, name):
    row = judge(CLAIMS[name], settled.judged())
    assert row.verdict == "holds", row.reason
    assert row.control > 100


def test_a_run_that_claims_a_stronger_decay_fails(settled):
    wrong = replace(settled, run=replace(settled.run, decay=ufm.Coupled(W=5e-3, H=5e-3 * (1 + 1e-4))))
    assert judge(CLAIMS["zhu2021.global_optimum"], wrong.judged()).verdict == "fails"


def test_a_short_run_and_one_at_a_saddle_are_inconclusive():
    saddle = merged(ufm.UFM(4, 6, 3), ufm.Coupled(W=5e-3, H=5e-3), [[0, 1], [2, 3]])
    for run in (run_of(steps=20), run_of(steps=5, init=saddle.start)):
        for name in ("ufm.cross_entropy_gap", "ufm.cross_entropy_norms"):
            row = judge(CLAIMS[name], run.judged())
            assert row.verdict == "inconclusive", (name, row.reason)
            assert "cannot tell" in row.reason


def test_strong_decay_makes_zero_optimal_at_every_width():
    """K kappa >= 1: no width is too small for the bound from duality, which says the same."""
    problem, decay = ufm.UFM(4, 1, 3), ufm.Coupled(0.2)
    assert (
        CLAIMS["ufm.cross_entropy_gap"].applies(run_of(problem=problem, decay=decay, steps=1).judged())
        is None
    )
    zero = ufm.optimality(problem, decay, {"W1": np.zeros((4, 1)), "H": np.zeros((1, 12))})
    assert zero.bound == pytest.approx(np.log(4), rel=1e-15)


@pytest.mark.parametrize(
    ("problem", "decay", "words"),
    [
        (ufm.UFM(4, 2), ufm.Coupled(0.01), "width 2 < classes - 1"),
        (ufm.UFM(4, 5, (2, 1, 1, 1)), ufm.Coupled(0.01), "not one number"),
        (ufm.UFM(4, 5), ufm.Coupled(W=0.01), "no coupled decay acts on H"),
        (ufm.UFM(4, 5), ufm.Mixed(0.01, 0.01), "decoupled decay acts"),
        (ufm.UFM(4, 5, loss="mse"), ufm.Coupled(0.01), "not cross-entropy"),
        (ufm.DUFM(4, 5, 2, loss="ce"), ufm.Coupled(0.01), "2 layers"),
    ],
)
def test_hypotheses(problem, decay, words):
    assert words in ufm.claims.applicable(problem, ufm.GD(0.1), decay)["ufm.cross_entropy_gap"]


def test_narrow_runs_stay_above_the_minimum_of_wide_ones():
    row = judge(CLAIMS["zhu2021.global_optimum"], run_of(problem=ufm.UFM(4, 2, 3)).judged())
    assert row.verdict == "inconclusive"  # far above: the bound cannot be told from one that is off by 1e-6
    assert row.ratio == 0


# ------------------------------------------------------------------------------------------------ endings


def test_ending_of_a_settled_run_says_that_it_is_the_global_minimum(settled):
    ending = ufm.compare(settled).ending
    assert ending.name == ending.optimum.name == "simplex ETF"
    assert ending.gap < 1e-9
    assert ending.bound <= ending.classification.loss
    assert "the global minimum" in ending.verdict
    assert "neural collapse holds" in ending.verdict
    assert str(ending).endswith(ending.verdict)


def test_ending_at_a_saddle_says_how_far_the_minimum_is():
    problem, decay = ufm.UFM(4, 6, 3), ufm.Coupled(W=5e-3, H=5e-3)
    saddle = merged(problem, decay, [[0, 1], [2, 3]])
    ending = ufm.compare(ufm.simulate(problem, ufm.GD(0.1), decay, steps=1, init=saddle.start)).ending
    assert ending.name == "merged 2+2"
    assert ending.gap == pytest.approx(saddle.loss - simplex(problem, decay).loss, rel=1e-9)
    assert "above the global minimum" in ending.verdict
    assert "no simplex" in ending.verdict


def test_ending_without_a_closed_form_of_the_minimum_uses_duality():
    run = run_of(problem=ufm.UFM(4, 6, (3, 2, 1, 1), loss=ufm.CrossEntropy(smoothing=0.1)))
    ending = ufm.compare(run).ending
    assert ending.optimum is None
    assert 0 <= ending.gap < 1e-6
    assert "by duality" in ending.verdict


def test_squared_error_ends_at_its_optimum_too():
    run = run_of(problem=ufm.UFM(4, 6, 3, loss="mse", bias=True), decay=ufm.Coupled(W=5e-3, H=5e-3))
    ending = ufm.compare(run).ending
    assert ending.optimum.name == "linear optimum"
    assert ending.gap < 1e-6
    assert "neural collapse holds" in ending.verdict


def test_of_many_records_the_first_and_the_last_are_judged(monkeypatch):
    monkeypatch.setattr(room, "MOST_RECORDS", 3)
    assert room._gaps(run_of(steps=10, record=ufm.Every(1)).judged()).records.tolist() == [0, 5, 10]
