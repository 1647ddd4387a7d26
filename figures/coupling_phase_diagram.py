"""Where NC0 converges to zero: over the coupled share of the decay, the total decay and momentum."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import ufm
from figures._grid import START
from ufm import plotting
from ufm.theory import row_sum

PROBLEM, QUICK_PROBLEM = ufm.UFM(classes=10, width=16, per_class=2), ufm.UFM(classes=4, width=6)
STEPS, QUICK_STEPS = 6_000, 600
MOMENTA, QUICK_MOMENTA = (0.0, 0.9), (0.0, 0.9)
FLOOR, CONVERGED = 1e-24, 1e-3  # of alpha over its start


class Method(NamedTuple):
    """An optimizer of the diagram with its learning rate."""

    name: str
    optimizer: Any
    lr: float


METHODS = (
    Method("SGD", ufm.Momentum, 0.1),
    Method("Signum", ufm.Signum, 0.01),
    Method("Adam", ufm.Adam, 0.01),
)


def compute(quick: bool) -> xarray.Dataset:
    """Final alpha over its start for every method, momentum, decay and share; the row-sum law for SGD."""
    problem, steps = (QUICK_PROBLEM, QUICK_STEPS) if quick else (PROBLEM, STEPS)
    momenta = QUICK_MOMENTA if quick else MOMENTA
    shares = np.linspace(0, 1, 4 if quick else 17)
    decays = np.geomspace(1e-4, 1.0, 4 if quick else 17)
    axes = ("optimizer", "momentum", "decay", "share")
    found = [_alpha(method, problem, momenta, decays, shares, steps) for method in METHODS]
    data = xarray.Dataset(
        {"ratio": (axes, np.stack(found))},
        {"optimizer": [m.name for m in METHODS], "momentum": list(momenta), "decay": decays, "share": shares},
    )
    law = np.empty((len(momenta), len(decays), len(shares)))
    rates = ufm.StepDecay(METHODS[0].lr).rates(steps)
    for i, j, k in np.ndindex(law.shape):
        law[i, j, k] = row_sum.nc0(
            steps,
            beta=momenta[i],
            coupled=decays[j] * shares[k],
            decoupled=decays[j] * (1 - shares[k]),
            schedule=rates,
        )
    data["law"] = (axes[1:], law)
    sgd = data["ratio"].sel(optimizer="SGD")
    resolved = data["law"] > FLOOR
    off = abs(xarray.apply_ufunc(np.log, sgd / data["law"])).where(resolved)
    reached = {
        m.name: f"{float((data['ratio'].sel(optimizer=m.name) < CONVERGED).mean()):.0%}" for m in METHODS
    }
    judged = f"{int(resolved.sum())} of {resolved.size} runs"
    alone = ", ".join(
        f"{name} {float(data['ratio'].sel(optimizer=name, share=0).min()):.2g}" for name in reached
    )
    data.attrs = {
        "caption": (
            "alpha at the end over its start, over the share of the weight decay that is coupled (inside the gradient) "
            f"and the total decay, after {steps} steps with the learning rate divided by 10 at one and two thirds. "
            f"Share of each map where alpha has fallen below {CONVERGED:g} of its start: {reached}. Dashed: where the "
            "row-sum law puts that boundary, for SGD, the only method with a closed form; simulation and law agree to "
            f"a relative error of {float(off.max()):.1e} wherever alpha/alpha_0 > {FLOOR:g} ({judged}). For SGD the "
            "share only matters through momentum, which speeds up coupled decay by 1/(1 - beta). Smallest "
            f"alpha/alpha_0 with decoupled decay alone, at any strength shown: {alone}."
        ),
        "source": f"simulation by this package; law: {row_sum.PAPER}, theorems 3.1 and 3.2, extended here",
        "settings": f"{problem!r}, {START!r}, seed 0, {steps} steps; {'; '.join(map(repr, METHODS))}",
        "converged": CONVERGED,
    }
    return data


def _alpha(
    method: Method, problem: ufm.UFM, momenta: Any, decays: np.ndarray, shares: np.ndarray, steps: int
) -> np.ndarray:
    """Final NC0 over the first, shape (momenta, decays, shares)."""
    found = ufm.sweep(
        problem,
        method.optimizer,
        lr=ufm.StepDecay(method.lr),
        momentum=list(momenta),
        total_decay=decays,
        coupled_share=shares,
        steps=steps,
        init=START,
        record=ufm.At([0, steps]),
        metrics=["nc0"],
    )["nc0"].transpose("momentum", "total_decay", "coupled_share", "record")
    ratio: np.ndarray = found.values[..., -1] / found.values[..., 0]
    return ratio


def draw(data: xarray.Dataset) -> Figure:
    """A row per momentum, a column per method."""
    figure = Figure(figsize=(7.6, 4.9), layout="constrained")
    grid = figure.subplots(data.sizes["momentum"], data.sizes["optimizer"], sharex=True, sharey=True)
    for i, row in enumerate(grid):
        for j, ax in enumerate(row):
            mesh = _map(ax, data.isel(momentum=i, optimizer=j))
            if i == 0:
                ax.set_title(str(data["optimizer"].values[j]), loc="left")
            if j == 0:
                ax.set_ylabel(f"total decay λ, β = {data['momentum'].values[i]:g}")
            if i == len(grid) - 1:
                ax.set_xlabel("coupled share of the decay")
    bar = figure.colorbar(mesh, ax=grid, shrink=0.8)
    bar.set_label("log₁₀ of final α over its start")
    boundary = Line2D([], [], color="black", linestyle="--", label=f"law: α/α₀ = {CONVERGED:g}")
    measured = Line2D([], [], color=plotting.COLOURS["orange"], label=f"simulation: α/α₀ = {CONVERGED:g}")
    plotting.legend_below(figure, [measured, boundary])
    return figure


def _map(ax: Axes, runs: xarray.Dataset) -> Any:
    level = np.log10(np.maximum(runs["ratio"].values, FLOOR))
    mesh = ax.pcolormesh(
        runs["share"].values,
        runs["decay"].values,
        level,
        cmap="viridis",
        norm=Normalize(np.log10(FLOOR), 4),
        shading="nearest",
        rasterized=True,
    )
    ax.set_yscale("log")
    edge = np.log10(CONVERGED)
    if level.min() < edge < level.max():
        ax.contour(
            runs["share"].values,
            runs["decay"].values,
            level,
            [edge],
            colors=plotting.COLOURS["orange"],
            linewidths=1.6,
        )
    if str(runs["optimizer"].values) == "SGD":
        law = np.log10(np.maximum(runs["law"].values, FLOOR))
        if law.min() < edge < law.max():
            ax.contour(
                runs["share"].values,
                runs["decay"].values,
                law,
                [edge],
                colors="black",
                linestyles="--",
                linewidths=1,
            )
    return mesh
