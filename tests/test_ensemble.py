"""Ensembles: each run ends as it would alone, whatever else is simulated beside it."""

from dataclasses import replace

import numpy as np
import pytest
from test_signs import SETTINGS, along, ce, crossed

import ufm
from ufm.ensemble import ensemble, runs_in_lanes
from ufm.errors import IncompatibleError, InterruptedRunError, InvalidProblemError
from ufm.kernels.lanes import LANES
from ufm.run import Run

STEPS = 40
PROBLEMS = {
    "ce": ufm.UFM(3, 4, 2),
    "smoothed": ufm.UFM(3, 4, 2, loss=ufm.CrossEntropy(smoothing=0.1)),
    "soft": ufm.UFM(3, 3, loss=ufm.CrossEntropy(targets=np.full((3, 3), 0.2) + 0.4 * np.eye(3))),
    "sum": ufm.UFM(3, 4, 2, loss=ufm.CrossEntropy(reduction="sum")),
    "mse": ufm.UFM(3, 4, loss="mse"),
    "bias": ufm.UFM(3, 4, per_class=(1, 3, 2), bias=True),
    "relu": ufm.DUFM(3, 5, 3, 2, activation="relu", loss="mse"),
    "linear": ufm.DUFM(3, 4, 3, activation="identity", loss="ce", bias=True),
    "frozen": ufm.UFM(3, 4, features=ufm.Given(np.arange(12.0).reshape(4, 3) / 10)),
}
RULES = {
    "gd": lambda i: ufm.GD(0.05 + 0.01 * i),
    "momentum": lambda i: ufm.Momentum(0.05, 0.5 + 0.01 * i, nesterov=bool(i % 2)),
    "adam": lambda i: ufm.Adam(0.01, 0.5 + 0.01 * i, 0.9, 1e-8 * (1 + i)),
    "signgd": lambda i: ufm.SignGD(0.01 + 0.001 * i),
    "signum": lambda i: ufm.Signum(0.01, 0.5 + 0.01 * i),
    "adam of signs": lambda i: ufm.Adam(0.01, 0.5 + 0.01 * i, 0.9, 0.0),
    "normalised": lambda i: ufm.NormalisedGD(0.01 + 0.001 * i),
}
DECAYS = {
    "none": lambda i: None,
    "coupled": lambda i: ufm.Coupled(1e-3 * i),
    "decoupled": lambda i: ufm.Decoupled(W=1e-2 * i),
    "mixed": lambda i: ufm.Mixed(1e-3 * i, 1e-2, shrink="after" if i % 2 else "before"),
}
FIELDS = ("steps", "states", "fit", "penalty")
COUNTS = ("steps", "exponents_from", "undecided_signs", "first_undecided_step")


def some_runs(count, problem="ce", rule="gd", decay="mixed", **options):
    options = {"steps": STEPS, "record": ufm.Every(15), "init": ufm.Gaussian(0.3), **options}
    return [Run(PROBLEMS[problem], RULES[rule](i), DECAYS[decay](i), seed=i, **options) for i in range(count)]


def alone(run, **options):
    return ufm.simulate(
        run.problem, run.optimizer, run.decay, steps=run.steps, init=run.init, seed=run.seed, record=run.record,
        batch=run.batch, dtype=run.dtype, throw=False, **options,
    )  # fmt: skip


def assert_same_bits(found, expected):
    assert str(found.status) == str(expected.status)
    for name in FIELDS:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    for name in ("step", "theta", "m", "v", "unit"):
        assert np.array_equal(getattr(found.end, name), getattr(expected.end, name)), name


def assert_within_round_off(found, expected):
    """Errors of sums of at most 10 terms in another order, which a stable run of STEPS steps adds up."""
    assert str(found.status) == str(expected.status)
    assert np.array_equal(found.steps, expected.steps)
    eps = np.finfo(found.run.dtype).eps
    for name in FIELDS[1:]:
        a, b = getattr(found, name), getattr(expected, name)
        scale = max(np.abs(b).max(), 1.0)
        assert np.abs(a - b).max() <= 10 * STEPS * eps * scale, name
    for name in COUNTS:
        assert found.stats[name] == expected.stats[name], name


# --------------------------------------------------------------------------------------------- as each alone


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("rule", RULES)
def test_runs_of_an_ensemble_are_the_runs_alone(problem, rule):
    for decay in DECAYS if problem in ("ce", "relu") else ("mixed",):
        runs = some_runs(3, problem, rule, decay)
        for run, found in zip(runs, ensemble(runs), strict=True):
            assert found.run is run
            assert_within_round_off(found, alone(run))


