"""Runs from spectral starts against their recursion and its flow, gaps against their law, codes against matrices."""

import numpy as np
import pytest

import figures
import ufm
from ufm.config import run_from_table, to_table
from ufm.errors import InvalidProblemError
from ufm.initial import Spectral, Start, draw, walsh
from ufm.kernels.hessian import Objective
from ufm.run import Run
from ufm.theory import spectral_depth as room

CLAIMS = {claim.name: claim for claim in room.CLAIMS}
RECURSION, FLOW = CLAIMS["ufm.spectral_recursion"], CLAIMS["ufm.spectral_flow"]


def problem(K, depth, width=None, per_class=1, loss="ce", **more):
    return ufm.DUFM(K, width or K, depth, per_class, activation="identity", loss=loss, **more)


def spread_start(rng, K, depth, scale=0.3, spread=0.3):
    """Balanced singular values whose product is near the scale."""
    return Spectral(tuple((scale * (1 + spread * rng.random(K))) ** (1 / (depth + 1))))


def diagonal(run):
    """V^T Z V at every record."""
    return room.observed_modes(run.judged(), np.arange(len(run)))


# ------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("K", [2, 8])
@pytest.mark.parametrize("loss", ["ce", "mse", ufm.CrossEntropy(reduction="sum"), ufm.MSE(reduction="sum")])
@pytest.mark.parametrize(("depth", "per_class"), [(1, 1), (2, 3), (4, 2)])
def test_gradients_by_mode_are_those_of_the_problem(K, loss, depth, per_class, rng):
    """Unbalanced values; every block's gradient is diagonal in the Walsh basis."""
    setting = problem(K, depth, K + 2, per_class, loss)
    names = setting.trained
    values = rng.uniform(0.2, 1.5, (depth + 1, K))
    start = Start(**{name: Spectral(tuple(row)) for name, row in zip(names, values, strict=True)})
    found, V = setting.gradient(draw(setting, start, 0)), walsh(K) / np.sqrt(K)
    kind = "mse" if setting.loss.name == "MSE" else "ce"
    slopes = room.residual(values.prod(axis=0), kind, per_class, setting.loss.reduction == "mean")
    for name, expected in zip(names, room.gradient(values, slopes), strict=True):
        G = found[name]
        if name == "H":
            G = G.reshape(len(G), K, per_class).sum(axis=2) / np.sqrt(per_class)
        whole = np.zeros(G.shape)
        whole[:K, :K] = V * expected @ V
        np.testing.assert_allclose(
            G, whole, atol=1e-14 * np.abs(values).max() ** depth * max(1, K * per_class)
        )


def test_missing_spectrum_keeps_its_digits_far_out():
    """1 - p_k at a gap of 700 is 8 exp(-700): a difference of ones would be 0."""
    z = np.full(8, 700.0)
    assert room.missing_spectrum(z)[1:] == pytest.approx(np.full(7, 8 * np.exp(-700)), rel=1e-13, abs=0)
    assert room.missing_spectrum(z)[0] == 0


def test_ray_is_neural_collapse():
    """On the ray every wrong class has the probability 1/(exp(z) + K - 1)."""
    for z in (0.1, 3.0, 12.0):
        expected = 8 / (np.exp(z) + 7)
        assert room.missing_spectrum(np.full(8, z))[1:] == pytest.approx(
            np.full(7, expected), rel=1e-13, abs=0
        )


# ------------------------------------------------------------------------------------- runs, step by step


def random_run(rng):
    """GD of any loss, depth, number of samples, schedule, decay by block and unbalanced start."""
    K, depth, n = int(rng.choice([2, 4, 8])), int(rng.integers(1, 6)), int(rng.integers(1, 4))
    loss = [ufm.CrossEntropy, ufm.MSE][rng.integers(2)](reduction=str(rng.choice(["mean", "sum"])))
    setting = problem(K, depth, int(rng.integers(K, 2 * K + 5)), n, loss)
    steps = int(10 ** rng.uniform(1, 2.7))
    lr = 10 ** rng.uniform(-3, -1) / (K if loss.reduction == "sum" else 1)
    schedules = [lr, ufm.StepDecay(lr), ufm.Cosine(lr), ufm.Rates(lr * rng.random(steps))]
    rate = 10 ** rng.uniform(-5, -1.5)
    named = {name: rate * rng.random() for name in setting.trained}
    decays = [
        None,
        ufm.Coupled(rate),
        ufm.Decoupled(rate),
        ufm.Mixed(ufm.Coupled(**named), ufm.Decoupled(rate)),
    ]
    balanced = spread_start(rng, K, depth, 10 ** rng.uniform(-1.5, 0.3), 0.5)
    apart = Start(balanced, H=Spectral(tuple(rng.uniform(0.1, 1.2, K))))
    return ufm.simulate(
        setting,
        ufm.GD(schedules[rng.integers(4)]),
        decays[rng.integers(4)],
        steps=steps,
        init=[balanced, apart][rng.integers(2)],
        record=[ufm.Every(1), ufm.LogSpaced(30)][rng.integers(2)],
        throw=False,
    ).judged()


