"""Structure of the SRG states at K = 10, r = 5, L = 4: class means before and after the last ReLU, Grams, spectra."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

import ufm
from ufm import plotting
from ufm.solutions import dnc, srg
from ufm.theory import strongly_regular_graph as theory

VERTICES = 5
PROBLEM = ufm.DUFM(classes=10, width=10, depth=4)
DECAY = ufm.Coupled(0.004)
VARIANTS = ("kneser", "identity")
STAGES = ("M3", "M4", "s(M4)")
TITLES = {"M3": "M₃", "M4": "M₄", "s(M4)": "s(M₄)"}
GRAMS = {"M3": "M₃ᵀM₃", "M4": "M₄ᵀM₄", "s(M4)": "s(M₄)ᵀs(M₄)"}
LOOKS = {"M3": ("blue", "s"), "M4": ("orange", "o"), "s(M4)": ("green", "^")}
RESOLVED = 1e-9  # of the largest singular value; the rest is rounding


def compute(quick: bool) -> xarray.Dataset:
    """Class means, their Grams and singular values of both variants; the same numbers if quick."""
    states = {variant: srg(PROBLEM, DECAY, variant) for variant in VARIANTS}
    means = np.stack([_means(states[variant]) for variant in VARIANTS])
    singular = np.linalg.svd(means, compute_uv=False)
    singular[singular < RESOLVED * singular[..., :1]] = 0.0
    edges = ["".join(str(v + 1) for v in edge) for edge in combinations(range(VERTICES), 2)]
    data = xarray.Dataset(
        {
            "means": (("variant", "stage", "unit", "class"), means),
            "gram": (("variant", "stage", "class", "other"), np.swapaxes(means, 2, 3) @ means),
            "singular": (("variant", "stage", "index"), singular),
            "rank": (("variant", "stage"), np.count_nonzero(singular, axis=-1).astype(np.int32)),
            "loss": ("variant", [states[variant].loss for variant in VARIANTS]),
            "dnc_loss": ((), dnc(PROBLEM, DECAY).loss),
        },
        {"variant": list(VARIANTS), "stage": list(STAGES), "class": edges, "other": edges},
    )
    data.attrs = {
        "caption": _caption(data),
        "source": f"explicit states of this package; after figure 1 of {theory.PAPER}, of which the caption was read",
        "settings": f"{PROBLEM!r}, {DECAY!r}, last layer relaxed",
    }
    return data


def _means(state: ufm.solutions.Solution) -> np.ndarray:
    """M_3, M_4 and s(M_4), each 10 units by 10 classes."""
    third = state["W2"] @ np.maximum(state["W1"] @ state["H"], 0.0)
    fourth = state["W3"] @ np.maximum(third, 0.0)
    return np.stack([third, fourth, np.maximum(fourth, 0.0)])


def _caption(data: xarray.Dataset) -> str:
    kneser, identity = (float(data["loss"].sel(variant=variant)) for variant in VARIANTS)
    ranks = [int(rank) for rank in data["rank"].sel(variant="kneser")]
    return (
        f"Two low-rank states of the ReLU DUFM with K = {PROBLEM.classes}, L = {PROBLEM.depth}, all decays "
        f"{DECAY.rate:g}, n = {PROBLEM.per_class}, width {PROBLEM.width}. Classes are the edges of the complete graph "
        f"on r = {VERTICES} vertices. Class means M_3 hold one row for each vertex, with {VERTICES - 1} equal entries; "
        f"M_4 answers to edges disjoint from the neuron's own (kneser) or to the own edge (identity). Ranks of M_3, "
        f"M_4, s(M_4): {ranks[0]}, {ranks[1]}, {ranks[2]}. Each matrix is shown in units of its largest entry, "
        "singular values in units of the largest one. Loss: "
        f"kneser {kneser:.7f}, identity {identity:.7f}, deep neural collapse {float(data['dnc_loss']):.7f}. "
        "The caption of the paper's figure fits both variants."
    )


def draw(data: xarray.Dataset) -> Figure:
    """One row for each variant: class means and Gram of each stage, then the singular values."""
    figure = Figure(figsize=(9.8, 4.3), layout="constrained")
    grid = figure.subplots(len(VARIANTS), 2 * len(STAGES) + 1, squeeze=False)
    for row, variant in zip(grid, VARIANTS, strict=True):
        one = data.sel(variant=variant)
        for i, stage in enumerate(STAGES):
            plotting.signed_matrix(row[2 * i], one["means"].sel(stage=stage).values, TITLES[stage])
            plotting.signed_matrix(row[2 * i + 1], one["gram"].sel(stage=stage).values, GRAMS[stage])
        row[0].set_ylabel(f"{variant}\nloss {one['loss'].item():.5f}")
        _spectrum(row[-1], one)
    for ax in grid[-1, :-1]:
        ax.set_xticks(np.arange(data.sizes["class"]), data["class"].values, rotation=90, fontsize=5.0)
        ax.set_xlabel("class (edge)", fontsize=6.5)
    grid[-1, -1].set_xlabel("singular value", fontsize=6.5)
    shades = ScalarMappable(Normalize(-1, 1), "RdBu_r")
    bar = figure.colorbar(shades, ax=grid[:, :-1], location="bottom", shrink=0.3, aspect=40, pad=0.02)
    bar.set_label("entry / largest entry of the matrix", fontsize=6.5)
    bar.ax.tick_params(labelsize=6)
    figure.suptitle(
        f"SRG states, K = {data.sizes['class']}, r = {VERTICES}, L = {PROBLEM.depth}: rank {VERTICES} before the last "
        f"ReLU, {data.sizes['class']} after it; deep neural collapse has loss {data['dnc_loss'].item():.5f}",
        fontsize=9,
    )
    return figure


def _spectrum(ax: Axes, one: xarray.Dataset) -> None:
    """Singular values of the three stages over their index."""
    for stage in STAGES:
        values = one["singular"].sel(stage=stage).values
        colour, marker = LOOKS[stage]
        label = f"{TITLES[stage]}, rank {int(one['rank'].sel(stage=stage))}"
        ax.plot(
            np.arange(1, len(values) + 1),
            values / values[0],
            marker,
            color=plotting.COLOURS[colour],
            markersize=3,
            markerfacecolor="none",
            label=label,
        )
    ax.set_box_aspect(1)
    ax.set_ylim(-0.08, 1.6)
    ax.set_yticks([0, 0.5, 1])
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.legend(fontsize=5.5, loc="upper right", handletextpad=0.1, borderpad=0.1, labelspacing=0.2)
