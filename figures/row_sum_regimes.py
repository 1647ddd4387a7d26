"""The row sum of W in every regime of the SGD family: simulation, closed form, and error against round-off."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.theory import row_sum

PROBLEM = ufm.UFM(classes=10, width=16, per_class=5)
START = ufm.Start(W=ufm.LinearDefault(), H=ufm.Gaussian(0.1))
LR, LAM = 1.0, 0.01  # heavy ball is critically damped at beta* = (1 - sqrt(LR LAM))^2 = 0.81
STEPS, QUICK_STEPS = 500, 250


class Regime(NamedTuple):
    """One run: name, optimizer, decay of the last layer."""

    name: str
    lr: Any
    beta: float
    coupled: float = LAM
    decoupled: float = 0.0
    nesterov: bool = False


BETA = float(row_sum.critical_momentum(LR, LAM))
REGIMES = (
    Regime("over-damped", LR, 0.5),
    Regime("critically damped", LR, BETA),
    Regime("under-damped", LR, 0.98),
    Regime("decoupled decay", LR, 0.98, coupled=0.0, decoupled=LAM),
    Regime("mixed decay", LR, 0.98, coupled=LAM / 2, decoupled=LAM / 2),
    Regime("Nesterov", LR, 0.98, nesterov=True),
    Regime("step decay", ufm.StepDecay(LR, at=(60, 200)), 0.98),
    Regime("cosine to 0", ufm.Cosine(LR), 0.98),
)


def compute(quick: bool) -> xarray.Dataset:
    """Row sum along its start, the law, error and bound at every step of every regime."""
    steps = QUICK_STEPS if quick else STEPS
    runs = [_run(regime, steps) for regime in REGIMES]
    axes = ("regime", "step")
    data = xarray.Dataset(
        {name: (axes, np.stack([run[name] for run in runs])) for name in runs[0]},
        {"regime": [regime.name for regime in REGIMES], "step": np.arange(steps + 1)},
    )
    for name in ("beta", "coupled", "decoupled"):
        data[name] = ("regime", np.array([getattr(regime, name) for regime in REGIMES]))
    worst = float((data["error"] / data["bound"]).max())
    data.attrs = {
        "caption": (
            "Row sum m_t = W_t^T 1 of the last layer under SGD with momentum and weight decay, lr*lambda = "
            f"{LR * LAM:g}: upper panels, m_t along m_0 in the simulation (dots) and g_t of the row-sum law (line); "
            "lower panels, largest entry of |m_t - g_t m_0| (dots) and the round-off that the error model allows "
            f"(line). Heavy ball with coupled decay is critically damped at beta* = (1 - sqrt(lr lambda))^2 = "
            f"{BETA:.2f}; beyond it the row sum oscillates through zero. Step decay by 10 at "
            "steps 60 and 200 crosses into the monotone regime, since beta* tends to 1 with the learning "
            "rate. "
            f"Largest error/bound over all steps and regimes: {worst:.2f}."
        ),
        "source": f"simulation by this package; law: {row_sum.PAPER}, theorems 3.1 and 3.2, extended here",
        "lr_lam": LR * LAM,
        "critical_momentum": BETA,
        "settings": f"{PROBLEM!r}, {START!r}, seed 0, {steps} steps; {'; '.join(map(repr, REGIMES))}",
    }
    return data


def _run(regime: Regime, steps: int) -> dict[str, np.ndarray]:
    """Simulate one regime and hold its row sum against the law."""
    decay = ufm.Mixed(
        coupled=ufm.Coupled(W=regime.coupled, H=LAM), decoupled=ufm.Decoupled(W=regime.decoupled)
    )
    optimizer = ufm.Momentum(regime.lr, regime.beta, nesterov=regime.nesterov)
    W = ufm.simulate(PROBLEM, optimizer, decay, steps=steps, init=START)["W"]
    m = W.sum(axis=1)
    law: dict[str, Any] = {
        "beta": regime.beta,
        "coupled": regime.coupled,
        "decoupled": regime.decoupled,
        "nesterov": regime.nesterov,
    }
    law |= {"lr": regime.lr} if isinstance(regime.lr, float) else {"schedule": regime.lr.rates(steps)}
    t = np.arange(steps + 1)
    g = row_sum.growth(t, **law)
    scale = np.maximum.accumulate(np.abs(W).max(axis=(1, 2)))
    return {
        "signed": m @ m[0] / (m[0] @ m[0]),
        "growth": g,
        "error": np.abs(m - g[:, None] * m[0]).max(axis=1),
        "bound": row_sum.round_off_bound(t, **law, classes=PROBLEM.classes, scale=scale),
    }


def draw(data: xarray.Dataset) -> Figure:
    """Small multiples: per regime the signed row sum above, its error below."""
    count = data.sizes["regime"]
    wide = -(-count // 2)
    figure = Figure(figsize=(9.6, 5.6), layout="constrained")
    grid = figure.subplots(
        4, wide, sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": [2, 1, 2, 1]}
    )
    ends = float(data["error"].where(data["error"] > 0).min()), float(data["bound"].max())
    artists: list[Artist] = []
    for i in range(count):
        row, column = divmod(i, wide)
        upper, lower = grid[2 * row, column], grid[2 * row + 1, column]
        artists = _panel(upper, lower, data.isel(regime=i))
        plotting.log_axis(lower, "y", ends[0] / 2, 2 * ends[1], ticks=3)
        if column == 0:
            upper.set_ylabel(plotting.LABELS["signed"])
            lower.set_ylabel(plotting.LABELS["error"])
        if row == 1:
            lower.set_xlabel(plotting.LABELS["step"])
    plotting.legend_below(figure, artists)
    figure.suptitle(
        f"row sum mₜ = Wₜᵀ1 under SGD with ηλ = {data.attrs['lr_lam']:g}; "
        f"heavy ball is critically damped at β* = (1 − √(ηλ))² = {data.attrs['critical_momentum']:.2f}",
        fontsize=9,
    )
    return figure


def _panel(upper: Axes, lower: Axes, run: xarray.Dataset) -> list[Artist]:
    steps = run["step"].values
    _, *curves = plotting.signed_curve(
        upper,
        steps,
        run["signed"].values,
        run["growth"].values,
        predicted_label="law " + plotting.LABELS["growth"],
    )
    strip = plotting.error_strip(lower, steps, run["error"].values, run["bound"].values)
    upper.set_title(f"{run['regime'].item()}, β = {run['beta'].item():g}", loc="left")
    return [*curves, *strip]
