"""The figures of SignGD show what theorems 3.3 and 3.4 say, and count what they see."""

from pathlib import Path

import numpy as np
import pytest
import xarray
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import figures
import ufm
from figures import __main__ as command
from ufm import plotting
from ufm.theory import signgd_coupled, signgd_decoupled

NAMES = ("signgd_basin", "signgd_phases", "underflow")


@pytest.fixture(scope="module")
def computed() -> dict[str, xarray.Dataset]:
    return {name: figures.load(name).compute(True) for name in NAMES}


# ------------------------------------------------------------------------------------------------- basin


def test_small_steps_in_the_logits_arrive_and_large_ones_do_not(computed) -> None:
    data = computed["signgd_basin"]
    seeds, slow = data.sizes["seed"], data["reached"].sel(eta_lam=[0.03, 0.1])
    assert (slow.sel(logit_step=1.0) == seeds).all()
    assert (slow.sel(logit_step=2.5) == seeds).all()
    assert int(slow.sel(logit_step=20.0, scale=20.0).sum()) < 0.2 * seeds * 6
    assert (
        f"{3 * 2 * 2 * 2 * seeds} of {3 * 2 * 2 * 2 * seeds} runs with a logit step of at most 2.5"
        in (data.attrs["caption"])
    )


def test_what_is_counted_as_arrived_is_nearer_than_the_lock_radius(computed) -> None:
    data = computed["signgd_basin"]
    for K in data["classes"].values:
        cell = data.sel(classes=K)
        inside = cell["asymmetry"] < signgd_decoupled.lock_radius(K)
        np.testing.assert_array_equal(inside.sum("seed"), cell["reached"])


@pytest.mark.parametrize("logit_step", [2.0, 20.0])
def test_a_run_arrives_if_and_only_if_it_is_counted(computed, logit_step) -> None:
    """Carried on for as long again, a run that is counted ends at the minimiser, and one that is not does not."""
    module, K, shrinkage = figures.load("signgd_basin"), 6, 0.1
    asymmetry, _ = module._run(K, logit_step, shrinkage, 20.0, seed=0)
    lr = logit_step * np.sqrt(K - 1) / 2
    run = ufm.simulate(
        ufm.UFM(classes=K, width=K, features=ufm.SimplexETF()),
        ufm.SignGD(lr), ufm.Decoupled(shrinkage / lr), steps=880, init=ufm.Gaussian(20.0), seed=0,
    )  # fmt: skip
    away = np.abs(run["W"][-1] - signgd_decoupled.minimiser(shrinkage / lr, K)).max() * shrinkage / lr
    assert (asymmetry < signgd_decoupled.lock_radius(K)) == (logit_step == 2.0)
    assert (away < 1e-12) if logit_step == 2.0 else (away > 0.1)


def test_the_dashed_line_parts_where_the_cycle_attracts_from_where_it_does_not(computed) -> None:
    """Starts beside the cycle of three classes stay on it just above the line, and leave it just below."""
    line = computed["signgd_basin"].attrs["cycle_logit_step"]
    for factor in (0.95, 1.05):
        lr = factor * line * np.sqrt(2) / 2
        run = ufm.simulate(
            ufm.UFM(classes=3, width=3, features=ufm.SimplexETF()),
            ufm.SignGD(lr), ufm.Decoupled(1e-3), steps=int(40 / (1e-3 * lr)), record=ufm.Every(1000),
            init=ufm.Given(W=signgd_decoupled.cycle_state(lr, 1e-3)),
        )  # fmt: skip
        arrived = signgd_decoupled.asymmetry(run["W"][-1]) < signgd_decoupled.lock_radius(3)
        assert arrived == (factor < 1)


def test_doubtful_cells_are_counted(monkeypatch) -> None:
    module = figures.load("signgd_basin")
    monkeypatch.setattr(
        module, "_run", lambda K, step, shrinkage, scale, seed: (0.0, int(K == 3 and seed == 1))
    )
    data = module.compute(True)
    cells = data["reached"].size
    assert data.attrs["caption"].endswith(f"occurred in {cells // 3} of {cells} cells.")
    assert (data["reached"] == data.sizes["seed"]).all()


# ------------------------------------------------------------------------------------------------ phases


def test_phases_have_the_marks_that_the_theory_puts(computed) -> None:
    data = computed["signgd_phases"]
    marks = signgd_coupled.marks(data.attrs["lr"], 5e-3, 10)
    a, b, alpha = (data[name].values for name in ("a", "b", "alpha"))
    assert (data["matrix_difference"] <= 1e-14).all()
    np.testing.assert_allclose(data["matrix_alpha"], alpha, rtol=1e-9, atol=1e-25)
    assert int(np.argmax(alpha)) == marks.first_flip == 64
    np.testing.assert_allclose(alpha.max(), marks.peak, rtol=1e-12)
    assert abs(int(np.argmax(np.diff(a) <= 0)) - marks.phase_2_end) < 4
    np.testing.assert_allclose([a[-1], b[-1]], [marks.a_end, marks.b_end], rtol=0, atol=5 * data.attrs["lr"])
    cycle = np.abs(a - 9 * b)[-200:].max() / data.attrs["lr"]
    assert 1 < cycle <= marks.width
    assert f"<= {cycle:.2f} eta" in data.attrs["caption"]