def judged(count, seed):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        run = random_run(rng)
        assert RECURSION.applies(run) is None
        prediction = RECURSION.predict(run)
        assert prediction.ratio <= 1, run
        found.append((prediction.ratio, RECURSION.control(run).ratio, prediction.judged.all()))
        if FLOW.applies(run) is None:
            assert FLOW.predict(run).ratio <= 1, run
    return np.array(found).T


def test_random_runs_keep_within_the_bound_and_refuse_wrong_rates():
    held, refused, complete = judged(60, 1)
    assert held.max() > 1e-3  # the bound is no wider than it need be by orders of magnitude
    assert np.mean(refused > 1000) > 0.95
    assert np.mean(complete) > 0.9


@pytest.mark.slow
def test_many_random_runs_keep_within_the_bound():
    _, refused, _ = judged(1000, 2)
    assert np.mean(refused > 1000) > 0.95


def test_every_entry_of_the_logits_at_every_step():
    """Acceptance: K = 8, L = 3: the diagonal is the recursion's, the rest stays 0, both to round-off."""
    rng = np.random.default_rng(3)
    start = spread_start(rng, 8, 3)
    run = ufm.simulate(problem(8, 3, 12), ufm.GD(0.05), steps=3000, init=start)
    found = diagonal(run)
    path = room.recursion(np.tile(start.values(8), (4, 1)), np.full(3000, 0.05)).prod(axis=1)
    modes = np.diagonal(found, axis1=1, axis2=2)
    assert np.abs(modes - path).max() < 1e-12
    assert np.abs(found - modes[:, :, None] * np.eye(8)).max() < 1e-13
    assert path[-1, 1:].min() > 5  # from 0.3
    assert np.abs(path[:, 0] - path[0, 0]).max() == 0  # the constant mode feels nothing but decay
    wrong = room.recursion(np.tile(start.values(8), (4, 1)), np.full(3000, 0.05 * (1 + 1e-6))).prod(axis=1)
    assert np.abs(modes - wrong).max() > 1e-7


def test_rotated_features_change_nothing():
    """Any orthonormal bases between the layers: the factors need only be aligned."""
    rng = np.random.default_rng(4)
    K, depth, width = 4, 3, 7
    setting, start = problem(K, depth, width), spread_start(rng, K, depth)
    blocks = draw(setting, start, 0)
    rotations = [np.linalg.qr(rng.standard_normal((width, width)))[0] for _ in range(depth)]
    given = {"H": rotations[0] @ blocks["H"]}
    for layer in range(1, depth + 1):
        left = rotations[layer] if layer < depth else np.eye(K)
        given[f"W{layer}"] = left @ blocks[f"W{layer}"] @ rotations[layer - 1].T
    run = ufm.simulate(setting, ufm.GD(0.1), steps=500, init=ufm.Given(**given))
    path = room.recursion(np.tile(start.values(K), (depth + 1, 1)), np.full(500, 0.1)).prod(axis=1)
    assert diagonal(run) == pytest.approx(path[:, :, None] * np.eye(K), abs=1e-12)


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_heavy_ball_is_the_recursion_with_a_buffer(loss):
    rng = np.random.default_rng(5)
    start, decay = spread_start(rng, 4, 2), ufm.Mixed(coupled=1e-3, decoupled=2e-3)
    run = ufm.simulate(problem(4, 2, 5, 2, loss), ufm.Momentum(0.02, 0.9), decay, steps=400, init=start)
    values = np.tile(start.values(4), (3, 1))
    path = room.recursion(values, np.full(400, 0.02), loss, 2, True, 1e-3, 2e-3, 0.9).prod(axis=1)
    found = diagonal(run)
    assert found == pytest.approx(path[:, :, None] * np.eye(4), abs=1e-11)
    other = room.recursion(values, np.full(400, 0.02), loss, 2, True, 1e-3, 2e-3, 0.9 + 1e-6).prod(axis=1)
    assert np.abs(path - other).max() > 1e-7


