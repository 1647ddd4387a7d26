"""Drawing functions show what they are given, change nothing else, and need no screen."""

from dataclasses import dataclass

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ufm import plotting


@dataclass
class Row:
    label: str
    steps: np.ndarray
    alpha: np.ndarray
    predicted: np.ndarray | None
    verdict: str


def rows(count: int) -> list[Row]:
    steps = np.unique(np.geomspace(1, 5001, 60).astype(int)) - 1
    verdicts = ("holds", "fails", "inconclusive", "no theorem")
    found = []
    for i in range(count):
        alpha = 0.3 * np.exp(-1e-3 * i * steps)
        found.append(Row(f"run {i}", steps, alpha, None if i % 4 == 3 else 1.5 * alpha, verdicts[i % 4]))
    return found


@pytest.fixture
def ax():
    return Figure().subplots()


def test_style_is_undone() -> None:
    before = dict(matplotlib.rcParams)
    with plotting.style():
        assert matplotlib.rcParams["svg.hashsalt"] == "ufm"
        assert matplotlib.rcParams["font.sans-serif"] == ["DejaVu Sans"]
    assert dict(matplotlib.rcParams) == before


def luminance(colour: str) -> float:
    return float(np.dot([0.2126, 0.7152, 0.0722], to_rgb(colour)))


def test_simulation_and_prediction_differ_in_lightness_not_in_hue_alone() -> None:
    assert luminance(plotting.SIMULATION) - luminance(plotting.PREDICTION) > 0.5


def test_nc0_curve_has_gaps_where_a_log_axis_has_no_place(ax) -> None:
    steps, alpha = np.array([0, 1, 10, 100]), np.array([1.0, 0.5, 0.0, np.nan])
    dots, line = plotting.nc0_curve(ax, steps, alpha, np.array([1.0, 0.5, 0.25, 0.125]), label="here")
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert dots.get_label() == "here"
    assert dots.get_linestyle() == "None"
    assert line.get_linestyle() == "--"
    np.testing.assert_array_equal(dots.get_ydata(), [1.0, 0.5, np.nan, np.nan])
    np.testing.assert_array_equal(line.get_xdata(), [np.nan, 1, 10, 100])
    ax.figure.draw_without_rendering()


def test_nc0_curve_without_prediction_and_without_positive_values(ax) -> None:
    assert len(plotting.nc0_curve(ax, np.array([0, 1]), np.zeros(2))) == 1
    ax.figure.draw_without_rendering()


def test_thinned_dots_keep_both_ends_and_the_line_keeps_every_record(ax) -> None:
    steps = np.arange(1, 1002)
    dots, line = plotting.nc0_curve(ax, steps, 1.0 / steps, 1.0 / steps, dots=30)
    assert len(dots.get_xdata()) == 30
    assert dots.get_xdata()[[0, -1]].tolist() == [1, 1001]
    assert len(line.get_xdata()) == 1001


def test_signed_curve_shows_values_on_both_sides_of_zero(ax) -> None:
    steps = np.arange(200)
    values = np.cos(steps / 10)
    zero, dots, line = plotting.signed_curve(ax, steps, values, values)
    assert ax.get_yscale() == "linear"
    assert min(dots.get_ydata()) < 0 < max(dots.get_ydata())
    np.testing.assert_array_equal(line.get_ydata(), values)
    assert set(zero.get_ydata()) == {0.0}


def test_error_strip_leaves_exact_records_out(ax) -> None:
    steps = np.arange(3)
    dots, line = plotting.error_strip(ax, steps, np.array([0.0, 1e-16, 2e-16]), np.full(3, 1e-15))
    np.testing.assert_array_equal(dots.get_ydata(), [np.nan, 1e-16, 2e-16])
    np.testing.assert_array_equal(line.get_ydata(), np.full(3, 1e-15))
    assert (dots.get_label(), line.get_label()) == ("error", "round-off bound")


