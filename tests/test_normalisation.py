"""Batch normalisation inside the chain: passes against the plain twin and the definition, blocks, refusals."""

import itertools

import numpy as np
import pytest

import ufm
from ufm.errors import DivergedError, IncompatibleError, InvalidProblemError
from ufm.kernels import reference
from ufm.normalisation import standardised

K, WIDTH, SIZES, STEPS = 4, 5, (2, 1, 2, 2), 15
OPTIMIZERS = {
    "gd": ufm.GD(0.05),
    "nesterov": ufm.Momentum(0.02, 0.8, nesterov=True),
    "adam": ufm.Adam(0.01),
}
CHAINS = [
    (1, "identity", (1,)),
    (3, "relu", (1,)),
    (3, "relu", (1, 3)),
    (3, "identity", (2,)),
    (3, "relu", (1, 2, 3)),
]
EPS = 2.0**-52


def problem_of(depth, activation, layers, eps=0.0, **options):
    norm = ufm.BatchNorm(eps, layers)
    if depth == 1:
        return ufm.UFM(K, WIDTH, SIZES, normalisation=norm, **options)
    return ufm.DUFM(K, WIDTH, depth, SIZES, activation=activation, normalisation=norm, **options)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_compiled_equals_reference(optimizer):
    """Full and mini-batches (4 and 3 of 7 samples), every place of the normalisation, decay and bias.

    No batch of 2: its normalised rows are +-1, the gradient by H is 0, and Adam would take steps along round-off.
    """
    decays = (None, ufm.Mixed(0.02, 0.3), ufm.Decoupled(gamma=0.3))
    cases = itertools.product(CHAINS, (None, 4), decays, (0.0, 1e-2))
    for (depth, activation, layers), batch, decay, eps in cases:
        if layers[0] > 1 and decay == decays[2]:
            continue  # there is no block gamma
        problem = problem_of(depth, activation, layers, eps, loss="mse" if depth == 3 else "ce", bias=eps > 0)
        traj = ufm.simulate(
            problem, OPTIMIZERS[optimizer], decay, steps=STEPS, init=ufm.Gaussian(0.5), batch=batch, seed=1
        )
        states = reference.simulate(traj.run)
        for block in problem.trained:
            # steps magnify round-off: 1e4 eps leaves a factor of about 30 in hand over 15 steps
            assert np.abs(traj[block] - states[block]).max() < 1e4 * EPS, (depth, layers, batch, decay, block)


@pytest.mark.parametrize(("depth", "activation", "layers"), CHAINS)
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_gradient_is_the_central_difference_to_order_two(depth, activation, layers, eps, rng):
    decay = ufm.Coupled(0.03)
    problem = problem_of(depth, activation, layers, eps, loss="ce", bias=True)
    x, d = rng.standard_normal((2, problem.size))
    gradient = problem.gradient(problem.unpack(x), decay)
    slope = sum(float(np.sum(gradient[name] * problem.unpack(d)[name])) for name in problem.trained)
    h = np.array([2e-4, 1e-4, 5e-5])  # so small that no ReLU switches in between
    values = [[problem.value(problem.unpack(x + s * step * d), decay) for s in (1, -1)] for step in h]
    rest = np.abs([(up - down) / (2 * step) - slope for (up, down), step in zip(values, h, strict=True)])
    order = np.diff(np.log(rest)) / np.diff(np.log(h))
    assert np.all(np.abs(order - 2) < 0.1), (rest, order)
    assert rest[-1] < 1e-4 * abs(slope)


def test_a_wrong_gradient_has_no_order_two(rng):
    """Without the term of the variance the slope test fails: it can tell."""
    problem = problem_of(1, "identity", (1,))
    x, d = rng.standard_normal((2, problem.size))
    state = problem.unpack(x)
    BN = standardised(state["H"])
    of_H = problem.gradient(state)["H"]
    wrong = of_H + 0.01 * BN
    h = np.array([1e-3, 5e-4])
    along = problem.unpack(d)["H"]
    rest = [
        abs(
            (
                problem.value({**state, "H": state["H"] + s * along})
                - problem.value({**state, "H": state["H"] - s * along})
            )
            / (2 * s)
            - float(np.sum(wrong * along))
        )
        for s in h
    ]
    assert abs(np.log(rest[0] / rest[1]) / np.log(2)) < 0.1


