"""Products of the Hessian against a twin of many digits, and verdicts at states whose second derivative is known."""

import mpmath
import numpy as np
import pytest
from dufm_states import collapse, graph

import ufm
from ufm.certificates import certify
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.initial import draw
from ufm.kernels.hessian import Objective
from ufm.theory.necessity import merged_class_saddle, saddle_curvature

SOFT = np.array([[0.7, 0.2, 0.1], [0.3, 1.5, 0.0], [0.0, 0.1, 2.0]])
PROBLEMS = {
    "cross-entropy": ufm.UFM(3, 2, per_class=(2, 1, 1), bias=True),
    "squared error": ufm.UFM(3, 2, loss=ufm.MSE("sum"), bias=True),
    "smoothed": ufm.DUFM(3, width=2, depth=2, loss=ufm.CrossEntropy(smoothing=0.2)),
    "soft targets": ufm.DUFM(3, width=(2, 3), depth=2, loss=ufm.CrossEntropy(targets=SOFT), activation="identity"),
    "deep ReLU": ufm.DUFM(3, width=(2, 3, 2), depth=3, bias=True),
    "frozen layers": ufm.DUFM(
        3, width=2, depth=3, features=[[1.0, -0.5, 0.3], [0.2, 0.8, -0.4]], frozen={"W1": [[1.0, 0.5], [-0.3, 0.7]]}
    ),
    "middle layer frozen": ufm.DUFM(3, width=2, depth=3, loss="ce", frozen={"W2": [[1.0, 0.5], [-0.3, 0.7]]}),
}  # fmt: skip
DECAY = ufm.Coupled(0.01)


def random_state(problem: ufm.UFM | ufm.DUFM, seed: int) -> np.ndarray:
    return problem.pack(
        draw(
            problem, ufm.Start(ufm.Gaussian(0.8), **({"b": ufm.Gaussian(0.5)} if problem.bias else {})), seed
        )
    )


def hessian(problem, theta: np.ndarray, decay=DECAY) -> np.ndarray:
    """Dense Hessian from products with unit vectors."""
    objective = Objective(problem, decay, "test")
    objective(theta)
    relu = problem.activation == "relu"
    product = objective.curvature(
        theta, (objective.buffers.X > 0).astype(float) if relu else np.ones(objective.buffers.X.size)
    )
    return np.array([product(e) for e in np.eye(problem.size)])


# ------------------------------------------------------------------------------------------ products


