"""NC3 against log NC0 over all runs of the paper's grid, with the regression that the paper reports for networks."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures._grid import paper_grid
from ufm import plotting
from ufm.theory.row_sum import PAPER

PUBLISHED, PUBLISHED_RUNS = 0.73, 399  # R^2 of networks, and over how many
FLOOR = 1e-30  # below it alpha is round-off of rows that cancel


def compute(quick: bool) -> xarray.Dataset:
    """NC0 and NC3 at the end of every run, and lines of least squares over all runs and for each optimizer."""
    grid = paper_grid(quick)
    data = grid[["nc0", "nc3"]].copy()
    used = np.isfinite(data["nc0"]) & np.isfinite(data["nc3"]) & (data["nc0"] > FLOOR)
    data["used"] = used.astype(np.int8)
    names = ["all", *data["optimizer"].values.tolist()]
    fits = [_line(data if name == "all" else data.sel(optimizer=name)) for name in names]
    for i, field in enumerate(("slope", "intercept", "r_squared", "count")):
        data[field] = ("group", np.array([fit[i] for fit in fits]))
    data = data.assign_coords(group=names)
    shares = ", ".join(f"{name} {fit[2]:.2f}" for name, fit in zip(names[1:], fits[1:], strict=True))
    data.attrs = {
        "caption": (
            f"NC3 against NC0 = alpha at the end of {int(fits[0][3])} runs of the unconstrained features model (of "
            f"{grid.attrs['runs']}; those with alpha above {FLOOR:g}), with the regression of NC3 on log alpha. R^2 = "
            f"{fits[0][2]:.2f} here; {PUBLISHED} over {PUBLISHED_RUNS} runs of networks in the paper. "
            f"By optimizer: {shares}. "
            "The paper's runs are other systems and fewer, so the two numbers are shown side by side, not compared."
        ),
        "source": f"{grid.attrs['source']}; published R^2: {PAPER}",
        "settings": grid.attrs["settings"],
        "published_r_squared": PUBLISHED,
    }
    return data


def _line(runs: xarray.Dataset) -> tuple[float, float, float, int]:
    """Slope, intercept, R^2 and number of runs of the regression of NC3 on log10 NC0; nan for fewer than three."""
    used = runs["used"].values.astype(bool)
    x, y = np.log10(runs["nc0"].values[used]), runs["nc3"].values[used]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan, np.nan, len(x)
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept), float(np.corrcoef(x, y)[0, 1] ** 2), len(x)


def draw(data: xarray.Dataset) -> Figure:
    """Every run, a colour per optimizer, and the line over all."""
    figure = Figure(figsize=(7.8, 4.2), layout="constrained")
    ax = figure.subplots()
    names = data["optimizer"].values.tolist()
    colours = dict(
        zip(
            names,
            (plotting.COLOURS[c] for c in ("blue", "sky", "green", "orange", "purple", "red")),
            strict=True,
        )
    )
    artists = []
    for name in names:
        runs = data.sel(optimizer=name)
        used = runs["used"].values.astype(bool)
        x, y = runs["nc0"].values[used], runs["nc3"].values[used]
        ax.plot(x, y, ".", color=colours[name], markersize=2.5, alpha=0.5, rasterized=True)
        artists.append(
            Line2D([], [], marker="o", markersize=4, linestyle="none", color=colours[name], label=name)
        )
    line = data.sel(group="all")
    used = data["used"].values.astype(bool)
    ends = np.array([data["nc0"].values[used].min(), data["nc0"].values[used].max()])
    ax.plot(ends, line["slope"].item() * np.log10(ends) + line["intercept"].item(), color="black")
    artists.append(Line2D([], [], color="black", label="fit"))
    ax.set_xscale("log")
    ax.set_xlim(ends[0] / 3, 3 * ends[1])
    ax.set_xlabel(plotting.LABELS["alpha"] + " at the end")
    ax.set_ylabel("NC3 at the end")
    published = data.attrs["published_r_squared"]
    ax.set_title(f"R² = {line['r_squared'].item():.2f}; networks in the paper: {published:g}", loc="left")
    plotting.legend_below(figure, artists)
    return figure