@pytest.mark.parametrize("rule", ["gd", "momentum", "adam", "signum", "normalised"])
def test_a_run_has_the_same_bits_in_any_ensemble(rule):
    """Order, companions, padding, position in the block and number of workers do not matter."""
    runs = some_runs(2 * LANES + 3, rule=rule)
    whole = ensemble(runs, workers=2)
    shuffled = np.random.default_rng(0).permutation(len(runs))
    for i, found in zip(shuffled, ensemble([runs[i] for i in shuffled], workers=1), strict=True):
        assert_same_bits(found, whole[i])
    for i in (0, LANES - 1, 2 * LANES + 2):
        assert_same_bits(ensemble([runs[i]])[0], whole[i])
    for i, found in enumerate(ensemble(runs[5 : 5 + LANES], workers=3)):
        assert_same_bits(found, whole[5 + i])


@pytest.mark.slow
def test_float32_runs_are_the_runs_alone():
    runs = some_runs(3, dtype="float32")
    assert all(runs_in_lanes(run) for run in runs)
    for run, found in zip(runs, ensemble(runs), strict=True):
        assert found.states.dtype == np.float32
        assert_within_round_off(found, alone(run))


def test_each_run_has_its_schedule():
    schedules = [
        0.1,
        ufm.StepDecay(0.2, at=(10, 25)),
        ufm.Cosine(0.3, warmup=5),
        ufm.Rates(np.linspace(0, 1, STEPS)),
    ]
    runs = [
        Run(PROBLEMS["ce"], ufm.Momentum(lr, 0.5), None, seed=i, steps=STEPS)
        for i, lr in enumerate(schedules)
    ]
    for run, found in zip(runs, ensemble(runs), strict=True):
        assert_within_round_off(found, alone(run))


def test_long_runs_cross_many_chunks(monkeypatch):
    monkeypatch.setattr("ufm.ensemble.MOST_STEPS", 7)
    runs = some_runs(3)
    expected = ensemble(runs)
    monkeypatch.undo()
    for found, other in zip(ensemble(runs), expected, strict=True):
        assert_same_bits(found, other)


def test_mini_batches_and_own_functions_take_the_kernels_of_one_run():
    def residual(Z, targets, R):
        R[:] = Z - targets
        return 0.5 * np.sum(R**2)

    def step(theta, g, m, v, lr, t, p):
        return theta - lr * g * p[0], m, v

    small = ufm.UFM(3, 4, 2, loss=residual)
    batches = some_runs(3, batch=2)
    own_loss = [Run(small, ufm.GD(0.01 * i), steps=STEPS, seed=i) for i in range(3)]
    own_rule = [
        Run(PROBLEMS["ce"], ufm.Elementwise(step, 0.1, [i]), ufm.Decoupled(0.1), steps=STEPS)
        for i in range(3)
    ]
    for runs in (batches, own_loss, own_rule):
        assert not any(runs_in_lanes(run) for run in runs)
        for run, found in zip(runs, ensemble(runs), strict=True):
            assert_within_round_off(found, alone(run))


@pytest.mark.parametrize("optimizer", [ufm.SignGD(0.5), ufm.Adam(0.5, 0.9, 0.5, 0.0)])
def test_exponents_are_carried_where_residuals_underflow(optimizer):
    runs = [Run(ufm.UFM(3, 3), optimizer, None, ufm.Gaussian(0.1), 60, seed) for seed in range(3)]
    found = ensemble(runs)
    assert all(trajectory.stats["exponents_from"] > 0 for trajectory in found)
    for run, trajectory in zip(runs, found, strict=True):
        assert_within_round_off(trajectory, alone(run))
        assert_same_bits(trajectory, ensemble([run])[0])


# --------------------------------------------------------------------------------------------------- signs


@pytest.fixture
def left_lanes(monkeypatch):
    """Steps at which runs leave their lanes to go on alone, by seed."""
    import ufm.ensemble as module

    left, alone_ = {}, module._alone

    def noted(block, stop, note, previous=None):
        if previous is not None:
            left[block[0].seed] = previous.end.step
        return alone_(block, stop, note, previous)

    monkeypatch.setattr(module, "_alone", noted)
    return left


IN_LANES = {
    name: case
    for name, case in SETTINGS.items()
    if runs_in_lanes(Run(case[0], ufm.SignGD(0.1))) and "mini-batch" not in name
}


