"""Gradient descent on the ReLU DUFM from ten starts: loss against DNC and SRG, DNC1, singular values at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import ufm
from figures._dufm import PAPER, START, last_ranks, train
from ufm import plotting
from ufm.metrics import dnc1, layer_spectra
from ufm.solutions import dnc, srg

PROBLEM = ufm.DUFM(classes=10, width=30, depth=4, per_class=10)
DECAY = ufm.Coupled(0.004)
LR, RUNS, RECORDS = 0.5, 10, 120
STEPS, QUICK_STEPS = 30_000, 3_000
LAYERS = (3, 4)  # whose singular values are shown
SOLUTIONS = {"DNC": ("purple", "--"), "SRG": ("black", "-")}
SHADES = ("blue", "green", "orange", "red")


def compute(quick: bool) -> xarray.Dataset:
    """Loss and DNC1 at the recorded steps of every run, singular values at its end; fewer steps if quick."""
    steps = QUICK_STEPS if quick else STEPS
    runs = train(PROBLEM, DECAY, LR, steps, range(RUNS), ufm.LogSpaced(RECORDS))
    exact = {"DNC": dnc(PROBLEM, DECAY), "SRG": srg(PROBLEM, DECAY)}
    chosen = [layer - 1 for layer in LAYERS]
    data = xarray.Dataset(
        {
            "loss": (("seed", "step"), np.stack([run.loss for run in runs])),
            "dnc1": (("seed", "step", "layer"), np.stack([dnc1(run, form="quotient") for run in runs])),
            "singular": (
                ("seed", "shown", "index"),
                np.stack([_singular(PROBLEM, run.state(-1))[chosen] for run in runs]),
            ),
            "rank": (("seed", "layer"), last_ranks(runs)),
            "exact_loss": ("solution", [found.loss for found in exact.values()]),
            "exact_singular": (
                ("solution", "shown", "index"),
                np.stack([_singular(PROBLEM, found)[chosen] for found in exact.values()]),
            ),
        },
        {
            "seed": np.arange(RUNS),
            "step": runs[0].steps,
            "layer": np.arange(1, PROBLEM.depth + 1),
            "shown": list(LAYERS),
            "index": np.arange(1, PROBLEM.classes + 1),
            "solution": list(exact),
        },
    )
    data.attrs = {
        "caption": _caption(data),
        "source": f"simulation by this package; DNC and SRG in closed form; after figure 2 (top) of {PAPER}, of "
        "which the caption was read",
        "settings": f"{PROBLEM!r}, {DECAY!r}, {ufm.GD(LR)!r}, {START}, seeds 0 to {RUNS - 1}, {steps} steps",
    }
    return data


def _singular(problem: ufm.DUFM, state: Any) -> np.ndarray:
    """Singular values of the class means of every layer before its ReLU, shape (L, K)."""
    return layer_spectra(problem, state, stage="pre")


def _caption(data: xarray.Dataset) -> str:
    end = data["loss"].isel(step=-1).values
    ranks = ", ".join(str(int(rank)) for rank in np.sort(data["rank"].sel(layer=LAYERS[0])))
    low, high = data["exact_loss"].sel(solution="SRG").item(), data["exact_loss"].sel(solution="DNC").item()
    return (
        f"Gradient descent on the ReLU DUFM with K = {PROBLEM.classes}, L = {PROBLEM.depth}, width "
        f"{PROBLEM.widths[0]}, all decays {DECAY.rate:g}, learning rate {LR:g}, {RUNS} runs: mean over the runs (dots) "
        "and one standard deviation (bands and bars; of the logarithms for DNC1). (a) Loss with the closed forms of "
        f"neural collapse, {high:.6f}, and of the SRG, {low:.6f}; each run is a thin line. (b) DNC1 of every layer's "
        "input s(H_l), trace of the within-class over that of the between-class covariance; where it levels off, steps "
        "of fixed size straddle kinks of the ReLU (the level falls with the learning rate). (c, d) Singular "
        "values of the class means before the ReLU at the end, and those of the two closed forms. The caption there "
        "states K, L, decay, learning rate, width and number of runs; it leaves open n, start and steps, which are "
        f"here n = {PROBLEM.per_class}, {START}, {int(data['step'][-1])} steps. Losses at the end {end.min():.5f} to "
        f"{end.max():.5f}, ranks of M_{LAYERS[0]} {ranks}."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Four panels: loss, DNC1, singular values of two layers."""
    figure = Figure(figsize=(9.8, 2.9), layout="constrained")
    axes = figure.subplots(1, 2 + data.sizes["shown"], width_ratios=[1.35, 1.2, 1, 1])
    steps = data["step"].values[1:]
    _losses(axes[0], data)
    _variability(axes[1], data)
    for ax in axes[:2]:
        plotting.log_axis(ax, "x", 10.0, 1.1 * float(steps[-1]), ticks=5)
        ax.set_xlabel(plotting.LABELS["step"])
    for ax, layer, letter in zip(axes[2:], data["shown"].values, "cd", strict=True):
        _spectra(ax, data.sel(shown=layer))
        ax.set_title(f"({letter}) singular values of M{plotting.subscript(layer)}", loc="left")
    axes[2].legend(fontsize=6.5, loc="upper right")
    figure.suptitle(
        f"gradient descent on the ReLU DUFM: K = {data.sizes['index']}, L = {data.sizes['layer']}, "
        f"{data.sizes['seed']} starts; mean and 1 sd",
        fontsize=9,
    )
    return figure


