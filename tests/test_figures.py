"""Figures compute, draw from stored numbers alone, and are written whole or not at all."""

import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import mpmath
import numpy as np
import pytest
import xarray
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

import figures
import ufm
from figures import __main__ as command
from ufm import plotting
from ufm.claims import registry
from ufm.errors import InvalidProblemError, StorageError
from ufm.theory import published_row_sum, row_sum

ROOT = Path(__file__).resolve().parents[1]
NAMES = figures.names()
SVG_LIMIT = 100_000


@pytest.fixture(scope="module")
def computed() -> dict[str, xarray.Dataset]:
    return {name: figures.load(name).compute(True) for name in NAMES}


def stored(data: xarray.Dataset, folder: Path) -> xarray.Dataset:
    path = folder / "numbers.nc"
    path.write_bytes(command.numbers(data))
    return xarray.load_dataset(path, engine="scipy")


def pixels(name: str, data: xarray.Dataset) -> bytes:
    with plotting.style():
        return command.picture(figures.load(name).draw(data), "png")


def test_every_figure_named_by_a_claim_exists() -> None:
    assert {claim.figure for claim in registry().values() if claim.figure is not None} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_module_is_exactly_compute_and_draw(name) -> None:
    module = figures.load(name)
    own = {
        key
        for key, value in vars(module).items()
        if callable(value)
        and getattr(value, "__module__", "") == module.__name__
        and not isinstance(value, type)
    }
    assert {key for key in own if not key.startswith("_")} == {"compute", "draw"}
    assert module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_numbers_come_with_caption_source_and_settings(computed, name) -> None:
    data = computed[name]
    for key in ("caption", "source", "settings"):
        assert isinstance(data.attrs[key], str)
        assert data.attrs[key].isascii()
    assert data.attrs["caption"].endswith(".")
    assert "nan" not in data.attrs["caption"]
    for variable in data.values():
        assert np.isfinite(variable.values).all()


@pytest.mark.parametrize("name", NAMES)
def test_numbers_survive_the_disk(computed, name, tmp_path) -> None:
    again = stored(computed[name], tmp_path)
    xarray.testing.assert_equal(again, computed[name])
    assert {key: value for key, value in again.attrs.items() if isinstance(value, str)} == {
        key: value for key, value in computed[name].attrs.items() if isinstance(value, str)
    }


@pytest.mark.parametrize("name", NAMES)
def test_draw_needs_the_stored_numbers_alone(computed, name, tmp_path, monkeypatch) -> None:
    def refuse(*args, **options):
        raise AssertionError("draw computes")

    expected = pixels(name, computed[name])
    module = figures.load(name)
    for owner, attribute in ((ufm, "simulate"), (row_sum, "growth"), (row_sum, "round_off_bound")):
        monkeypatch.setattr(owner, attribute, refuse)
    monkeypatch.setattr(published_row_sum, "predicted_heatmap", refuse)
    monkeypatch.setattr(module, "compute", refuse)
    assert pixels(name, stored(computed[name], tmp_path)) == expected


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_clipped(computed, name) -> None:
    """All that is drawn lies inside the picture."""
    with plotting.style():
        figure = figures.load(name).draw(computed[name])
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        used, (width, height) = figure.get_tightbbox(canvas.get_renderer()), figure.get_size_inches()
    assert -0.01 < used.x0 < used.x1 < width + 0.01
    assert -0.01 < used.y0 < used.y1 < height + 0.01


# ------------------------------------------------------------------------------------------------ numbers


def test_heatmap_agrees_with_print_in_every_cell(computed) -> None:
    data = computed["nc0_heatmap"]
    assert data["printed"].shape == (7, 8)
    rounded = np.round(data["predicted"].values, 2)
    assert int((rounded == data["printed"].values).sum()) == 56
    assert int(data["agrees"].sum()) == 56
    assert int(data["informative"].sum()) * data.sizes["momentum"] == 49
    assert float(np.abs(data["difference"]).max()) <= 0.005
    assert "56 of 56" in data.attrs["caption"]
    assert "49 of the 49" in data.attrs["caption"]
    assert "1.7542" in data.attrs["caption"]
    assert "200 epochs of 469 steps" in data.attrs["caption"]