@pytest.mark.parametrize("name", IN_LANES)
@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=pytest.mark.slow)])
def test_every_undecided_sign_is_counted_in_lanes(name, dtype, left_lanes):
    """One step from states whose signs are examined one by one; those of other lanes have no part in it."""
    problem, decay, states, _ = IN_LANES[name]
    options = {"decay": decay} if getattr(states, "func", None) is along else {}
    states = [state for state, columns in states(problem, seeds=range(3), **options) if columns is None]
    runs = [
        Run(problem, ufm.SignGD(0.1), decay, ufm.Given(**state), 1, seed, dtype=dtype)
        for seed, state in enumerate(states)
    ]
    counts = []
    for run, state, found in zip(runs, states, ensemble(runs), strict=True):
        signs = problem.signs(state, decay, dtype=dtype)
        counts.append(sum(int(block.sum()) for block in signs.undecided.values()))
        assert found.stats["undecided_signs"] == counts[-1]
        assert found.stats["first_undecided_step"] == (0 if counts[-1] else -1)
        assert found.run is run
    print(f"{name}, {dtype}: {np.count_nonzero(counts)} undecided, {len(left_lanes)} left of {len(runs)}")


def nearly_cancelling(trained, depth, digits, seed):
    """A chain of which one block alone is trained, or all, and a state at which terms cancel to so many digits."""
    rng = np.random.default_rng(seed)

    def tied(rows, cols, along_rows):
        row = rng.standard_normal((1, cols) if along_rows else (rows, 1))
        return row * (1 + 10.0**-digits * rng.standard_normal((rows, cols)))

    if depth > 1:
        problem = ce(4, depth, (2, 1, 2), "identity", bias=True)
        shapes = {block: (*problem.shapes[block], 1)[:2] for block in problem.trained}
        state = {block: tied(*shape, True).reshape(problem.shapes[block]) for block, shape in shapes.items()}
        return problem, state
    # the probabilities are those of chance, so the residuals of a sample, and those of a class, add up to 0
    state = {"W": tied(3, 4, True), "H": tied(4, 6, False), "b": np.zeros(3)}
    held = {"W": {"classifier": ufm.Given(state["W"])}, "H": {"features": ufm.Given(state["H"])}}
    options = {}
    for block in ("W", "H"):
        options |= {} if trained in (block, "all") else held[block]
    problem = ufm.UFM(3, 4, 2, bias=trained in ("b", "all"), **options)
    return problem, {name: state[name] for name in ("W", "H", "b") if trained in (name, "all")}


@pytest.mark.parametrize(
    ("trained", "depth"), [("W", 1), ("H", 1), ("b", 1), ("all", 1), ("all", 2), ("all", 3)]
)
@pytest.mark.parametrize("lam", [0.0, 1e-13])
def test_lanes_are_left_before_a_sign_is_undecided(trained, depth, lam, left_lanes):
    """Terms that cancel to 0 ... 16 digits: from where round-off decides on, and no sooner than that by much."""
    decay, nearness = ufm.Coupled(lam), np.arange(0, 16, 0.5)
    cases = [nearly_cancelling(trained, depth, digits, seed) for seed, digits in enumerate(nearness)]
    runs = [
        Run(problem, ufm.SignGD(0.0), decay, ufm.Given(**state), 1, seed)
        for seed, (problem, state) in enumerate(cases)
    ]
    undecided = set()
    for seed, ((problem, state), found) in enumerate(zip(cases, ensemble(runs), strict=True)):
        count = sum(int(block.sum()) for block in problem.signs(state, decay).undecided.values())
        assert found.stats["undecided_signs"] == count
        assert found.stats["exponents_from"] == -1
        if count:
            undecided.add(seed)
    left = nearness[sorted(left_lanes)]
    print(f"undecided {nearness[sorted(undecided)]}, left {left}")
    assert undecided <= set(left_lanes)
    assert left.min() >= 8
    assert len(undecided) >= 2


def runs_that_leave():
    """A block and a half; wide gaps ask for exponents, residuals that cancel for the count."""
    problem, runs = ufm.UFM(3, 3), []
    cancelling = crossed(problem)["init"]
    for i in range(LANES + 8):
        wide = (
            i % 3 == 1
        )  # rates and decays of their own, so that every third run leaves at a step of its own
        lr, decay = (0.05 + 0.01 * i, ufm.Decoupled(1e-4)) if wide else (0.01, ufm.Coupled(1e-2))
        init = cancelling if i % 12 == 1 else ufm.Gaussian(0.3)
        runs.append(Run(problem, ufm.Signum(lr, 0.5), decay, init, 250, i, ufm.Every(40)))
    return runs