def twin_value(problem, theta) -> mpmath.mpf:
    """Objective in mpmath from its definition."""
    ends = {}
    at = 0
    for name in problem.order:
        size = int(np.prod(problem.shapes[name]))
        ends[name] = np.array(theta[at : at + size], dtype=object).reshape(problem.shapes[name])
        at += size
    X = ends["H"]
    for layer in range(1, problem.depth + 1):
        X = ends[f"W{layer}"].dot(
            np.where(X > 0, X, 0 * X) if layer > 1 and problem.activation == "relu" else X
        )
    if problem.bias:
        X = X + ends["b"][:, None]
    K, N = X.shape
    targets = np.eye(K)[:, problem.labels] if problem.targets is None else problem.targets
    smoothing = mpmath.mpf(getattr(problem.loss, "smoothing", 0.0))
    total = mpmath.mpf(0)
    for i in range(N):
        if problem.loss.name == "MSE":
            total += sum((X[k, i] - targets[k, i]) ** 2 for k in range(K)) / 2
            continue
        level = mpmath.log(sum(mpmath.exp(z) for z in X[:, i]))
        for k in range(K):
            y = (1 - smoothing) * targets[k, i] + smoothing / K
            total += y * (level - X[k, i])
    if problem.loss.reduction == "mean":
        total /= N
    return total + mpmath.mpf(0.01) / 2 * sum(t**2 for t in theta[: problem.size])


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_hessian_is_that_of_a_twin_to_the_stated_round_off(name):
    problem = PROBLEMS[name]
    theta = random_state(problem, 5)
    ours = hessian(problem, theta)
    rng = np.random.default_rng(1)
    with mpmath.workdps(45):
        exact = np.array([mpmath.mpf(t) for t in theta], dtype=object)
        step = mpmath.mpf(10) ** -15
        for _ in range(2):  # u^T Hess v by central differences, right to 28 digits
            u, v = rng.choice([-1.0, 0.0, 1.0], (2, problem.size))
            up, along = (np.concatenate([w, np.zeros(theta.size - w.size)]) * step for w in (u, v))
            second = sum(
                i * j * twin_value(problem, exact + i * up + j * along) for i in (1, -1) for j in (1, -1)
            ) / (4 * step**2)  # fmt: skip
            terms = (sum(problem.widths) + problem.classes + problem.samples) * 2.0**-52
            bound = terms * np.linalg.norm(ours, 2) * np.linalg.norm(u) * np.linalg.norm(v)
            assert abs(float(second - mpmath.mpf(float(u @ ours @ v)))) <= bound


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_hessian_is_symmetric_and_the_derivative_of_the_gradient(name):
    problem = PROBLEMS[name]
    theta, step = random_state(problem, 6), 1e-6
    found, objective = hessian(problem, theta), Objective(problem, DECAY, "test")
    assert np.abs(found - found.T).max() <= 1e-14 * np.abs(found).max()
    for j, e in enumerate(np.eye(theta.size)[: problem.size]):
        difference = (objective(theta + step * e)[1] - objective(theta - step * e)[1]) / (2 * step)
        np.testing.assert_allclose(found[j], difference, atol=1e-8)


def test_value_and_gradient_are_those_of_the_problem():
    problem = PROBLEMS["deep ReLU"]
    theta = random_state(problem, 1)
    state = problem.unpack(theta)
    value, gradient = Objective(problem, DECAY, "test")(theta)
    assert value == pytest.approx(problem.value(state, DECAY), rel=1e-15)
    np.testing.assert_allclose(
        problem.unpack(gradient)["W2"], problem.gradient(state, DECAY)["W2"], rtol=1e-14
    )


def test_curvature_keeps_its_digits_where_a_probability_is_nearly_one():
    """One weight: the second derivative is p (1 - p), with 1 - p = 4e-18, which 1 - p computed from p would lose."""
    problem = ufm.UFM(2, 1, features=[[1.0, 1.0]], classifier=None)
    theta = problem.pack({"W": [[40.0], [0.0]]})
    exact = np.exp(-40.0) / (1 + np.exp(-40.0)) ** 2
    assert hessian(problem, theta, None)[0, 0] == pytest.approx(exact, rel=1e-13)


# ------------------------------------------------------------------------------------------ smooth verdicts


@pytest.mark.parametrize(("K", "width", "n"), [(4, 6, 2), (6, 20, 3)])
@pytest.mark.parametrize("rates", [(5e-3, 5e-3), (5e-3, 4e-4)])
def test_merged_classes_are_a_strict_saddle_with_the_closed_curvature(K, width, n, rates):
    """Parting two merged classes is a 2 x 2 problem: rates on the diagonal, -1/(K sqrt n) beside it."""
    state = merged_class_saddle(K, width, n, *rates)
    found = certify(ufm.UFM(K, width, per_class=n), ufm.Coupled(W=rates[0], H=rates[1]), state)
    mixed = -1 / (K * np.sqrt(n))
    lowest = np.linalg.eigvalsh([[rates[0], mixed], [mixed, rates[1]]])[0]
    assert found.verdict == "strict saddle"
    assert found.curvature == pytest.approx(lowest, rel=1e-12)
    if rates[0] == rates[1]:  # the norm of the escape direction is sqrt 2 then
        assert 2 * found.curvature == pytest.approx(saddle_curvature(K, n, *rates), rel=1e-12)
    assert np.linalg.norm(found.direction["W"].T @ np.ones(K)) < 1e-10  # its classes part with row sums 0
    assert found.gradient < 1e-15
    assert not found.stable