def test_metric_curves_differ_in_colour_and_dash(ax) -> None:
    with plotting.style():
        ax = Figure().subplots()
    lines = plotting.metric_curves(ax, np.arange(4), {name: np.full(4, 0.1) for name in "abcde"})
    assert [line.get_label() for line in lines] == list("abcde")
    assert len({line.get_color() for line in lines}) == 5
    assert len({str(line._dash_pattern) for line in lines}) == 5


def test_log_axis_names_a_few_whole_decades(ax) -> None:
    plotting.log_axis(ax, "y", 1e-30, 1e2)
    ax.figure.draw_without_rendering()
    ticks = [tick for tick in ax.get_yticks() if 1e-30 <= tick <= 1e2]
    assert 2 <= len(ticks) <= 6
    np.testing.assert_array_equal(np.log10(ticks) % 1, 0)
    assert ax.get_ylim() == (1e-30, 1e2)


def test_heatmap_prints_every_value_first_row_on_top(ax) -> None:
    values = np.array([[0.0, -1.0, 2.0], [3.0, 4.0, 5.0]])
    mesh, texts = plotting.heatmap(ax, values, [0.5, 0.9], [0, 2.5e-5, 1e-4], form="+.1f", row_label="beta")
    assert [text.get_text() for text in texts] == ["+0.0", "−1.0", "+2.0", "+3.0", "+4.0", "+5.0"]
    np.testing.assert_array_equal(mesh.get_array().reshape(2, 3), values)
    assert ax.yaxis_inverted()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "2.5e-5", "0.0001"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["0.5", "0.9"]
    assert ax.get_ylabel() == "beta"
    assert texts[0].get_position() == (0.5, 0.5)


def test_heatmap_text_stands_out_from_its_cell(ax) -> None:
    mesh, texts = plotting.heatmap(ax, np.linspace(0, 1, 20).reshape(4, 5), "abcd", "abcde")
    for text, value in zip(texts, mesh.get_array().ravel(), strict=True):
        behind = float(np.dot([0.2126, 0.7152, 0.0722], mesh.cmap(mesh.norm(value))[:3]))
        assert abs(luminance(text.get_color()) - behind) > 0.45


@pytest.mark.parametrize("count", [0, 1, 3, 4, 9, 12])
def test_demo_figure_has_one_panel_per_run(count) -> None:
    found = rows(count)
    figure = plotting.demo_figure(found)
    figure.draw_without_rendering()
    panels = [ax for ax in figure.axes if ax.axison and ax.lines]
    assert [ax.get_title(loc="left") for ax in panels] == [row.label for row in found]
    for ax, row in zip(panels, found, strict=True):
        assert len(ax.lines) == (1 if row.predicted is None else 2)
        assert [text.get_text() for text in ax.texts] == [row.verdict]
    assert figure.legends[0].get_texts()[0].get_text() == "simulation"


def test_demo_figure_shows_all_simulated_values_and_stays_on_them_if_a_prediction_is_far_below() -> None:
    [row] = rows(2)[1:]
    row.predicted = np.full(len(row.steps), 1e-300)
    [ax] = [ax for ax in plotting.demo_figure([row]).axes if ax.lines]
    low, high = ax.get_ylim()
    assert low < row.alpha.min() < row.alpha.max() < high
    assert low > 1e-10


@pytest.mark.parametrize("alpha", [0.0, np.nan, np.inf])
def test_demo_figure_of_a_run_without_a_positive_value(alpha) -> None:
    row = Row("flat", np.arange(5), np.full(5, alpha), None, "no theorem")
    plotting.demo_figure([row]).draw_without_rendering()


def test_demo_figure_labels_steps_below_every_column() -> None:
    figure = plotting.demo_figure(rows(6))
    labelled = [i for i, ax in enumerate(figure.axes) if ax.get_xlabel()]
    assert labelled == [2, 3, 4, 5]


def test_no_glyph_is_missing() -> None:
    """A character the font lacks is a warning, and warnings are errors here."""
    with plotting.style():
        figure = Figure()
        for i, label in enumerate(plotting.LABELS.values()):
            figure.text(0.1, i / len(plotting.LABELS), label)
        figure.draw_without_rendering()
