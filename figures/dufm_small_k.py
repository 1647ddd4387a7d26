"""Few classes, K = 3, 4, 5 at L = 4: the best state of gradient descent has a lower loss and rank than collapse."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from figures._dufm import PAPER, START, last_losses, last_ranks, ordered_units, runs_by_rank, train
from ufm import plotting
from ufm.metrics import layer_means
from ufm.solutions import dnc

CLASSES, WIDTH, DEPTH = (3, 4, 5), 12, 4
DECAY, LR = ufm.Coupled(0.01), 0.5
STEPS, QUICK_STEPS = 30_000, 8_000
SEEDS, QUICK_SEEDS = 256, 32
RECORDS = 80
SHOWN = (0.91, 1.04)  # ratios of losses
SIZES = {"fit": 2.0, "penalty": 2.0, "loss": 4.5}  # of dots, in points
PARTS = {"loss": ("sky", "loss"), "fit": ("blue", "fit"), "penalty": ("red", "decay")}


def compute(quick: bool) -> xarray.Dataset:
    """Loss of every run, and loss, fit, penalty and class means of the best; fewer runs and steps if quick."""
    steps, seeds = (QUICK_STEPS, QUICK_SEEDS) if quick else (STEPS, SEEDS)
    found = [_best(K, steps, seeds) for K in CLASSES]
    names = [name for name in found[0] if name != "step"]
    most = max(CLASSES)
    axes = {
        "losses": ("classes", "seed"),
        "ranks": ("classes", "seed"),
        "parts": ("classes", "part", "step"),
        "collapsed": ("classes", "part"),
        "means": ("classes", "shown", "unit", "column"),
    }
    stacked = {
        name: np.stack([_filled(one[name], most) if name == "means" else one[name] for one in found])
        for name in names
    }
    data = xarray.Dataset(
        {name: (axes[name], values) for name, values in stacked.items()},
        {"classes": list(CLASSES), "part": list(PARTS), "shown": [3, 4], "step": found[0]["step"]},
    )
    data.attrs = {
        "caption": _caption(data),
        "source": f"simulation by this package; after figure 5 of {PAPER}, of which the caption was read",
        "settings": f"L = {DEPTH}, width {WIDTH}, {DECAY!r}, {ufm.GD(LR)!r}, {START}, n = 1, {seeds} seeds, {steps} "
        "steps",
    }
    return data


def _best(classes: int, steps: int, seeds: int) -> dict[str, np.ndarray]:
    """Losses and ranks of M_3 of all runs; parts of the loss over the steps, and class means, of the best."""
    problem = ufm.DUFM(classes, WIDTH, DEPTH)
    runs = train(problem, DECAY, LR, steps, range(seeds), ufm.LogSpaced(RECORDS))
    losses = last_losses(runs)
    best = runs[int(np.argmin(losses))]
    means = layer_means(problem, best.state(-1), stage="pre")
    collapsed = dnc(problem, DECAY)
    fit = float(problem.value(collapsed.blocks))
    return {
        "step": best.steps,
        "losses": losses,
        "ranks": last_ranks(runs)[:, DEPTH - 2],
        "parts": np.stack([best.loss, best.fit, best.penalty]),
        "collapsed": np.array([collapsed.loss, fit, collapsed.loss - fit]),
        "means": np.stack([ordered_units(M) for M in means[2:4]]),
    }


def _filled(means: np.ndarray, columns: int) -> np.ndarray:
    """Zero columns beyond the last class."""
    return np.pad(means, ((0, 0), (0, 0), (0, columns - means.shape[-1])))


def _caption(data: xarray.Dataset) -> str:
    ratios = [
        f"{float(one['losses'].min() / one['collapsed'].sel(part='loss')):.4f} at rank "
        f"{int(one['ranks'][int(np.argmin(one['losses'].values))])} (K = {K})"
        for K, one in ((K, data.sel(classes=K)) for K in data["classes"].values)
    ]
    return (
        f"ReLU DUFM with L = {DEPTH}, K = 3, 4, 5: best of {data.sizes['seed']} runs of gradient descent for each K. "
        "Left, fit and decay terms and their sum along that run (dots; dashed: those of deep neural collapse). "
        "Middle, class means M_3 and M_4 before the ReLU at its end, units that are alive, one row each, and the Gram "
        "matrix of M_3, each in units of its largest entry. Right, every run's loss over that of collapse, by the rank "
        "of M_3; runs above the panel, which are counted, have lost a class or more. The caption there states K, L and "
        "leaves open n, width, decay, start and steps; here n = 1, width "
        f"{WIDTH}, all decays {DECAY.rate:g}, learning rate {LR:g}, {START}, {int(data['step'][-1])} steps. Loss over "
        f"that of collapse: {', '.join(ratios)}."
    )


def draw(data: xarray.Dataset) -> Figure:
    """One row for each K: parts of the loss, class means, Gram, and all runs by rank."""
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    grid = figure.subplots(data.sizes["classes"], 5, squeeze=False, width_ratios=[1.7, 0.8, 0.8, 0.8, 1.5])
    for row, K in zip(grid, data["classes"].values, strict=True):
        one = data.sel(classes=K)
        _parts(row[0], one)
        row[0].set_ylabel(f"K = {K}", weight="bold")
        means = one["means"].values[:, :, :K]
        alive = [M[np.abs(M).max(axis=1) > 0] for M in means]
        plotting.signed_matrix(row[1], alive[0], "M₃", "auto")
        plotting.signed_matrix(row[2], alive[1], "M₄", "auto")
        plotting.signed_matrix(row[3], alive[0].T @ alive[0], "M₃ᵀM₃")
        for ax in row[1:4]:
            ax.set_xticks(range(K), [str(k + 1) for k in range(K)], fontsize=6)
            ax.tick_params(length=0)
        _ranks(row[4], one)
    for ax in grid[-1, 1:4]:
        ax.set_xlabel("class")
    grid[-1, 0].set_xlabel(plotting.LABELS["step"])
    grid[-1, 4].set_xlabel("rank of M₃")
    grid[0, 0].legend(fontsize=6.5, loc="lower left", ncols=3, handletextpad=0.1)
    grid[0, 0].set_title("best run: parts of the loss", loc="left")
    grid[0, 4].set_title("all runs: loss / loss of DNC", loc="left")
    figure.suptitle(
        f"few classes, L = {DEPTH}, width {WIDTH}, λ = {DECAY.rate:g}: best of {data.sizes['seed']} runs",
        fontsize=9,
    )
    return figure


def _parts(ax: Axes, one: xarray.Dataset) -> None:
    steps = one["step"].values[1:]
    for part, (colour, name) in PARTS.items():
        shade = plotting.COLOURS[colour]
        values = one["parts"].sel(part=part).values[1:]
        ax.plot(steps, values, "o", color=shade, markersize=SIZES[part], markeredgewidth=0, label=name)
        ax.axhline(one["collapsed"].sel(part=part).item(), color=shade, linestyle="--", linewidth=0.8)
    plotting.log_axis(ax, "x", 10.0, 1.1 * float(steps[-1]), ticks=4)
    plotting.log_axis(ax, "y", 1e-6, 1.0, ticks=4)


def _ranks(ax: Axes, one: xarray.Dataset) -> None:
    """Loss over that of DNC of every run, side by side at its rank."""
    ratio = one["losses"].values / one["collapsed"].sel(part="loss").item()
    runs_by_rank(ax, one["ranks"].values, ratio, SHOWN)
    ax.set_xlim(1.4, max(CLASSES) + 0.6)
    ax.axhline(1.0, color=plotting.QUIET, linewidth=0.8, zorder=0)