@pytest.mark.parametrize("n", [1, 2])
def test_linear_collapse_is_a_minimum_and_its_smaller_root_a_saddle(n):
    problem = ufm.DUFM(3, width=5, depth=3, per_class=n, activation="identity")
    state, loss = collapse(3, 3, 0.01, 5, n)
    found = certify(problem, DECAY, state)
    assert found.verdict == "local minimum"
    assert found.loss == pytest.approx(loss, rel=1e-14)
    assert abs(found.curvature) <= found.error  # rotations are flat
    assert "up to flat directions" in found.reason
    strength = 3 * n**0.25 * 0.01
    from scipy.optimize import brentq

    small = brentq(lambda x: (1 - x) * x**0.5 - strength, 0.0, 1 / 3, xtol=1e-18)
    state, _ = collapse(3, 3, 0.01, 5, n, small)
    found = certify(problem, DECAY, state)
    assert found.gradient < 1e-14
    assert found.verdict == "strict saddle"


def test_one_layer_of_linear_collapse_has_the_closed_spectrum():
    """Hessian by W_2 alone: K^2 eigenvalues lam gamma/(1 - gamma) above the decay, lam everywhere else."""
    K, L, lam, width = 3, 3, 0.01, 5
    state, _ = collapse(K, L, lam, width)
    frozen = {name: value for name, value in state.items() if name != "W2"}
    problem = ufm.DUFM(K, width=width, depth=L, activation="identity", frozen=frozen)
    values = np.linalg.eigvalsh(hessian(problem, problem.pack(state), ufm.Coupled(lam)))
    from dufm_states import gain

    gamma = gain(K * lam, L)
    expected = np.full(width**2, lam)
    expected[-(K**2) :] += lam * gamma / (1 - gamma)
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("noise", [1e-8, 1e-6, 1e-4])
def test_the_error_covers_what_a_gradient_makes_of_flat_directions(noise):
    problem = ufm.DUFM(3, width=5, depth=3, activation="identity")
    state, _ = collapse(3, 3, 0.01, 5)
    rng = np.random.default_rng(0)
    near = {name: value + noise * rng.standard_normal(value.shape) for name, value in state.items()}
    found = certify(problem, DECAY, near, tolerance=1.0)
    assert found.error / 1e4 < -found.curvature <= found.error
    assert certify(problem, DECAY, near, tolerance=found.gradient / 2).verdict == "not critical"
    step = {name: near[name] + 1e-3 * noise * found.descent[name] for name in near}
    assert problem.value(step, DECAY) < found.loss


@pytest.mark.parametrize("width", [3, 20])
def test_the_zero_state_of_three_layers_has_the_decay_as_hessian_or_none(width):
    problem = ufm.DUFM(3, width=width, depth=3, activation="identity", loss="ce")
    zero = {name: np.zeros(shape) for name, shape in problem.shapes.items()}
    found = certify(problem, ufm.Coupled(0.02), zero)
    assert (found.verdict, found.loss) == ("local minimum", pytest.approx(np.log(3), rel=1e-15))
    assert found.curvature == pytest.approx(0.02, rel=1e-12)
    assert "beyond the error" in found.reason
    for activation in ("identity", "relu"):
        flat = ufm.DUFM(3, width=width, depth=3, activation=activation, loss="ce")
        assert certify(flat, None, zero).verdict == "undecided"


def test_many_parameters_and_few_give_the_same_lowest_eigenvalue(monkeypatch):
    from ufm import certificates

    problem, state = ufm.DUFM(3, width=5, depth=3, activation="identity"), collapse(3, 3, 0.01, 5)[0]
    state = {name: 1.3 * value for name, value in state.items()}
    dense = certify(problem, DECAY, state)
    monkeypatch.setattr(certificates, "DENSE", 10)
    lanczos = certify(problem, DECAY, state)
    assert lanczos.curvature == pytest.approx(dense.curvature, rel=1e-10)
    assert lanczos.residual <= 1e-8 * lanczos.largest
    assert lanczos.largest == pytest.approx(dense.largest, rel=0.03)
    again = certify(problem, DECAY, state)
    assert again.curvature == lanczos.curvature
    assert np.array_equal(again.direction["W2"], lanczos.direction["W2"])


