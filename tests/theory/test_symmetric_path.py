"""Runs against the two-scalar recursion within its error model, its hypotheses, and Adam against SignGD."""

from fractions import Fraction

import numpy as np
import pytest
from numba import njit

import ufm
from ufm.kernels.reduced import ALIKE, COLUMNS, ENTRIES, ROWS
from ufm.theory import symmetric_path
from ufm.theory.symmetric_path import (
    balanced_values,
    cross_entropy,
    frame_norm,
    frame_of,
    gradient_entries,
    hessian,
    logit_gap,
    nc0,
    opposite_values,
    right_share,
    row_sum,
    squared_norm,
    two_values,
    weights,
    wrong_share,
)

CLAIMS = {claim.name: claim for claim in symmetric_path.CLAIMS}
PATH = CLAIMS["ufm.symmetric_path"]


@njit
def lion(theta, g, m, v, lr, t, p):
    c = p[0] * m + (1 - p[0]) * g
    return theta - lr * (1.0 * (c > 0) - 1.0 * (c < 0)), p[1] * m + (1 - p[1]) * g, v


@njit
def root_mean_square(theta, g, m, v, lr, t, p):
    v = p[0] * v + (1 - p[0]) * g * g
    return theta - lr * g / (np.sqrt(v) + p[1]), m, v


def problem(K, norm="frobenius", per_class=1, reduction="mean"):
    return ufm.UFM(K, K, per_class, loss=ufm.CrossEntropy(reduction=reduction), features=ufm.SimplexETF(norm))


# ------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("K", [2, 3, 7])
@pytest.mark.parametrize(
    ("norm", "reduction", "per_class"), [("frobenius", "mean", 2), ("columns", "sum", 3)]
)
def test_formulas_are_those_of_the_problem(K, norm, reduction, per_class):
    """Gradient, loss, NC0 and Hessian against the problem's own, at several gaps of both signs."""
    setting = problem(K, norm, per_class, reduction)
    c, s = float(frame_norm(K, norm)), 1 / K if reduction == "mean" else float(per_class)
    for d, o in ((0.0, 0.0), (2.0, -1.0), (-3.0, 1.5), (40.0, -1.0)):
        W, gap = weights(d, o, K), logit_gap(d, o, c)
        expected = weights(*gradient_entries(gap, K, c, s), K)
        assert setting.gradient({"W": W})["W"] == pytest.approx(
            expected, rel=1e-13, abs=1e-15 * expected.max()
        )
        assert setting.value({"W": W}) == pytest.approx(K * s * cross_entropy(gap, K), rel=1e-14)
        assert setting.penalty({"W": W}, ufm.Coupled(2.0)) == pytest.approx(squared_norm(d, o, K))
        assert nc0(d, o, K) == pytest.approx(ufm.metrics.nc0(W))
        assert right_share(gap, K) + (K - 1) * wrong_share(gap, K) == pytest.approx(1, rel=1e-15)
    step = 1e-4
    W, gap = weights(0.5, -0.25, K), logit_gap(0.5, -0.25, c)
    one, two, three = hessian(gap, K, c, s)
    a = np.zeros(K)
    a[:2] = 1, -1
    directions = [
        (one, np.ones((K, K)) - K * np.eye(K)),
        (two, np.diag(a) - (a[:, None] + a) / K),
        (0, np.outer(np.ones(K), np.arange(K))),
        (0, np.outer(np.arange(K), np.ones(K))),
    ]
    if K > 3:
        E = np.zeros((K, K))
        for i, j in ((0, 1), (1, 2), (2, 3), (3, 0)):  # a cycle and its reverse: no row and no column sum
            E[i, j], E[j, i] = 1, -1
        directions.append((three, E))
    for value, E in directions:
        found = [setting.gradient({"W": W + sign * step * E})["W"] for sign in (1, -1)]
        assert (found[0] - found[1]) / (2 * step) == pytest.approx(value * E, rel=1e-6, abs=1e-7 * one * K)


def test_shares_and_loss_keep_their_digits_far_out():
    gap = np.array([-800.0, -50.0, 0.0, 50.0, 700.0])
    assert wrong_share(gap, 4) == pytest.approx(
        [1 / 3, 1 / 3, 1 / 4, np.exp(-50), np.exp(-700)], rel=1e-15, abs=0
    )
    assert right_share(gap, 4) == pytest.approx([0, np.exp(-50) / 3, 1 / 4, 1, 1], rel=1e-15, abs=0)
    assert cross_entropy(gap, 2) == pytest.approx(
        [800, 50, np.log(2), np.exp(-50), np.exp(-700)], rel=1e-15, abs=0
    )


