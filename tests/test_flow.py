"""Gradient flow: the limit of small steps, the same whatever the solver, read by the metrics, and its refusals."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

import ufm
from ufm import metrics
from ufm.errors import DivergedError, IncompatibleError, InvalidProblemError
from ufm.flow import Flow, flow

MSE, DECAY = ufm.UFM(3, 4, 2, loss="mse", bias=True), ufm.Coupled(W=0.02, H=0.01, b=0.1)
PROBLEMS = {
    "squared error with bias": (MSE, DECAY),
    "cross-entropy, unequal classes": (ufm.UFM(3, 4, per_class=(3, 2, 1)), ufm.Coupled(0.01)),
    "two linear layers, frozen features": (
        ufm.DUFM(3, 4, 2, activation="identity", features=np.arange(12.0).reshape(4, 3) / 20),
        None,
    ),
    "summed": (ufm.UFM(3, 4, loss=ufm.MSE("sum")), ufm.Coupled(0.1)),
}


def downhill(Z, targets, R):
    R[:] = -2.0 * Z
    return -(Z * Z).sum()


# ------------------------------------------------------------------------------------------- what it is


@pytest.mark.parametrize("case", PROBLEMS)
def test_gradient_descent_is_first_order_in_its_step_and_extrapolates_to_second(case):
    """From the same start: halving the step halves the distance at one time, and 2 x(lr/2) - x(lr) is closer by lr."""
    problem, decay = PROBLEMS[case]
    T, lr = 4.0, 0.04 / (problem.samples if problem.loss.reduction == "sum" else 1)
    limit = flow(problem, decay, times=[T], init=ufm.Gaussian(0.4), seed=3).states[-1]
    ends = [
        ufm.simulate(
            problem, ufm.GD(lr / k), decay, steps=round(T * k / lr), init=ufm.Gaussian(0.4), seed=3
        ).states[-1]
        for k in (1, 2, 4)
    ]
    first = [np.linalg.norm(end - limit) for end in ends]
    assert first[0] / first[1] == pytest.approx(2, rel=0.05)
    assert first[1] / first[2] == pytest.approx(2, rel=0.03)
    second = [np.linalg.norm(2 * fine - coarse - limit) for coarse, fine in pairwise(ends)]
    assert second[0] / second[1] == pytest.approx(4, rel=0.1)
    assert second[0] < 0.1 * first[1]


@pytest.mark.parametrize("case", PROBLEMS)
def test_it_starts_where_a_run_starts_and_loses_the_squared_gradient(case):
    """dF/dt = -||grad F||^2 by differences of the recorded objective."""
    problem, decay = PROBLEMS[case]
    init = {name: np.full(problem.shapes[name], 0.3) + 0.1 * np.eye(*problem.shapes[name])
            for name in problem.trained if name != "b"}  # fmt: skip
    run = ufm.simulate(problem, ufm.GD(0.1), decay, steps=0, init=init)
    dt = 1e-3
    found = flow(problem, decay, times=[0, 2 - dt, 2, 2 + dt], init=init)
    np.testing.assert_array_equal(found.states[0], run.states[0])
    assert (found.fit[0], found.penalty[0]) == pytest.approx((run.fit[0], run.penalty[0]), rel=1e-14)
    gradient = problem.gradient(found.state(2), decay)
    slope = -sum(float(np.sum(gradient[name] ** 2)) for name in problem.trained)
    assert (found.loss[3] - found.loss[1]) / (2 * dt) == pytest.approx(slope, rel=1e-5)


def test_solvers_agree():
    times = [1.0, 30.0]
    states = [flow(MSE, DECAY, times=times, method=method).states for method in ("DOP853", "LSODA", "Radau")]
    for other in states[1:]:
        np.testing.assert_allclose(other, states[0], atol=3e-8)
    rough = flow(MSE, DECAY, times=times, tolerance=1e-4)
    assert 1e-9 < np.abs(rough.states - states[0]).max() < 1e-2
    assert rough.stats["evaluations"] < 500


def test_the_sum_runs_as_many_times_faster_as_there_are_samples():
    whole = ufm.UFM(3, 4, 2, loss=ufm.MSE("sum"))
    mean = ufm.UFM(3, 4, 2, loss="mse")
    np.testing.assert_allclose(
        flow(whole, times=[0.5, 1.0]).states, flow(mean, times=[3.0, 6.0]).states, atol=1e-9
    )


def test_relu_falls_across_its_kinks():
    problem, decay, init = ufm.DUFM(3, 5, 2), ufm.Coupled(0.01), ufm.Gaussian(0.5)
    found = flow(problem, decay, times=np.linspace(0, 3, 30), init=init, tolerance=1e-5)
    assert (np.diff(found.loss) < 0).all()
    ends = [
        ufm.simulate(problem, ufm.GD(3 / steps), decay, steps=steps, init=init).loss[-1]
        for steps in (150, 300)
    ]
    distances = np.abs(np.array(ends) - found.loss[-1])
    assert distances[0] / distances[1] == pytest.approx(2, rel=0.1)
    assert distances[1] < 1e-3


# ------------------------------------------------------------------------------------------ what it is read by


def test_it_reads_like_a_trajectory():
    found = flow(MSE, DECAY, times=[0.0, 1.0, 5.0])
    assert (found["W"].shape, found["H"].shape, found["b"].shape) == ((3, 3, 4), (3, 4, 6), (3, 3))
    assert len(found) == 3
    np.testing.assert_allclose(found.logits(), found["W"] @ found["H"] + found["b"][..., None], rtol=1e-15)
    np.testing.assert_allclose(found.loss, [MSE.value(found.state(i), DECAY) for i in range(3)], rtol=1e-14)
    np.testing.assert_allclose(
        found.penalty, [MSE.penalty(found.state(i), DECAY) for i in range(3)], rtol=1e-14
    )
    for metric in (metrics.nc1, metrics.nc2, metrics.nc3, metrics.cdnv):
        assert metric(found).shape[0] == 3
    np.testing.assert_array_equal(metrics.nc0(found), metrics.nc0(found["W"]))
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again, Flow)
    np.testing.assert_array_equal(again["H"], found["H"])
    assert not again.states.flags.writeable
    assert (found.status.name, found.status.time) == ("completed", 5.0)
    assert "times 0 ... 5" in str(found)
    assert found.provenance["flow"]["seed"] == "0"
    assert found.provenance["numpy"] == np.__version__
    with pytest.raises(IndexError, match=r"allowed: 0 \.\.\. 2"):
        found.state(3)


def test_frozen_blocks_are_there_and_stay():
    problem, decay = PROBLEMS["two linear layers, frozen features"]
    found = flow(problem, decay, times=[0.0, 3.0])
    np.testing.assert_array_equal(found["H"][1], problem.frozen_values["H"])
    assert metrics.nc1(found, layer=2).shape == (2,)


# ---------------------------------------------------------------------------------------------- refusals

BAD = {
    "no times": ({"times": []}, r"flow.times is \[\]; allowed: increasing numbers >= 0, at least one"),
    "negative": ({"times": [-1.0, 2.0]}, "flow.times is .*; allowed: increasing numbers >= 0"),
    "unsorted": ({"times": [2.0, 1.0]}, "allowed: increasing"),
    "twice": ({"times": [1.0, 1.0]}, "allowed: increasing"),
    "one number": ({"times": 3.0}, "flow.times is 3.0; allowed: increasing"),
    "infinite": ({"times": [1.0, np.inf]}, "flow.times is 'an array with entries that are not finite'"),
    "words": ({"times": ["soon"]}, "flow.times is .*; allowed: a finite real array"),
    "method": ({"times": [1.0], "method": "Euler"}, "flow.method is 'Euler'; allowed: 'DOP853' or"),
    "tolerance": ({"times": [1.0], "tolerance": 1e-16}, "flow.tolerance is 1e-16; allowed: a finite number"),
    "steps": ({"times": [1.0], "steps": 0}, "flow.steps is 0; allowed: a whole number >= 1"),
    "seed": ({"times": [1.0], "seed": -1}, "flow.seed is -1"),
    "init": ({"times": [1.0], "init": 0.1}, "init is 0.1; allowed: an initialiser"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(case):
    options, words = BAD[case]
    with pytest.raises(InvalidProblemError, match=words) as caught:
        flow(MSE, DECAY, **options)
    assert str(caught.value).count("\n") == 0


def test_what_has_no_gradient_flow_is_refused():
    for decay in (ufm.Decoupled(0.1), ufm.Mixed(0.1, 0.1)):
        with pytest.raises(IncompatibleError, match=r"flow.decay is .*; allowed: None or Coupled"):
            flow(MSE, decay, times=[1.0])
    with pytest.raises(InvalidProblemError, match=r"flow.problem is 3; allowed: a problem"):
        flow(3, times=[1.0])


def test_a_users_loss_may_fall_without_end():
    """-||W H||^2 from a balanced start: each singular value a of W obeys a' = 2 a^3, and is infinite at 1/(4 a^2)."""
    problem = ufm.UFM(2, 2, loss=downhill)
    start = {"W": np.diag([0.5, 0.2]), "H": np.diag([0.5, 0.2])}
    with pytest.raises(DivergedError, match=r"diverged at time 1: DOP853 finds no step") as caught:
        flow(problem, times=[0.0, 0.5, 0.9, 2.0], init=start)
    found = caught.value.trajectory
    assert found.times.tolist() == [0.0, 0.5, 0.9]
    assert found.status.time == pytest.approx(1.0, abs=1e-6)
    a = np.array([0.5, 0.2]) / np.sqrt(1 - 4 * np.array([0.5, 0.2]) ** 2 * 0.9)
    np.testing.assert_allclose(np.diag(found["W"][-1]), a, rtol=1e-8)


def test_a_flow_that_cannot_go_on_says_so_and_gives_what_it_has():
    with pytest.raises(DivergedError, match="took the 20 steps allowed; stiff problems need") as caught:
        flow(MSE, DECAY, times=[1e-3, 1e6], steps=20)
    assert caught.value.trajectory.times.tolist() == [1e-3]
    far = {"W": np.full((3, 4), 1e200), "H": np.full((4, 6), 1e200), "b": np.zeros(3)}
    with pytest.raises(DivergedError, match="not finite at the start") as caught:
        flow(MSE, DECAY, times=[1.0], init=far)
    assert len(caught.value.trajectory) == 0
    assert "diverged" in str(caught.value.trajectory)
    pickle.loads(pickle.dumps(caught.value))


def test_a_constant_row_at_the_start_gets_a_sentence():
    problem = ufm.UFM(3, 2, normalisation=ufm.BatchNorm())
    start = ufm.Given(H=np.ones((2, 3)), W=np.ones((3, 2)), gamma=np.ones(2))
    with pytest.raises(DivergedError, match="constant over the samples of a batch"):
        ufm.flow(problem, times=[0, 1], init=start)
