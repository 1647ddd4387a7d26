"""Figures compute, draw from stored numbers alone, and are written whole or not at all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import figures
from figures import __main__ as command
from ufm import plotting
from ufm.claims import registry
from ufm.errors import InvalidProblemError, StorageError
from ufm.theory import published_row_sum

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
    import ufm
    from ufm.theory import row_sum

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