def test_nc0_is_rounded_once():
    d, o, K = -(10**6 - 1) * (1 / 3), 1 / 3, 10**6
    exact = (Fraction(d) + (K - 1) * Fraction(o)) ** 2
    assert exact > 0
    assert float(nc0(d, o, K)) == pytest.approx(float(exact), rel=1e-15)
    assert row_sum(*balanced_values(2.0, 7), 7) == 0
    assert nc0(*opposite_values(np.array([2.0])), 7).tolist() == [100.0]


# ----------------------------------------------------------------------------------------- error model


def random_run(rng):
    """A run of any elementwise optimizer, decay, schedule, norm, start and number of records."""
    K = int(rng.integers(2, 51)) if rng.random() < 0.3 else int(rng.integers(2, 8))
    steps = int(10 ** rng.uniform(1, 3.3 if K < 15 else 2.5))
    lr, beta = 10 ** rng.uniform(-4, 1), float(rng.choice([0, 0.3, 0.9, 0.99]))
    schedules = [lr, lr, ufm.StepDecay(lr), ufm.Cosine(lr), ufm.Rates(lr * rng.random(steps))]
    rate = schedules[rng.integers(len(schedules))]
    second = float(rng.choice([0.0, 0.9, 0.999]))
    optimizers = [
        ufm.GD(rate),
        ufm.Momentum(rate, beta),
        ufm.Momentum(rate, beta, nesterov=True),
        ufm.SignGD(rate),
        ufm.Signum(rate, beta),
        ufm.Adam(rate, beta, second),
        ufm.Adam(rate, beta, second, eps=0.0),
        ufm.Elementwise(lion, rate, (0.9, 0.99), scale_free=bool(rng.random() < 0.5)),
        ufm.Elementwise(root_mean_square, rate, (0.9, 1e-6)),
    ]
    one, two = 10 ** rng.uniform(-6, -0.3, 2)
    decays = [None, ufm.Coupled(one), ufm.Decoupled(one), ufm.Mixed(one, two), ufm.Mixed(one, two, "after")]
    init = ufm.Zeros() if rng.random() < 0.5 else ufm.Given(weights(*(3 * rng.standard_normal(2)), K))
    records = [ufm.Every(1), ufm.Every(17), ufm.LogSpaced(30)]
    return ufm.simulate(
        problem(
            K, rng.choice(["frobenius", "columns"]), int(rng.choice([1, 3])), rng.choice(["mean", "sum"])
        ),
        optimizers[rng.integers(len(optimizers))],
        decays[rng.integers(len(decays))],
        steps=steps,
        init=init,
        record=records[rng.integers(len(records))],
        throw=False,
    )


def ratios(count, seed):
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        run = random_run(rng).judged()
        assert PATH.applies(run) is None
        prediction = PATH.predict(run)
        found.append((prediction.ratio, PATH.control(run).ratio))
        assert prediction.ratio <= 1, run
        assert len(prediction.bound) > 1
    return np.array(found)


def test_random_runs_keep_within_the_bound_and_refuse_wrong_rates():
    held, refused = ratios(200, 1).T
    assert np.median(held) < 0.1
    assert held.max() > 0.02  # the bound is no wider than it need be by much
    assert np.mean(refused > 100) > 0.97


@pytest.mark.slow
def test_many_random_runs_keep_within_the_bound():
    held, refused = ratios(3000, 2).T
    assert np.median(held) < 0.1
    assert np.mean(refused > 100) > 0.97


def test_controls_are_wrong_by_a_millionth():
    """Far from equilibrium a control of GD without decay is off by 1e-6 of the way gone, no more."""
    run = ufm.simulate(problem(5), ufm.GD(1e-3), steps=20, init=ufm.Zeros()).judged()
    control = PATH.control(run)
    share = np.abs(control.predicted[-1] / control.observed[-1] - 1)
    assert share == pytest.approx(np.full((5, 5), 1e-6), rel=1e-2)


@pytest.mark.parametrize(
    ("undisturbed", "deviation"),
    [((1.0, 1.0, 1.0), (1e-9, 1e-12, 1e-12)), ((1.0, 1e-6, 1e-6), (1e-7, 1e-7, 1e-7))],
    ids=["deviations fall", "states fall"],
)
def test_bounds_never_fall(undisturbed, deviation):
    """Once lost, digits stay lost; and a state that falls to the size of its deviations does not lose the model."""
    states = np.repeat(np.array(undisturbed)[:, None, None], 2, axis=1).repeat(2, axis=2)
    states[:, :, 1] += np.array(deviation)[:, None]
    bound = symmetric_path.round_off_bound(states, [(1.0, ((1,),))])
    assert np.all(np.diff(bound) >= 0)
    assert bound == pytest.approx(np.full(3, deviation[0]), rel=1e-5)


def bound_of(run, copies, kinds):
    """Bound from those copies that take lanes of the given kinds."""
    states = symmetric_path._recursion(run, copies.disturbances).states
    lanes = copies.disturbances.kinds
    return symmetric_path.round_off_bound(states, [g for g in copies.groups if lanes[g[1][0][0]] in kinds])


def test_deviations_without_row_sums_need_their_copies():
    """At a gap far below 0 their answer is the largest: under Adam with large steps they alone grow."""
    run = ufm.simulate(
        problem(4, "columns"), ufm.Adam(6.0, 0.0, 0.5, 0.0), steps=33,
        init=ufm.Given(weights(-200.0, 0.0, 4)),
    ).judged()  # fmt: skip
    prediction, copies = PATH.predict(run), symmetric_path._copies(2)
    assert prediction.ratio <= 1
    assert bound_of(run, copies, (ALIKE, ROWS, ENTRIES)) == pytest.approx(prediction.bound, abs=0)
    assert (prediction.error[1:] / bound_of(run, copies, (ALIKE, ROWS))[1:]).max() > 100


def test_the_round_off_of_a_buffer_counts():
    """With beta next to 1 it carries as far as that of the state."""
    run = ufm.simulate(
        problem(3), ufm.Momentum(1.0, 1 - 1e-5), steps=2000, init=ufm.Zeros(), record=ufm.Every(50)
    ).judged()
    without = bound_of(run, symmetric_path._copies(0), (ALIKE, ROWS, ENTRIES))
    assert 1.5 < PATH.predict(run).bound[-1] / without[-1] < 3


def test_compare_finds_it_and_predicts_nc0():
    run = ufm.simulate(problem(5), ufm.Adam(0.01), ufm.Decoupled(0.01), steps=500, init=ufm.Zeros())
    row = ufm.compare(run)["ufm.symmetric_path"]
    assert row.verdict == "holds"
    assert row.control > 100
    assert row.prediction.nc0 == pytest.approx(ufm.metrics.nc0(run), abs=1e-12)


def test_a_wrong_optimizer_fails():
    """Records of one run under the description of another: beta wrong by 1e-6."""
    from dataclasses import replace

    run = ufm.simulate(problem(5), ufm.Momentum(0.1, 0.9), ufm.Coupled(0.01), steps=500, init=ufm.Zeros())
    claimed = replace(run, run=replace(run.run, optimizer=ufm.Momentum(0.1, 0.9 * (1 + 1e-6))))
    assert PATH.predict(claimed.judged()).ratio > 1e4
    assert ufm.compare(claimed)["ufm.symmetric_path"].verdict == "fails"


def test_a_path_that_is_not_stable_is_left_and_the_bound_knows_it():
    """AdamW with large steps: deviations between classes grow, those of the two values do not."""
    run = ufm.simulate(
        problem(34, "columns"), ufm.Adam(2.0, 0.0, 0.9, 0.0), ufm.Decoupled(0.08), steps=200, init=ufm.Zeros()
    )
    prediction = PATH.predict(run.judged())
    lost = np.isinf(prediction.bound)
    assert prediction.error[-1] > 0.1
    assert lost[-1]
    assert prediction.nc0 is None
    first = int(np.argmax(lost))
    assert first > 100
    assert prediction.error[first - 10] < 0.1 * prediction.bound[first - 10] < 1e-3
    assert prediction.ratio <= 1
    small = ufm.simulate(
        problem(34, "columns"), ufm.Adam(0.3, 0.0, 0.9, 0.0), ufm.Decoupled(0.08), steps=200, init=ufm.Zeros()
    )
    assert PATH.predict(small.judged()).bound[-1] < 1e-10


def test_a_run_that_diverges_is_judged_as_far_as_it_is_finite():
    run = ufm.simulate(
        problem(3), ufm.GD(1.0), ufm.Decoupled(10.0), steps=2000,
        init=ufm.Given(weights(1.0, 0.0, 3)), throw=False,
    )  # fmt: skip
    assert run.status.name == "diverged"
    prediction = PATH.predict(run.judged())
    assert len(prediction.bound) > 100
    assert prediction.ratio <= 1


# ------------------------------------------------------------------------------------------ hypotheses


def reason(problem, optimizer=None, decay=None, init=None, **options):
    from ufm.run import Run

    return PATH.applies(Run(problem, optimizer or ufm.GD(0.1), decay, init or ufm.Zeros(), 10, **options))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (lambda: reason(ufm.UFM(3, 3)), "trained are H, W1; the two-valued path is for H frozen"),
        (lambda: reason(ufm.UFM(3, 3, bias=True, features=ufm.SimplexETF())), "the logits have a bias"),
        (
            lambda: reason(ufm.UFM(3, 3, features=np.eye(3))),
            "H is not c .I - J/K. with c > 0, .*; the two-valued path is for this simplex ETF",
        ),
        (
            lambda: reason(ufm.UFM(3, 5, features=ufm.SimplexETF())),
            "H has width 5; a two-valued W needs .* 3",
        ),
        (lambda: reason(ufm.UFM(3, 3, features=-ufm.simplex_etf(3))), "H is not c .I - J/K. with c > 0"),
        (
            lambda: reason(ufm.UFM(3, 3, (1, 1, 2), features=ufm.SimplexETF())),
            "classes have from 1 to 2 samples; the two-valued path is for equal ones",
        ),
        (
            lambda: reason(ufm.UFM(3, 3, loss=ufm.CrossEntropy(0.1), features=ufm.SimplexETF())),
            "the label smoothing is 0.1; the two-valued path is for one-hot targets",
        ),
        (lambda: reason(ufm.UFM(3, 3, loss="mse", features=ufm.SimplexETF())), "the loss is MSE"),
        (
            lambda: reason(ufm.DUFM(3, 3, 2, loss="ce", features=ufm.SimplexETF())),
            "the model has 2 layers",
        ),
        (
            lambda: reason(problem(3), ufm.NormalisedGD(0.1)),
            "NormalisedGD does not treat each entry of W alone",
        ),
        (lambda: reason(problem(3), batch=2), "batches hold 2 of 3 samples"),
        (lambda: reason(problem(3), dtype="float32"), "the run is in float32"),
        (
            lambda: reason(problem(3), init=ufm.Gaussian(0.1)),
            "the start Gaussian.* is not of the form x I . y J",
        ),
        (lambda: reason(problem(3), init=ufm.Given(np.eye(2))), "the start cannot be drawn: "),
    ],
)
def test_what_does_not_apply_gets_a_sentence(found, sentence):
    import re

    assert re.search(sentence, found())


def test_what_applies():
    """Frames of any size up to rounding, several samples of a class, any two-valued start, batches of everything."""
    three = 2.5 * ufm.simplex_etf(3)
    assert reason(ufm.UFM(3, 3, features=three)) is None
    assert reason(ufm.UFM(3, 3, 2, features=np.repeat(three, 2, axis=1) * (1 + 2.0**-52))) is None
    assert reason(ufm.UFM(3, 3, features=three * (1 + 1e-14 * np.eye(3)))) is not None
    for roundings, found in ((8, 1.0), (8.5, None)):  # c = 1, and an entry of 1/2 that is off
        beside = [[0.5, -0.5], [-0.5, 0.5 + roundings * 2.0**-52]]
        assert frame_of(ufm.UFM(2, 2, features=beside)) == found
    assert reason(problem(3), init=ufm.Given(weights(1.0, -0.1, 3)), batch=3) is None
    assert reason(problem(4), ufm.Elementwise(lion, 0.1, (0.9, 0.99)), ufm.Mixed(0.1, 0.1, "after")) is None
    assert ufm.claims.applicable(problem(3), ufm.GD(0.1), init=ufm.Zeros())["ufm.symmetric_path"] is None
    assert frame_of(ufm.UFM(3, 3, features=three)) == pytest.approx(2.5 / np.sqrt(2))
    assert two_values(np.array([[1.0, 2.0], [3.0, 1.0]])) is None


# -------------------------------------------------------------------------------- Adam against SignGD


def same_states(problem, decay, init, steps=600, lr=0.05, **options):
    runs = [
        ufm.simulate(problem, optimizer, decay, steps=steps, init=init, **options)
        for optimizer in (ufm.SignGD(lr), ufm.Adam(lr, beta1=0.0, beta2=0.0, eps=0.0))
    ]
    return np.array_equal(runs[0].states, runs[1].states), runs