def test_heatmap_counts_what_it_sees(monkeypatch) -> None:
    """A prediction wrong by one percent is counted as such: nothing in the figure is written by hand."""
    right = published_row_sum.predicted_heatmap
    monkeypatch.setattr(
        published_row_sum, "predicted_heatmap", lambda decoupled=False: 1.01 * right(decoupled=decoupled)
    )
    data = figures.load("nc0_heatmap").compute(True)
    count = int(data["agrees"].sum())
    assert count < 40
    assert f"{count} of 56" in data.attrs["caption"]
    title = figures.load("nc0_heatmap").draw(data)._suptitle.get_text()
    assert f"{count} of 56" in title


def test_simulation_follows_the_law_within_round_off_in_every_regime(computed) -> None:
    data = computed["row_sum_regimes"]
    assert (data["error"] <= data["bound"]).all()
    assert float(data["bound"].max()) < 1e-11  # so that the bound says something
    np.testing.assert_allclose(data["signed"], data["growth"], rtol=0, atol=1e-11)


def test_regimes_are_what_their_names_say(computed) -> None:
    data = computed["row_sum_regimes"]
    signed = data["signed"]
    crossings = {
        name: int((np.diff(np.sign(signed.sel(regime=name))) != 0).sum()) for name in data["regime"].values
    }
    for name in ("over-damped", "critically damped", "decoupled decay"):
        assert crossings[name] == 0 or float(np.abs(signed.sel(regime=name)).min()) < 1e-10
    for name in ("under-damped", "mixed decay", "Nesterov", "cosine to 0"):
        assert crossings[name] >= 3
    assert 1 <= crossings["step decay"] <= crossings["under-damped"]
    t = 60
    envelope = np.abs(signed.isel(step=slice(t, None))).max("step")
    assert envelope.sel(regime="critically damped") == envelope.min()


def test_alpha_stays_without_decay_and_is_nothing_beside_the_saddle(computed) -> None:
    data = computed["nc0_not_sufficient"]
    alpha = data["free_alpha"].values
    np.testing.assert_allclose(alpha, alpha[0], rtol=1e-12)
    assert data["free_nc3"].values[-1] < 0.1 * data["free_nc3"].values[0]
    for run in ("free", "escape"):
        assert (data[f"{run}_relative"] <= data[f"{run}_bound"] * (1 + 1e-9)).all()
    before = data["escape_step"].values <= 150
    assert data["escape_nc2w"].values[before].min() > 0.7
    assert data["escape_alpha"].values.max() < 1e-14
    assert data["escape_nc2w"].values[-1] < 0.5


def test_every_predicted_run_holds_and_all_that_theorems_cover_are_predicted(computed) -> None:
    data = computed["nc0_optimizers"]
    claim, setting = data["claim"].values, data["setting"].values
    scale_free = np.array([panel.startswith(("SignGD", "Signum", "Adam")) for panel in data["panel"].values])
    predicted = claim != "none"
    np.testing.assert_array_equal(predicted, (setting == "frozen") | ~scale_free)
    assert set(data["verdict"].values[predicted]) == {"holds"}
    alpha, law = data["alpha"].values[predicted], data["predicted"].values[predicted]
    seen = law > 1e-6
    np.testing.assert_allclose(alpha[seen], law[seen], rtol=1e-6)
    assert f"{predicted.sum()} of {predicted.size} runs are predicted" in data.attrs["caption"]


def test_optimizers_move_nc0_as_the_theorems_say(computed) -> None:
    data = computed["nc0_optimizers"]

    def alpha(panel: str, kind: str) -> xarray.DataArray:
        [i] = np.flatnonzero((data["panel"] == panel).values & (data["kind"] == kind).values)
        return data["alpha"][int(i)]

    np.testing.assert_allclose(alpha("GD", "coupled"), alpha("GD", "decoupled"), rtol=1e-12)
    np.testing.assert_allclose(alpha("momentum", "decoupled"), alpha("GD", "decoupled"), rtol=1e-9)
    assert alpha("momentum", "coupled")[-1] < 0.1 * alpha("momentum", "decoupled")[-1]
    for name in ("SignGD", "Signum", "Adam"):
        assert alpha(name, "decoupled")[-1] > 1.5 * alpha(name, "coupled")[-1]
        rises_and_falls = alpha(f"{name}, coupled", "coupled").values
        assert rises_and_falls[-1] < 1e-2 * rises_and_falls.max()
        assert (np.diff(alpha(f"{name}, decoupled", "decoupled")) > 0).all()
    step, lam = data["step"].values, float(data["lam"].max())
    rate = figures.load("nc0_optimizers").RATES["decoupled"]
    theorem = (8 / lam) ** 2 * (1 - (1 - rate * lam) ** step) ** 2
    np.testing.assert_allclose(alpha("SignGD, decoupled", "decoupled")[1:], theorem[1:], rtol=1e-9)