def test_the_bound_ends_where_the_run_leaves_a_saddle():
    """A mode that starts at 0 under the squared error: round-off decides, and the bound says nothing any more."""
    run = ufm.simulate(
        problem(4, 1, loss="mse"), ufm.GD(0.5), steps=2000, init=Spectral((0, 0.5, 0.5, 0.5))
    ).judged()
    prediction = RECURSION.predict(run)
    assert prediction.ratio <= 1
    assert not prediction.judged[-1]
    assert ufm.compare(run.trajectory)["ufm.spectral_recursion"].verdict == "inconclusive"


# ------------------------------------------------------------------------------------ parts of both bounds


@pytest.mark.parametrize("loss", ["ce", "mse"])
@pytest.mark.parametrize(("depth", "per_class", "mean"), [(1, 1, True), (2, 3, True), (4, 2, False)])
def test_growth_of_the_flow_is_the_largest_eigenvalue_of_its_jacobian(loss, depth, per_class, mean, rng):
    decay, h = 0.3, 1e-6
    s = rng.uniform(0.4, 1.3, (5, 8))

    def slope(s):
        return -(s**depth) * room.residual(s ** (depth + 1), loss, per_class, mean) - decay * s

    found = room.flow_growth(np.repeat(s[:, None], depth + 1, axis=1), decay, loss, per_class, mean)
    for row, growth in zip(s, found, strict=True):
        J = np.array([(slope(row + h * e) - slope(row - h * e)) / (2 * h) for e in np.eye(8)])
        np.testing.assert_allclose(J, J.T, atol=1e-8)
        assert growth == pytest.approx(np.linalg.eigvalsh((J + J.T) / 2)[-1], abs=1e-8)


@pytest.mark.parametrize("loss", ["ce", "mse"])
@pytest.mark.parametrize(("depth", "per_class"), [(1, 1), (2, 3), (3, 1)])
def test_the_hessian_of_the_fit_lies_where_the_round_off_model_has_it(loss, depth, per_class, rng):
    setting = problem(4, depth, 5, per_class, loss)
    objective, lowest, highest = Objective(setting, None, "test"), [], []
    for scale in (0.3, 1.0, 2.0):
        values = scale * rng.uniform(0.5, 1.0, (depth + 1, 4))
        start = Start(
            **{name: Spectral(tuple(row)) for name, row in zip(setting.trained, values, strict=True)}
        )
        theta = setting.pack(draw(setting, start, 0))
        objective(theta)
        product = objective.curvature(theta, np.ones(objective.buffers.X.size))
        eigenvalues = np.linalg.eigvalsh(np.array([product(e) for e in np.eye(setting.size)]))
        size = room.sizes(values[None], loss, per_class, True)
        top = size.curvature * size.pull**2 + size.negative
        lowest.append(eigenvalues[0] / size.negative[0])
        highest.append(eigenvalues[-1] / top[0])
    assert min(lowest) >= -1 - 1e-12  # attained at L = 1
    assert max(highest) <= 1 + 1e-12
    assert min(lowest) < -0.3  # no larger than need be by orders of magnitude
    assert max(highest) > 0.3


# --------------------------------------------------------------------------------------------- the flow


@pytest.mark.parametrize(("loss", "per_class", "decay"), [("ce", 1, None), ("ce", 3, 1e-2), ("mse", 2, 1e-2)])
@pytest.mark.parametrize("depth", [1, 3])
def test_steps_follow_the_flow_at_first_order(loss, per_class, decay, depth):
    """Error and bound halve with the rate, at every step; the chain of L factors is refused."""
    start = spread_start(np.random.default_rng(6), 4, depth)
    errors, bounds = [], []
    for lr in (0.02, 0.01):
        run = ufm.simulate(
            problem(4, depth, 5, per_class, loss),
            ufm.GD(lr),
            decay and ufm.Coupled(decay),
            steps=round(8 / lr),
            init=start,
        ).judged()
        assert FLOW.applies(run) is None
        prediction = FLOW.predict(run)
        assert prediction.ratio <= 1
        assert prediction.judged.all()
        assert FLOW.control(run).ratio > 2
        errors.append(prediction.error.max())
        bounds.append(prediction.bound.max())
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert bounds[0] / bounds[1] == pytest.approx(2, rel=0.3)


def test_compare_judges_both():
    start = spread_start(np.random.default_rng(7), 8, 2)
    report = ufm.compare(ufm.simulate(problem(8, 2), ufm.GD(0.005), steps=1000, init=start))
    for name, control in (("ufm.spectral_recursion", 1e4), ("ufm.spectral_flow", 10)):
        assert report[name].verdict == "holds"
        assert report[name].control > control


SPECTRAL = Spectral(0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"init": ufm.Gaussian(0.1)},
            "the start is Gaussian(scale=0.1); the modes stay apart from a Spectral start",
        ),
        ({"init": Start(SPECTRAL, H=ufm.Zeros())}, "a Spectral start of every block"),
        ({"init": Spectral((1.0, 2.0))}, "the start cannot be drawn: Spectral.singular_values is (1.0, 2.0)"),
        ({"problem": ufm.DUFM(4, 4, 2, loss="ce")}, "the activation is relu"),
        (
            {"problem": problem(4, 2, bias=True), "init": Start(SPECTRAL, b=ufm.Zeros())},
            "the logits have a bias",
        ),
        ({"problem": problem(4, 2, features=SPECTRAL)}, "frozen are H"),
        ({"problem": problem(4, 2, loss=ufm.CrossEntropy(smoothing=0.1))}, "soft or smoothed"),
        ({"problem": problem(4, 2, per_class=(1, 2, 1, 1))}, "classes have from 1 to 2 samples"),
        ({"problem": problem(4, 2, per_class=2), "batch": 3}, "batches hold 3 of 8 samples"),
        ({"optimizer": ufm.Momentum(0.1, 0.9)}, "Momentum steps; the error model is for GD"),
        ({"dtype": "float32"}, "the run is in float32"),
        ({"decay": ufm.Mixed(0.0, 0.1, shrink="after")}, "the decoupled shrink comes after the step"),
    ],
)
def test_hypotheses_that_fail_are_named(changes, sentence):
    settings = {"problem": problem(4, 2), "optimizer": ufm.GD(0.1), "init": SPECTRAL, "steps": 5}
    assert RECURSION.applies(Run(**settings)) is None
    one_layer = ufm.DUFM(4, 4, 1, loss="ce", activation="relu")  # which it has nothing to act on
    assert RECURSION.applies(Run(**{**settings, "problem": one_layer})) is None
    for claim in (RECURSION, FLOW):
        assert sentence in claim.applies(Run(**{**settings, **changes}))


def test_the_flow_asks_for_more_than_the_recursion():
    def reason(**changes):
        run = Run(problem(4, 2), ufm.GD(0.1), **{"init": SPECTRAL, "steps": 5, **changes})
        assert RECURSION.applies(run) is None
        return FLOW.applies(run)

    assert "balanced factors" in reason(init=Start(SPECTRAL, H=Spectral(0.6)))
    assert "blocks decay at rates from 0 to 0.1" in reason(decay=ufm.Coupled(H=0.1))


# ---------------------------------------------------------------------------------------------- the gaps


def gaps_of(depth, per_class=1, share=0.005, gap=1e-4, loss="ce", stop=14.0):
    """Scale and relative gap of two modes of a full run beside the ray."""
    z = np.full(8, 0.2)
    z[1:3] *= 1 + gap / 2, 1 - gap / 2
    if loss == "ce":
        rates = per_class * room.ray_rates(8, depth, 0.2, stop, share)
        z *= np.sqrt(per_class)  # the logits of a class are z/sqrt(n)
        rates *= np.sqrt(per_class) ** (-2 * depth / (depth + 1))
    else:
        rates = np.full(2000, 0.05)
    run = ufm.simulate(
        problem(8, depth, 8, per_class, loss),
        ufm.GD(ufm.Rates(rates)),
        steps=len(rates),
        init=Spectral(tuple(z ** (1 / (depth + 1)))),
        record=ufm.Every(20),
    )
    modes = diagonal(run)
    above, below = modes[:, 1, 1], modes[:, 2, 2]
    return np.sqrt(above * below), np.log(above / below)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize("per_class", [1, 2])
def test_gaps_follow_the_law(depth, per_class):
    """Acceptance: within 3e-3 over z = 0.2..14; the law of one depth less or more is not within 3e-2."""
    z, gap = gaps_of(depth, per_class)
    assert z[-1] > 13.9 * np.sqrt(per_class)
    law = room.relative_gap(z, z[0], 8, depth, per_class)
    assert gap / gap[0] == pytest.approx(law, rel=3e-3)
    wrong = room.relative_gap(z, z[0], 8, depth + 1, per_class)
    assert np.abs(gap / gap[0] / wrong - 1).max() > 3e-2
    if depth > 1:
        peak = z[np.argmax(gap)]
        assert peak == pytest.approx(room.critical_scale(8, depth, per_class), rel=0.1)
        assert gap.max() / gap[0] == pytest.approx(room.largest_gap(z[0], 8, depth, per_class), rel=3e-3)
    else:
        assert np.argmax(gap) == 0


def test_what_the_law_leaves_out_is_first_order_in_steps_and_gaps():
    def error(**settings):
        z, gap = gaps_of(3, stop=4.0, **settings)
        return gap[-1] / gap[0] / room.relative_gap(z[-1], z[0], 8, 3) - 1

    coarse, fine = error(share=0.01), error(share=0.005)
    assert coarse / fine == pytest.approx(2, rel=0.1)
    wide, wider = (abs(error(gap=gap) - fine) for gap in (0.1, 0.2))
    assert wider > 1.8 * wide > 0


def test_gaps_of_the_squared_error():
    z, gap = gaps_of(3, loss="mse")
    near = slice(0, int(np.argmax(z > 0.999)) or None)
    law = room.mse_relative_gap(z, z[0], 3)
    assert gap[near] / gap[0] == pytest.approx(law[near], rel=2e-2)
    assert z[np.argmax(gap)] == pytest.approx(2 / 6, rel=0.15)


# ---------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("K", [3, 4, 5, 8, 10])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_costs_are_those_of_matrices_with_unit_margin(K, depth):
    angle = 2 * np.pi * np.arange(K) / K
    pairs = np.eye(K)
    for first in range(0, K - 1, 2):
        pairs[first, first + 1] = pairs[first + 1, first] = -1
    matrices = {
        "simplex": np.eye(K) - 1 / K,
        "pairs": pairs,
        "circle": np.cos(np.subtract.outer(angle, angle)) / (1 - np.cos(2 * np.pi / K)),
    }
    assert set(matrices) == set(room.CODES)
    for name, Z in matrices.items():
        margins = (np.diag(Z) - Z)[~np.eye(K, dtype=bool)]
        assert margins.min() == pytest.approx(1)
        values = np.linalg.svd(Z, compute_uv=False)
        cost = (values[values > 1e-12] ** (2 / (depth + 1))).sum()
        assert room.code(name, K).cost(depth) == pytest.approx(cost, rel=1e-12)


def test_winners_and_their_margins_at_ten_classes():
    simplex = room.code("simplex", 10)
    ratios = [
        room.code(room.cheapest(10, depth), 10).cost(depth) / simplex.cost(depth) for depth in range(1, 8)
    ]
    assert [round(ratio, 2) for ratio in ratios] == [1.0, 0.88, 0.79, 0.73, 0.66, 0.56, 0.5]
    assert [room.cheapest(4, depth) for depth in (1, 2, 3, 9)] == ["simplex", "simplex", "pairs", "pairs"]
    assert {room.cheapest(3, depth) for depth in range(1, 9)} == {"simplex"}
    with pytest.raises(InvalidProblemError, match=r"code\.name is 'cube'; allowed: simplex, pairs, circle"):
        room.code("cube", 4)


# ---------------------------------------------------------------------------------------- starts in files


def test_spectral_starts_survive_a_file():
    for init in (Spectral(0.5), Spectral((0.5, 1.0)), Start(Spectral(1), H=Spectral((2.0, 1.0)))):
        run = Run(problem(2, 1), ufm.GD(0.1), init=init, steps=3)
        assert run_from_table(to_table(run)) == run


# ------------------------------------------------------------------------------------------------ figures


def test_figure_of_gaps_shows_the_law_and_ranks_that_fall_with_depth():
    data = figures.load("depth_repulsion").compute(True)
    np.testing.assert_allclose(data["gap"], data["law"], rtol=3e-3)
    np.testing.assert_allclose(data["largest"], data["largest_law"], rtol=6e-3)
    assert (data["recursion"] < 1).all()
    assert (data["largest"].diff("deep") > 0).all()
    rank = data["rank"].mean("seed")
    assert (rank.diff("depth") < 0).all()
    assert (rank.sel(width=64) > rank.sel(width=16)).all()


