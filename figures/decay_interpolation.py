"""From decoupled to coupled weight decay at one total rate: NC0, NC2 and NC3 at the end of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import ufm
from ufm import plotting
from ufm.metrics import nc0, nc2, nc3
from ufm.theory import row_sum

PROBLEM = ufm.UFM(classes=10, width=16, per_class=5)
START = ufm.Start(W=ufm.LinearDefault(), H=ufm.Gaussian(0.1))
LAM, BETA, STEPS = 5e-4, 0.9, 10_000
SHARES = np.round(np.concatenate([[0.0, 0.01, 0.02], np.linspace(0.05, 1.0, 20)]), 12)
QUICK_SHARES = np.array([0.0, 0.01, 0.25, 0.5, 1.0])
ORDERS = ("before", "after")


class Method(NamedTuple):
    """An optimizer by its learning rate."""

    name: str
    title: str
    lr: float
    optimizer: Callable[[float], Any]


METHODS = (
    Method("momentum", "momentum β = 0.9, η = 0.1", 0.1, lambda lr: ufm.Momentum(lr, BETA)),
    Method("adam", "Adam, η = 0.001", 1e-3, ufm.Adam),
)


def compute(quick: bool) -> xarray.Dataset:
    """Final NC0, NC2, NC3 and loss by optimizer, order of the shrink and coupled share."""
    shares = QUICK_SHARES if quick else SHARES
    values = {
        (method.name, order): [_final(method, order, float(share)) for share in shares]
        for method in METHODS
        for order in ORDERS
    }
    axes = ("optimizer", "order", "share")
    shape = (len(METHODS), len(ORDERS), len(shares))
    data = xarray.Dataset(
        {
            name: (axes, np.array([[row[name] for row in rows] for rows in values.values()]).reshape(shape))
            for name in ("start", "alpha", "nc2", "nc3", "fit")
        },
        {"optimizer": [method.name for method in METHODS], "order": list(ORDERS), "share": shares},
    )
    data["law"] = (
        axes[1:],
        np.stack([_law(order, shares, data["start"].values[0, 0, 0]) for order in ORDERS]),
    )
    data["equal"] = (
        ("optimizer", "share"),
        np.stack(
            [_relative_effect(method, shares, data["alpha"].values[i, 0]) for i, method in enumerate(METHODS)]
        ),
    )
    data.attrs = {
        "caption": _caption(data),
        "source": (
            f"simulation by this package, after section 3.4 of {row_sum.PAPER}; law: the same, theorems 3.1 and "
            "3.2, for mixed decay derived here"
        ),
        "settings": (
            f"{PROBLEM!r}, {START!r}, seed 0, {STEPS} steps, total decay {LAM} on every block, "
            f"{'; '.join(repr(method.optimizer(method.lr)) for method in METHODS)}"
        ),
    }
    return data


def _decay(share: float, order: str) -> ufm.Mixed:
    return ufm.Mixed(coupled=LAM * share, decoupled=LAM * (1 - share), shrink=order)


def _end(optimizer: Any, decay: ufm.Mixed) -> ufm.Trajectory:
    """A run of which the first and the last state are kept."""
    return ufm.simulate(PROBLEM, optimizer, decay, steps=STEPS, init=START, record=ufm.At([]))


def _final(method: Method, order: str, share: float) -> dict[str, float]:
    run = _end(method.optimizer(method.lr), _decay(share, order))
    (start, alpha), fit = nc0(run), run.fit[-1]
    return {"start": start, "alpha": alpha, "nc2": nc2(run)[-1], "nc3": nc3(run)[-1], "fit": fit}


def _law(order: str, shares: np.ndarray, start: float) -> np.ndarray:
    """Final NC0 of momentum by the row-sum law."""
    lr, decoupled = METHODS[0].lr, LAM * (1 - shares)
    rates = row_sum.rates_before(lr, decoupled) if order == "after" else (lr, decoupled)
    return np.asarray(row_sum.nc0(STEPS, rates[0], BETA, LAM * shares, rates[1], nc0_0=start))


def _relative_effect(method: Method, shares: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Final NC0 of runs that shrink before the step at `row_sum.rates_before`, over that at the plain ones, minus 1."""
    found = []
    for share in shares:
        lr, decoupled = row_sum.rates_before(method.lr, LAM * (1 - share))
        run = _end(method.optimizer(float(lr)), ufm.Mixed(coupled=LAM * share, decoupled=float(decoupled)))
        found.append(nc0(run)[-1])
    effect: np.ndarray = np.array(found) / before - 1
    return effect


