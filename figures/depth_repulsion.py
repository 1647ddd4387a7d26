"""Repulsion of singular values by depth: relative gaps against their law, and what it makes of random starts."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import ufm
from ufm import plotting
from ufm.claims import registry
from ufm.initial import Spectral
from ufm.theory import spectral_depth as theory

CLASSES, DEPTHS = 8, (1, 2, 3, 5)
GAP, SHARE = 1e-4, 0.005  # relative gap of two modes at the start; share of the scale that one step adds
RAY, RECORDS = (0.2, 14.0), 60
STARTS, QUICK_STARTS = np.geomspace(0.02, 2.0, 9), np.geomspace(0.02, 2.0, 3)
WIDTHS, SEEDS, QUICK_SEEDS = (16, 64), 16, 2
LR, LOSS = 0.1, 1e-3  # of the runs from random starts, which end at this cross-entropy


def compute(quick: bool) -> xarray.Dataset:
    """Gaps along the ray, their largest value over the scale of the start, and ranks from random starts."""
    starts, seeds = (QUICK_STARTS, QUICK_SEEDS) if quick else (STARTS, SEEDS)
    followed = [_gap_run(depth, *RAY, RECORDS) for depth in DEPTHS]
    predict = registry()["ufm.spectral_recursion"].predict
    assert predict is not None
    scales, gaps = zip(*map(_scale_and_gap, followed), strict=True)
    scale, gap = np.array(scales), np.array(gaps)
    law = np.array([theory.relative_gap(z, z[0], CLASSES, L) for z, L in zip(scale, DEPTHS, strict=True)])
    deep = [depth for depth in DEPTHS if depth > 1]
    ranks = [[_ranks(width, depth, seeds) for depth in DEPTHS] for width in WIDTHS]
    data = xarray.Dataset(
        {
            "scale": (("depth", "record"), scale),
            "gap": (("depth", "record"), gap / gap[:, :1]),
            "law": (("depth", "record"), law),
            "critical": ("depth", [theory.critical_scale(CLASSES, depth) for depth in DEPTHS]),
            "recursion": ("depth", [predict(run.judged()).ratio for run in followed]),
            "largest": (("deep", "start"), [[_largest(depth, z) for z in starts] for depth in deep]),
            "largest_law": (
                ("deep", "start"),
                [[theory.largest_gap(z, CLASSES, depth) for z in starts] for depth in deep],
            ),
            "rank": (("width", "depth", "seed"), ranks),
        },
        {"depth": list(DEPTHS), "deep": deep, "start": starts, "width": list(WIDTHS)},
    )
    data.attrs = {
        "simplex_rank": CLASSES - 1,
        "caption": _caption(data),
        "source": f"simulation by this package; {theory.PAPER}; the law is derived here",
        "settings": (
            f"cross-entropy, linear, K = {CLASSES}, n = 1, no decay; left and middle: width {CLASSES}, GD from "
            f"Spectral(z^(1/(L+1))), two modes apart by {GAP:g} of z, rates such that a step adds {SHARE:g} of z "
            f"(of 2 beyond); right: Gaussian(width^-0.5), seeds 0 to {seeds - 1}, GD({LR:g}) until the fit is {LOSS:g}"
        ),
    }
    return data


def _problem(width: int, depth: int) -> Any:
    return ufm.DUFM(CLASSES, width, depth, activation="identity", loss="ce")


def _gap_run(depth: int, start: float, stop: float, records: int) -> ufm.Trajectory:
    """GD beside the ray from one scale to another; of two modes one starts above it, one below."""
    z = np.full(CLASSES, start)
    z[1:3] *= 1 + GAP / 2, 1 - GAP / 2
    rates = theory.ray_rates(CLASSES, depth, start, stop, SHARE)
    shown = np.linspace(0, len(rates), records).round().astype(int).tolist()
    return ufm.simulate(
        _problem(CLASSES, depth),
        ufm.GD(ufm.Rates(rates)),
        steps=len(rates),
        init=Spectral(tuple(z ** (1 / (depth + 1)))),
        record=ufm.At(shown),
    )


def _scale_and_gap(run: ufm.Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Geometric mean of the two modes, and the logarithm of their ratio, at the records."""
    modes = theory.observed_modes(run.judged(), np.arange(len(run)))
    above, below = modes[:, 1, 1], modes[:, 2, 2]
    return np.sqrt(above * below), np.log(above / below)


def _largest(depth: int, start: float) -> float:
    """Largest gap over that at the start, of a run that ends beyond the critical scale."""
    _, gap = _scale_and_gap(_gap_run(depth, start, 1.5 * theory.critical_scale(CLASSES, depth), 200))
    return float(gap.max() / gap[0])


def _ranks(width: int, depth: int, seeds: int) -> list[float]:
    """Effective rank of the logits where the loss first falls to LOSS, for each seed."""
    found = []
    for seed in range(seeds):
        run = ufm.simulate(
            _problem(width, depth),
            ufm.GD(LR),
            steps=int(6000 / depth**1.5),
            init=ufm.Gaussian(width**-0.5),
            seed=seed,
            record=ufm.Every(25),
        )
        while run.fit[-1] > LOSS:
            run = run.resume(2 * int(run.steps[-1]))
        there = int(np.argmax(run.fit <= LOSS))
        found.append(float(ufm.metrics.effective_rank(run.logits()[there])))
    return found