def test_value_is_the_definition(rng):
    problem = problem_of(3, "relu", (1, 3), eps=0.01, loss="mse", bias=True)
    state = problem.unpack(rng.standard_normal(problem.size))

    def BN(X):
        return (X - X.mean(axis=1, keepdims=True)) / np.sqrt(X.var(axis=1, keepdims=True) + 0.01)

    H2 = state["W1"] @ (state["gamma"][:, None] * BN(state["H"]))
    H3 = state["gamma3"][:, None] * BN(state["W2"] @ np.maximum(H2, 0))
    Z = state["W3"] @ np.maximum(H3, 0) + state["b"][:, None]
    Y = np.eye(K)[:, problem.labels]
    assert problem.value(state) == pytest.approx(((Z - Y) ** 2).sum() / (2 * problem.samples), rel=1e-14)
    assert problem.scales == {1: "gamma", 3: "gamma3"}
    assert problem.blocks == ("H", "W1", "W2", "W3", "b", "gamma", "gamma3")
    assert "Z = W3 relu(diag(gamma3) BN(W2 relu(W1 diag(gamma) BN(H)))) + b 1^T" in problem.formula()
    assert "(0.5/2) ||gamma||_2^2" in problem.formula(ufm.Coupled(gamma=0.5))


def test_features_of_a_run_are_those_behind_the_normalisation():
    problem = problem_of(3, "relu", (1, 3), loss="ce")
    traj = ufm.simulate(problem, ufm.GD(0.1), steps=4, init=ufm.Gaussian(0.5))
    for i, value in enumerate(traj.fit):
        Z = traj.logits()[i]
        one_hot = np.eye(K)[:, problem.labels]
        assert value == pytest.approx(
            np.mean(np.log(np.exp(Z).sum(axis=0)) - (Z * one_hot).sum(axis=0)), rel=1e-13
        )
    first = traj.features(1)
    assert np.abs(first.mean(axis=-1)).max() < 1e-15
    np.testing.assert_allclose((first**2).mean(axis=-1), traj["gamma"] ** 2, rtol=1e-13)
    means = ufm.metrics.layer_means(traj, stage="pre")
    np.testing.assert_allclose(means[0], ufm.metrics.class_means(traj, centred=False, layer=1), rtol=1e-12)
    assert traj.to_xarray()["gamma3"].dims == ("step", "feature3")


def test_objective_does_not_see_scale_and_shift_of_rows(rng):
    problem = problem_of(1, "identity", (1,))
    state = dict(problem.unpack(rng.standard_normal(problem.size)))
    moved = {
        **state,
        "H": np.exp(rng.standard_normal((WIDTH, 1))) * state["H"] + rng.standard_normal((WIDTH, 1)),
    }
    assert problem.value(moved) == pytest.approx(problem.value(state), rel=1e-13)
    gradient = problem.gradient(state)["H"]
    size = np.linalg.norm(gradient) * np.linalg.norm(state["H"])
    assert np.abs(gradient.sum(axis=1)).max() < 1e-13 * size
    assert np.abs((gradient * state["H"]).sum(axis=1)).max() < 1e-13 * size


FROZEN = [
    names for n in range(5) for names in itertools.combinations(("H", "W1", "W2", "gamma", "gamma2"), n)
]


def test_any_blocks_may_be_frozen(rng):
    whole = ufm.DUFM(3, 4, 2, 2, loss="ce", normalisation=ufm.BatchNorm(layers=(1, 2)))
    state = whole.unpack(0.5 + 0.3 * rng.standard_normal(whole.size))
    for frozen, batch in itertools.product(FROZEN, (None, 4)):
        fixed = {name: ufm.Given(state[name]) for name in frozen} or None
        problem = ufm.DUFM(3, 4, 2, 2, loss="ce", normalisation=whole.normalisation, frozen=fixed)
        start = ufm.Given(**{name: state[name] for name in problem.trained})
        traj = ufm.simulate(problem, ufm.Momentum(0.05, 0.8), steps=6, init=start, batch=batch)
        states = reference.simulate(traj.run)
        for name in problem.trained:
            assert np.abs(traj[name] - states[name]).max() <= 1e-13, (frozen, batch, name)
        for name in frozen:
            assert np.array_equal(traj[name][-1], state[name])