def test_nc0_falls_with_the_coupled_share_on_the_closed_form(computed) -> None:
    data = computed["decay_interpolation"]
    for name in ("alpha", "nc2", "nc3"):
        assert (data[name].diff("share") < 0).all(), name
    momentum = data["alpha"].sel(optimizer="momentum")
    np.testing.assert_allclose(momentum, data["law"], rtol=1e-9)
    # control: the closed form of one order is not that of the other
    wrong = np.abs(momentum.values / data["law"].values[::-1] - 1).max()
    assert wrong > 1e-5
    logs = np.log(data["law"].sel(order="before"))
    slope = float((logs[-1] - logs[0]) / (-2 * 0.1 * 10_000 * 5e-4))
    assert slope == pytest.approx(1 / (1 - 0.9) - 1, rel=1e-2)


def test_order_of_the_shrink_is_a_change_of_rates(computed) -> None:
    data = computed["decay_interpolation"]
    alpha = data["alpha"]
    effect = alpha.sel(order="after", drop=True) / alpha.sel(order="before", drop=True) - 1
    for name, largest in (("momentum", 1e-4), ("adam", 3e-6)):
        found, expected = effect.sel(optimizer=name).values, data["equal"].sel(optimizer=name).values
        assert np.abs(found).max() > largest
        np.testing.assert_allclose(found, expected, atol=1e-3 * largest)
    assert (effect.sel(share=1.0) == 0).all()


@pytest.mark.parametrize(
    "optimizer", [ufm.Momentum(0.1, 0.9), ufm.Momentum(0.1, 0.5, nesterov=True), ufm.Adam(0.01)], ids=repr
)
def test_shrinking_after_the_step_is_shrinking_before_it_at_other_rates(optimizer) -> None:
    """At every step and in every block, not only in NC0."""
    coupled, decoupled = 0.02, 3.0
    lr, changed = row_sum.rates_before(optimizer.lr, decoupled)
    problem = ufm.UFM(4, 5, 3)

    def states(optimizer, decoupled: float, shrink: str) -> np.ndarray:
        decay = ufm.Mixed(coupled=coupled, decoupled=decoupled, shrink=shrink)
        return ufm.simulate(problem, optimizer, decay, steps=60).states

    after = states(optimizer, decoupled, "after")
    np.testing.assert_allclose(states(replace(optimizer, lr=lr), changed, "before"), after, atol=1e-12)
    assert np.abs(states(optimizer, decoupled, "before") - after).max() > 1e-3


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_runs_of_equal_loss_differ_in_nc0_as_the_law_says(computed, quick) -> None:
    """Acceptance: at least five pairs, losses equal to 1 %, NC0 apart by the law's factor of 2 or more."""
    name = "momentum_beyond_loss"
    data = computed[name] if quick else figures.load(name).compute(False)
    assert float(data["pair_mismatch"].max()) <= 0.01
    assert (data["pair_error"] <= data["pair_bound"]).all()
    assert float(data["pair_bound"].max()) < 1e-5
    law = data["pair_law"].values
    informative = np.maximum(law, 1 / law) >= 2
    assert informative.sum() >= 5
    assert informative[0].all()  # same learning rate: every pair
    assert not informative[1].any()  # rescaled time: none
    assert informative[2].any()  # decoupled decay
    assert (data["pair_control"].values[informative] > 10).all()
    np.testing.assert_allclose(data["pair_ratio"], law, rtol=1e-6)


