"""NC0, NC2 and NC3 at the end over momentum and weight decay: simulation, and the closed form of NC0."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.figure import Figure

from figures._grid import paper_grid
from ufm import plotting

OF_SGD = ("SGD", "SGDW")
SHOWN = (*OF_SGD, "SignumW")
FLOOR = 1e-30


def compute(quick: bool) -> xarray.Dataset:
    """Metrics over momentum and decay at the largest learning rate, geometric means over seeds."""
    grid = paper_grid(quick)
    runs = grid.sel(optimizer=list(SHOWN)).isel(rate=-1)
    data = xarray.Dataset(
        {
            name: xarray.apply_ufunc(np.exp, xarray.apply_ufunc(np.log, runs[name].clip(FLOOR)).mean("seed"))
            for name in ("nc0", "nc2", "nc3", "law")
        }
    )
    data = data.drop_vars(["base", "coupled"], errors="ignore")
    sgd = runs.sel(optimizer=list(OF_SGD))
    resolved = sgd["law"] > FLOOR
    off = abs(xarray.apply_ufunc(np.log, sgd["nc0"] / sgd["law"])).where(resolved)
    data["has_law"] = ("optimizer", np.array([name in OF_SGD for name in SHOWN], np.int8))
    judged = f"{int(resolved.sum())} of {resolved.size} runs"
    data.attrs = {
        "caption": (
            "Metrics at the end over momentum and weight decay at the largest learning rate of the grid, geometric "
            "means over seeds; the second column is the row-sum law, which knows neither features nor loss (none for "
            f"sign methods). Where the law is above {FLOOR:g} ({judged}), NC0 agrees with it to a relative error of "
            f"{float(off.median()):.1e} in the median; row sums of all runs, at all records, are off by at most "
            f"{float(sgd['ratio'].max()):.2f} of what round-off may cause, which is more than the row sum itself where "
            "that has decayed far below the entries of W. SGD: momentum speeds up the decay of NC0 when decay is "
            "coupled, not when it is decoupled."
        ),
        "source": grid.attrs["source"],
        "settings": grid.attrs["settings"],
    }
    return data


def draw(data: xarray.Dataset) -> Figure:
    """A row per optimizer; NC0, its closed form, NC2, NC3."""
    figure = Figure(figsize=(9.4, 6.6), layout="constrained")
    grid = figure.subplots(len(SHOWN), 4)
    columns = (("nc0", "log₁₀ NC0"), ("law", "log₁₀ NC0, closed form"), ("nc2", "NC2"), ("nc3", "NC3"))
    for row, name in zip(grid, SHOWN, strict=True):
        runs = data.sel(optimizer=name)
        for ax, (field, title) in zip(row, columns, strict=True):
            values = runs[field].values
            if field == "law" and not runs["has_law"]:
                ax.set_axis_off()
                ax.text(0.5, 0.5, "no closed form", ha="center", va="center", transform=ax.transAxes)
                continue
            logarithmic = field in ("nc0", "law")
            shown = np.log10(values) if logarithmic else values
            low, high = (np.log10([runs["nc0"].min(), runs["nc0"].max()])) if logarithmic else (0.0, 1.4)
            plotting.heatmap(
                ax,
                shown,
                runs["momentum"].values,
                runs["decay"].values,
                form=".1f" if logarithmic else ".2f",
                low=float(low),
                high=float(high),
                row_label=f"{name}, {plotting.LABELS['momentum']}" if field == "nc0" else None,
                column_label=plotting.LABELS["decay"] if name == SHOWN[-1] else None,
                size=6.0,
            )
            if name == SHOWN[0]:
                ax.set_title(title)
    return figure