@pytest.mark.parametrize(
    "decay",
    [None, ufm.Coupled(1e-2), ufm.Decoupled(1e-2), ufm.Mixed(1e-2, 1e-3), ufm.Mixed(1e-2, 1e-3, "after")],
    ids=repr,
)
def test_adam_without_memory_is_signgd_bit_for_bit(decay):
    for setting, options in (
        (ufm.UFM(4, 6, 3), {}),
        (ufm.UFM(4, 6, 3, bias=True), {"batch": 5}),
        (ufm.DUFM(3, 5, 3, loss="mse"), {}),
        (ufm.UFM(4, 6, 3, loss=ufm.CrossEntropy(smoothing=0.1)), {"dtype": "float32"}),
    ):
        assert same_states(setting, decay, ufm.Gaussian(0.3), **options)[0]
    for start in (ufm.Zeros(), ufm.Gaussian(1.0)):
        same, _ = same_states(problem(5), decay, start, lr=ufm.Cosine(0.5))
        assert same


def test_adam_without_memory_is_signgd_where_probabilities_underflow():
    for start in (ufm.Zeros(), ufm.Gaussian(0.1)):
        same, runs = same_states(
            problem(4), ufm.Decoupled(1e-4), start, steps=6000, lr=1.0, record=ufm.Every(500)
        )
        assert same
        assert all(run.stats["exponents_from"] > 0 for run in runs)


@pytest.mark.parametrize(
    ("size", "equal"), [(1e-170, False), (2e-154, True), (1.0, True), (1e154, True), (2e154, False)]
)
def test_range_in_which_adam_without_memory_is_signgd(size, equal):
    """g^2 underflows (then Adam rests) or overflows (then its step is 0) outside the range that the claim states."""
    from ufm.kernels import updates

    states = []
    for optimizer in (ufm.SignGD(0.5), ufm.Adam(0.5, 0.0, 0.0, 0.0)):
        theta, grad, m, v = np.ones(3), np.array([size, -size, 0.0]), np.zeros(3), np.zeros(3)
        hyper, no_decay = updates.hyper_of([optimizer], "float64"), 3 * [0.0]
        decay, table = np.concatenate([updates.row([x], "float64") for x in no_decay]), np.array([[0, 3, 1]])
        updates.rule(optimizer, "float64")(theta, grad, m, v, np.full(1, 0.5), 0, 1, hyper, decay, table)
        states.append(theta)
    assert np.array_equal(*states) == equal


def test_root_of_a_square_is_the_number(rng):
    """sqrt(g g) = |g| in float64, for normal squares: what bit for bit rests on."""
    g = np.exp(rng.uniform(-330, 330, 10**6)) * rng.choice([-1, 1], 10**6)
    assert np.array_equal(g / np.sqrt(g * g), np.sign(g))


# ------------------------------------------------------------------------------------ laws from W_0 = 0


@pytest.mark.parametrize("K", [2, 3, 10, 10**6])
@pytest.mark.parametrize("decay", [None, ufm.Decoupled(1e-2)], ids=repr)
def test_scale_free_rules_keep_both_values_opposite(K, decay):
    for optimizer in (
        ufm.SignGD(0.1),
        ufm.Signum(0.1, 0.9),
        ufm.Adam(0.1, eps=0.0),
        ufm.Adam(ufm.Cosine(0.1), 0.5, 0.9, 0.0),
    ):
        run = ufm.simulate_symmetric(K, optimizer, decay, steps=2000)
        scale = np.abs(run.diagonal).max()
        assert np.abs(run.diagonal + run.off_diagonal).max() <= 1e-12 * scale
        assert run.alpha[-1] == pytest.approx(((K - 2) * run.off_diagonal[-1]) ** 2, rel=1e-9, abs=1e-18)
        assert scale > 0.1


def test_eps_and_coupled_decay_break_it():
    for optimizer, decay in ((ufm.Adam(0.1, eps=1e-2), None), (ufm.SignGD(0.1), ufm.Coupled(1e-2))):
        run = ufm.simulate_symmetric(5, optimizer, decay, steps=2000)
        assert np.abs(run.diagonal + run.off_diagonal).max() > 1e-2