def test_ratios_at_equal_loss_are_the_theorems(computed) -> None:
    """The law's ratios from theorems 3.1 and 3.2 at 40 digits; with the other kind of decay they miss the bound."""
    data, module = computed["momentum_beyond_loss"], figures.load("momentum_beyond_loss")
    betas = data["beta"].values
    first, second = np.array(list(combinations(range(len(betas)), 2))).T
    for i, family in enumerate(module.FAMILIES):
        lam, steps = family.coupled or family.decoupled, data["matched_step"].values[i]

        def squares(coupled: bool, family=family, lam=lam, steps=steps) -> np.ndarray:
            with mpmath.workdps(40):
                found = []
                for t, beta in zip(steps.tolist(), betas, strict=True):
                    lr, b, x = (mpmath.mpf(float(value)) for value in (family.lr(beta), beta, lam))
                    by_rule = (
                        row_sum.theorem_3_2(t, lr, b, x, xp=mpmath) if coupled and beta else (1 - lr * x) ** t
                    )
                    found.append(float(mpmath.re(by_rule) ** 2))
            return np.array(found)

        right, wrong = squares(bool(family.coupled)), squares(not family.coupled)
        np.testing.assert_allclose(right[first] / right[second], data["pair_law"][i], rtol=1e-12)
        miss = np.abs(wrong[first] / wrong[second] / data["pair_ratio"].values[i] - 1)
        assert (miss > 1e4 * data["pair_bound"].values[i]).all()


def test_matched_steps_are_the_last_or_the_nearest_in_loss() -> None:
    module = figures.load("momentum_beyond_loss")
    slow, settled = np.array([4.0, 2.0, 1.0]), np.array([4.0, 0.999, 0.995])
    fast = np.array([4.0, 1.02, 0.5])
    assert module._matched_steps([slow, settled, fast]) == [2, 2, 1]


def test_rounding_floors_stop_nc0_below_the_error_model_and_far_above_the_law(computed) -> None:
    data = computed["float_floor"]
    assert (data["error"] <= data["floor"]).all()
    np.testing.assert_allclose(data["alpha"], data["norm"] ** 2 / 10, rtol=1e-12)

    def end(panel: str, label: str, name: str = "norm") -> float:
        [i] = np.flatnonzero((data["panel"] == panel).values & (data["label"] == label).values)
        return float(data[name][int(i), -1])

    for panel in ("GD", "momentum"):
        double, single = end(panel, "float64"), end(panel, "float32")
        assert end(panel, "float64", "law") < 1e-6 * double
        assert double > 1e-3 * end(panel, "float64", "floor")
        assert 0.1 < single / double / 2.0**29 < 10
        for label in ("float64", "float32"):
            [i] = np.flatnonzero((data["panel"] == panel).values & (data["label"] == label).values)
            assert 0.4 < end(panel, label) / data["estimate"].values[i] < 2.5
    law = end("table 2", "float64", "law")
    assert end("table 2", "float64") == pytest.approx(law, rel=1e-6)
    assert end("table 2", "float32") > 10 * law
    assert end("table 2", "float32, batches of 10") > 2 * law
    module = figures.load("float_floor")
    assert law / row_sum_of_linear_default() == pytest.approx(1.43e-5 / published_row_sum.START, rel=0.01)
    assert 10 * law < module.PRINTED


def row_sum_of_linear_default() -> float:
    """||W_0^T 1|| of the start of the figure."""
    module = figures.load("float_floor")
    run = ufm.simulate(module.PROBLEM, ufm.GD(0.0), steps=0, init=module.START)
    return float(ufm.metrics.nc0(run, "norm")[0])


# ------------------------------------------------------------------------------------- drawing pieces


def test_floor_curve_draws_the_law_and_what_round_off_adds() -> None:
    ax = Figure().subplots()
    steps, law, floor = np.array([1, 10, 100]), np.array([1.0, 1e-3, 1e-30]), np.full(3, 1e-8)
    dots, line, allowed = plotting.floor_curve(ax, steps, law + 1e-9, law, floor)
    np.testing.assert_array_equal(dots.get_ydata(), law + 1e-9)
    np.testing.assert_array_equal(line.get_ydata(), law)
    np.testing.assert_array_equal(allowed.get_ydata(), law + floor)
    assert dots.get_color() == allowed.get_color() != line.get_color()


def test_alpha_axis_is_the_squared_norm_over_k() -> None:
    figure = Figure()
    ax = figure.subplots()
    plotting.log_axis(ax, "y", 1e-4, 1e1)
    right = plotting.alpha_axis(ax, classes=10)
    figure.draw_without_rendering()
    np.testing.assert_allclose(right.get_ylim(), (1e-9, 1e1))


def test_sequence_goes_from_dark_to_light() -> None:
    lightness = [sum(to_rgb(colour)) for colour in plotting.sequence(5)]
    assert lightness == sorted(lightness)
    assert len(set(plotting.sequence(5))) == 5


