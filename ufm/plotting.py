"""Functions that draw on a given matplotlib axes and return the artists; they compute and save nothing.

Simulations are dots, predictions are lines, in every figure. ``with plotting.style():`` sets one look: sizes,
a sans-serif font that comes with matplotlib, and colours that colour-blind readers tell apart (Okabe and Ito).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, Protocol, cast

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize, to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

__all__ = [
    "COLOURS", "LABELS", "alpha_axis", "demo_figure", "dots_and_line", "error_bars", "error_strip",
    "floor_curve", "heatmap", "legend_below", "level", "log_axis", "metric_curves", "nc0_curve", "phases",
    "place_marks", "ring", "sequence", "signed_curve", "signed_matrix", "spread_curve", "style",
    "subscript",
]  # fmt: skip

COLOURS: Mapping[str, str] = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "red": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
    "grey": "#8C8C8C",
}
LARGEST = 1e200  # margins and ticks of a logarithmic axis that reaches further overflow
SIMULATION, PREDICTION, ERROR, QUIET = (COLOURS[name] for name in ("sky", "black", "red", "grey"))

# plain Unicode: one text element each in an SVG, readable in every font, and the same in a terminal
LABELS: Mapping[str, str] = {
    "step": "step t",
    "alpha": "α = ‖Wᵀ1‖² / K",
    "norm": "‖Wᵀ1‖₂",
    "relative": "‖Wᵀ1‖ / ‖W‖",
    "signed": "⟨mₜ, m₀⟩ / ‖m₀‖²",
    "growth": "gₜ",
    "error": "max |mₜ − gₜm₀|",
    "momentum": "momentum β",
    "decay": "weight decay λ",
    "lr": "learning rate η",
    "loss": "loss",
}

_STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "mathtext.fontset": "dejavusans",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(
        color=[COLOURS[c] for c in ("blue", "orange", "green", "red", "purple", "sky", "black")]
    ),
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 4.0,
    "figure.dpi": 150.0,
    "savefig.dpi": 200.0,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "ufm",
}


@contextmanager
def style() -> Iterator[None]:
    """One look for all figures; the caller's settings come back afterwards.

    Returns
    -------
    context manager

    Examples
    --------
    >>> with style():
    ...     size = matplotlib.rcParams["font.size"]
    >>> size
    8.0
    """
    with matplotlib.rc_context(cast(Any, _STYLE)):
        yield


def _positive(values: Any) -> np.ndarray:
    """Values that a log axis can show; the others become gaps."""
    values = np.asarray(values, dtype=float)
    return np.where((values > 0) & (values < LARGEST), values, np.nan)


def _some(records: int, dots: int) -> np.ndarray:
    """Indices of about that many records, the first and the last among them."""
    return np.unique(np.linspace(0, records - 1, min(records, dots)).round().astype(int))


def log_axis(ax: Axes, which: str, low: float, high: float, ticks: int = 5) -> None:
    """Make one axis of a panel (``"x"`` or ``"y"``) logarithmic from `low` to `high`, with few ticks.

    Parameters
    ----------
    ax : Axes
        Changed.
    which : {"x", "y"}
        Which axis.
    low, high : float
        Ends, > 0.
    ticks : int
        At most about this many.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> log_axis(ax, "y", 1e-6, 1.0)
    >>> ax.get_yscale(), [float(tick) for tick in ax.get_yticks()]
    ('log', [1e-06, 0.0001, 0.01, 1.0])
    """
    ax.set(**{f"{which}scale": "log", f"{which}lim": (low, high)})
    axis = ax.xaxis if which == "x" else ax.yaxis
    decades = MaxNLocator(ticks, steps=[1, 2, 5, 10], integer=True).tick_values(np.log10(low), np.log10(high))
    axis.set_major_locator(FixedLocator([10.0**e for e in decades]))
    axis.set_minor_locator(NullLocator())


def nc0_curve(
    ax: Axes,
    steps: np.ndarray,
    observed: np.ndarray,
    predicted: np.ndarray | None = None,
    label: str = "simulation",
    predicted_label: str = "prediction",
    colour: str = SIMULATION,
    dots: int = 40,
) -> list[Line2D]:
    """Draw a positive quantity over steps on logarithmic axes: simulation as dots, prediction dashed on top.

    Step 0 and values that are not positive have no place on the axes and become gaps.

    Parameters
    ----------
    ax : Axes
        Drawn on; both axes become logarithmic.
    steps : ndarray, shape (records,)
        Recorded steps.
    observed : ndarray, shape (records,)
        Simulated values.
    predicted : ndarray, shape (records,), optional
        Predicted values at the same steps.
    label, predicted_label : str
        Names in a legend.
    colour : str
        Of the simulation; the prediction is black.
    dots : int
        About how many records are shown as dots; the prediction is drawn at every record.

    Returns
    -------
    list of Line2D
        Simulation, and prediction if there is one.

    Examples
    --------
    >>> [dots, line] = nc0_curve(Figure().subplots(), np.arange(3), np.ones(3), np.ones(3))
    >>> dots.get_xdata().tolist()  # step 0 has no place on a logarithmic axis
    [nan, 1.0, 2.0]
    """
    ax.set_xscale("log")
    ax.set_yscale("log")
    x = _positive(steps)
    some = _some(len(x), dots)
    artists = ax.plot(x[some], _positive(observed)[some], "o", color=colour, markeredgewidth=0, label=label)
    if predicted is not None:
        artists += ax.plot(x, _positive(predicted), "--", color=PREDICTION, label=predicted_label, zorder=3)
    return artists


def signed_curve(
    ax: Axes,
    steps: np.ndarray,
    observed: np.ndarray,
    predicted: np.ndarray,
    dots: int = 60,
    label: str = "simulation",
    predicted_label: str = "prediction",
) -> list[Artist]:
    """Draw a quantity that changes sign over steps on linear axes, with a line at zero.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    steps, observed, predicted : ndarray, shape (records,)
        Recorded steps, simulated and predicted values.
    dots : int
        About how many records are shown as dots; the prediction is drawn at every record.
    label, predicted_label : str
        Names in a legend.

    Returns
    -------
    list of Artist
        Zero line, simulation, prediction.

    Examples
    --------
    >>> zero, dots, line = signed_curve(Figure().subplots(), np.arange(3), np.array([1, -1, 1]), np.array([1, -1, 1]))
    >>> dots.get_ydata().tolist()
    [1, -1, 1]
    """
    some = _some(len(steps), dots)
    zero = ax.axhline(0.0, color=QUIET, linewidth=0.5, zorder=0)
    [simulated] = ax.plot(
        steps[some], observed[some], "o", color=SIMULATION, markeredgewidth=0, label=label, markersize=4.5
    )
    [line] = ax.plot(steps, predicted, "-", color=PREDICTION, label=predicted_label, linewidth=0.9)
    ax.set_xlim(0, steps[-1])
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return [zero, simulated, line]


def error_strip(
    ax: Axes,
    steps: np.ndarray,
    error: np.ndarray,
    bound: np.ndarray,
    label: str = "error",
    bound_label: str = "round-off bound",
) -> list[Line2D]:
    """Draw errors as dots below the bound that an error model sets, over steps, on a logarithmic ordinate.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    steps, error, bound : ndarray, shape (records,)
        Recorded steps, absolute errors (gaps where 0) and their bounds.
    label, bound_label : str
        Names in a legend.

    Returns
    -------
    list of Line2D
        Errors, bound.

    Examples
    --------
    >>> artists = error_strip(Figure().subplots(), np.arange(3), np.full(3, 1e-17), np.full(3, 1e-16))
    >>> [artist.get_label() for artist in artists]
    ['error', 'round-off bound']
    """
    ax.set_yscale("log")
    dots = ax.plot(steps, _positive(error), ".", color=ERROR, markersize=1.5, label=label)
    line = ax.plot(steps, _positive(bound), "-", color=COLOURS["blue"], linewidth=0.9, label=bound_label)
    return dots + line


def metric_curves(ax: Axes, steps: np.ndarray, curves: Mapping[str, np.ndarray]) -> list[Line2D]:
    """Draw several positive quantities over steps on a logarithmic ordinate, one colour and dash each.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    steps : ndarray, shape (records,)
        Recorded steps; step 0 becomes a gap once the abscissa is logarithmic.
    curves : mapping of str to ndarray, shape (records,)
        Values by the name that a legend shows; gaps where they are not positive.

    Returns
    -------
    list of Line2D
        In the order of `curves`.

    Examples
    --------
    >>> curves = {"NC1": np.array([1.0, 0.1]), "NC3": np.array([0.5, 0.0])}
    >>> [line.get_label() for line in metric_curves(Figure().subplots(), np.arange(2), curves)]
    ['NC1', 'NC3']
    """
    ax.set_yscale("log")
    dashes = ("-", "--", "-.", ":", (0, (6, 1.5)))
    return [
        ax.plot(steps, _positive(values), linestyle=dashes[i % len(dashes)], label=name)[0]
        for i, (name, values) in enumerate(curves.items())
    ]


def heatmap(
    ax: Axes,
    values: np.ndarray,
    rows: Iterable[Any],
    columns: Iterable[Any],
    *,
    form: str = ".2f",
    cmap: str = "cividis",
    low: float | None = None,
    high: float | None = None,
    row_label: str | None = None,
    column_label: str | None = None,
    size: float = 6.5,
) -> tuple[QuadMesh, list[Text]]:
    """Draw a matrix as coloured cells, the first row on top, with its values printed in them.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    values : ndarray, shape (rows, columns)
        Finite values.
    rows, columns : iterable
        Tick labels; numbers are printed with ``%g``.
    form : str
        Format of the printed values, for example ``"+.1f"``.
    cmap : str
        Colour map, from `low` to `high` (the range of the values by default).
    low, high : float, optional
        Ends of the colour scale.
    row_label, column_label : str, optional
        Axis labels.
    size : float
        Font size of the printed values, in points.

    Returns
    -------
    mesh : QuadMesh
        The cells, for a colour bar.
    texts : list of Text
        The printed values, row by row.

    Examples
    --------
    >>> mesh, texts = heatmap(Figure().subplots(), np.eye(2), rows=(0.1, 0.2), columns=("a", "b"))
    >>> [text.get_text() for text in texts]
    ['1.00', '0.00', '0.00', '1.00']
    """
    values = np.asarray(values, dtype=float)
    scale = Normalize(values.min() if low is None else low, values.max() if high is None else high)
    mesh = ax.pcolormesh(values, cmap=cmap, norm=scale, edgecolors="white", linewidth=0.5)
    texts = []
    for (i, j), value in np.ndenumerate(values):
        text = format(value, form).replace("-", "\N{MINUS SIGN}")
        colour = _readable_on(mesh.cmap(scale(value)))
        texts.append(
            ax.text(j + 0.5, i + 0.5, text, ha="center", va="center_baseline", fontsize=size, color=colour)
        )
    ax.set_xticks(np.arange(values.shape[1]) + 0.5, [_short(c) for c in columns], rotation=90)
    ax.set_yticks(np.arange(values.shape[0]) + 0.5, [_short(r) for r in rows])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_ylim(values.shape[0], 0)  # inverting an axis that panels share would turn it back
    if row_label is not None:
        ax.set_ylabel(row_label)
    if column_label is not None:
        ax.set_xlabel(column_label)
    return mesh, texts


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}".replace("e-0", "e-")


def _readable_on(rgba: Any) -> str:
    """Black or white, whichever stands out from a background (luma of Rec. 709)."""
    return "white" if 0.2126 * rgba[0] + 0.7152 * rgba[1] + 0.0722 * rgba[2] < 0.5 else "black"


def legend_below(figure: Figure, artists: Sequence[Artist]) -> Any:
    """Put one legend for the whole figure below its axes, in one line.

    Parameters
    ----------
    figure : Figure
        Drawn on.
    artists : sequence of Artist
        With labels, from left to right.

    Returns
    -------
    Legend

    Examples
    --------
    >>> figure = Figure()
    >>> artists = nc0_curve(figure.subplots(), np.arange(3), np.ones(3), np.ones(3))
    >>> [text.get_text() for text in legend_below(figure, artists).get_texts()]
    ['simulation', 'prediction']
    """
    names = [str(artist.get_label()) for artist in artists]
    legend = figure.legend(artists, names, loc="outside lower center", ncols=len(artists))
    for handle in legend.legend_handles:
        if isinstance(handle, Line2D):
            handle.set_markersize(6.0)
    return legend


def phases(ax: Axes, ends: Sequence[float], last: float) -> list[Artist]:
    """Shade every second phase of a run and number them along the top, on an axis of steps.

    Parameters
    ----------
    ax : Axes
        Drawn on; its abscissa then runs from the first step (from 0 if it is linear) to `last`.
    ends : sequence of float
        Steps at which a phase ends and the next begins, increasing.
    last : float
        Last step.

    Returns
    -------
    list of Artist
        Shades, numbers.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> artists = phases(ax, [10.0, 50.0], 100.0)
    >>> len(artists), [text.get_text() for text in ax.texts]
    (5, ['1', '2', '3'])
    """
    logarithmic = ax.get_xscale() == "log"
    edges = [1.0 if logarithmic else 0.0, *ends, last]
    ax.set(xlim=(edges[0], last), xlabel=LABELS["step"])
    artists: list[Artist] = []
    for i, (low, high) in enumerate(pairwise(edges)):
        if i % 2 == 0:
            artists.append(ax.axvspan(low, high, color=QUIET, alpha=0.18, linewidth=0, zorder=0))
        middle = (low * high) ** 0.5 if logarithmic else (low + high) / 2
        place = ax.get_xaxis_transform()
        artists.append(
            ax.text(
                middle, 0.985, str(i + 1), transform=place, ha="center", va="top", color=QUIET, weight="bold"
            )
        )
    return artists


def place_marks(ax: Axes, places: Sequence[float], names: Sequence[str]) -> list[Line2D]:
    """Draw a dashed vertical line at each place, with its name along it in the lower half of the panel.

    Parameters
    ----------
    ax : Axes
        Drawn on; its limits stay.
    places : sequence of float
        Abscissae.
    names : sequence of str
        Printed beside the lines, one each.

    Returns
    -------
    list of Line2D

    Examples
    --------
    >>> [list(line.get_xdata()) for line in place_marks(Figure().subplots(), [3.0], ["first flip"])]
    [[3.0, 3.0]]
    """
    lines = []
    for place, name in zip(places, names, strict=True):
        lines.append(ax.axvline(place, color=QUIET, linestyle="--", linewidth=0.8, zorder=0))
        ax.annotate(
            name, (place, 0.3), xycoords=("data", "axes fraction"), xytext=(2, 0), textcoords="offset points",
            rotation=90, ha="left", va="bottom", fontsize=6.5, color=QUIET,
        )  # fmt: skip
    return lines


class DemoRow(Protocol):
    """What `demo_figure` needs of a run."""

    @property
    def label(self) -> str:
        """Name of the run."""

    @property
    def steps(self) -> np.ndarray:
        """Recorded steps, shape (records,)."""

    @property
    def alpha(self) -> np.ndarray:
        """Simulated NC0, shape (records,)."""

    @property
    def predicted(self) -> np.ndarray | None:
        """Predicted NC0, shape (records,), or None."""

    @property
    def verdict(self) -> str:
        """One or two words."""


_VERDICT_COLOURS = {"holds": COLOURS["green"], "fails": COLOURS["red"], "inconclusive": COLOURS["orange"]}


def demo_figure(rows: Sequence[DemoRow], columns: int = 4) -> Figure:
    """Draw NC0 over steps, one panel per run on common axes: simulation, prediction and verdict.

    Parameters
    ----------
    rows : sequence
        Runs with `label`, `steps`, `alpha`, `predicted` (or None) and `verdict`.
    columns : int
        Panels side by side.

    Returns
    -------
    Figure

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> row = SimpleNamespace(label="GD", steps=np.arange(3), alpha=np.ones(3), predicted=None, verdict="holds")
    >>> [ax.get_title(loc="left") for ax in demo_figure([row]).axes]
    ['GD']
    """
    with style():
        wide = min(columns, max(1, len(rows)))
        high = max(1, -(-len(rows) // wide))
        figure, panels = _demo_grid(high, wide)
        for ax, row in zip(panels, rows, strict=False):
            _demo_panel(ax, row)
        for ax in panels[len(rows) :]:
            ax.set_axis_off()
        if rows:
            _demo_axes(panels, rows, wide)
        figure.supylabel("NC0   " + LABELS["alpha"], x=0.1 / figure.get_figwidth(), ha="left", fontsize=9)
        names = (
            ("simulation", "o", SIMULATION),
            ("prediction of the theorem that applies", "--", PREDICTION),
        )
        legend_below(
            figure,
            [
                Line2D([], [], label=name, color=colour, **_mark(mark), markeredgewidth=0)
                for name, mark, colour in names
            ],
        )
    return figure


def _demo_grid(high: int, wide: int) -> tuple[Figure, list[Axes]]:
    """Panels of equal size, which need no layout engine: it would take longer than the drawing."""
    left, right, bottom, top, across, between = 0.72, 0.12, 0.72, 0.22, 0.22, 0.3  # inches
    panel = np.array([1.68, 1.2])
    gaps = np.array([across, between])
    count = np.array([wide, high])
    outer = np.array([left + right, bottom + top])
    size = outer + count * panel + (count - 1) * gaps
    figure = Figure(figsize=tuple(size))
    grid = figure.subplots(
        high,
        wide,
        sharex=True,
        sharey=True,
        squeeze=False,
        gridspec_kw={
            "left": left / size[0],
            "right": 1 - right / size[0],
            "bottom": bottom / size[1],
            "top": 1 - top / size[1],
            "wspace": across / panel[0],
            "hspace": between / panel[1],
        },
    )
    return figure, list(grid.flat)


def _mark(mark: str) -> dict[str, Any]:
    return {"marker": mark, "linestyle": "none"} if mark == "o" else {"linestyle": mark}


def _demo_panel(ax: Axes, row: DemoRow) -> None:
    nc0_curve(ax, row.steps, row.alpha, row.predicted)
    ax.set_title(row.label, loc="left", pad=3)
    colour = _VERDICT_COLOURS.get(row.verdict, QUIET)
    ax.text(0.04, 0.06, row.verdict, transform=ax.transAxes, color=colour, weight="bold", fontsize=8)


def _demo_axes(panels: Sequence[Axes], rows: Sequence[DemoRow], wide: int) -> None:
    """Common limits from the simulated values; labels where a panel has nothing below it."""
    seen = np.concatenate([_positive(row.alpha) for row in rows])
    seen = seen[np.isfinite(seen)]
    if seen.size:
        low, high = np.floor(np.log10(seen.min()) - 0.5), np.ceil(np.log10(seen.max()) + 0.5)
        log_axis(panels[0], "y", 10.0**low, 10.0**high)
    last = max(max(int(row.steps[-1]) for row in rows), 2)
    log_axis(panels[0], "x", 0.8, 1.3 * last)
    for i, ax in enumerate(panels[: len(rows)]):
        if i + wide >= len(rows):
            ax.set_xlabel(LABELS["step"])
            ax.tick_params(labelbottom=True)


def floor_curve(
    ax: Axes,
    steps: np.ndarray,
    observed: np.ndarray,
    predicted: np.ndarray,
    floor: np.ndarray,
    colour: str = SIMULATION,
) -> list[Line2D]:
    """Draw a simulated quantity, the law it should follow, and up to where round-off may keep it above the law.

    Parameters
    ----------
    ax : Axes
        Drawn on; both axes become logarithmic.
    steps, observed, predicted : ndarray, shape (records,)
        Recorded steps, simulated and predicted values.
    floor : ndarray, shape (records,)
        What round-off may add to the prediction.
    colour : str
        Of the simulation and its floor.

    Returns
    -------
    list of Line2D
        Simulation, law, law + floor.

    Examples
    --------
    >>> steps = np.arange(1, 4)
    >>> artists = floor_curve(Figure().subplots(), steps, 1.0 / steps, 1.0 / steps, np.full(3, 1e-16))
    >>> [artist.get_label() for artist in artists]
    ['simulation', 'row-sum law', 'law + error model']
    """
    artists = nc0_curve(
        ax, steps, observed, predicted, predicted_label="row-sum law", colour=colour, dots=len(steps)
    )
    artists[0].set_markersize(2.5)
    allowed = _positive(predicted + floor)
    return artists + ax.plot(
        _positive(steps), allowed, "-", color=colour, linewidth=0.8, label="law + error model"
    )


def alpha_axis(ax: Axes, classes: int) -> Axes:
    """Put alpha = ||W^T 1||^2/K on the right of a panel whose ordinate is ||W^T 1||.

    Parameters
    ----------
    ax : Axes
        Its ordinate is ||W^T 1||.
    classes : int
        K.

    Returns
    -------
    Axes
        The secondary axis.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> alpha_axis(ax, classes=10).get_ylabel() == LABELS["alpha"]
    True
    """

    def alpha(norm: Any) -> Any:
        return norm**2 / classes

    def norm(alpha: Any) -> Any:
        return np.sqrt(classes * alpha)

    right = ax.secondary_yaxis("right", functions=(alpha, norm))
    right.set_ylabel(LABELS["alpha"])
    return cast(Axes, right)


def sequence(count: int) -> list[str]:
    """Colours for values in order, dark to light, that colour-blind readers tell apart.

    Parameters
    ----------
    count : int
        How many.

    Returns
    -------
    list of str

    Examples
    --------
    >>> sequence(2)
    ['#440154', '#7ad151']
    """
    return [to_hex(colormaps["viridis"](x)) for x in np.linspace(0.0, 0.8, count)]


def subscript(number: int) -> str:
    """Digits of a whole number >= 0 as an index.

    Parameters
    ----------
    number : int
        >= 0.

    Returns
    -------
    str

    Examples
    --------
    >>> "M" + subscript(10)
    'M₁₀'
    """
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def ring(ax: Axes, x: float, y: float) -> Line2D:
    """Mark a point by a black ring.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    x, y : float
        The point.

    Returns
    -------
    Line2D

    Examples
    --------
    >>> mark = ring(Figure().subplots(), 1.0, 2.0)
    >>> mark.get_xydata().tolist()
    [[1.0, 2.0]]
    """
    [mark] = ax.plot([x], [y], "o", markerfacecolor="none", color="black", markersize=6.0, zorder=4)
    return mark


def dots_and_line(
    ax: Axes,
    x: np.ndarray,
    observed: np.ndarray | None = None,
    predicted: np.ndarray | None = None,
    label: str = "simulation",
    predicted_label: str = "prediction",
    colour: str = SIMULATION,
) -> list[Line2D]:
    """Draw simulated values as dots and predicted ones dashed on top, on the axes as they are.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    x : ndarray, shape (points,)
        Abscissa.
    observed, predicted : ndarray, shape (points,), optional
        Simulated and predicted values.
    label, predicted_label : str
        Names in a legend.
    colour : str
        Of the simulation; the prediction is black.

    Returns
    -------
    list of Line2D
        Simulation and prediction, those that are given.

    Examples
    --------
    >>> artists = dots_and_line(Figure().subplots(), np.arange(3), observed=np.ones(3), predicted=np.ones(3))
    >>> [artist.get_label() for artist in artists]
    ['simulation', 'prediction']
    """
    artists: list[Line2D] = []
    if observed is not None:
        artists += ax.plot(x, observed, "o", color=colour, markeredgewidth=0, label=label)
    if predicted is not None:
        artists += ax.plot(x, predicted, "--", color=PREDICTION, label=predicted_label, zorder=3)
    return artists


def level(ax: Axes, value: float, start: float, stop: float, colour: str, label: str = "estimate") -> Line2D:
    """Mark an expected final value by a dotted line over the last steps, drawn on top.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    value : float
        Ordinate.
    start, stop : float
        First and last step of the line.
    colour, label : str
        Look, and name in a legend.

    Returns
    -------
    Line2D

    Examples
    --------
    >>> level(Figure().subplots(), 0.5, 80, 100, "black").get_xydata().tolist()
    [[80.0, 0.5], [100.0, 0.5]]
    """
    [line] = ax.plot([start, stop], [value, value], ":", color=colour, linewidth=1.2, label=label, zorder=4)
    return line


def spread_curve(
    ax: Axes,
    steps: np.ndarray,
    runs: np.ndarray,
    *,
    colour: str = SIMULATION,
    label: str = "mean and 1 sd of the runs",
    dots: int = 40,
) -> list[Artist]:
    """Draw the mean over runs as dots and one standard deviation about it as a band.

    On a logarithmic ordinate, which must be set before, both are those of the logarithms; values that are not
    positive are left out.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    steps : ndarray, shape (records,)
        Recorded steps.
    runs : ndarray, shape (runs, records)
        Values, at least two runs.
    colour : str
        Of dots and band.
    label : str
        Name of the dots in a legend.
    dots : int
        About how many records are shown as dots; the band has them all.

    Returns
    -------
    list of Artist
        Dots, band.

    Examples
    --------
    >>> dots, band = spread_curve(Figure().subplots(), np.arange(2), np.array([[1.0, 2.0], [3.0, 2.0]]))
    >>> dots.get_ydata().tolist()
    [2.0, 2.0]
    """
    logarithmic = ax.get_yscale() == "log"
    values = np.log10(_positive(runs)) if logarithmic else np.asarray(runs, dtype=float)
    shown = ~np.isnan(values).any(axis=0)
    x, values = np.asarray(steps)[shown], values[:, shown]
    mean, spread = values.mean(axis=0), values.std(axis=0, ddof=1)
    middle, low, high = (
        10.0**curve if logarithmic else curve for curve in (mean, mean - spread, mean + spread)
    )
    band = ax.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0, zorder=1)
    some = _some(len(x), dots)
    [points] = ax.plot(
        x[some], middle[some], "o", color=colour, markeredgewidth=0, markersize=3.0, label=label
    )
    return [points, band]


def error_bars(
    ax: Axes,
    x: np.ndarray,
    values: np.ndarray,
    errors: np.ndarray,
    *,
    colour: str,
    label: str,
    marker: str = "o",
) -> ErrorbarContainer:
    """Draw simulated values as markers with error bars.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    x, values : ndarray, shape (points,)
        Abscissa and values.
    errors : ndarray, shape (points,) or (2, points)
        Lengths of the bars, or those below and above.
    colour, label, marker : str
        Look, and name in a legend.

    Returns
    -------
    ErrorbarContainer
        Markers with their bars.

    Examples
    --------
    >>> ax = Figure().subplots()
    >>> error_bars(ax, np.arange(2), np.ones(2), np.full(2, 0.1), colour="black", label="simulation").get_label()
    'simulation'
    """
    return ax.errorbar(
        x, values, errors, fmt=marker, color=colour, markerfacecolor="none", markersize=4.0, elinewidth=0.9,
        capsize=1.8, capthick=0.7, label=label, zorder=3,
    )  # fmt: skip


def signed_matrix(ax: Axes, values: np.ndarray, title: str = "", aspect: str = "equal") -> AxesImage:
    """Draw a matrix in units of its largest entry, blue below zero, white at it and red above, without ticks.

    Parameters
    ----------
    ax : Axes
        Drawn on.
    values : ndarray, shape (rows, columns)
        Finite, not all zero.
    title : str
        Above the matrix.
    aspect : {"equal", "auto"}
        Square cells, or cells that fill the panel.

    Returns
    -------
    AxesImage
        The cells, from -1 to 1.

    Examples
    --------
    >>> signed_matrix(Figure().subplots(), np.array([[2.0, -1.0]])).get_array().tolist()
    [[1.0, -0.5]]
    """
    image = ax.imshow(
        values / np.abs(values).max(),
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        interpolation="nearest",
        aspect=cast(Any, aspect),
    )
    ax.set_title(title)
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ("top", "right"):
        ax.spines[side].set_visible(True)
    return image
