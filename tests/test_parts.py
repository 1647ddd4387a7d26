"""Large runs in parts: the run of the plain loop, and the same bits however many threads share it out."""

import os
import sys
import threading
import time
from dataclasses import replace

import numba
import numpy as np
import pytest
from test_ensemble import assert_same_bits
from threadpoolctl import threadpool_info, threadpool_limits

import ufm
from ufm import parts
from ufm.ensemble import ensemble
from ufm.errors import DivergedError
from ufm.kernels.contract import FINE
from ufm.kernels.loop import WHY
from ufm.kernels.meeting import meet, take
from ufm.parts import COLUMNS, MOST_PARTS, WHOLE, ends_of_parts, runs_in_parts
from ufm.run import Run
from ufm.simulate import advance, begin
from ufm.threads import one_blas_thread

STEPS = 30
FEATURES = np.random.default_rng(0).standard_normal((64, 600))
SOFT = np.full((10, 10), 0.02) + 0.8 * np.eye(10)
PROBLEMS = {
    "ce": ufm.UFM(10, 64, 60),
    "bias": ufm.UFM(10, 64, 60, bias=True),
    "smoothed": ufm.UFM(10, 64, 60, loss=ufm.CrossEntropy(smoothing=0.1)),
    "soft": ufm.UFM(10, 64, 60, loss=ufm.CrossEntropy(targets=SOFT)),
    "sum": ufm.UFM(10, 64, 60, loss=ufm.CrossEntropy(reduction="sum")),
    "mse": ufm.UFM(10, 64, 60, loss="mse"),
    "imbalanced": ufm.UFM(10, 64, per_class=(400, 100, 50, 20, 10, 5, 5, 5, 4, 1)),
    "relu": ufm.DUFM(5, 20, 4, 120, activation="relu", loss="mse", bias=True),
    "linear": ufm.DUFM(5, 20, 3, 121, activation="identity", loss="ce"),
    "regression": ufm.RegressionUFM(np.random.default_rng(1).standard_normal((4, 600)), width=200),
    "frozen features": ufm.UFM(20, 64, 30, features=ufm.Given(FEATURES)),
    "frozen weights": ufm.UFM(10, 64, 60, classifier=ufm.Given(FEATURES[:, :10].T.copy())),
}
RULES = {
    "gd": ufm.GD(0.3),
    "momentum": ufm.Momentum(0.1, 0.9, nesterov=True),
    "adam": ufm.Adam(0.01),
    "schedule": ufm.GD(ufm.Cosine(0.5, warmup=5)),
}
DECAYS = {
    "none": None,
    "coupled": ufm.Coupled(1e-3),
    "decoupled": ufm.Decoupled(1e-2),
    "mixed": ufm.Mixed(1e-3, 1e-2, shrink="after"),
    "coupled by block": ufm.Coupled(H=1e-4, W=1e-2),
    "decoupled by block": ufm.Decoupled(H=1e-1, W=1e-3),
}
FIELDS = ("steps", "states", "fit", "penalty")


@pytest.fixture(autouse=True)
def enough_processors(monkeypatch):
    """As many threads as are asked for, however busy the machine is."""
    monkeypatch.setattr(parts, "usable_cores", lambda: 8)
    monkeypatch.setattr(parts, "ENOUGH", 0.0)


@pytest.fixture
def calls(monkeypatch):
    """How many threads every call of the kernel had, and how many BLAS had meanwhile."""
    found, original = [], parts._together

    def counted(tasks, arrived):
        found.append((len(tasks), blas_threads()))
        return original(tasks, arrived)

    monkeypatch.setattr(parts, "_together", counted)
    return found


def some_run(problem="ce", rule="gd", decay="mixed", **options):
    options = {"steps": STEPS, "record": ufm.Every(7), "init": ufm.Gaussian(0.2), **options}
    return Run(PROBLEMS[problem], RULES[rule], DECAYS[decay], **options)


def on(threads, run, **options):
    return advance(run, begin(run), None, throw=False, threads=threads, **options)


def by_the_plain_loop(run, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["ufm.simulate"], "runs_in_parts", lambda run: False)
        return advance(run, begin(run), None, throw=False)


def assert_within_round_off(found, expected):
    """Errors of sums of at most 600 terms in another order; Adam divides by what may itself be round-off."""
    assert str(found.status) == str(expected.status)
    assert np.array_equal(found.steps, expected.steps)
    adam = isinstance(found.run.optimizer, ufm.Adam)
    eps = np.finfo(found.run.dtype).eps * (1000 if adam else 10)
    for name in FIELDS[1:]:
        a, b = getattr(found, name), getattr(expected, name)
        assert np.abs(a - b).max() <= STEPS * eps * max(np.abs(b).max(), 1.0), name
    assert found.end.step == expected.end.step
    for name in ("theta", "m", "v"):
        a, b = getattr(found.end, name), getattr(expected.end, name)
        assert np.abs(a - b).max() <= STEPS * eps * max(np.abs(b).max(), 1.0), name


def blas_threads():
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


# -------------------------------------------------------------------------------------------------- as one run


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("rule", RULES)
def test_a_run_in_parts_is_that_of_the_plain_loop_on_any_threads(problem, rule, monkeypatch):
    for decay in DECAYS if (problem, rule) == ("ce", "gd") else ("mixed",):
        run = some_run(problem, rule, decay)
        assert runs_in_parts(run)
        found = on(1, run)
        for threads in (2, 4):
            assert_same_bits(on(threads, run), found)
        assert_within_round_off(found, by_the_plain_loop(run, monkeypatch))


def test_eight_parts_on_three_threads():
    run = some_run(rule="adam", steps=10)
    run = replace(run, problem=ufm.UFM(10, 64, per_class=(1200, 100, 50, 20, 10, 5, 5, 5, 4, 1)))
    assert len(ends_of_parts(run.problem)) == 9
    found = on(1, run)
    for threads in (3, 8):
        assert_same_bits(on(threads, run), found)


def test_float32_in_parts(monkeypatch):
    run = some_run(dtype="float32", steps=8)
    found = on(2, run)
    assert found.states.dtype == np.float32
    assert_same_bits(on(1, run), found)
    assert_within_round_off(found, by_the_plain_loop(run, monkeypatch))


def test_no_bit_depends_on_the_threads_of_blas_or_on_an_ensemble():
    run = some_run()
    with threadpool_limits(1, "blas"):
        found = advance(run, begin(run), None, throw=True)
    with threadpool_limits(3, "blas"):
        assert_same_bits(advance(run, begin(run), None, throw=True), found)
        assert blas_threads() == {3}
    for alone in ensemble([run, replace(run, seed=1), run], workers=2)[::2]:
        assert_same_bits(alone, found)


def test_a_run_in_parts_goes_on_where_it_stopped():
    run = some_run(rule="adam")
    whole, half = on(2, run), on(1, replace(run, steps=14))
    assert_same_bits(half.resume(STEPS), whole)
    seen = []
    stopped = on(2, run, callback=lambda step, blocks: seen.append((step, blocks)) or True)
    assert stopped.status.name == "stopped"
    assert seen[0][0] == stopped.end.step
    assert np.array_equal(seen[0][1]["H"], stopped["H"][-1])
    assert_same_bits(stopped.resume(), whole)


# ------------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("problem", ["ce", "mse", "relu", "frozen weights"])
def test_a_run_in_parts_diverges_where_the_plain_loop_does(problem, monkeypatch):
    """H has gone on when the logits turn out not to be finite; the run ends where it has not."""
    run = some_run(problem, steps=400)
    run = replace(run, optimizer=ufm.Momentum(1010, 0.5), decay=ufm.Coupled(0.1))
    expected = by_the_plain_loop(run, monkeypatch)
    assert expected.status.name == "diverged"
    assert 1 < expected.end.step < 400
    found = on(1, run)
    for threads in (2, 3):
        again = on(threads, run)
        assert np.array_equal(again.end.theta, found.end.theta, equal_nan=True)
        assert np.array_equal(again.states, found.states)
    assert str(found.status) == str(expected.status)
    assert np.array_equal(found.steps, expected.steps)
    for a, b in ((found.states, expected.states), (found.end.theta, expected.end.theta)):
        finite = np.isfinite(b)
        assert np.array_equal(np.isfinite(a), finite)
        assert np.abs(a[finite] / b[finite] - 1.0).max() < 1e-6


def test_one_part_that_diverges_stops_all(monkeypatch):
    run = some_run(decay="none")
    state = PROBLEMS["ce"].unpack(begin(run).theta)
    features = np.array(state["H"])
    features[:, 599] *= 1e160
    run = replace(run, init={"H": features, "W": np.array(state["W"]) * 1e160})
    expected = by_the_plain_loop(run, monkeypatch)
    assert expected.status.name == "diverged"
    for threads in (1, 2):
        found = on(threads, run)
        assert str(found.status) == str(expected.status)
        assert np.array_equal(found.end.theta, expected.end.theta)
        assert np.array_equal(found.states, expected.states)


def test_a_loss_that_overflows_at_a_record_stops_all(monkeypatch):
    """Residuals of 1e160 are finite, half their squares are not."""
    run = some_run("mse", decay="none")
    start = {"H": np.full((64, 600), 1e80), "W": np.full((10, 64), 1e78)}
    for record in (ufm.Every(1), ufm.At([0])):
        run = replace(run, init=start, record=record)
        expected = by_the_plain_loop(run, monkeypatch)
        assert expected.status.name == "diverged"
        found = on(2, run)
        assert str(found.status) == str(expected.status)
        assert np.array_equal(found.end.theta, expected.end.theta)


def test_a_run_that_diverges_raises_with_its_records():
    with pytest.raises(DivergedError) as caught:
        ufm.simulate(PROBLEMS["ce"], ufm.GD(1e6), ufm.Coupled(1.0), steps=200)
    found = caught.value.trajectory
    assert np.isfinite(found.states).all()
    assert found.steps[-1] in (found.end.step, found.end.step - 1)


# ---------------------------------------------------------------------------------------------------- threads


def test_a_thread_that_fails_frees_the_others(monkeypatch):
    """The others wait at a meeting that never comes about."""
    run, failed = some_run(), []
    original = parts._together

    def one_fails(tasks, arrived):
        def fails():
            failed.append(threading.current_thread())
            raise MemoryError("no room")

        original([*tasks[:-1], fails], arrived)

    monkeypatch.setattr(parts, "_together", one_fails)
    with threadpool_limits(2, "blas"):
        with pytest.raises(MemoryError, match="no room"):
            on(2, run)
        assert blas_threads() == {2}
    assert failed
    assert not any(thread.name == "ufm" for thread in threading.enumerate())


def test_where_no_thread_starts_one_does_all(monkeypatch):
    run, start, started = some_run(), threading.Thread.start, []
    expected = on(3, run)

    def second_fails(thread):
        if thread.name == "ufm":
            if started:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", second_fails)
    assert_same_bits(on(3, run), expected)
    assert len(started) == 1
    assert not started[0].is_alive()


@pytest.mark.parametrize("error", [MemoryError, TimeoutError])
@pytest.mark.parametrize("after", [False, True])
def test_whatever_befalls_a_start_nobody_waits_for_ever(monkeypatch, error, after):
    """Memory that is short, or a signal's handler that raises before or after the second thread has begun."""
    run, start, started = some_run(), threading.Thread.start, []

    def second_fails(thread):
        fails = thread.name == "ufm" and bool(started)
        if not fails or after:
            start(thread)
        if thread.name == "ufm":
            started.append(thread)
        if fails:
            raise error("at a start")

    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(error, match="at a start"):
        on(4, run)
    assert len(started) == 2
    assert not any(thread.is_alive() for thread in started)


def test_a_run_that_diverges_is_repeated_though_no_thread_starts(monkeypatch):
    run = Run(ufm.UFM(10, 64, 60), ufm.Momentum(1010, 0.5), ufm.Coupled(0.1), steps=400, record=ufm.Every(7))
    expected = on(1, run)
    assert expected.status.name == "diverged"
    call, start, diverged = parts.Parts._call, threading.Thread.start, []

    def noting(self, *arguments):
        answer = call(self, *arguments)
        diverged.append(answer[0][WHY] != FINE)
        return answer

    def none_after_that(thread):
        if thread.name == "ufm" and any(diverged):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(parts.Parts, "_call", noting)
    monkeypatch.setattr(threading.Thread, "start", none_after_that)
    assert_same_bits(on(4, run), expected)
    assert any(diverged)


@numba.njit(nogil=True)
def take_each(taken, won, arrived, threads, steps):
    for step in range(steps):
        meet(arrived, threads * (step + 1))
        for part in range(taken.size):
            won[0] += take(taken, part, step)


def test_each_part_is_taken_once():
    """By one of two threads that want it at the same moment."""
    taken, won, arrived = np.zeros(8, np.int64), np.zeros((2, 1), np.int64), np.zeros(1, np.int64)
    take_each(taken, won[0], arrived, 1, 0)
    threads = [threading.Thread(target=take_each, args=(taken, mine, arrived, 2, 3000)) for mine in won]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.all(taken == 3000)
    assert won.sum() == taken.sum()


def test_blas_has_one_thread_and_we_as_many_as_it_may_have(calls):
    run = some_run(steps=40)
    # four parts: three threads would wait for one
    for allowed, used in ((1, 1), (2, 2), (3, 2), (4, 4), (7, 4)):
        calls.clear()
        with threadpool_limits(allowed, "blas"):
            advance(run, begin(run), None, throw=True)
            assert blas_threads() == {allowed}
        assert {count for count, _ in calls} == {used}
        assert all(threads == {1} for _, threads in calls)
    for asked, used in ((1, 1), (2, 2), (5, 4)):
        calls.clear()
        on(asked, run)
        assert {count for count, _ in calls} == {used}


def test_no_more_threads_than_processors(calls, monkeypatch):
    monkeypatch.setattr(parts, "usable_cores", lambda: 2)
    on(4, some_run())
    assert {count for count, _ in calls} == {2}


def test_blas_keeps_its_one_thread_between_calls():
    """A run without parts in another thread of the process sees one change, not one at each call."""
    run, seen = some_run(steps=200), []
    with threadpool_limits(2, "blas"):
        on(2, run, callback=lambda step, blocks: seen.append(blas_threads()))
        assert blas_threads() == {2}
    assert len(seen) > 1
    assert all(threads == {1} for threads in seen)


def test_the_number_of_threads_may_change_between_calls(calls):
    run = some_run(steps=200)
    expected = on(1, run)
    calls.clear()
    with threadpool_limits(4, "blas"):
        half = advance(replace(run, steps=70), begin(run), None, throw=True)
    with threadpool_limits(2, "blas"):
        assert_same_bits(half.resume(200), expected)
    assert calls[0][0] == 4
    assert calls[-1][0] == 2


def test_threads_without_processors_leave_the_steps_to_one(monkeypatch):
    """What the first steps show of the threads decides about the rest of a call, and the next call tries again."""
    run, counts, original = some_run(steps=300), [], parts._together
    expected = on(1, run)

    def starved(tasks, arrived):
        original(tasks, arrived)
        counts.append(len(tasks))
        return 0.5

    monkeypatch.setattr(parts, "_together", starved)
    monkeypatch.setattr(parts, "ENOUGH", 0.8)
    assert_same_bits(on(2, run), expected)
    assert len(counts) > 3
    assert counts == [2, 1] * (len(counts) // 2)


def test_threads_are_asked_how_much_of_their_processors_they_had():
    arrived = np.zeros(1, np.int64)

    def work():
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass

    assert parts._together([work], arrived) > 0.1  # others may want the processor, too
    assert parts._together([lambda: time.sleep(0.05), lambda: time.sleep(0.05)], arrived) < 0.1


def test_a_large_first_chunk_is_short():
    """Ctrl-C and the progress bar wait for the end of a chunk."""
    seen = []
    large = ufm.UFM(100, 512, 100)
    run = Run(large, ufm.GD(0.1), steps=2, record=ufm.At([0]))
    advance(run, begin(run), None, throw=True, callback=lambda step, blocks: seen.append(step))
    assert seen[0] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_in_the_child_of_a_fork_nobody_is_inside():
    with one_blas_thread:
        child = os.fork()
        if child == 0:
            os._exit(one_blas_thread._inside + 2 * one_blas_thread._lock.locked())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_parts_that_nobody_has_begun_are_taken_by_those_who_are_done(monkeypatch):
    """Of two threads only one comes, and all parts are its own in the end."""
    run = Run(ufm.UFM(20, 64, 50), ufm.Adam(0.1), ufm.Coupled(1e-3), steps=20, record=ufm.Every(5))
    assert len(ends_of_parts(run.problem)) == 5
    expected = advance(run, begin(run), None, True, threads=1)
    meeting, together, shares = parts.Parts._meeting, parts._together, []

    def alone(self):
        shares.append([list(held.share.order) for held in self._held])
        return meeting(self)._replace(threads=1)

    monkeypatch.setattr(parts.Parts, "_meeting", alone)
    monkeypatch.setattr(parts, "_together", lambda tasks, arrived: together(tasks[:1], arrived))
    found = advance(run, begin(run), None, True, threads=2)
    assert shares[0] == [[0, 1, 3, 2], [2, 3, 1, 0]]
    assert_same_bits(found, expected)


# ------------------------------------------------------------------------------------------------ which runs


def test_parts_are_a_power_of_two_of_some_hundred_samples():
    for samples in (1, 10, COLUMNS, COLUMNS + 1, 600, 1000, 5000):
        ends = ends_of_parts(ufm.UFM(10, 64, per_class=(*[1] * 9, samples)))
        widths = np.diff(ends)
        assert ends[0] == 0
        assert ends[-1] == samples + 9
        assert widths.max() <= COLUMNS + WHOLE
        assert widths.max() - widths.min() <= 2 * WHOLE
        assert np.all(widths[:-1] % WHOLE == 0)
        assert len(widths) & (len(widths) - 1) == 0
        assert len(widths) == 1 or widths.sum() > COLUMNS * len(widths) / 2
    assert len(ends_of_parts(ufm.UFM(10, 64, per_class=10_000))) == MOST_PARTS + 1


def test_gradients_of_parts_have_no_more_numbers_than_the_features():
    for problem in (ufm.UFM(500, 500, 2), ufm.DUFM(10, 200, 4, 100), ufm.UFM(100, 512, 10)):
        weights = sum(np.prod(shape) for name, shape in problem.shapes.items() if name != "H")
        parts = len(ends_of_parts(problem)) - 1
        assert parts == 1 or parts * weights <= np.prod(problem.shapes["H"])


def squares(Z, targets, R):
    total = 0.0
    for k in range(Z.shape[0]):
        for i in range(Z.shape[1]):
            R[k, i] = (Z[k, i] - targets[k, i]) / Z.shape[1]
            total += 0.5 * R[k, i] * (Z[k, i] - targets[k, i])
    return total


def plain_step(theta, g, m, v, lr, t, p):
    return theta - lr * g, m, v


@pytest.mark.parametrize(
    "run",
    [
        Run(ufm.UFM(10, 64, 20), ufm.GD(0.1)),
        Run(ufm.UFM(3, 4, 200), ufm.GD(0.1)),
        Run(ufm.UFM(500, 500), ufm.GD(0.1)),
        Run(ufm.UFM(100, 512, 10), ufm.GD(0.1)),
        Run(PROBLEMS["ce"], ufm.SignGD(0.1)),
        Run(PROBLEMS["ce"], ufm.Adam(0.1, eps=0.0)),
        Run(PROBLEMS["ce"], ufm.NormalisedGD(0.1)),
        Run(PROBLEMS["ce"], ufm.GD(0.1), batch=100),
        Run(ufm.UFM(10, 64, 60, normalisation=ufm.BatchNorm()), ufm.GD(0.1)),
        Run(ufm.UFM(10, 64, 60, loss=ufm.UserLoss(squares)), ufm.GD(0.1)),
        Run(PROBLEMS["ce"], ufm.Elementwise(plain_step, 0.1)),
    ],
    ids=lambda run: f"{type(run.problem.loss).__name__} {type(run.optimizer).__name__} {run.problem.samples}",
)
def test_runs_that_stay_whole(run):
    assert not runs_in_parts(run)