def _losses(ax: Axes, data: xarray.Dataset) -> None:
    steps, runs = data["step"].values[1:], data["loss"].values[:, 1:]
    ax.plot(steps, runs.T, color=plotting.COLOURS["sky"], linewidth=0.4, alpha=0.8, zorder=0)
    plotting.spread_curve(ax, steps, runs, label="runs")
    for name, (colour, dash) in SOLUTIONS.items():
        value = data["exact_loss"].sel(solution=name).item()
        ax.axhline(value, color=plotting.COLOURS[colour], linestyle=dash, linewidth=1.0, label=name)
    ax.set_ylim(0.9 * data["exact_loss"].min().item(), 2.0 * data["exact_loss"].max().item())
    ax.set_ylabel(plotting.LABELS["loss"])
    ax.set_title("(a) objective", loc="left")
    ax.legend(fontsize=6.5, loc="upper right")


def _variability(ax: Axes, data: xarray.Dataset) -> None:
    ax.set_yscale("log")
    steps = data["step"].values[1:]
    for layer, shade in zip(data["layer"].values, SHADES, strict=True):
        values = data["dnc1"].sel(layer=layer).values[:, 1:]
        name = "H₁" if layer == 1 else f"s(H{plotting.subscript(layer)})"
        plotting.spread_curve(ax, steps, values, colour=plotting.COLOURS[shade], label=name, dots=25)
    ax.set_ylabel("within / between classes")
    ax.set_title("(b) DNC1", loc="left")
    ax.legend(fontsize=6.5, loc="lower left", handletextpad=0.1)


def _spectra(ax: Axes, one: xarray.Dataset) -> None:
    """Singular values of one layer: closed forms as lines, the runs with bars."""
    index, values = one["index"].values, one["singular"].values
    for name, (colour, dash) in SOLUTIONS.items():
        exact = one["exact_singular"].sel(solution=name).values
        ax.step(
            index,
            exact,
            where="mid",
            linestyle=dash,
            color=plotting.COLOURS[colour],
            linewidth=1.0,
            label=name,
        )
    plotting.error_bars(
        ax,
        index,
        values.mean(axis=0),
        values.std(axis=0, ddof=1),
        colour=plotting.COLOURS["blue"],
        label="runs",
    )
    ax.set_ylim(bottom=(values.mean(axis=0) - values.std(axis=0, ddof=1)).min() - 0.1)
    ax.set_xlabel("index")
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