# ------------------------------------------------------------------------------------------ kinks


@pytest.mark.parametrize(("width", "n"), [(3, 1), (5, 2)])
def test_collapse_behind_relu_lies_on_flat_kinks_without_descent(width, n):
    state, loss = collapse(3, 3, 0.01, width, n)
    found = certify(ufm.DUFM(3, width=width, depth=3, per_class=n), DECAY, state)
    assert (found.verdict, found.sharp_kinks) == ("kink", 0)
    assert found.kinks == 2 * 3 * n * (width - 1)  # every sample leaves one unit of each hidden layer on
    assert found.loss == pytest.approx(loss, rel=1e-14)
    assert found.curvature >= -found.error
    assert found.stable


def test_the_zero_state_hides_a_descent_behind_its_kinks():
    """One hidden layer over frozen features, all weights 0: u relu(w x) descends at second order by 1/N - lam.

    The Hessian with every kink off knows lam alone.
    """
    lam = 0.01
    problem = ufm.DUFM(2, width=(2, 3), depth=2, features=np.eye(2))
    zero = {"W1": np.zeros((3, 2)), "W2": np.zeros((2, 3))}
    found = certify(problem, ufm.Coupled(lam), zero)
    assert found.verdict == "strict saddle"
    assert found.curvature == pytest.approx(lam - 0.5, rel=1e-6)
    # with decay above the slope nothing descends
    assert certify(problem, ufm.Coupled(0.6), zero).verdict == "kink"


def test_a_kink_that_holds_from_one_side_has_the_curvature_of_the_other():
    """W_1 = a I: units at 0 would raise the loss at the rate 1 - 2 a, and are off below it."""
    lam = 0.1
    opposed = [[1.0, -2.0], [-2.0, 1.0]]
    problem = ufm.DUFM(2, width=2, depth=2, features=np.eye(2), frozen={"W2": opposed})
    found = certify(problem, ufm.Coupled(lam), {"W1": np.eye(2) / (5 + 2 * lam)})
    assert (found.verdict, found.kinks, found.sharp_kinks) == ("kink", 2, 0)
    assert found.gradient < 1e-15
    assert found.curvature == pytest.approx(lam, rel=1e-12)  # on the side of units that are on: lam + 1/2


def test_negative_curvature_at_kinks_is_a_saddle_only_if_the_objective_falls(monkeypatch):
    """The value at one choice of multipliers is a lower bound; the objective along the arc decides."""
    from ufm import certificates

    problem = ufm.DUFM(2, width=(2, 3), depth=2, features=np.eye(2))
    zero = {"W1": np.zeros((3, 2)), "W2": np.zeros((2, 3))}
    asked, falls = [], certificates._falls

    def arcs_that_rise(*arguments):
        asked.append(falls(*arguments))
        return False

    monkeypatch.setattr(certificates, "_falls", arcs_that_rise)
    found = certify(problem, DECAY, zero)
    assert asked == [True]
    assert found.verdict == "undecided"
    assert "does not fall along its arc" in found.reason
    assert certify(problem, ufm.Coupled(0.6), zero).verdict == "kink"
    assert asked == [True]


def test_the_kneser_graph_sits_on_sharp_kinks_without_descent():
    state, loss = graph(5, 3, 0.004, 10)
    problem, decay = ufm.DUFM(10, width=10, depth=3), ufm.Coupled(0.004)
    found = certify(problem, decay, state)
    assert found.loss == pytest.approx(loss, rel=1e-13)
    assert (found.verdict, found.sharp_kinks) == (
        "kink",
        90,
    )  # 30 zeros of the incidence matrix, 60 of adjacent edges
    assert found.gradient < 1e-14
    # the smooth piece with every kink off has a gradient: the kinks carry it
    objective = Objective(problem, decay, "test")
    assert np.linalg.norm(objective(problem.pack(state))[1]) > 1e-3


