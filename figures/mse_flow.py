"""Squared error without decay: logistic growth from aligned starts, and the two laws of the central path."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.flow import flow
from ufm.theory import mse_flow as theory

CLASSES, PER_CLASS, WIDTH = 4, 6, 5
START = (0.3, 0.06, 0.012)  # eigenvalues of W W^T at time 0
LAST, RATES, DOTS, POINTS = 2.5, (0.08, 0.04, 0.01), 26, 200
SNR, LATE, PATH_POINTS = (2.5, 1.2, 0.5), 4_000.0, 40
MODES, CURVE = len(START), 200
LAWS = {"projected": theory.projected_law, "rewhitened": theory.rewhitened_law}
QUICK_DOTS = 6


def compute(quick: bool) -> xarray.Dataset:
    """Eigenvalues by flow, GD and law; singular values of whitened class means by matrices and by both laws."""
    problem = ufm.UFM(CLASSES, WIDTH, PER_CLASS, loss=ufm.MSE("sum"), bias=True)
    U = _frame()
    start = theory.aligned_blocks((U * np.sqrt(START)) @ np.eye(MODES, WIDTH), PER_CLASS)
    times, dots = np.linspace(0, LAST, POINTS), np.linspace(0, LAST, QUICK_DOTS if quick else DOTS)
    flowed = flow(problem, times=dots, init=start, tolerance=1e-9)
    variables: dict[str, tuple[Any, Any]] = {
        "law": (("time", "mode"), theory.logistic(np.array(START), times[:, None], PER_CLASS)),
        "flow": (("dot", "mode"), _eigenvalues(flowed["W"], U)),
        "end": ((), np.sqrt(PER_CLASS)),
    }
    for i, lr in enumerate(RATES):
        run = ufm.simulate(problem, ufm.GD(lr), steps=round(LAST / lr), init=start)
        found = ufm.compare(run)["ufm.logistic_flow"].prediction
        assert found is not None
        axis = f"step{i}"
        variables |= {
            f"time{i}": (axis, run.steps * lr),
            f"gd{i}": ((axis, "mode"), _eigenvalues(run["W"], U)),
            f"error{i}": (axis, found.error),
            f"bound{i}": (axis, found.bound),
        }
    moments = np.concatenate([[0.0], np.logspace(0, np.log10(LATE), 10 if quick else PATH_POINTS)])
    for dynamics in theory.DYNAMICS:
        omega = _path(dynamics, moments)
        # dense near the start, where the time is a small difference
        along = omega[0] + (omega[-1] - omega[0]) * np.linspace(0, 1, CURVE)[:, None] ** 3
        grown = LAWS[dynamics](along, CLASSES, PER_CLASS) - LAWS[dynamics](omega[0], CLASSES, PER_CLASS)
        variables |= {
            dynamics: (("moment", "mode"), omega),
            f"{dynamics}_omega": (("point", "mode"), along),
            f"{dynamics}_time": (("point", "mode"), grown),
        }
    data = xarray.Dataset(
        variables,
        {
            "time": times,
            "dot": dots,
            "moment": moments,
            "mode": np.arange(MODES),
            "lr": list(RATES),
        },
    )
    data.attrs = {
        "caption": _caption(data),
        "source": f"simulation and flow by this package; {theory.MIXON}; {theory.HAN} (summaries; constants derived)",
        "settings": (
            f"{problem!r}, aligned start with eigenvalues {START}, GD at {RATES}; central path: C = {CLASSES}, n = "
            f"{PER_CLASS}, omega(0) = {SNR}"
        ),
    }
    return data


def _frame() -> np.ndarray:
    """Orthonormal vectors orthogonal to 1, shape (classes, modes)."""
    from scipy.linalg import helmert

    frame: np.ndarray = helmert(CLASSES)[:MODES].T
    return frame


def _eigenvalues(W: np.ndarray, U: np.ndarray) -> np.ndarray:
    """Diagonal of U^T W W^T U at every record."""
    diagonal: np.ndarray = np.sum((np.swapaxes(W, 1, 2) @ U) ** 2, axis=1)
    return diagonal


def _path(dynamics: str, moments: np.ndarray) -> np.ndarray:
    """Singular values of the class means at these times, from matrices alone."""
    from scipy.integrate import solve_ivp

    rng, samples = np.random.default_rng(0), CLASSES * PER_CLASS
    means = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0][:, :MODES] * np.array(SNR) @ _frame().T
    spread = rng.standard_normal((WIDTH, CLASSES, PER_CLASS))
    spread = (spread - spread.mean(axis=2, keepdims=True)).reshape(WIDTH, samples)
    values, V = np.linalg.eigh(spread @ spread.T / samples)
    H = np.repeat(means, PER_CLASS, axis=1) + (V / np.sqrt(values)) @ V.T @ spread

    def velocity(_: float, x: np.ndarray) -> np.ndarray:
        return theory.central_path_velocity(x.reshape(H.shape), CLASSES, dynamics).ravel()

    solution = solve_ivp(velocity, (0.0, moments[-1]), H.ravel(), "DOP853", moments, rtol=1e-9, atol=1e-11)
    return np.array([theory.signal_to_noise(x.reshape(H.shape), CLASSES) for x in solution.y.T])


def _law_error(data: xarray.Dataset, dynamics: str) -> float:
    """Largest relative deviation of the growth of a law from the time."""
    values, moments = LAWS[dynamics](data[dynamics].values, CLASSES, PER_CLASS), data["moment"].values
    return float(np.abs((values - values[0])[1:] / moments[1:, None] - 1).max())


def _caption(data: xarray.Dataset) -> str:
    exact = theory.logistic(np.array(START), data["dot"].values[:, None], PER_CLASS)
    error = float(np.abs(data["flow"].values - exact).max())
    worst = ", ".join(
        f"{float((data[f'error{i}'] / data[f'bound{i}'])[1:].max()):.2f} at {lr:g}"
        for i, lr in enumerate(RATES)
    )
    ratios = [float(data[name][-1].max() / data[name][-1].min()) for name in theory.DYNAMICS]
    return (
        f"Squared error without decay, C = {CLASSES} classes of n = {PER_CLASS}. (a) Eigenvalues of W W^T from an "
        f"aligned start: logistic law (lines), the flow of the matrices (circles, within {error:.0e}), and GD at three "
        "step sizes (crosses, the largest; dots, the middle one); all end at sqrt(n). (b) Largest distance of GD from "
        f"the law (solid) and its bound (dashed), first order in the step; distance over bound is at most {worst}. "
        "(c) Singular values omega of whitened class means on the central path, from matrices (markers) and by the "
        "laws (lines): the projected gradient, with omega^4, and the whole gradient with features whitened again, "
        f"without it. Each law grows by the time to {_law_error(data, 'projected'):.0e} and "
        f"{_law_error(data, 'rewhitened'):.0e} of it; largest over smallest omega at the end {ratios[0]:.2f} and "
        f"{ratios[1]:.2f}, {SNR[0] / SNR[-1]:g} at the start. The published law has omega^4; its constants are left "
        "open there, as far as known here, and were derived."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Logistic growth, distance of GD, omega on the central path."""
    figure = Figure(figsize=(9.4, 3.1), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_growth(left, data)
    _draw_distance(middle, data)
    _draw_path(right, data)
    return figure


def _draw_growth(ax: Axes, data: xarray.Dataset) -> None:
    colours = plotting.sequence(MODES)
    for mode, colour in enumerate(colours):
        one = data.isel(mode=mode)
        ax.plot(one["time"].values, one["law"].values, "-", color=colour, label="law" if not mode else None)
        ax.plot(
            one["dot"].values, one["flow"].values, "o", color=colour, markerfacecolor="none",
            label="flow" if not mode else None,
        )  # fmt: skip
        for i, mark in ((0, "x"), (1, ".")):
            ax.plot(
                one[f"time{i}"].values, one[f"gd{i}"].values, mark, color=colour, markersize=3,
                label=f"GD, η = {float(data['lr'][i]):g}" if not mode else None,
            )  # fmt: skip
    ax.axhline(float(data["end"]), color=plotting.QUIET, linewidth=0.8, linestyle=":", zorder=0)
    ax.annotate("√n", (0.0, float(data["end"])), (2, -9), textcoords="offset points", color=plotting.QUIET)
    ax.set(xlabel="time (steps times η)", ylabel="eigenvalues of WWᵀ")
    ax.legend(loc="lower right")
    ax.set_title("(a) aligned start", loc="left")


def _draw_distance(ax: Axes, data: xarray.Dataset) -> None:
    rates = data["lr"].values
    for i, colour in enumerate(plotting.sequence(len(rates))):
        times = data[f"time{i}"].values[1:]
        ax.semilogy(times, data[f"error{i}"].values[1:], "-", color=colour, label=f"η = {rates[i]:g}")
        ax.semilogy(times, data[f"bound{i}"].values[1:], "--", color=colour, linewidth=0.9)
    ax.plot([], [], "--", color=plotting.QUIET, label="bound")
    ax.set(xlabel="time (steps times η)", ylabel="distance of GD from the law")
    ax.legend(loc="lower center", ncols=2)
    ax.set_title("(b) first order in the step", loc="left")


def _draw_path(ax: Axes, data: xarray.Dataset) -> None:
    looks = {"projected": ("blue", "o"), "rewhitened": ("red", "s")}
    for name, (colour, mark) in looks.items():
        shade = plotting.COLOURS[colour]
        for mode in range(MODES):
            one = data.isel(mode=mode)
            ax.loglog(
                one["moment"].values[1:], one[name].values[1:], mark, color=shade, markerfacecolor="none",
                markersize=3, label=f"{name}, matrices" if not mode else None,
            )  # fmt: skip
            times, omega = one[f"{name}_time"].values, one[f"{name}_omega"].values
            shown = times >= 1.0
            ax.plot(times[shown], omega[shown], "-", color=shade, label=f"{name}, law" if not mode else None)
    ax.set(xlabel="time", ylabel="ω of the class means")
    ax.legend(loc="upper left")
    ax.set_title("(c) central path", loc="left")
