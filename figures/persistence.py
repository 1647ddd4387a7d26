"""Which starts keep deep neural collapse under cross-entropy: rank reached by GD, over width and scale of the start."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.figure import Figure

import ufm
from ufm import plotting

CLASSES, PER_CLASS, DEPTH, LAM, LR = 10, 5, 2, 2.0**-10, 0.5
WIDTHS, SCALES, SEEDS = (15, 30, 70, 120), (0.3, 1.0, 2.0, 3.0), 8
QUICK_WIDTHS, QUICK_SCALES, QUICK_SEEDS = (15, 30), (0.3, 3.0), 2
STEPS, BEFORE = 16_000, 12_000
SMALL = 1e-2  # singular values below this share of the largest do not count for the rank
EQUAL = 1e-2  # relative difference of singular values that counts as none


def compute(quick: bool) -> xarray.Dataset:
    """Rank, loss and spread of the singular values of the logits at the end of every run."""
    widths, scales, seeds = (QUICK_WIDTHS, QUICK_SCALES, QUICK_SEEDS) if quick else (WIDTHS, SCALES, SEEDS)
    shape = (len(widths), len(scales), seeds)
    rank, before, loss = np.empty(shape, np.int32), np.empty(shape, np.int32), np.empty(shape)
    collapsed = np.empty(shape, np.int8)
    for i, j, seed in np.ndindex(shape):
        run = _run(widths[i], scales[j], seed)
        values = np.linalg.svd(run.logits()[1:], compute_uv=False)
        before[i, j, seed], rank[i, j, seed] = (values > SMALL * values[:, :1]).sum(axis=1)
        spread = values[-1, 0] / values[-1, CLASSES - 2] - 1
        collapsed[i, j, seed] = rank[i, j, seed] == CLASSES - 1 and spread < EQUAL
        loss[i, j, seed] = run.loss[-1]
    axes = ("width", "scale", "seed")
    data = xarray.Dataset(
        {
            "rank": (axes, rank),
            "rank_before": (axes, before),
            "collapsed": (axes, collapsed),
            "loss": (axes, loss),
        },
        {"width": list(widths), "scale": list(scales), "seed": list(range(seeds))},
    )
    data.attrs = {
        "simplex_rank": CLASSES - 1,
        "caption": _caption(data),
        "source": (
            "simulation by this package; setting of Garrod and Keating, arXiv 2410.23169v2, figures 1, 2 and 5 "
            "(read in full; their start and number of steps are not given)"
        ),
        "settings": (
            f"DUFM({CLASSES}, width, depth={DEPTH}, per_class={PER_CLASS}, activation='identity', loss='ce'), "
            f"GD({LR:g}), Coupled(2**-10), Gaussian(scale/sqrt(width)), seeds 0 to {seeds - 1}, {STEPS} steps; rank: "
            f"singular values of the logits above {SMALL:g} of the largest"
        ),
    }
    return data


def _run(width: int, scale: float, seed: int) -> ufm.Trajectory:
    return ufm.simulate(
        ufm.DUFM(CLASSES, width, DEPTH, PER_CLASS, activation="identity", loss="ce"),
        ufm.GD(LR),
        ufm.Coupled(LAM),
        steps=STEPS,
        init=ufm.Gaussian(scale / width**0.5),
        seed=seed,
        record=ufm.At([BEFORE, STEPS]),
    )


def _caption(data: xarray.Dataset) -> str:
    collapsed, rank, loss = data["collapsed"], data["rank"], data["loss"]
    counts = "; ".join(
        f"width {width}: {', '.join(str(int(cell.sum())) for cell in collapsed.sel(width=width))}"
        for width in data["width"].values
    )
    scales = ", ".join(f"{scale:g}" for scale in data["scale"].values)
    best = int(rank.values.ravel()[np.argmin(loss.values)])
    at_collapse = (
        f"; those at neural collapse end at {float(loss.where(collapsed == 1).min()):.6f}, which is not the least"
        if int(collapsed.sum())
        else ""
    )
    settled = int((rank == data["rank_before"]).sum())
    return (
        f"Deep linear cross-entropy of {CLASSES} classes, {PER_CLASS} samples each, {DEPTH} layers over the features, "
        "weight decay 2^-10: what GD reaches from normal starts of standard deviation scale/sqrt(width), "
        f"{data.sizes['seed']} runs a cell. Left: mean rank of the logits. Middle: share of runs at neural collapse, "
        f"rank {CLASSES - 1} with singular values equal to {100 * EQUAL:g} %; their number at scale {scales} is, "
        f"{counts}. Right: loss at the end of every run over its rank. The lowest, {float(loss.min()):.6f}, has rank "
        f"{best}{at_collapse}. {settled} of {rank.size} runs kept their rank over the last {STEPS - BEFORE} steps, the "
        "others were still changing it. The paper leaves the start and the number of steps open; both, and "
        "the range of scales, were chosen here."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Mean rank and share of neural collapse over width and scale; loss over rank."""
    figure = Figure(figsize=(9.2, 3.1), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    rows, columns = data["width"].values, data["scale"].values
    full = data.attrs["simplex_rank"]
    for ax, values, form, low, high, title in (
        (left, data["rank"].mean("seed").values, ".1f", 1.0, full, "Mean rank"),
        (middle, data["collapsed"].mean("seed").values, ".2f", 0.0, 1.0, "Share at neural collapse"),
    ):
        plotting.heatmap(
            ax, values, rows, columns, form=form, low=low, high=high,
            row_label="width d", column_label="scale of the start",
        )  # fmt: skip
        ax.set_title(title, loc="left")
    shift = np.linspace(-0.24, 0.24, len(rows))
    for width, move, colour in zip(rows, shift, plotting.sequence(len(rows)), strict=True):
        one = data.sel(width=width)
        right.plot(
            one["rank"].values.ravel() + move, one["loss"].values.ravel(), "o", color=colour, markeredgewidth=0,
            alpha=0.7, label=f"d = {width}",
        )  # fmt: skip
    right.set(xlabel="rank of the logits", ylabel="loss at the end", xlim=(2.5, full + 0.7))
    right.legend(loc="lower right")
    right.set_title("Loss over rank", loc="left")
    return figure