def _caption(data: xarray.Dataset) -> str:
    alpha = data["alpha"].sel(order="before")
    momentum, adam = (alpha.sel(optimizer=method.name).values for method in METHODS)
    off = float(np.abs(alpha.sel(optimizer="momentum") / data["law"].sel(order="before") - 1).max())
    effect = [float(np.abs(data["alpha"][i, 1] / data["alpha"][i, 0] - 1).max()) for i in range(len(METHODS))]
    nc = {
        name: data[name].sel(optimizer="momentum", order="before").values[[0, -1]]
        for name in ("nc2", "nc3", "fit")
    }
    small = data["share"].values[1]
    return (
        f"After {STEPS} steps at total weight decay {LAM:g}, of which the share on the abscissa is coupled, the rest "
        "decoupled. Upper row: momentum 0.9 at lr 0.1; NC0 falls from "
        f"{momentum[0]:.2g} (all decoupled) to {momentum[-1]:.1e} (all coupled), on the closed form (dashed) to "
        f"{off:.0e} relative, NC2 from {nc['nc2'][0]:.2g} to {nc['nc2'][1]:.1e} and NC3 from {nc['nc3'][0]:.1e} to "
        f"{nc['nc3'][1]:.1e}, while the training loss rises from {nc['fit'][0]:.1e} to {nc['fit'][1]:.1e}, for "
        "momentum multiplies coupled decay alone. Lower row: Adam at lr 0.001, for which there is no closed form: NC0 "
        f"{adam[0]:.2g} without coupled decay (start {float(data['start'][1, 0, 0]):.2g}), {adam[1]:.2g} at a share of "
        f"{small:g}, {adam[-1]:.0e} at 1. Right column: relative change of final NC0 when the shrink comes after the "
        f"step (authors' code) instead of before it (PyTorch): at most {effect[0]:.1e} and {effect[1]:.1e}. Dashed "
        "there: closed form (above) or simulation (below) of the shrink before the step at lr (1 - lr lambda_d) and "
        "lambda_d/(1 - lr lambda_d), which is the same map."
    )


def draw(data: xarray.Dataset) -> Figure:
    """A row per optimizer: NC0, NC2 and NC3, and the effect of the order of the shrink."""
    figure = Figure(figsize=(8.6, 4.9), layout="constrained")
    grid = figure.subplots(2, 3, sharex=True)
    share = data["share"].values
    for i, method in enumerate(METHODS):
        left, middle, right = grid[i]
        found = data.isel(optimizer=i)
        law = data["law"].sel(order="before").values if i == 0 else None
        _orders(left, found["alpha"], "blue")
        if law is not None:
            plotting.dots_and_line(left, share, predicted=law)
        _orders(middle, found["nc2"], "orange")
        _orders(middle, found["nc3"], "green")
        effect = found["alpha"].values[1] / found["alpha"].values[0] - 1
        expected = (data["law"].values[1] / data["law"].values[0] - 1) if i == 0 else found["equal"].values
        right.axhline(0.0, color=plotting.QUIET, linewidth=0.5, zorder=0)
        plotting.dots_and_line(right, share, effect, expected, colour=plotting.COLOURS["blue"])
        right.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
        left.set_title(method.title, loc="left")
        left.set_ylabel(plotting.LABELS["alpha"])
        middle.set_ylabel("NC2, NC3")
        right.set_ylabel("α(after) / α(before) − 1")
        for ax in (left, middle):
            ax.set_yscale("log")
    for ax in grid[1]:
        ax.set_xlabel("coupled share of the decay")
    plotting.legend_below(figure, _legend())
    return figure


def _orders(ax: Axes, values: xarray.DataArray, colour: str) -> None:
    """Final values of both orders: dots for the shrink before the step, rings for after."""
    share = values["share"].values
    plotting.dots_and_line(ax, share, values.sel(order="before").values, colour=plotting.COLOURS[colour])
    ax.plot(
        share, values.sel(order="after").values, "o", fillstyle="none", markersize=6.0, markeredgewidth=0.7,
        color=plotting.COLOURS[colour],
    )  # fmt: skip


def _legend() -> list[Line2D]:
    colours = {"α": "blue", "NC2": "orange", "NC3": "green"}
    dots = [
        Line2D([], [], marker="o", linestyle="none", color=plotting.COLOURS[colour], label=name)
        for name, colour in colours.items()
    ]
    ring = {"marker": "o", "linestyle": "none", "fillstyle": "none", "color": plotting.QUIET}
    return [
        *dots,
        Line2D([], [], label="shrink after the step", **ring),  # type: ignore[arg-type]
        Line2D([], [], linestyle="--", color=plotting.PREDICTION, label="prediction"),
    ]