def _caption(data: xarray.Dataset) -> str:
    error = np.abs(data["gap"] / data["law"] - 1)
    miss = float(np.abs(data["largest"] / data["largest_law"] - 1).max())
    mean = data["rank"].mean("seed")
    ranks = "; ".join(
        f"width {width}: " + ", ".join(f"{value:.1f}" for value in mean.sel(width=width).values)
        for width in data["width"].values
    )
    return (
        f"Deep linear cross-entropy of {CLASSES} classes without decay. Left: relative gap between two singular values "
        "of the logits beside the ray z_k = z, over its value at the start; dots: GD on all entries, dashed: "
        "(z/z_0)^((L-1)/(L+1)) exp(-(z-z_0)/K); rings: the largest, at z_c = K(L-1)/(L+1); below: relative error, at "
        f"most {float(error.max()):.1g}, dotted 3e-3 (the law is for small gaps and small steps; here {GAP:g} and "
        f"{SHARE:g} of z). All K^2 entries of the logits in the Walsh basis are the recursion's to "
        f"{float(data['recursion'].max()):.1g} of its round-off bound. Middle: the largest factor by which a gap grows "
        f"over the scale z_0 of the start, measured to {miss:.1g} of the law: it grows with depth and with a smaller "
        "start, so that fewer starts stay near the simplex. Right: effective rank (exponential of the entropy of the "
        f"singular values) of the logits from {data.sizes['seed']} random starts where the loss is {LOSS:g}, mean and "
        f"standard deviation; means at L = {', '.join(map(str, data['depth'].values))} {ranks}; the simplex has "
        f"{CLASSES - 1}. The scale of random starts (standard deviation width^-1/2), the rate {LR:g} and the loss at "
        "which ranks are taken were chosen here; the paper's were not available."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Gaps with their errors below; largest gaps; ranks."""
    figure = Figure(figsize=(9.2, 3.8), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=[3, 1.2])
    gaps, middle, right = (
        figure.add_subplot(grid[rows]) for rows in ((0, 0), (slice(None), 1), (slice(None), 2))
    )
    errors = figure.add_subplot(grid[1, 0], sharex=gaps)
    colours = dict(zip(data["depth"].values, plotting.sequence(data.sizes["depth"]), strict=True))
    for depth, colour in colours.items():
        one = data.sel(depth=depth)
        z, gap, law = (one[name].values for name in ("scale", "gap", "law"))
        some = slice(None, None, 2)
        plotting.dots_and_line(gaps, z[some], gap[some], colour=colour)
        plotting.dots_and_line(gaps, z, predicted=law)
        errors.plot(z[1:], np.abs(gap / law - 1)[1:], color=colour)
        if depth > 1:
            plotting.ring(gaps, one["critical"].item(), float(law.max()))
    errors.axhline(3e-3, color=plotting.COLOURS["red"], linestyle=":")
    plotting.log_axis(gaps, "x", 0.17, 17.0)
    plotting.log_axis(gaps, "y", 0.1, 10.0)
    plotting.log_axis(errors, "y", 1e-6, 1e-1, ticks=4)
    gaps.tick_params(labelbottom=False)
    gaps.set_ylabel("relative gap Δ(z)/Δ(z₀)")
    errors.set(xlabel="scale z of the logits", ylabel="relative error")
    for depth in data["deep"].values:
        one = data.sel(deep=depth)
        plotting.dots_and_line(
            middle,
            data["start"].values,
            one["largest"].values,
            one["largest_law"].values,
            colour=colours[depth],
        )
    plotting.log_axis(middle, "x", 0.016, 2.5)
    plotting.log_axis(middle, "y", 0.9, 30.0)
    middle.set(xlabel="scale z₀ of the start", ylabel="largest gap max Δ(z)/Δ(z₀)")
    marks = {}
    for (width, marker), shift in zip(
        zip(data["width"].values, "os", strict=True), (-0.06, 0.06), strict=True
    ):
        rank = data["rank"].sel(width=width)
        marks[width] = right.errorbar(
            data["depth"].values + shift,
            rank.mean("seed").values,
            rank.std("seed").values,
            fmt=marker + "-",
            color=plotting.COLOURS["blue" if marker == "o" else "orange"],
            capsize=2.0,
            label=f"width {width}",
        )
    right.axhline(data.attrs["simplex_rank"], color=plotting.QUIET, linestyle=":")
    right.text(5.0, data.attrs["simplex_rank"] + 0.08, "simplex", fontsize=7, ha="right")
    right.set(
        xlabel="depth L", ylabel="effective rank of the logits", ylim=(1, 7.8), xticks=data["depth"].values
    )
    right.legend(loc="lower left")
    for ax, title in ((gaps, "Gaps grow up to K(L−1)/(L+1)"), (middle, "More so from small starts"),
                      (right, "Random starts end at lower rank")):  # fmt: skip
        ax.set_title(title, loc="left")
    runs = [
        Line2D([], [], marker="o", color=colour, label=f"L = {depth}") for depth, colour in colours.items()
    ]
    plotting.legend_below(figure, [*runs, Line2D([], [], linestyle="--", color="black", label="law")])
    return figure