@pytest.mark.parametrize(
    "decay", [None, ufm.Decoupled(1e-2), ufm.Coupled(1e-2), ufm.Mixed(1e-3, 1e-2, "after")], ids=repr
)
def test_linear_rules_keep_the_row_sum_at_zero(decay):
    for optimizer in (ufm.GD(0.1), ufm.Momentum(0.1, 0.9), ufm.Momentum(ufm.Cosine(0.1), 0.9, nesterov=True)):
        run = ufm.simulate_symmetric(10, optimizer, decay, steps=2000)
        assert np.sqrt(run.alpha).max() <= 1e-12 * np.abs(run.diagonal).max()
        assert np.abs(run.diagonal).max() > 0.1


def test_a_run_of_no_steps_has_its_nc0_predicted():
    run = ufm.simulate(problem(3), ufm.SignGD(0.1), steps=0, init=ufm.Given(weights(2.0, -0.5, 3))).judged()
    prediction = PATH.predict(run)
    assert prediction.nc0 == pytest.approx([1.0])  # (d + (K - 1) o)^2
    assert prediction.bound == pytest.approx([4 * 2.0**-52 * 2.0], abs=0)


def test_every_source_of_every_part_weighs():
    """Two copies for each of 2 sources and its 2, 3 or 1 entries, and random ones with four times the weight."""
    groups = symmetric_path._copies(0).groups
    assert [weight for weight, _ in groups] == [1.0] * 4 + [4.0] + [2.0] * 6 + [8.0] + [2.0] * 2 + [8.0]
    assert [len(copies) for _, copies in groups] == [2] * 4 + [8] + [2] * 6 + [8] + [2] * 2 + [8]


def test_a_rule_of_ones_own_has_both_buffers_disturbed(monkeypatch):
    asked = []

    def stop(buffers):
        asked.append(buffers)
        raise StopIteration

    class Run:
        trajectory, optimizer = problem(3), ufm.Elementwise(lion, 0.1, (0.9, 0.9))

    monkeypatch.setattr(symmetric_path, "_copies", stop)
    for optimizer in (Run.optimizer, ufm.Adam(0.1), ufm.Momentum(0.1, 0.5), ufm.GD(0.1)):
        Run.optimizer = optimizer
        with pytest.raises(StopIteration):
            symmetric_path._recursion_and_bound(Run)
    assert asked == [2, 2, 1, 0]


# ----------------------------------------------------------------------------------- copies that are disturbed

PARTS = (  # weight, kinds of the lanes, and places (lane, diagonal or off it)
    (1.0, [ALIKE], {(0, 0), (0, 1)}),
    (2.0, [ROWS, COLUMNS], {(0, 0), (0, 1), (1, 1)}),
    (2.0, [ENTRIES], {(0, 1)}),
)


@pytest.mark.parametrize("buffers", [0, 1, 2])
def test_every_source_is_disturbed_with_both_signs_and_all_together_at_random(buffers):
    disturbances, groups = symmetric_path._copies(buffers)
    signs = disturbances.signs.reshape(
        symmetric_path.PERIOD, 4, 2, -1
    )  # step, source, diagonal or off it, lane
    assert signs.shape[-1] == len(disturbances.kinds)
    assert disturbances.kinds[0] == ALIKE  # the run itself
    assert not signs[..., 0].any()
    remaining, used = list(groups), [0]
    for weight, kinds, places in PARTS:
        sources = {(kind, *place) for kind in range(2 + buffers) for place in places}
        found = set()
        for _ in sources:
            factor, (up, down) = remaining.pop(0)
            assert factor == weight
            used += [*up, *down]
            for lanes in (up, down):
                assert disturbances.kinds[list(lanes)].tolist() == kinds
            pushed, pulled = signs[..., list(up)], signs[..., list(down)]
            ((kind, entry, lane),) = np.argwhere(pushed.any(axis=0))
            assert (pushed[:, kind, entry, lane] == 1).all()
            assert np.array_equal(pushed, -pulled)
            found.add((kind, lane, entry))
        assert found == sources
        factor, members = remaining.pop(0)
        assert factor == weight * symmetric_path.RANDOM_FACTOR
        assert len(members) == symmetric_path.RANDOM_COPIES
        for lanes in members:
            used += lanes
            block = signs[..., list(lanes)]
            disturbed = {(kind, lane, entry) for kind, entry, lane in np.argwhere(block.any(axis=0))}
            assert disturbed == sources
            assert all(set(block[:, k, e, lane]) == {-1.0, 1.0} for k, lane, e in sources)
    assert not remaining
    assert sorted(used) == list(range(len(disturbances.kinds)))