def test_runs_leave_their_lanes_at_steps_that_no_other_run_has_a_part_in(left_lanes):
    runs = runs_that_leave()
    whole = ensemble(runs, workers=2)
    steps = dict(left_lanes)
    assert len(set(steps.values())) > 5
    assert 0 in steps.values()
    assert len(steps) < len(runs) - 8
    for i in np.random.default_rng(1).permutation(len(runs))[:8]:
        left_lanes.clear()
        assert_same_bits(ensemble([runs[i]])[0], whole[i])
        assert left_lanes == ({runs[i].seed: steps[i]} if i in steps else {})
    for run, found in zip(runs, whole, strict=True):
        single = alone(run)
        assert found.status == single.status
        assert np.array_equal(found.steps, single.steps)
        counts = (*COUNTS, "legs")
        assert [found.stats[name] for name in counts] == [single.stats[name] for name in counts]
    assert sum(found.stats["undecided_signs"] > 0 for found in whole) >= 2


def test_chains_with_relu_take_signs_one_run_at_a_time():
    runs = some_runs(2, "relu", "signgd")
    assert not any(runs_in_lanes(run) for run in runs)
    assert all(runs_in_lanes(run) for run in some_runs(2, "relu", "gd"))


# ---------------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("problem", ["ce", "mse", "relu", "bias"])
def test_a_run_that_diverges_ends_as_alone_and_touches_no_other(problem):
    calm = some_runs(LANES + 4, problem, "momentum", "coupled", steps=400)
    wild = list(calm)
    for i, lr in ((0, 1e200), (5, 1e3), (LANES - 1, 30.0), (LANES + 3, 1e160)):
        wild[i] = replace(calm[i], optimizer=ufm.Momentum(lr, 0.9), decay=ufm.Coupled(1.0))
    found, expected = ensemble(wild), ensemble(calm)
    diverged = 0
    for i, run in enumerate(wild):
        if run is calm[i]:
            assert_same_bits(found[i], expected[i])
            continue
        single = alone(run)
        diverged += single.status.name == "diverged"
        assert found[i].status.name == single.status.name
        # with rates that multiply a state by 1e3 and more, both families pass the largest number at the same step
        assert str(found[i].status) == str(single.status)
        assert np.array_equal(found[i].steps, single.steps)
    assert diverged >= 3


def test_a_block_whose_runs_all_diverge_at_different_steps():
    rates = [*np.linspace(2.2, 6, LANES // 2), *np.geomspace(10, 1e250, LANES // 2)]
    runs = [
        Run(PROBLEMS["mse"], ufm.GD(lr), ufm.Coupled(1.0), seed=i, steps=500, record=ufm.Every(3))
        for i, lr in enumerate(rates)
    ]
    found = ensemble(runs)
    assert {trajectory.status.name for trajectory in found} == {"diverged"}
    assert len({trajectory.status.step for trajectory in found}) > 5
    for run, trajectory in zip(runs, found, strict=True):
        single = alone(run)
        assert str(trajectory.status) == str(single.status)
        assert np.array_equal(trajectory.steps, single.steps)
        assert np.isfinite(trajectory.fit).all()


def test_a_start_without_finite_logits_is_kept():
    huge = ufm.Given(W=np.full((3, 4), 1e200), H=np.full((4, 6), 1e200))
    runs = [*some_runs(2), replace(some_runs(1)[0], init=huge)]
    found = ensemble(runs)
    assert [trajectory.status.name for trajectory in found] == ["completed", "completed", "diverged"]
    assert_same_bits(found[2], alone(runs[2]))


# ------------------------------------------------------------------------------------- records and continuing


@pytest.mark.parametrize("record", [ufm.Every(1), ufm.LogSpaced(7), ufm.At([3, 17])])
def test_records_fit_and_penalty(record):
    runs = some_runs(2, record=record)
    for run, found in zip(runs, ensemble(runs), strict=True):
        single = alone(run)
        assert np.array_equal(found.steps, single.steps)
        for i in range(len(found)):
            state = found.state(i)
            assert abs(found.loss[i] - run.problem.value(state, run.decay)) <= 1e-14
            assert abs(found.penalty[i] - run.problem.penalty(state, run.decay)) <= 1e-15
        assert found["W"].flags.c_contiguous or found["W"][0].flags.c_contiguous


@pytest.mark.parametrize("steps", [0, 1])
def test_hardly_any_step(steps):
    runs = some_runs(3, steps=steps)
    for run, found in zip(runs, ensemble(runs), strict=True):
        assert_within_round_off(found, alone(run))


def test_a_run_of_an_ensemble_resumes():
    half, full = some_runs(3, rule="adam"), some_runs(3, rule="adam", steps=2 * STEPS)
    for found, run in zip(ensemble(half), full, strict=True):
        assert_within_round_off(found.resume(2 * STEPS), alone(run))


def test_interrupted_runs_keep_their_records_and_resume(monkeypatch):
    """As on Ctrl-C: every run ends after its chunk, with a record of where it is."""
    import ufm.ensemble as module

    gather, times = module._gather, []

    def pressed(*arguments):
        times.append(1)
        if len(times) == 1:
            raise KeyboardInterrupt
        gather(*arguments)

    for count, rule in ((LANES + 2, "gd"), (2, "normalised"), (3, "signgd")):
        runs = some_runs(count, rule=rule, decay="coupled", steps=10**6, record=ufm.LogSpaced(30))
        times.clear()
        monkeypatch.setattr(module, "_gather", pressed)
        with pytest.raises(InterruptedRunError, match=f"0 of {len(runs)}") as caught:
            ensemble(runs)
        monkeypatch.undo()
        assert len(caught.value.trajectory) == len(runs)
        for run, found in zip(runs, caught.value.trajectory, strict=True):
            assert found.run is run
            assert found.status.name == "interrupted"
            assert 0 < found.status.step < 10**6
            assert found.steps[-1] == found.end.step == found.status.step
            assert np.array_equal(found.states[-1], found.end.theta)
            single = alone(replace(run, steps=found.end.step, record=ufm.At([])))
            if found.end.step <= 2000:
                assert abs(found.fit[-1] - single.fit[-1]) <= 1e-9 * single.fit[0]


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("runs", [[], "runs", None, [1], [some_runs(1)[0], "x"]])
def test_no_runs_are_refused(runs):
    with pytest.raises(InvalidProblemError, match=r"ensemble\.runs .*a sequence of at least one Run"):
        ensemble(runs)


def test_a_run_without_steps_is_refused():
    with pytest.raises(InvalidProblemError, match="steps"):
        ensemble([Run(PROBLEMS["ce"], ufm.GD(0.1))])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"problem": ufm.UFM(3, 5, 2)}, "problem.blocks"),
        ({"problem": ufm.UFM(3, 4, (1, 2, 3))}, "problem.per_class"),
        ({"problem": ufm.UFM(3, 4, 2, loss="mse")}, "problem.loss"),
        ({"problem": ufm.UFM(3, 4, 2, classifier=ufm.Given(np.ones((3, 4))))}, "problem.trained"),
        ({"optimizer": ufm.Momentum(0.1, 0.9)}, "optimizer"),
        ({"steps": 7}, "steps"),
        ({"record": ufm.Every(2)}, "record"),
        ({"batch": 2}, "batch"),
        ({"dtype": "float32"}, "dtype"),
    ],
)
def test_runs_that_share_too_little_are_refused_in_one_sentence(change, named):
    first = some_runs(1)[0]
    with pytest.raises(IncompatibleError, match=rf"ensemble\.runs\[1\]\.{named} is .*; allowed: ") as caught:
        ensemble([first, replace(first, **change)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, -1, 1.5, "2", True])
def test_bad_workers_are_refused(workers):
    with pytest.raises(InvalidProblemError, match=r"ensemble\.workers"):
        ensemble(some_runs(1), workers=workers)


def test_an_error_in_one_start_reaches_the_caller():
    class Broken:
        def draw(self, place, rng):
            return np.full(place.shape, np.nan)

    with pytest.raises(InvalidProblemError, match="init"):
        ensemble([*some_runs(2), replace(some_runs(1)[0], init=Broken())])


# --------------------------------------------------------------------------------------------- without compiler


WITHOUT_COMPILER = """
import numpy as np, ufm
from ufm.ensemble import ensemble
from ufm.run import Run
problem = ufm.DUFM(3, 4, 2, activation="{activation}", bias=True)
runs = [Run(problem, ufm.{rule}, ufm.Mixed(0.01, 0.02), steps=6, seed=seed) for seed in range(18)]
print(" ".join(repr(float(trajectory.loss[-1])) for trajectory in ensemble(runs)))
"""


@pytest.mark.parametrize(
    ("rule", "activation"),
    [("Momentum(0.3, 0.9)", "relu"), ("Adam(0.1)", "relu"), ("Signum(0.1, 0.5)", "identity")],
)
def test_without_compiler_the_numbers_are_the_same(python, rule, activation):
    code = WITHOUT_COMPILER.format(rule=rule, activation=activation)
    compiled, plain = (
        np.array(python(code, env=env).split(), float) for env in ({}, {"NUMBA_DISABLE_JIT": "1"})
    )
    assert np.abs(compiled - plain).max() <= 1e-14