def test_decay_of_gamma_alone_shrinks_gamma_alone():
    problem = problem_of(1, "identity", (1,), classifier=np.zeros((K, WIDTH)))
    traj = ufm.simulate(
        problem, ufm.GD(0.5), ufm.Decoupled(gamma=0.1), steps=3, init=ufm.Start(H=ufm.Gaussian(1.0))
    )
    np.testing.assert_allclose(
        traj["gamma"][-1], 0.95**3, rtol=1e-15
    )  # W = 0: no gradient, and gamma starts at 1
    assert np.array_equal(traj["H"][0], traj["H"][-1])


def test_runs_are_saved_resumed_and_described(tmp_path):
    problem = problem_of(3, "relu", (1, 3), eps=1e-5)
    traj = ufm.simulate(problem, ufm.Adam(0.01), ufm.Coupled(gamma=0.1), steps=20, batch=3)
    loaded = ufm.load(traj.save(tmp_path / "run.npz"))
    assert loaded.problem == problem
    assert np.array_equal(loaded.resume(40).states, traj.resume(40).states)
    from ufm.config import from_table, to_table

    table = to_table(problem)
    assert table["normalisation"] == {"type": "BatchNorm", "eps": 1e-5, "layers": [1, 3]}
    assert from_table(table) == problem
    half = ufm.simulate(problem, ufm.GD(0.01), steps=5, dtype="float32")
    assert half["gamma"].dtype == np.float32


def test_ensembles_run_normalised_problems_one_by_one():
    from ufm.ensemble import ensemble, runs_in_lanes
    from ufm.run import Run

    runs = [Run(problem_of(1, "identity", (1,)), ufm.GD(0.1), steps=5, seed=seed) for seed in range(3)]
    assert not runs_in_lanes(runs[0])
    for run, traj in zip(runs, ensemble(runs), strict=True):
        alone = ufm.simulate(run.problem, run.optimizer, steps=5, seed=run.seed, init=run.init)
        assert np.array_equal(traj.states, alone.states)


def test_a_constant_row_gets_a_sentence():
    problem = ufm.UFM(3, 2, normalisation=ufm.BatchNorm())
    state = {"H": np.full((2, 3), 0.1), "W": np.ones((3, 2)), "gamma": np.ones(2)}
    with pytest.raises(InvalidProblemError, match="constant over the samples of a batch"):
        problem.value(state)
    with pytest.raises(DivergedError, match="constant over the samples of a batch"):
        ufm.simulate(problem, ufm.GD(0.1), steps=1, init=ufm.Given(**state))
    with pytest.raises(DivergedError, match=r"BatchNorm\.eps is 0"):  # one sample has no variance
        ufm.simulate(ufm.UFM(3, 2, 2, normalisation=ufm.BatchNorm()), ufm.GD(0.1), steps=1, batch=1)
    soft = ufm.UFM(3, 2, normalisation=ufm.BatchNorm(eps=1e-5))
    assert soft.value(state) == pytest.approx(np.log(3), rel=1e-15)


