"""What claims read off a run: row sums, finite records, gradients and the sizes of their errors, by the definitions."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

import ufm
from ufm.errors import InvalidProblemError
from ufm.run import Run
from ufm.theory import _recorded


def run_of(problem=None, steps=3, batch=None, optimizer=None, **options):
    problem = problem or ufm.UFM(3, 4, (2, 1, 2))
    return ufm.simulate(
        problem, optimizer or ufm.GD(0.3), ufm.Coupled(0.01), steps=steps, init=ufm.Gaussian(0.7), seed=3, batch=batch,
        **options,
    ).judged()  # fmt: skip


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 7, 8])
def test_a_row_sum_is_exact_to_twice_the_digits(rng, classes):
    W = rng.standard_normal((5, classes, 2)) * 2.0 ** rng.integers(-30, 30, (5, classes, 2))
    found = _recorded.exact_row_sum(W)
    assert found.high.shape == (5, 2)
    for r in range(5):
        for j in range(2):
            exact = sum(Fraction(float(x)) for x in W[r, :, j])
            got = Fraction(float(found.high[r, j])) + Fraction(float(found.low[r, j]))
            assert abs(got - exact) <= Fraction(2) ** -98 * sum(abs(Fraction(float(x))) for x in W[r, :, j])


def test_largest_so_far_and_in_the_next_record():
    values = np.array([[[1.0], [-2.0]], [[0.5], [0.0]], [[0.0], [-3.0]], [[1.0], [1.0]]])
    assert _recorded.running_maximum(values).tolist() == [2.0, 3.0, 3.0, 3.0]
    assert _recorded.running_maximum(values[:1]).tolist() == [2.0]


def test_finite_records_end_where_a_sum_of_entries_may_not_be_finite():
    run = run_of()
    assert _recorded.finite_records(run).tolist() == [0, 1, 2, 3]
    limit = np.finfo(np.float64).max / (2 * 3)
    for entry, good in ((limit, 2), (np.nextafter(limit, 0), 4), (-limit, 2), (np.nan, 2), (np.inf, 2)):
        states = run.trajectory.states.copy()
        states[2, 1] = entry
        changed = replace(run.trajectory, states=states).judged()
        assert _recorded.finite_records(changed).tolist() == list(range(good)), entry
    fit = run.trajectory.fit.copy()
    fit[1] = np.inf
    assert _recorded.finite_records(replace(run.trajectory, fit=fit).judged()).tolist() == [0]
    fit = np.full(4, np.nan)
    assert _recorded.finite_records(replace(run.trajectory, fit=fit).judged()).tolist() == []
    with pytest.raises(InvalidProblemError, match=r"Run\.trajectory is None; allowed: a simulated run"):
        _recorded.finite_records(run.trajectory.run)


def test_finite_records_of_one_trajectory_depend_on_the_number_of_classes_that_asks():
    states = np.array([[np.finfo(np.float64).max / 8]])
    trajectory = replace(run_of().trajectory, states=states, fit=np.zeros(1))
    for classes, kept in ((3, [0]), (8, []), (3, [0])):
        run = SimpleNamespace(trajectory=trajectory, problem=SimpleNamespace(classes=classes))
        assert _recorded.finite_records(run).tolist() == kept


def test_records_spread_evenly():
    assert _recorded.spread_evenly(np.array([3, 5, 8, 9]), 4).tolist() == [3, 5, 8, 9]
    assert _recorded.spread_evenly(np.array([3, 5, 8, 9, 10]), 2).tolist() == [3, 10]
    assert _recorded.spread_evenly(np.arange(10, 21), 5).tolist() == [10, 12, 15, 17, 20]


def test_parts_hold_the_records_in_order_and_few_numbers_at_once(monkeypatch):
    run = run_of(steps=6, dtype="float32")
    kept = np.array([0, 2, 3, 5, 6])
    problem = run.problem
    each = problem.samples * (4 + 3) + problem.size  # features, logits and the state itself
    for block, sizes in (
        (_recorded.BLOCK, [5]),
        (2 * each, [2, 2, 1]),
        (2 * each - 1, [1] * 5),
        (1, [1] * 5),
    ):
        monkeypatch.setattr(_recorded, "BLOCK", block)
        found = list(_recorded.parts(run, kept))
        assert [len(part) for _, part in found] == sizes
        for here, part in found:
            assert part.states.dtype == np.float64
            assert np.array_equal(part.states, run.trajectory.states[kept[here]])
            assert np.array_equal(part.steps, run.trajectory.steps[kept[here]])
        assert np.array_equal(np.concatenate([kept[here] for here, _ in found]), kept)


def residuals_of(problem, Z):
    """d loss/d logits by the definitions of cross-entropy and squared error."""
    N = Z.shape[1]
    Y = np.eye(problem.classes)[:, problem.labels] if problem.targets is None else np.asarray(problem.targets)
    if isinstance(problem.loss, ufm.CrossEntropy):
        Z = np.exp(Z - Z.max(axis=0))
        Z = Z / Z.sum(axis=0) * Y.sum(axis=0)
    return (Z - Y) / (N if problem.loss.reduction == "mean" else 1)


SOFT = np.random.default_rng(0).dirichlet(np.ones(3), 5).T
CASES = {
    "mean": (ufm.UFM(3, 4, (2, 1, 2)), 0.0),
    "sum with a bias": (ufm.UFM(3, 4, (2, 1, 2), bias=True, loss=ufm.CrossEntropy(reduction="sum")), 0.0),
    "deep": (ufm.DUFM(3, (4, 6), 2, (2, 1, 2), loss="ce"), 0.0),
    "soft": (ufm.UFM(3, 4, (2, 1, 2), loss=ufm.CrossEntropy(targets=SOFT)), 2 / 5),
    "regression": (ufm.RegressionUFM(SOFT - 0.5, 4), 2 / 5 * np.abs(SOFT - 0.5).sum(axis=0)),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_what_their_errors_scale_with(case):
    """terms = max_j sum_i max(sum_k |R_ki|, twice the targets of a sample that are subtracted) |H_ji|."""
    problem, subtracted = CASES[case]
    run = run_of(problem)
    found, trajectory = _recorded.gradients(run), run.trajectory
    for i in range(4):
        X = trajectory.features()[i]
        R = residuals_of(problem, trajectory.logits()[i])
        G = R @ X.T
        np.testing.assert_allclose(found.values[i], G, rtol=1e-12, atol=1e-15)
        assert found.largest[i] == pytest.approx(np.abs(G).max(), rel=1e-12)
        columns = np.maximum(np.abs(R).sum(axis=0), subtracted)
        assert found.terms[i] == pytest.approx((np.abs(X) @ columns).max(), rel=1e-12)
    assert _recorded.gradients(run) is found


def test_gradients_of_batches_are_at_most_those_of_the_worst_sample():
    run = run_of(batch=2)
    found, trajectory = _recorded.gradients(run), run.trajectory
    for i in range(4):
        X, R = trajectory.features()[i], residuals_of(run.problem, trajectory.logits()[i])
        np.testing.assert_allclose(found.values[i], R @ X.T, rtol=1e-12)
        assert found.largest[i] == pytest.approx(
            5 * max(np.abs(X[:, n]).max() * np.abs(R[:, n]).max() for n in range(5)), rel=1e-12
        )
        assert found.terms[i] == pytest.approx(
            5 * max(np.abs(X[:, n]).max() * np.abs(R[:, n]).sum() for n in range(5)), rel=1e-12
        )


def squared(Z, targets, R):
    value = 0.0
    for i in range(Z.shape[1]):
        for k in range(Z.shape[0]):
            R[k, i] = (Z[k, i] - targets[k, i]) / Z.shape[1]
            value += 0.5 * (Z[k, i] - targets[k, i]) ** 2 / Z.shape[1]
    return value


@pytest.fixture(scope="module")
def user_run():
    """Records of a run with squared error, read as one with the same loss written by a user."""
    trajectory = run_of(ufm.UFM(3, 4, (2, 1, 2), loss="mse"), steps=6, optimizer=ufm.GD(1.0)).trajectory
    problem = ufm.UFM(3, 4, (2, 1, 2), loss=ufm.UserLoss(squared))
    return SimpleNamespace(problem=problem, trajectory=trajectory, in_batches=False)


def test_residuals_of_a_user_loss_keep_the_rounding_of_the_largest_so_far(user_run, monkeypatch):
    """Differences of numbers of some size, at zero logits or at an earlier record; whatever is held at once."""
    found, trajectory = _recorded._evaluate_gradients(user_run), user_run.trajectory
    Y, largest, grown = np.eye(3)[:, user_run.problem.labels], np.full(5, 1 / 5), 0
    for i in range(7):
        X, R = trajectory.features()[i], (trajectory.logits()[i] - Y) / 5
        grown += int((np.abs(R).sum(axis=0) < largest).any())
        largest = np.maximum(largest, np.abs(R).sum(axis=0))
        assert found.terms[i] == pytest.approx((np.abs(X) @ largest).max(), rel=1e-12)
        np.testing.assert_allclose(found.values[i], R @ X.T, rtol=1e-12, atol=1e-15)
    assert grown
    monkeypatch.setattr(_recorded, "BLOCK", 1)
    for one, other in zip(found, _recorded._evaluate_gradients(user_run), strict=True):
        assert np.array_equal(one, other)


def test_rates_that_are_known():
    problem, rates = ufm.UFM(3, 4), ufm.Rates([0.1, 0.2])
    assert _recorded.known_rates(Run(problem, ufm.GD(0.5))).tolist() == [0.5]
    assert _recorded.known_rates(Run(problem, ufm.GD(1))).tolist() == [1.0]
    assert _recorded.known_rates(Run(problem, ufm.GD(rates))) is None
    assert _recorded.known_rates(Run(problem, ufm.GD(rates), steps=2)).tolist() == [0.1, 0.2]
    assert _recorded.known_rates(SimpleNamespace(steps=0, rates=np.zeros(0))).tolist() == []


def test_controls_carry_what_a_run_of_that_precision_must_see():
    assert _recorded.PERTURBATION == {"float64": 1e-6, "float32": 1e-2}