def test_figure_of_persistence_shows_the_best_runs_at_rank_five():
    data = figures.load("persistence").compute(True)
    rank = data["rank"]
    assert (rank.sel(scale=3.0).mean("seed") > rank.sel(scale=0.3).mean("seed")).all()
    assert int(rank.values.ravel()[np.argmin(data["loss"].values)]) == 5
    # five opposed pairs: closed form at its stationary scale, (exp terms) + ((L+1) lam/2) 5 (2 b sqrt n)^(2/(L+1))
    b = np.linspace(6, 8, 20001)
    pairs = np.log(1 + np.exp(-2 * b) + 8 * np.exp(-b)) + 1.5 * 2.0**-10 * 5 * (2 * b * np.sqrt(5)) ** (2 / 3)
    assert float(data["loss"].min()) == pytest.approx(pairs.min(), rel=1e-3)
    assert float(data["loss"].min()) >= pairs.min()


@pytest.mark.slow
def test_wide_models_from_large_starts_stay_at_collapse():
    data = figures.load("persistence").compute(False)
    collapsed = data["collapsed"].mean("seed")
    assert (collapsed.sel(width=120, scale=[2.0, 3.0]) == 1).all()
    assert (collapsed.sel(width=[15, 30]) == 0).all()
    assert (collapsed.sel(scale=0.3) == 0).all()
    assert (data["rank"].mean("seed").sel(scale=2.0).diff("width") > 0).all()


# ------------------------------------------------------------------------------------- error models term by term

PATH = np.array([[[1.0, 2.0], [3.0, 0.5], [0.2, 4.0]], [[1.1, 1.9], [2.9, 0.6], [0.3, 3.8]]])  # L = 2, K = 2


def test_sizes_that_errors_scale_with_by_hand():
    """z = (0.6, 4), largest values of the blocks 2, 3, 4, n = 3."""
    squared, cross = (room.sizes(PATH, loss, 3, True) for loss in ("mse", "ce"))
    gap = 8 / (2 * np.sqrt(3))
    p = 1 / (1 + np.exp(-gap))
    expected = {
        "logits": 24.0,
        "pull": np.sqrt(12.0**2 + 8.0**2 + 6.0**2),
        "residual": (4 - np.sqrt(3)) / 6,
        "curvature": 1 / 6,
        "negative": (4 + 3) * (4 - np.sqrt(3)) / 6,
        "state": np.sqrt(1 + 4 + 9 + 0.25 + 0.04 + 16),
        "spread": gap,
    }
    for name, value in expected.items():
        assert getattr(squared, name)[0] == pytest.approx(value, rel=1e-14)
    assert cross.curvature[0] == pytest.approx(2 * p * (1 - p) / 6, rel=1e-14)
    assert room.sizes(PATH, "ce", 3, False).curvature[0] == pytest.approx(2 * p * (1 - p), rel=1e-14)


@pytest.mark.parametrize("loss", ["ce", "mse"])
def test_error_of_a_step_term_by_term(loss):
    eps, rate, d = 2.0**-52, 0.1, 5
    coupled, decoupled = np.array([[0.1], [0.0], [0.3]]), np.array([[0.1], [0.1], [0.0]])
    before, after = (room.Sizes(*values) for values in np.array(room.sizes(PATH, loss, 3, True)).T)
    found = room.round_off_bound(PATH, np.array([rate]), d, loss, 3, True, coupled, decoupled)
    product = np.sqrt(d) * 2 * eps
    in_residual = before.curvature * 2 * product * before.logits
    in_residual += eps * (2 + 16 + 2 * before.spread) * np.sqrt(2) * before.residual
    in_gradient = before.pull * (4 * product * before.residual + in_residual)
    top = before.curvature * before.pull**2 + before.negative
    growth = max(1 - 0.1 * rate + rate * before.negative, rate * top - (1 - 0.3 * rate))
    first = 2 * eps * before.state
    then = growth * first + 2 * eps * max(before.state, after.state) + rate * in_gradient
    expected = [size.pull * E + 5 * product * size.logits for size, E in ((before, first), (after, then))]
    assert found == pytest.approx(expected, rel=1e-12, abs=0)


def test_distance_of_one_step_from_the_flow_is_the_change_of_its_velocity():
    rate, decay, n = 0.01, 0.2, 2
    s = np.array([[1.0, 0.8], [1.01, 0.79]])
    path = np.repeat(s[:, None], 3, axis=1)
    velocity = -(s**2) * (s**3 - np.sqrt(n)) / 4 - decay * s
    found = room.discretisation_bound(path, np.array([rate]), decay, "mse", n, True)
    assert found == pytest.approx([0.0, rate * np.linalg.norm(velocity[1] - velocity[0])], rel=1e-12, abs=0)