def test_refusals():
    with pytest.raises(InvalidProblemError, match=r"BatchNorm\.eps is -1; allowed"):
        ufm.BatchNorm(-1)
    for layers in ((), (0,), (1, 1), 1, "12"):
        with pytest.raises(InvalidProblemError, match=r"BatchNorm\.layers"):
            ufm.BatchNorm(layers=layers)
    with pytest.raises(InvalidProblemError, match=r"UFM\.normalisation\.layers is \(1, 2\); allowed"):
        ufm.UFM(3, 2, normalisation=ufm.BatchNorm(layers=(1, 2)))
    with pytest.raises(InvalidProblemError, match=r"UFM\.normalisation is 'batch'; allowed"):
        ufm.UFM(3, 2, normalisation="batch")
    problem = ufm.UFM(3, 2, 2, normalisation=ufm.BatchNorm())
    for optimizer in (ufm.SignGD(0.1), ufm.Signum(0.1, 0.9), ufm.NormalisedGD(0.1)):
        with pytest.raises(IncompatibleError, match="neither an error bound of signs"):
            ufm.simulate(problem, optimizer, steps=1)
    with pytest.raises(IncompatibleError, match="neither an error bound of signs"):
        problem.signs({"H": np.eye(2, 6), "W": np.ones((3, 2)), "gamma": np.ones(2)})
    decay = ufm.Coupled(0.01)
    deep = ufm.DUFM(3, 4, 3, normalisation=ufm.BatchNorm())
    for build in (ufm.solutions.dnc, ufm.solutions.zero, ufm.solutions.srg, ufm.solutions.linear_optimum):
        with pytest.raises((IncompatibleError, InvalidProblemError), match="BatchNorm"):
            build(deep, decay)
    with pytest.raises(IncompatibleError, match=r"init\.gamma"):
        ufm.simulate(problem, ufm.GD(0.1), steps=1, init=ufm.SimplexETF())


def test_claims_about_plain_chains_do_not_judge_normalised_ones():
    problem = ufm.DUFM(2, 4, 2, 3, activation="identity", normalisation=ufm.BatchNorm())
    report = ufm.compare(ufm.simulate(problem, ufm.GD(0.1), ufm.Coupled(0.01), steps=20))
    assert report.ok
    assert report.ending is None
    judged = {row.name for row in report if row.verdict != "not applicable"}
    assert "zhao2026.prop2.1" in judged  # of W and the features as they are
    assert not any("optimum" in name or "depth" in name for name in judged), judged


# ------------------------------------------------------------------------------- second derivatives


@pytest.mark.parametrize(("depth", "layers"), [(1, (1,)), (3, (1, 3)), (3, (2,)), (3, (1, 2, 3))])
@pytest.mark.parametrize("loss", ["ce", "mse", ufm.CrossEntropy(smoothing=0.1, reduction="sum")], ids=str)
def test_hessian_is_the_derivative_of_the_gradient(depth, layers, loss, rng):
    """Central differences of the gradient come nearer to the product like h^2, down to 1e-6 of it."""
    from ufm.kernels.hessian import Objective

    problem = problem_of(depth, "identity", layers, eps=0.05, loss=loss, bias=depth == 3)
    objective = Objective(problem, ufm.Coupled(0.1), "test")
    theta, v = rng.standard_normal((2, problem.size))
    product = objective.curvature(theta, np.ones(1))(v)
    h = np.array([2e-4, 1e-4, 5e-5])
    differences = [(objective(theta + s * v)[1] - objective(theta - s * v)[1]) / (2 * s) for s in h]
    rest = np.linalg.norm(np.array(differences) - product, axis=1)
    order = np.diff(np.log(rest)) / np.diff(np.log(h))
    assert np.all(np.abs(order - 2) < 0.05), (rest, order)
    assert rest[-1] < 1e-6 * np.linalg.norm(product)


def test_certificates_of_normalised_chains():
    """Random state, minimum, and the point gamma = W = 0, a saddle at this decay; ReLU chains are refused."""
    problem, decay = ufm.UFM(3, 2, 2, normalisation=ufm.BatchNorm()), ufm.Coupled(W=0.05, gamma=0.05)
    found = ufm.minimise(problem, decay, starts=4)
    assert found.certificate.verdict == "local minimum"
    H = np.random.default_rng(0).standard_normal((2, 6))
    zero = {"H": H, "W": np.zeros((3, 2)), "gamma": np.zeros(2)}
    assert ufm.certify(problem, decay, zero).verdict == "strict saddle"
    assert ufm.certify(problem, decay, {**zero, "gamma": np.ones(2)}).verdict == "not critical"
    deep = ufm.DUFM(3, 4, 2, normalisation=ufm.BatchNorm())
    assert ufm.minimise(deep, ufm.Coupled(0.01), starts=1, iterations=5).certificate is None
    with pytest.raises(IncompatibleError, match=r"certify\.problem has BatchNorm.* in a ReLU chain; allowed"):
        ufm.certify(deep, ufm.Coupled(0.01), deep.unpack(np.ones(deep.size)))
