"""Fifteen classes, seven layers: class means and spectra of the best state that gradient descent finds."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import leaves_list, linkage

import ufm
from figures._dufm import PAPER, START, last_losses, last_ranks, ordered_units, runs_by_rank, train
from ufm import plotting
from ufm.metrics import layer_means, layer_spectra
from ufm.solutions import dnc
from ufm.theory import strongly_regular_graph as graph

PROBLEM = ufm.DUFM(classes=15, width=20, depth=7)
RATE, LR = 0.001, 0.5
DECAY = ufm.Coupled(RATE)
VERTICES = 6
STEPS, QUICK_STEPS = 30_000, 6_000
SEEDS, QUICK_SEEDS = 64, 16
LAYERS = (2, 6)
SHOWN = (0.57, 1.02)  # ratios of losses
VARIANTS = {"kneser": ("black", "-", "SRG, Kneser"), "best": ("green", "--", "SRG, best design")}


def compute(quick: bool) -> xarray.Dataset:
    """Loss and ranks of every run; class means and spectra of the best one; fewer runs and steps if quick."""
    steps, seeds = (QUICK_STEPS, QUICK_SEEDS) if quick else (STEPS, SEEDS)
    runs = train(PROBLEM, DECAY, LR, steps, range(seeds))
    losses = last_losses(runs)
    state = runs[int(np.argmin(losses))].state(-1)
    means = layer_means(PROBLEM, state, stage="pre")
    order = leaves_list(linkage(means[LAYERS[-1] - 1].T, "average", optimal_ordering=True))
    shown = [means[layer - 1][:, order] for layer in LAYERS]
    singular = [layer_spectra(PROBLEM, state, stage=stage)[LAYERS[-1] - 1] for stage in ("pre", "post")]
    weights = [RATE] * PROBLEM.depth
    data = xarray.Dataset(
        {
            "loss": ("seed", losses),
            "rank": (("seed", "layer"), last_ranks(runs)),
            "means": (("shown", "unit", "place"), np.stack([ordered_units(M) for M in shown])),
            "gram": (("place", "other"), shown[-1].T @ shown[-1]),
            "singular": (("stage", "index"), np.stack(singular)),
            "exact_loss": (
                "variant",
                [graph.loss(VERTICES, RATE, weights, variant=variant) for variant in VARIANTS],
            ),
            "dnc_loss": ((), dnc(PROBLEM, DECAY).loss),
        },
        {
            "seed": np.arange(seeds),
            "layer": np.arange(1, PROBLEM.depth + 1),
            "shown": list(LAYERS),
            "class": ("place", order.astype(np.int32) + 1),
            "stage": ["pre", "post"],
            "index": np.arange(1, PROBLEM.classes + 1),
            "variant": list(VARIANTS),
        },
    )
    data.attrs = {
        "caption": _caption(data, steps),
        "source": f"simulation by this package and closed forms; after figure 6 of {PAPER}, of which the caption was "
        "read",
        "settings": f"{PROBLEM!r}, {DECAY!r}, {ufm.GD(LR)!r}, {START}, {seeds} seeds, {steps} steps",
    }
    return data


def _caption(data: xarray.Dataset, steps: int) -> str:
    ratio = data["loss"].values / data["dnc_loss"].item()
    best = int(np.argmin(ratio))
    kneser, design = (data["exact_loss"] / data["dnc_loss"]).values
    ranks = ", ".join(str(int(rank)) for rank in data["rank"].values[best])
    return (
        f"ReLU DUFM with K = {PROBLEM.classes} and L = {PROBLEM.depth}: the best of {data.sizes['seed']} runs of "
        "gradient descent. Class means M_2 and M_6 before the ReLU (units that are alive, one row each) and the Gram "
        "matrix of M_6, classes in an order that puts similar ones side by side, each in units of its largest entry; "
        "singular values of M_6 and of s(M_6); loss of every run over that of collapse, by the rank of M_6 (runs above "
        "the panel are counted). The caption there states K and L and leaves open n, width, decay, start and steps; "
        f"here n = 1, width {PROBLEM.widths[0]}, all decays {RATE:g}, learning rate {LR:g}, {START}, {steps} steps. "
        f"Loss over that of neural collapse: best run {ratio[best]:.4f}, with ranks {ranks} of M_1 to "
        f"M_{PROBLEM.depth}; SRG with r = {VERTICES}: Kneser {kneser:.4f}, best design {design:.4f}."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Class means, Gram, spectra of the best run, and all runs by rank."""
    figure = Figure(figsize=(9.8, 2.8), layout="constrained")
    axes = figure.subplots(1, 5, width_ratios=[1, 1, 1, 1.05, 1.35])
    for ax, layer in zip(axes, data["shown"].values, strict=False):
        M = data["means"].sel(shown=layer).values
        plotting.signed_matrix(
            ax, M[np.abs(M).max(axis=1) > 0], f"M{plotting.subscript(layer)}, best run", "auto"
        )
    name = f"M{plotting.subscript(data['shown'].values[-1])}"
    plotting.signed_matrix(axes[2], data["gram"].values, f"{name}ᵀ{name}", "auto")
    names = [str(k) for k in data["class"].values]
    for ax in axes[:3]:
        ax.set_xticks(range(len(names)), names, fontsize=4.5)
        ax.tick_params(length=0)
        ax.set_xlabel("class")
    _spectra(axes[3], data, name)
    _runs(axes[4], data, name)
    figure.suptitle(
        f"K = {data.sizes['place']}, L = {data.sizes['layer']}, width {PROBLEM.widths[0]}, λ = {RATE:g}: best "
        f"of {data.sizes['seed']} runs, and all of them",
        fontsize=9,
    )
    return figure


def _spectra(ax: Axes, data: xarray.Dataset, name: str) -> None:
    looks = {"pre": ("orange", "o", name), "post": ("green", "^", f"s({name})")}
    for stage, (colour, marker, label) in looks.items():
        ax.plot(
            data["index"].values,
            data["singular"].sel(stage=stage).values,
            marker,
            color=plotting.COLOURS[colour],
            markersize=3.5,
            markerfacecolor="none",
            label=label,
        )
    ax.set_ylim(bottom=-0.03 * float(data["singular"].max()))
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.set_xlabel("index")
    ax.set_title("singular values")
    ax.legend(fontsize=6.5)


def _runs(ax: Axes, data: xarray.Dataset, name: str) -> None:
    ratio = (data["loss"] / data["dnc_loss"]).values
    levels = (data["exact_loss"] / data["dnc_loss"]).values
    runs_by_rank(ax, data["rank"].sel(layer=data["shown"].values[-1]).values, ratio, SHOWN)
    for level, (colour, dash, label) in zip(levels, VARIANTS.values(), strict=True):
        ax.axhline(level, color=plotting.COLOURS[colour], linestyle=dash, linewidth=1.0, label=label)
    ax.set_xlabel(f"rank of {name}")
    ax.set_title("loss / loss of DNC")
    ax.legend(fontsize=6.5, loc="upper left", bbox_to_anchor=(0.0, 0.93))
