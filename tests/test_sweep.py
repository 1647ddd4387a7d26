"""Sweeps: what is written, what comes back, and that every cell is the run that `simulate` would give."""

import numpy as np
import pytest
import xarray

import ufm
from ufm.ensemble import ensemble
from ufm.errors import IncompatibleError, InvalidProblemError
from ufm.run import Run
from ufm.sweeps import plan
from ufm.sweeps.measures import DEFAULT, LOSSES, Kept, measures
from ufm.sweeps.shards import LANES, compute
from ufm.threads import one_blas_thread

SMALL = ufm.UFM(classes=3, width=4, per_class=2)
FEW = ("loss", "nc0", "nc3")


def cell(data: xarray.Dataset, name: str, **labels) -> np.ndarray:
    return data[name].sel(**labels).values


def assert_equals_run(data: xarray.Dataset, run: ufm.Trajectory, **labels) -> None:
    """Every metric of a cell is that of the run in an ensemble of its own, bit for bit, and of the run to round-off."""
    (alone,) = ensemble([run.run])
    for name in data:
        if data[name].dims[-1:] != ("record",):
            continue

        def of(run: ufm.Trajectory, name=name) -> np.ndarray:
            return getattr(run, name) if name in LOSSES else getattr(ufm.metrics, name)(run)

        assert cell(data, name, **labels).tobytes() == of(alone).tobytes(), name
        # tens of steps of round-off, which metrics of nearly collapsed means magnify
        np.testing.assert_allclose(cell(data, name, **labels), of(run), rtol=1e-9, atol=1e-12, err_msg=name)
    assert cell(data, "status", **labels) == run.status.name
    assert cell(data, "final_step", **labels) == run.status.step


def test_product_has_a_dimension_for_every_list_and_every_cell_is_its_run():
    optimizers, decays = [ufm.Momentum, ufm.Adam], [None, ufm.Coupled(0.01), ufm.Decoupled(H=0.1)]
    data = ufm.sweep(
        SMALL, optimizers, decays, lr=[0.1, 0.01], momentum=[0.0, 0.9], steps=30, seed=range(2),
        record=ufm.Every(7),
    )  # fmt: skip
    assert dict(data.sizes) == {
        "optimizer": 2, "decay": 3, "lr": 2, "momentum": 2, "seed": 2, "record": 6
    }  # fmt: skip
    assert data["optimizer"].values.tolist() == ["Momentum", "Adam"]
    assert data["decay"].values.tolist() == ["None", "Coupled(0.01)", "Decoupled(H=0.1)"]
    assert data["lr"].values.tolist() == [0.1, 0.01]
    assert data["step"].values.tolist() == [0, 7, 14, 21, 28, 30]
    assert [name for name in data if data[name].dims[-1] == "record"] == list(DEFAULT)
    for kind in optimizers:
        for decay in decays:
            for lr, momentum, seed in ((0.1, 0.0, 1), (0.01, 0.9, 0)):
                run = ufm.simulate(SMALL, kind(lr, momentum), decay, steps=30, seed=seed, record=ufm.Every(7))
                assert_equals_run(
                    data, run, optimizer=kind.__name__, decay=str(decay), lr=lr, momentum=momentum, seed=seed
                )


def test_fields_of_the_problem_vary_and_shapes_never_mix():
    deep = ufm.DUFM(classes=3, width=5, depth=2)
    data = ufm.sweep(
        deep, ufm.GD(0.1), width=[3, 5], depth=[1, 3], per_class=[1, (2, 1, 1)], steps=9, metrics=FEW
    )
    assert data["per_class"].values.tolist() == ["1", "(2, 1, 1)"]
    for width in (3, 5):
        for depth in (1, 3):
            problem = ufm.DUFM(classes=3, width=width, depth=depth, per_class=(2, 1, 1))
            run = ufm.simulate(problem, ufm.GD(0.1), steps=9)
            assert_equals_run(data, run, width=width, depth=depth, per_class="(2, 1, 1)")


def test_zipped_fields_share_a_dimension():
    pairs = ufm.Zipped(lr=[0.1, 0.01], decay=[ufm.Coupled(0.01), None])
    data = ufm.sweep(SMALL, ufm.GD, pair=pairs, steps=9, seed=[3, 5], metrics=FEW)
    assert data["nc0"].dims == ("pair", "seed", "record")
    assert data["lr"].dims == data["decay"].dims == ("pair",)
    run = ufm.simulate(SMALL, ufm.GD(0.01), steps=9, seed=5)
    assert_equals_run(data.isel(pair=1), run, seed=5)


def test_zipped_may_hold_the_optimizer_itself():
    methods = ufm.Zipped(optimizer={"SGDW": ufm.Momentum(0.1, 0.5), "AdamW": ufm.Adam(0.01)}, steps=[4, 9])
    data = ufm.sweep(SMALL, method=methods, decay=ufm.Decoupled(0.1), metrics=FEW)
    run = ufm.simulate(SMALL, ufm.Adam(0.01), ufm.Decoupled(0.1), steps=9)
    assert data["optimizer"].values.tolist() == ["SGDW", "AdamW"]
    assert_equals_run(data.isel(method=1), run)


def test_a_dict_names_the_values_of_an_axis():
    schedules = {0.1: ufm.StepDecay(0.1), 0.2: ufm.Cosine(0.2)}
    data = ufm.sweep(
        SMALL, ufm.GD, {"none": None, "half": ufm.Coupled(0.5)}, lr=schedules, steps=9, metrics=FEW
    )
    assert data["lr"].values.tolist() == [0.1, 0.2]
    run = ufm.simulate(SMALL, ufm.GD(ufm.Cosine(0.2)), ufm.Coupled(0.5), steps=9)
    assert_equals_run(data, run, lr=0.2, decay="half")


def test_a_share_of_the_decay_is_coupled():
    data = ufm.sweep(
        SMALL, ufm.GD(0.1), total_decay=[0.0, 0.02], coupled_share=[0.0, 0.25, 1.0], steps=9, metrics=FEW
    )
    decays = {0.0: ufm.Decoupled(0.02), 0.25: ufm.Mixed(0.005, 0.015), 1.0: ufm.Coupled(0.02)}
    for share, decay in decays.items():
        run = ufm.simulate(SMALL, ufm.GD(0.1), decay, steps=9)
        assert_equals_run(data, run, total_decay=0.02, coupled_share=share)


def test_classes_take_their_fields_from_axes():
    data = ufm.sweep(
        SMALL, ufm.SignGD, [ufm.Coupled, ufm.Decoupled], rate=[0.1, 0.2], lr=0.01, init=ufm.Gaussian,
        scale=[0.1, 1.0], steps=9, metrics=FEW,
    )  # fmt: skip
    run = ufm.simulate(SMALL, ufm.SignGD(0.01), ufm.Decoupled(0.2), init=ufm.Gaussian(1.0), steps=9)
    assert_equals_run(data, run, decay="Decoupled", rate=0.2, scale=1.0)


def test_one_run_without_any_list():
    data = ufm.sweep(SMALL, ufm.GD(0.1), steps=5)
    assert dict(data.sizes) == {"record": 6}
    assert_equals_run(data, ufm.simulate(SMALL, ufm.GD(0.1), steps=5))


def test_runs_of_different_lengths_are_filled_up():
    data = ufm.sweep(SMALL, ufm.GD(0.1), steps=[2, 4], record=ufm.Every(1), metrics=["loss"])
    assert data["step"].values.tolist() == [[0, 1, 2, -1, -1], [0, 1, 2, 3, 4]]
    assert np.isnan(data["loss"].values).tolist() == [[False] * 3 + [True] * 2, [False] * 5]
    assert cell(data, "loss", steps=2)[:3].tobytes() == cell(data, "loss", steps=4)[:3].tobytes()


def test_a_diverged_run_keeps_its_records_and_says_so():
    problem = ufm.UFM(classes=3, width=4, loss="mse")
    data = ufm.sweep(problem, ufm.GD, lr=[0.1, 1e3], steps=60, record=ufm.Every(1), metrics=FEW)
    assert data["status"].values.tolist() == ["completed", "diverged"]
    (run,) = ensemble([Run(problem, ufm.GD(1e3), steps=60)])
    assert data["final_step"].values.tolist() == [60, run.status.step]
    values = cell(data, "nc0", lr=1e3)
    assert values[: len(run)].tobytes() == ufm.metrics.nc0(run).tobytes()
    assert 0 < len(run) < 60
    assert np.isnan(values[len(run) :]).all()


def test_claims_judge_every_run():
    names = ("zhao2026.thm3.2", "zhao2026.thm3.3")
    data = ufm.sweep(
        SMALL, [ufm.GD, ufm.SignGD], ufm.Coupled(0.01), lr=0.1, steps=200, metrics=["nc0"], claims=names
    )
    assert data["verdict"].dims == ("optimizer", "claim")
    for kind in (ufm.GD, ufm.SignGD):
        report = ufm.compare(
            *ensemble([Run(SMALL, kind(0.1), ufm.Coupled(0.01), steps=200, record=ufm.LogSpaced(100))])
        )
        for name in names:
            labels = {"optimizer": kind.__name__, "claim": name}
            assert cell(data, "verdict", **labels) == report[name].verdict
            for field in ("error", "bound", "ratio", "control"):
                np.testing.assert_equal(cell(data, field, **labels), getattr(report[name], field))
    assert cell(data, "verdict", optimizer="GD", claim=names[0]) == "holds"


def test_metrics_of_the_users_own():
    def last_weight(run: ufm.Trajectory) -> np.ndarray:
        return run["W"][:, -1, -1] + run.steps

    quotient = lambda run: ufm.metrics.nc1(run, form="quotient")  # noqa: E731
    data = ufm.sweep(SMALL, ufm.GD(0.1), seed=[0, 1], steps=5, metrics={"a": last_weight, "b": quotient})
    (run,) = ensemble([Run(SMALL, ufm.GD(0.1), seed=1, steps=5)])
    assert cell(data, "a", seed=1).tobytes() == last_weight(run).tobytes()
    assert cell(data, "b", seed=1).tobytes() == quotient(run).tobytes()


@pytest.mark.parametrize(
    "problem", [SMALL, ufm.DUFM(4, (3, 5), 2, bias=True), ufm.UFM(2, 3, features=[[1.0, 2.0]] * 3)]
)
def test_windows_of_many_runs_give_the_bits_of_each(problem, monkeypatch):
    runs = [ufm.simulate(problem, ufm.GD(0.1), steps=20, seed=seed) for seed in range(4)]
    every = sorted({entry.function.__name__ for entry in ufm.metrics.catalogue()} - {"spectrum"})
    kept = Kept(measures(every), ())
    for block in (1, 700, 10**6):
        monkeypatch.setattr("ufm.sweeps.windows.BLOCK", block)
        arrays = kept.empty(len(runs), 21)
        kept.put(arrays, runs)
        for row, run in enumerate(runs):
            for name in every:
                assert arrays[name][row].tobytes() == getattr(ufm.metrics, name)(run).tobytes(), name


def test_shards_do_not_depend_on_the_number_of_workers_and_cover_every_cell_once():
    planned = plan(
        SMALL, [ufm.GD, ufm.SignGD], lr=np.linspace(0.1, 1, 50), width=[2, 3], seed=range(9), steps=9
    )
    cells = np.concatenate([shard.cells for shard in planned.shards])
    assert sorted(cells) == list(range(planned.grid.size)) == list(range(1800))
    for shard in planned.shards:
        runs = shard.runs
        assert len({(run.problem, type(run.optimizer)) for run in runs}) == 1
        assert len(runs) <= 16


def test_shards_are_whole_ensembles():
    from ufm.kernels import lanes

    assert lanes.LANES == LANES


def test_long_runs_make_small_shards():
    large = ufm.UFM(classes=100, width=128, per_class=10)
    planned = plan(large, ufm.GD(0.1), seed=range(64), steps=10**6)
    assert {len(shard.cells) for shard in planned.shards} == {1}


def test_the_number_of_threads_does_not_change_a_bit():
    options = {"lr": [0.1, 0.2], "width": [3, 5], "seed": range(3), "steps": 30, "metrics": FEW}
    one, three = (ufm.sweep(SMALL, ufm.Adam, workers=workers, **options) for workers in (1, 3))
    assert one.identical(three)


def test_provenance_units_and_formulas():
    data = ufm.sweep(SMALL, ufm.GD(0.1), ufm.Coupled(0.01), seed=[0, 1], steps=5)
    assert "Coupled(0.01)" in data.attrs["fixed"]
    assert '"numpy"' in data.attrs["environment"]
    assert data["nc0"].attrs == {"long_name": "||W^T 1||^2/K", "units": "1"}
    for name in data:
        assert data[name].attrs["long_name"]


@pytest.mark.parametrize("engine", ["scipy", "h5netcdf"])
def test_netcdf_round_trip(engine, tmp_path):
    if engine == "h5netcdf":
        pytest.importorskip("h5netcdf")
        pytest.importorskip("h5py")
    data = ufm.sweep(
        SMALL,
        [ufm.GD, ufm.SignGD],
        [None, ufm.Coupled(0.1)],
        lr=[0.1, 0.2],
        steps=5,
        metrics=FEW,
        claims=True,
    )
    data.to_netcdf(tmp_path / "sweep.nc", engine=engine)
    back = xarray.load_dataset(tmp_path / "sweep.nc", engine=engine)
    assert back.equals(data)
    assert back.attrs == data.attrs


def test_estimate_says_what_a_sweep_takes():
    planned = plan(SMALL, [ufm.GD, ufm.Adam], lr=[0.1, 0.2], seed=range(20), steps=1000, metrics=FEW)
    found = planned.estimate(workers=2)
    assert (found.cells, found.shards, found.finished, found.workers) == (80, len(planned.shards), 0, 2)
    data = planned.run()
    kept = sum(data[name].nbytes for name in (*FEW, "final_step", "undecided_signs")) + 80
    assert found.bytes == kept
    assert 0 < found.least <= found.seconds <= found.most
    assert found.probed == 1.0
    assert "80" in str(found)
    assert "later ones may cost more" not in str(found)


class SlowAtTheEnd:
    """Runs whose steps from `late` on take ten times as long, on a clock that stands still otherwise."""

    def __init__(self, late: int, monkeypatch) -> None:
        self.late, self.now, self.steps = late, 0.0, []
        monkeypatch.setattr("ufm.ensemble.ensemble", self)
        monkeypatch.setattr("ufm.sweeps.estimate.time.perf_counter", lambda: self.now)

    def __call__(self, runs, workers):
        trajectories = ensemble(runs, workers=workers)
        taken = runs[0].steps
        self.steps.append(taken)
        each = 1e-6 * (min(taken, self.late) + 10 * max(0, taken - self.late))
        self.now += each * len(runs)
        for trajectory in trajectories:
            trajectory.stats["seconds"] = each
        return trajectories


@pytest.mark.parametrize(("steps", "late"), [(1000, 300), (1000, 10**6)])
def test_probes_see_late_steps(steps, late, monkeypatch):
    clock = SlowAtTheEnd(late, monkeypatch)
    found = plan(SMALL, ufm.GD(0.1), seed=range(100), steps=steps, metrics=FEW).estimate(workers=1)
    one = 1e-6 * (min(steps, late) + 10 * max(0, steps - late))
    assert clock.steps[-1] == steps
    assert found.seconds == found.least == found.most == pytest.approx(100 * one)


def test_probes_that_end_before_the_runs_say_so(monkeypatch):
    monkeypatch.setattr("ufm.sweeps.estimate.MOST_PROBE_SECONDS", 0.02)
    monkeypatch.setattr("ufm.sweeps.estimate.PROBE_SECONDS", 0.02)
    clock = SlowAtTheEnd(128, monkeypatch)
    found = plan(SMALL, ufm.GD(0.1), seed=range(100), steps=2000, metrics=FEW).estimate(workers=1)
    last = clock.steps[-1]
    assert 128 < last < 2000
    assert found.probed == last / 2000
    assert found.seconds == pytest.approx(100e-6 * (128 + 10 * (2000 - 128)))
    assert found.least < found.seconds < found.most
    assert f"the first {found.probed:.0%} of their steps; later ones may cost more" in str(found)


def test_probes_are_the_first_steps_of_the_runs():
    from ufm.sweeps.estimate import _begin

    run = Run(SMALL, ufm.Momentum(ufm.StepDecay(0.1), 0.9), ufm.Coupled(0.01), steps=100, record=ufm.Every(7))
    (whole,), (begun,) = ensemble([run]), ensemble([_begin(run, 40)])
    known = whole.steps <= 40
    assert begun.steps.tolist() == [*whole.steps[known], 40]
    assert begun.states[:-1].tobytes() == whole.states[known].tobytes()


def test_a_run_that_ends_early_costs_no_more(monkeypatch):
    problem = ufm.UFM(classes=3, width=4, loss="mse")
    planned = plan(problem, ufm.GD(1e3), seed=range(4), steps=10**9, record=ufm.At([0]), metrics=FEW)
    assert planned.estimate(workers=1).seconds < 60  # a billion steps would be more than a minute


BAD = [
    ({"lr": [0.1, -1.0]}, "GD.lr is -1.0; allowed"),
    ({"lr": []}, r"sweep.lr is \[\]; allowed: at least one value"),
    ({"lr": [0.1, 0.1]}, "sweep.lr holds 0.1 twice"),
    ({}, "sweep.optimizer is the class GD without lr"),
    ({"lr": 0.1, "momentum": [0.9]}, "sweep.momentum is no field of these runs"),
    ({"lr": 0.1, "optimizer": [ufm.GD, ufm.Adam], "momentum": 0.9}, "allowed: the fields of GD, lr"),
    ({"lr": 0.1, "optimizer": ufm.Adam, "momentum": 0.9, "beta1": [0.5]}, "momentum is Adam.beta1, which is given too"),
    ({"lr": 0.1, "wdith": [3]}, "sweep.wdith is no field of these runs; allowed: .*width"),
    ({"lr": 0.1, "width": [0]}, "UFM.width is 0"),
    ({"lr": 0.1, "steps": None}, "sweep.steps is None"),
    ({"lr": 0.1, "steps": [5, -1]}, "steps is -1"),
    ({"lr": 0.1, "seed": [0, -1]}, "sweep.seed is -1"),
    ({"lr": 0.1, "batch": [2, 99]}, "batch is 99"),
    ({"lr": 0.1, "record": [ufm.Every(1)]}, "one object for all runs"),
    ({"lr": 0.1, "total_decay": [0.1]}, "allowed: both, without decay"),
    ({"lr": 0.1, "total_decay": [0.1], "coupled_share": [1.5]}, "a number from 0 to 1"),
    ({"lr": 0.1, "decay": ufm.Coupled(0.1), "total_decay": 1.0, "coupled_share": [1.0]}, "both, without decay"),
    ({"lr": 0.1, "decay": ufm.Coupled(W3=0.1)}, "W3"),
    ({"lr": 0.1, "pair": ufm.Zipped(lr=[1, 2])}, "sweep.lr is given twice"),
    ({"lr": 0.1, "metrics": ["nc9"]}, "sweep.metrics is 'nc9'; allowed: loss"),
    ({"lr": 0.1, "metrics": ["nc0", "nc0"]}, "holds nc0 twice"),
    ({"lr": 0.1, "metrics": {"status": ufm.metrics.nc0}}, "'status'; allowed: another name"),
    ({"lr": [0.1], "metrics": {"lr": ufm.metrics.nc0}}, "'lr'; allowed: another name"),
    ({"lr": 0.1, "metrics": ["spectrum"]}, "one number for each record"),
    ({"lr": 0.1, "metrics": 3}, "names or functions"),
    ({"lr": 0.1, "claims": ["zhao2026.thm9"]}, "sweep.claims is 'zhao2026.thm9'"),
    ({"lr": 0.1, "executor": 3}, "sweep.executor is 3"),
    ({"lr": 0.1, "workers": 0}, "sweep.workers is 0"),
    ({"lr": 0.1, "record": ufm.At([50])}, "up to the end of the run, 9"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), BAD)
def test_bad_input_gets_one_sentence(changes, sentence):
    arguments = {"problem": SMALL, "optimizer": ufm.GD, "steps": 9, **changes}
    with pytest.raises((InvalidProblemError, IncompatibleError), match=sentence) as caught:
        ufm.sweep(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fields", [{}, {"lr": 3}, {"lr": [1, 2], "beta": [1]}])
def test_zipped_refuses_what_cannot_go_together(fields):
    with pytest.raises(InvalidProblemError, match="Zipped"):
        ufm.Zipped(**fields)


def test_one_blas_thread_inside_whoever_else_is_there():
    from threadpoolctl import threadpool_info, threadpool_limits

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with threadpool_limits(2, "blas"):
        before = threads()
        with one_blas_thread:
            with one_blas_thread:
                assert threads() == {1}
            assert threads() == {1}
        assert threads() == before


def test_a_shard_is_computed_by_one_function_from_its_description():
    import pickle

    planned = plan(SMALL, ufm.GD, lr=[0.1, 0.2], steps=9, metrics=FEW)
    (shard,) = planned.shards
    here, there = compute(shard), compute(pickle.loads(pickle.dumps(shard)))
    assert {name: array.tobytes() for name, array in here.items()} == {
        name: array.tobytes() for name, array in there.items()
    }