def test_kinks_that_are_too_many_to_weigh_leave_a_state_undecided(monkeypatch):
    from ufm import certificates

    monkeypatch.setattr(certificates, "LARGEST_JACOBIAN", 100)
    found = certify(ufm.DUFM(10, width=10, depth=3), ufm.Coupled(0.004), graph(5, 3, 0.004, 10)[0])
    assert found.verdict == "undecided"
    assert not found.stable
    # collapse needs no multipliers
    assert certify(ufm.DUFM(3, width=3, depth=3), DECAY, collapse(3, 3, 0.01, 3)[0]).verdict == "kink"


@pytest.mark.parametrize("L", [3, 4])
def test_the_identity_variant_falls_at_first_order(L):
    """Not a saddle: its kinks have no multipliers, and the objective falls along the direction given, at its rate."""
    problem, decay = ufm.DUFM(10, width=10, depth=L), ufm.Coupled(0.004)
    state, loss = graph(5, L, 0.004, 10, "identity")
    found = certify(problem, decay, state)
    assert found.loss == pytest.approx(loss, rel=1e-13)
    assert found.verdict == "not critical"
    assert "falls at the rate" in found.reason
    step = 1e-6
    moved = {name: state[name] + step * found.descent[name] for name in state}
    assert (problem.value(moved, decay) - loss) / step == pytest.approx(-found.gradient, rel=1e-3)
    assert found.gradient > 0.01


@pytest.mark.slow
def test_a_spare_unit_makes_a_saddle_of_the_graph_of_rank_six():
    """Units on three vertices against three cost less at r = 6; one more unit is where they begin."""
    decay = ufm.Coupled(0.004)
    assert certify(ufm.DUFM(15, width=15, depth=4), decay, graph(6, 4, 0.004, 15)[0]).verdict == "kink"
    found = certify(ufm.DUFM(15, width=16, depth=4), decay, graph(6, 4, 0.004, 16)[0])
    assert found.verdict == "strict saddle"
    assert np.linalg.norm(found.direction["W3"][15]) ** 2 > 0.4


def test_a_run_near_a_kink_is_recognised_with_a_share():
    problem, state = ufm.DUFM(3, width=3, depth=3), collapse(3, 3, 0.01, 3)[0]
    rng = np.random.default_rng(2)
    near = {name: value + 1e-9 * rng.standard_normal(value.shape) for name, value in state.items()}
    assert certify(problem, DECAY, near).kinks == 0
    assert certify(problem, DECAY, near, kink=1e-6).kinks == 12


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda p, s: certify("p", None, s), InvalidProblemError, "certify.problem is 'p'"),
        (lambda p, s: certify(p, ufm.Decoupled(0.1), s), IncompatibleError, "decoupled decay belongs to the step"),
        (lambda p, s: certify(p, ufm.Mixed(0.1, 0.1), s), IncompatibleError, "certify.decay is Mixed"),
        (lambda p, s: certify(p, 0.1, s), IncompatibleError, "decay is 0.1"),
        (lambda p, s: certify(p, None, {"W": s["W"]}), InvalidProblemError, "state.H is None"),
        (lambda p, s: certify(p, None, 3), InvalidProblemError, "state is 3"),
        (lambda p, s: certify(p, None, s, tolerance=-1), InvalidProblemError, "certify.tolerance"),
        (lambda p, s: certify(p, None, s, kink=1.0), InvalidProblemError, "certify.kink"),
        (lambda p, s: certify(p, None, s, seed=-1), InvalidProblemError, "certify.seed"),
        (lambda p, s: certify(p, DECAY, {"H": 1e200 * s["H"], "W": s["W"]}), InvalidProblemError, "finite"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(ufm.UFM(2, 2), {"W": np.eye(2), "H": np.eye(2)})
