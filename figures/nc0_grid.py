"""Final NC0 to NC3 of every run of the paper's grid against weight decay, coupled and decoupled."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures._grid import METRICS, paper_grid
from ufm import plotting

TITLES = {"nc0": "NC0", "nc1": "NC1", "nc2": "NC2", "nc3": "NC3"}
COUPLED, DECOUPLED = plotting.COLOURS["blue"], plotting.COLOURS["red"]
FLOOR = 1e-30  # smaller metrics are drawn here
FALLEN = 1e-2  # a run whose alpha rose above its start and ended below this share of its peak is not monotone


def compute(quick: bool) -> xarray.Dataset:
    """All runs of the grid with their metrics at the end; see `figures._grid.paper_grid`."""
    data = paper_grid(quick).copy()
    data.attrs["caption"] = _caption(data)
    return data


def _caption(data: xarray.Dataset) -> str:
    holds, fails, open_ = (int(data[name].sum()) for name in ("holds", "fails", "inconclusive"))
    judged = holds + fails + open_
    holding = data["holds"] == 1
    error, wrong = float(data["ratio"].where(holding).max()), float(data["control"].where(holding).min())
    sign = data.sel(optimizer="Signum", momentum=0.0)
    risen = (sign["nc0_peak"] > 2 * sign["nc0_start"]) & (sign["nc0"] < FALLEN * sign["nc0_peak"])
    factors = ", ".join(f"{base} {_coupled_against_decoupled(data, base)}" for base in ("Adam", "Signum"))
    bumps = f"{int(risen.sum())} of {risen.size} runs"
    return (
        f"{data.attrs['runs']} runs of the unconstrained features model: metrics at the end against weight decay, "
        "inside the gradient (coupled) and outside it (decoupled); every dot is a run, lines join medians over "
        "momentum, learning rate and seeds. SGD: the row-sum law, which knows neither features nor loss, was asked of "
        f"{judged} runs; it holds at all records of {holds}, fails in {fails} and is inconclusive in {open_}. Errors "
        f"are at most {error:.2f} of what round-off may cause; with a decay wrong by 1e-6, every run that holds is "
        f"off by {wrong:.2g} times that or more. Median NC0 of decoupled over that of coupled decay, at equal "
        f"momentum, rate, seed and decay > 0, NC0 below {FLOOR:g} taken as that: {factors}. SignGD with coupled decay "
        f"(Signum without momentum): {bumps} rise above twice their first NC0 and end below {FALLEN:g} of their peak: "
        "not monotone."
    )


def _coupled_against_decoupled(data: xarray.Dataset, base: str) -> str:
    """Median ratio of final NC0 over the decays that both have, and in how many pairs of runs it is above 1."""
    coupled, decoupled = (data.sel(optimizer=name) for name in (base, f"{base}W"))
    ratios = []
    for i, decay in enumerate(coupled["decay"].values):
        for j in np.flatnonzero((decoupled["decay"].values == decay) & (decay > 0)):
            upper, lower = decoupled["nc0"].isel(level=j).values, coupled["nc0"].isel(level=i).values
            ratios.append((np.maximum(upper, FLOOR) / np.maximum(lower, FLOOR)).ravel())
    if not ratios:
        return "no common decay"
    found = np.concatenate(ratios)
    return f"{np.median(found):.1e} (above 1 in {int((found > 1).sum())} of {found.size} pairs)"


def draw(data: xarray.Dataset) -> Figure:
    """A row per metric, a column per optimizer."""
    bases = list(dict.fromkeys(data["base"].values.tolist()))
    figure = Figure(figsize=(7.6, 7.4), layout="constrained")
    grid = figure.subplots(len(METRICS), len(bases), sharex="col", sharey="row")
    for row, metric in zip(grid, METRICS, strict=True):
        for ax, base in zip(row, bases, strict=True):
            _panel(ax, data.isel(optimizer=data["base"].values == base), metric)
        row[0].set_ylabel(TITLES[metric])
    for ax, base in zip(grid[0], bases, strict=True):
        ax.set_title(base, loc="left")
    for ax in grid[-1]:
        ax.set_xlabel(plotting.LABELS["decay"])
    kinds = [
        Line2D([], [], color=colour, marker="o", markersize=3, label=label)
        for colour, label in ((COUPLED, "coupled decay"), (DECOUPLED, "decoupled decay"))
    ]
    plotting.legend_below(figure, kinds)
    figure.suptitle(f"{data.attrs['runs']} runs: metrics at the end; lines join medians", fontsize=9)
    return figure


def _panel(ax: Axes, runs: xarray.Dataset, metric: str) -> None:
    decays = sorted({*runs["decay"].values.ravel().tolist()})
    rng = np.random.default_rng(0)
    for optimizer in runs["optimizer"].values:
        family = runs.sel(optimizer=optimizer)
        coupled = bool(family["coupled"])
        colour, side = (COUPLED, -0.14) if coupled else (DECOUPLED, 0.14)
        places, medians = [], []
        for level in range(family.sizes["level"]):
            values = np.maximum(family[metric].isel(level=level).values.ravel(), FLOOR)
            values = values[np.isfinite(values)]
            place = decays.index(float(family["decay"].values[level])) + side
            spread = place + rng.uniform(-0.1, 0.1, len(values))
            ax.plot(spread, values, ".", color=colour, markersize=1.6, alpha=0.35, rasterized=True)
            places.append(place)
            medians.append(np.median(values) if len(values) else np.nan)
        ax.plot(places, medians, "o-", color=colour, markersize=3)
    ax.set_yscale("log")
    ax.set_xticks(range(len(decays)), [f"{decay:g}".replace("e-0", "e-") for decay in decays], rotation=90)