def test_many_classes_pass_the_same_phases(computed) -> None:
    data = computed["signgd_phases"]
    flip, turn, a_end, _, peak = data["many_marks"].values
    step, alpha = data["many_step"].values, data["many_alpha"].values
    np.testing.assert_allclose(alpha.max(), peak, rtol=1e-9)
    assert step[np.argmax(alpha)] == flip
    np.testing.assert_allclose(data["many_a"][step > 1.1 * turn], a_end, rtol=0.02)


def test_alpha_vanishes_under_slow_decay_and_stays_under_fast_decay(computed) -> None:
    data = computed["signgd_phases"]
    assert (data["slow_alpha"] <= data["slow_bound"] * (1 + 1e-9)).all()
    assert (data["fast_alpha"] <= data["fast_bound"] * (1 + 1e-9)).all()
    assert float(data["slow_alpha"][-100:].max()) < 1e-19
    assert float(data["fast_alpha"][-1]) > 1
    assert " at 0 of " in data.attrs["caption"]


# --------------------------------------------------------------------------------------------- underflow


def test_plain_softmax_fails_where_and_only_where_probabilities_underflow(computed) -> None:
    data = computed["underflow"]
    for dtype, gap in zip(data["dtype"].values, data["underflow_gap"].values, strict=True):
        wrong = np.abs(data["ratio"].sel(program=f"plain softmax, {dtype}") - 1) > 0.01
        np.testing.assert_array_equal(wrong, data["logit_gap"] > gap)
    np.testing.assert_allclose(data["underflow_gap"], np.log(2) * np.array([1074, 149]), rtol=1e-14)


def test_the_package_follows_theorem_3_3_beyond_underflow(computed) -> None:
    data = computed["underflow"]
    error = np.abs(data["ratio"] - 1)
    assert float(error.sel(program="this package, float64").max()) < 1e-11
    assert float(error.sel(program="this package, float32").max()) < 1e-2
    path = data["path_alpha"].sel(program="this package, float64")
    np.testing.assert_allclose(path, data["path_theory"], rtol=1e-11)


def test_a_plain_run_leaves_the_theorem_at_the_step_that_the_theorem_names(computed) -> None:
    data = computed["underflow"]
    for dtype, step in zip(data["dtype"].values, data["underflow_step"].values, strict=True):
        path = data["path_alpha"].sel(program=f"plain softmax, {dtype}")
        wrong = np.abs(path - data["path_theory"]) > 1e-3 * data["path_theory"]
        first = int(data["step"].values[int(np.argmax(wrong.values))])
        assert 0.95 * step < first < 1.3 * step


def test_the_plain_program_is_right_where_nothing_underflows() -> None:
    module = figures.load("underflow")
    when = np.array([0, 1, 500])
    W = module._plain(0.5, 0.01, when, "float64")
    expected = [signgd_decoupled.weight(t, 0.5, 0.01) * signgd_decoupled.sign_pattern(10) for t in when]
    np.testing.assert_allclose(W, expected, rtol=1e-12)


# ------------------------------------------------------------------------------------------- the pictures


@pytest.mark.parametrize("name", NAMES)
def test_draw_needs_the_stored_numbers_alone(computed, name, tmp_path: Path, monkeypatch) -> None:
    def refuse(*args, **options):
        raise AssertionError("draw computes")

    (tmp_path / "numbers.nc").write_bytes(command.numbers(computed[name]))
    module = figures.load(name)
    for owner, attribute in ((ufm, "simulate"), (ufm, "simulate_symmetric"), (signgd_coupled, "marks")):
        monkeypatch.setattr(owner, attribute, refuse)
    with plotting.style():
        figure = module.draw(xarray.load_dataset(tmp_path / "numbers.nc", engine="scipy"))
        FigureCanvasAgg(figure).draw()
    assert len(figure.axes) >= 2


def test_panels_that_share_an_axis_keep_the_first_row_on_top() -> None:
    for across in (1, 2, 3):
        panels = Figure().subplots(1, across, sharey=True, squeeze=False)
        for ax in panels.flat:
            plotting.heatmap(ax, np.eye(3), "abc", "abc")
        assert all(ax.yaxis_inverted() for ax in panels.flat)


def test_phases_fill_the_axis_and_are_numbered() -> None:
    for scale, first in (("linear", 0.0), ("log", 1.0)):
        ax = Figure().subplots()
        ax.set_xscale(scale)
        artists = plotting.phases(ax, (10.0, 100.0), 1000.0)
        assert ax.get_xlim() == (first, 1000.0)
        numbers = [artist for artist in artists if hasattr(artist, "get_text")]
        assert [number.get_text() for number in numbers] == ["1", "2", "3"]
        assert first < numbers[0].get_position()[0] < 10 < numbers[1].get_position()[0] < 100
        assert len(artists) == 5


def test_place_marks_stand_where_they_are_told_with_their_names() -> None:
    ax = Figure().subplots()
    lines = plotting.place_marks(ax, [0.25, 0.75], ["one", "two"])
    assert [line.get_xdata()[0] for line in lines] == [0.25, 0.75]
    assert [text.get_text() for text in ax.texts] == ["one", "two"]