def test_dots_and_line_keep_the_axes_and_draw_what_is_given() -> None:
    ax = Figure().subplots()
    x = np.array([0.0, 0.5, 1.0])
    [dots] = plotting.dots_and_line(ax, x, x)
    [line] = plotting.dots_and_line(ax, x, predicted=2 * x)
    assert (dots.get_linestyle(), line.get_linestyle()) == ("None", "--")
    np.testing.assert_array_equal(line.get_ydata(), 2 * x)
    mark = plotting.ring(ax, 0.5, 1.0)
    assert (mark.get_marker(), mark.get_markerfacecolor()) == ("o", "none")
    assert ax.get_xscale() == "linear"


# ------------------------------------------------------------------------------------------------ the runner


def test_list_names_every_figure(capsys) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert all(len(line.split()) > 3 for line in lines)


def test_unknown_name_is_one_sentence_and_nothing_is_written(tmp_path, capsys) -> None:
    assert command.main(["nc0_heatmap", "nc0_heatmaps", "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "no figure named 'nc0_heatmaps'" in printed.err
    assert "Did you mean nc0_heatmap?" in printed.err
    assert not (tmp_path / "out").exists()


def test_picture_and_numbers_are_written(tmp_path, capsys) -> None:
    assert command.main(["nc0_heatmap", "--quick", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"nc0_heatmap.{kind}" for kind in ("nc", "pdf", "png")
    ]
    assert (tmp_path / "nc0_heatmap.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "nc0_heatmap.pdf").read_bytes().startswith(b"%PDF")
    assert "caption" in xarray.load_dataset(tmp_path / "nc0_heatmap.nc", engine="scipy").attrs
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("nc0_heatmap")
    assert " s " in line


def test_all_figures_by_default(tmp_path, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(command, "_make", lambda name, quick, out: made.append((name, quick, out)))
    assert command.main(["--quick", "--out", str(tmp_path)]) == 0
    assert made == [(name, True, tmp_path) for name in NAMES]


@pytest.mark.parametrize("stage", ["compute", "draw", "pdf", "png"])
def test_nothing_is_half_written(stage, tmp_path, monkeypatch, capsys) -> None:
    def fail(*args, **options):
        raise InvalidProblemError("The figure broke.")

    module = figures.load("nc0_heatmap")
    if stage in ("compute", "draw"):
        monkeypatch.setattr(module, stage, fail)
    else:
        right = command.picture
        monkeypatch.setattr(
            command, "picture", lambda figure, kind: fail() if kind == stage else right(figure, kind)
        )
    assert command.main(["nc0_heatmap", "--out", str(tmp_path)]) == 1
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "The figure broke.\n"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert command.main(["nc0_heatmap", "--out", str(tmp_path / "file" / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(StorageError):
        command._make("nc0_heatmap", True, tmp_path / "file")


def test_as_a_program() -> None:
    found = subprocess.run(
        [sys.executable, "-W", "error", "-m", "figures", "--list"],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "nc0_heatmap" in found.stdout


# ------------------------------------------------------------------------------------- the README's picture


def test_readme_picture_is_small_and_stands_in_the_readme() -> None:
    assert command.README_FILE.stat().st_size <= SVG_LIMIT
    assert f"({command.README_FILE.relative_to(ROOT)})" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_picture_is_made_again_with_the_same_bytes(tmp_path, monkeypatch, capsys) -> None:
    found = []
    for name in ("one.svg", "two.svg"):
        monkeypatch.setattr(command, "README_FILE", tmp_path / name)
        assert command.main(["--readme"]) == 0
        found.append((tmp_path / name).read_bytes())
    assert found[0] == found[1]
    assert len(found[0]) <= SVG_LIMIT
    assert b"dc:date" not in found[0]
    assert b"56 of 56 cells agree" in found[0]
    assert capsys.readouterr().out.count("kB") == 2


@pytest.mark.parametrize("extra", [["--quick"], ["nc0_heatmap"]])
def test_readme_refuses_options_that_it_would_ignore(extra, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--readme", *extra])
    assert stopped.value.code == 2
    assert "--readme" in capsys.readouterr().err


def test_figures_leave_no_open_window() -> None:
    """Pictures are Figure objects of their own: pyplot keeps none of them alive."""
    assert isinstance(plotting.demo_figure([]), Figure)
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []
