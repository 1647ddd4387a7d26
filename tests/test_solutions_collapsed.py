"""DNC, the optimum of a linear chain and zero as explicit states: against closed forms, gradients and L-BFGS."""

import pickle

import numpy as np
import pytest
from scipy.optimize import minimize

import ufm
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.metrics import class_means
from ufm.solutions import Solution, dnc, linear_optimum, zero
from ufm.theory import linear_mse
from ufm.theory.deep_collapse import binary_threshold

EPS = np.finfo(float).eps


def random_problem(rng, smallest=1e-6, **options):
    """A chain with squared error that is wide enough for DNC, and a decay of its own for every block."""
    K, depth = int(rng.integers(2, 13)), int(rng.integers(1, 9))
    per_class = int(rng.integers(1, 7)) if rng.random() < 0.7 else [int(v) for v in rng.integers(1, 9, K)]
    widths = [K + int(v) for v in rng.integers(0, 4, depth)]
    loss = ufm.MSE(str(rng.choice(["mean", "sum"])))
    activation = options.pop("activation", None) or str(rng.choice(["relu", "identity"]))
    if depth == 1:
        problem = ufm.UFM(K, widths[0], per_class=per_class, loss=loss, **options)
    else:
        problem = ufm.DUFM(K, widths, depth, per_class=per_class, loss=loss, activation=activation, **options)
    if loss.reduction == "sum":
        smallest *= problem.samples
    rates = {block: smallest * float(10 ** rng.uniform(0, 5)) for block in problem.blocks}
    return problem, rates


def assert_stationary(problem, decay, rates, found: Solution):
    """Gradient 0 within the rounding of what cancels in it: lam times the block, over 1 - gain."""
    gradient = problem.gradient(found.blocks, decay)
    residual = max(np.abs(found["W"] @ features(problem, found) - onehot(problem)).max(axis=0).max(), EPS)
    for block, rate in rates.items():
        largest = rate * np.abs(found[block]).max()
        assert np.abs(gradient[block]).max() <= 16 * problem.depth * EPS * largest / min(residual, 1.0), block


def features(problem, found):
    X = found["H"]
    for layer in range(1, problem.depth):
        X = found[f"W{layer}"] @ X
        X = np.maximum(X, 0) if problem.activation == "relu" else X
    return X


def onehot(problem):
    return np.eye(problem.classes)[:, problem.labels]


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_closed_form_is_the_value_of_the_explicit_matrices(rng, count):
    found, collapsed = [], 0
    while len(found) < count:
        problem, rates = random_problem(rng, 1e-5)
        decay = ufm.Coupled(**rates)
        try:
            solution = dnc(problem, decay)
        except InvalidProblemError as refusal:
            assert "else classes collapse to zero" in str(refusal)  # noqa: PT017
            collapsed += 1
            continue
        found.append(solution)
        assert problem.value(solution.blocks, decay) == pytest.approx(solution.loss, rel=1e-12)
        assert solution.rank == problem.classes
        if len(found) % 10 == 0:
            assert_stationary(problem, decay, rates, solution)
    losses = np.array([solution.loss for solution in found])
    assert 0 < collapsed < count
    assert len(np.unique(losses)) == count


def test_optimum_of_linear_chains_of_any_width_with_and_without_bias(rng):
    lost = 0
    for _ in range(100):
        problem, rates = random_problem(rng, 1e-4, activation="identity", bias=bool(rng.integers(2)))
        if problem.depth > 1 and rng.random() < 0.5:
            widths = tuple(int(v) for v in rng.integers(1, problem.classes + 3, problem.depth))
            problem = ufm.DUFM(
                problem.classes, widths, problem.depth, per_class=problem.per_class, loss=problem.loss,
                activation="identity", bias=problem.bias,
            )  # fmt: skip
        rates.pop("b", None)
        decay = ufm.Coupled(**rates)
        found = linear_optimum(problem, decay)
        assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-12)
        assert found.loss <= zero(problem, decay).loss * (1 + 1e-14)
        directions = problem.classes - problem.bias
        assert found.rank <= min(directions, *problem.widths)
        lost += found.rank < min(directions, *problem.widths)
        if found.rank:
            gradient = problem.gradient(found.blocks, decay)
            scale = np.sqrt(problem.samples) * max(np.abs(block).max() for block in found.blocks.values())
            assert max(np.abs(part).max() for part in gradient.values()) < 1e-13 * max(1.0, scale)
    assert 5 < lost < 95


def test_dnc_is_the_linear_optimum_where_it_beats_zero(rng):
    count = 0
    while count < 20:
        problem, rates = random_problem(rng, activation="identity")
        decay = ufm.Coupled(**rates)
        best = linear_optimum(problem, decay)
        if best.rank < problem.classes:
            continue
        count += 1
        found = dnc(problem, decay)
        assert found.loss == pytest.approx(best.loss, rel=1e-14)
        for block in ("H", "W"):  # up to a rotation of the hidden units
            Gram = [s["H"].T @ s["H"] if block == "H" else s["W"] @ s["W"].T for s in (found, best)]
            np.testing.assert_allclose(*Gram, rtol=1e-13, atol=1e-13 * Gram[0].max())


# --------------------------------------------------------------------------------------------- against L-BFGS


def minimise(problem, decay, seed, scale=0.5):
    """Local minimum by L-BFGS from a random start: objective and blocks.

    A line search cannot tell objectives that differ by less than eps, which leaves sqrt(eps) in the state; steps of GD
    do not look at the objective and take that away.
    """

    def fun(theta):
        state = problem.unpack(theta)
        gradient = problem.gradient(state, decay)
        return problem.value(state, decay), np.concatenate([gradient[b].ravel() for b in problem.trained])

    theta = scale * np.random.default_rng(seed).standard_normal(problem.size)
    options = {"maxiter": 20_000, "maxfun": 40_000, "maxcor": 30, "ftol": 0.0, "gtol": 1e-12}
    theta = minimize(fun, theta, jac=True, method="L-BFGS-B", options=options).x
    near = {name: np.array(block) for name, block in problem.unpack(theta).items()}
    end = ufm.simulate(problem, ufm.GD(0.3), decay, init=near, steps=5000, record=ufm.At([5000]))
    better = (
        int(np.argmin(end.loss[::-1] > end.loss.min() * (1 + 1e-13))) + 1
    )  # at a kink of ReLU GD may rise
    return end.loss[-better], end.state(-better)


def means_gram(problem, blocks):
    M = class_means(blocks["H"], problem.labels, centred=False)
    return M.T @ M


LINEAR = {
    "balanced, L = 2": (ufm.DUFM(3, 4, 2, per_class=2, activation="identity"), 0.02),
    "unequal decays, L = 3": (
        ufm.DUFM(3, [4, 3, 5], 3, activation="identity"),
        {"H": 0.02, "W1": 0.01, "W2": 0.03, "W3": 0.02},
    ),
    "Dang, L = 1": (ufm.UFM(4, 5, per_class=[4, 2, 1, 1], loss="mse"), 0.03),
    "Dang, L = 3": (ufm.DUFM(4, 5, 3, per_class=[4, 2, 1, 1], activation="identity"), 0.01),
    "bias, L = 1": (ufm.UFM(4, 5, per_class=2, loss="mse", bias=True), {"H": 0.01, "W1": 0.02}),
    "unequal classes with a bias, L = 2": (
        ufm.DUFM(4, 5, 2, per_class=[4, 3, 2, 1], activation="identity", bias=True),
        {"H": 0.01, "W1": 0.01, "W2": 0.01},
    ),
    "width 2 for 4 classes": (ufm.DUFM(4, [5, 2], 2, per_class=[5, 3, 2, 1], activation="identity"), 0.01),
}


def against_lbfgs(problem, rates, seeds):
    decay = ufm.Coupled(**rates) if isinstance(rates, dict) else ufm.Coupled(rates)
    found = linear_optimum(problem, decay)
    runs = [minimise(problem, decay, seed) for seed in seeds]
    value, blocks = min(runs, key=lambda run: run[0])
    assert value == pytest.approx(found.loss, rel=1e-8)
    assert min(run[0] for run in runs) >= found.loss * (1 - 1e-13)
    Gram = means_gram(problem, found.blocks)
    np.testing.assert_allclose(means_gram(problem, blocks), Gram, atol=1e-8 * Gram.max())
    np.testing.assert_allclose(blocks["W"] @ blocks["W"].T, found["W"] @ found["W"].T, atol=1e-8 * Gram.max())


@pytest.mark.parametrize("case", LINEAR)
def test_no_local_search_finds_less_than_the_linear_optimum(case):
    against_lbfgs(*LINEAR[case], range(2))


@pytest.mark.slow
def test_no_local_search_finds_less_at_random_linear_problems(rng):
    count = 0
    while count < 30:
        K, depth = int(rng.integers(2, 6)), int(rng.integers(1, 5))
        sizes = [int(v) for v in rng.integers(1, 7, K)]
        bias = bool(rng.integers(2))
        kind = {"per_class": sizes, "bias": bias, "loss": "mse"}
        problem = (
            ufm.UFM(K, K + 1, **kind)
            if depth == 1
            else ufm.DUFM(K, K + 1, depth, activation="identity", **kind)
        )
        rates = {block: float(10 ** rng.uniform(-3, -1.7)) for block in problem.blocks if block != "b"}
        found = linear_optimum(problem, ufm.Coupled(**rates))
        gains = linear_mse.optimum(
            linear_mse.directions(sizes, bias).squares, rates["H"], [rates[f"W{i + 1}"] for i in range(depth)],
            samples=problem.samples,
        ).gains  # fmt: skip
        if found.rank < K - bias or gains.min() < (depth - 1) / depth + 0.1:
            continue  # zero in one direction is a saddle, or the two are too close to tell
        count += 1
        against_lbfgs(problem, rates, range(6))


def test_tirer_and_bruna():
    """K = 4, d = 20, n = 50, both decays .005 in their normalisation, where n drops out: the search has n = 3."""
    K, lam = 4, 0.005
    square = linear_mse.tirer_bruna_square(lam, lam)
    assert square == pytest.approx(0.995, rel=1e-14)
    for bias, loss in ((False, 0.0049875), (True, 0.003740625)):
        frame = np.eye(K) - bias / K
        for n in (50, 3):
            W, H = linear_mse.tirer_bruna_decays(lam, lam, K, n)
            problem = ufm.UFM(K, 20, per_class=n, loss="mse", bias=bias)
            decay = ufm.Coupled(W=W, H=H)
            found = linear_optimum(problem, decay)
            assert found.loss == pytest.approx(loss, rel=1e-14)
            np.testing.assert_allclose(means_gram(problem, found.blocks), square * frame, atol=1e-14)
        value, blocks = minimise(problem, decay, 0)
        assert value == pytest.approx(loss, rel=1e-8)
        np.testing.assert_allclose(means_gram(problem, blocks), square * frame, atol=1e-8)


@pytest.mark.parametrize(
    ("depth", "width"), [(2, 4), (3, 4), *(pytest.param(L, 10, marks=pytest.mark.slow) for L in (4, 5))]
)
def test_binary_relu_chain_ends_at_dnc_below_the_threshold_and_at_zero_above(depth, width):
    """No random start finds less than the smaller of DNC and zero; the best of them finds it."""
    for factor, units in ((0.3, width), (1.02, 4)):
        problem = ufm.DUFM(2, units, depth)
        decay = ufm.Coupled(float((factor * binary_threshold(depth)) ** (1 / (depth + 1))))
        least = min(dnc(problem, decay).loss, 0.5)
        assert (least < 0.5) == (factor < 1)
        values = [minimise(problem, decay, seed)[0] for seed in range(6)]
        assert min(values) == pytest.approx(least, rel=1e-8)
        assert min(values) >= least * (1 - 1e-13)


# ------------------------------------------------------------------------------------------------ the objects


def test_blocks_are_read_only_named_and_usable_as_a_start():
    problem, decay = ufm.DUFM(3, [5, 4], 2, per_class=2), ufm.Coupled(0.01)
    found = dnc(problem, decay)
    assert found["W"] is found["W2"]
    assert {name: block.shape for name, block in found.blocks.items()} == dict(problem.shapes)
    with pytest.raises(ValueError, match="read-only"):
        found["H"][0, 0] = 1.0
    run = ufm.simulate(problem, ufm.GD(0.5), decay, init=found.start, steps=1000)
    assert run.loss[-1] == pytest.approx(found.loss, rel=1e-14)
    np.testing.assert_allclose(run["W1"][-1], found["W1"], atol=1e-14)
    assert pickle.loads(pickle.dumps(found)).loss == found.loss
    noisy = {name: block + 0.01 for name, block in found.blocks.items()}
    back = ufm.simulate(problem, ufm.GD(0.5), decay, init=noisy, steps=6000)
    assert back.loss[0] > found.loss * 1.001
    assert back.loss[-1] == pytest.approx(found.loss, rel=1e-8)


def test_zero_of_every_loss_is_stationary():
    cases = [
        (ufm.DUFM(3, 4, 3, per_class=[3, 2, 1]), 0.5),
        (ufm.DUFM(3, 4, 3, per_class=[3, 2, 1], loss=ufm.MSE("sum")), 3.0),
        (ufm.UFM(5, 4), np.log(5)),
        (ufm.DUFM(5, 4, 2, per_class=2, loss=ufm.CrossEntropy(smoothing=0.1)), np.log(5)),
        (ufm.UFM(5, 4, per_class=2, loss=ufm.CrossEntropy(reduction="sum")), 10 * np.log(5)),
    ]
    for problem, loss in cases:
        found = zero(problem, ufm.Coupled(0.1))
        assert found.loss == pytest.approx(loss, rel=1e-15)
        assert problem.value(found.blocks, ufm.Coupled(0.1)) == pytest.approx(loss, rel=1e-15)
        assert all((part == 0).all() for part in problem.gradient(found.blocks, ufm.Coupled(0.1)).values())
        assert found.rank == 0
    for loss in (ufm.MSE(), ufm.MSE("sum")):
        problem, decay = ufm.DUFM(3, 4, 2, per_class=[3, 2, 1], loss=loss, bias=True), ufm.Coupled(0.1)
        found = zero(problem, decay)
        assert problem.value(found.blocks, decay) == pytest.approx(found.loss, rel=1e-14)
        assert max(np.abs(part).max() for part in problem.gradient(found.blocks, decay).values()) < 1e-15


DEEP = ufm.DUFM(4, 6, 3)
REFUSED = {
    "cross-entropy": (
        linear_optimum,
        ufm.UFM(4, 6),
        0.01,
        "the loss is cross-entropy, not the squared error",
    ),
    "smoothed": (dnc, ufm.UFM(4, 6, loss=ufm.CrossEntropy(smoothing=0.1)), 0.01, "dnc: problem.loss is"),
    "no decay of W2": (dnc, DEEP, {"H": 0.1, "W1": 0.1, "W3": 0.1}, "no coupled decay acts on W2"),
    "frozen": (dnc, ufm.UFM(4, 6, loss="mse", features=ufm.SimplexETF()), {"W": 0.1}, "H is frozen"),
    "bias": (dnc, ufm.DUFM(4, 6, 3, bias=True), 0.01, "dnc: the problem has a bias"),
    "narrow": (dnc, ufm.DUFM(4, [6, 3, 6], 3), 0.01, "widths of at least classes = 4"),
    "large decay": (dnc, DEEP, 0.1, "D Lam = 0.4 is at most 0.3849, else"),
    "ReLU": (linear_optimum, DEEP, 0.01, "activation is 'relu'; allowed: 'identity'"),
    "decay of b": (linear_optimum, ufm.UFM(4, 6, loss="mse", bias=True), 0.01, "decay.b is 0.01; allowed: 0"),
    "frozen at zero": (zero, ufm.UFM(4, 6, features=ufm.SimplexETF()), None, "H is frozen"),
    "biased cross-entropy": (zero, ufm.UFM(4, 6, bias=True), None, "bias=True"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_problems_without_the_solution_are_refused_in_one_sentence(case):
    build, problem, rates, sentence = REFUSED[case]
    decay = None if rates is None else ufm.Coupled(**rates) if isinstance(rates, dict) else ufm.Coupled(rates)
    with pytest.raises((InvalidProblemError, IncompatibleError), match=sentence) as caught:
        build(problem, decay)
    assert "allowed" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("build", [dnc, linear_optimum])
def test_decay_that_leaves_float64_is_refused_and_a_tiny_one_is_not(build):
    problem = ufm.DUFM(3, 4, 3, per_class=50, activation="identity")
    with pytest.raises(
        InvalidProblemError, match=r"coupled decay of H is 1e\+308; allowed: a number up to 1e\+150"
    ):
        build(problem, ufm.Coupled(1e308))
    found = build(problem, ufm.Coupled(1e-300))  # as the decay tends to 0, F tends to (L+1)/2 K Lam
    assert found.loss == pytest.approx(2 * 3 * 50**0.25 * 1e-300, rel=1e-13, abs=0)


@pytest.mark.parametrize("build", [dnc, linear_optimum, zero])
def test_decay_outside_the_objective_is_refused(build):
    problem = ufm.DUFM(3, 4, 2, activation="identity")
    for decay in (ufm.Decoupled(0.01), ufm.Mixed(0.01, 0.01)):
        with pytest.raises(IncompatibleError, match="allowed: Coupled"):
            build(problem, decay)
