"""Equal training loss, different NC0: what momentum and the place of weight decay do beyond the loss."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import ufm
from ufm import plotting
from ufm.metrics import nc0
from ufm.theory import row_sum

PROBLEM = ufm.UFM(classes=10, width=16, per_class=5)
START = ufm.Start(W=ufm.LinearDefault(), H=ufm.Gaussian(0.1))
STEPS = 4000
BETAS, QUICK_BETAS = (0.0, 0.25, 0.5, 0.75), (0.0, 0.5, 0.75)
MATCH = 0.01  # relative difference of training losses that counts as equal
CONTROL = 1e-6  # relative error of the decay in the control


class Family(NamedTuple):
    """Runs that differ in momentum; the learning rate may follow it."""

    name: str
    title: str
    lr: Callable[[float], float]
    coupled: float = 0.0
    decoupled: float = 0.0

    def law(self, beta: float, error: float = 0.0) -> dict[str, Any]:
        """Parameters of the row-sum law, the decay rates multiplied by 1 + error."""
        rates = {"coupled": self.coupled * (1 + error), "decoupled": self.decoupled * (1 + error)}
        return {"lr": self.lr(beta), "beta": beta} | rates


FAMILIES = (
    Family("same lr, coupled", "same η, coupled decay", lambda beta: 0.15, coupled=5e-3),
    Family(
        "same lr/(1-beta), coupled", "same η/(1 − β), coupled", lambda beta: 0.25 * (1 - beta), coupled=1e-3
    ),
    Family(
        "same lr/(1-beta), decoupled",
        "same η/(1 − β), decoupled",
        lambda beta: 0.25 * (1 - beta),
        decoupled=1e-3,
    ),
)


def compute(quick: bool) -> xarray.Dataset:
    """Loss and NC0 of every run, the steps of equal loss, and the ratios of NC0 there with their bounds."""
    betas = QUICK_BETAS if quick else BETAS
    shown = np.arange(0, STEPS + 1, STEPS // 160)
    found = [_family(family, betas, shown) for family in FAMILIES]
    axes = ("family", "beta")
    data = xarray.Dataset(
        {
            name: ((*axes, "step")[: np.ndim(value) + 1], np.stack([runs[name] for runs in found]))
            for name, value in found[0].items()
        },
        {"family": [family.name for family in FAMILIES], "beta": np.array(betas), "step": shown},
    )
    pairs = [_pairs(data.isel(family=i), family) for i, family in enumerate(FAMILIES)]
    for name in pairs[0]:
        data[f"pair_{name}"] = (("family", "pair"), np.stack([found[name] for found in pairs]))
    data.attrs = {
        "caption": _caption(data),
        "source": f"simulation by this package; law: {row_sum.PAPER}, theorems 3.1 and 3.2",
        "settings": f"{PROBLEM!r}, {START!r}, seed 0, {STEPS} steps; "
        + "; ".join(f"{f.name}: {[f.law(beta) for beta in betas]}" for f in FAMILIES),
    }
    return data


def _family(family: Family, betas: tuple[float, ...], shown: np.ndarray) -> dict[str, np.ndarray]:
    """Every run of a family at the steps shown and at its step of equal loss; axis 0 is the momentum."""
    fits = [_simulated(family, beta, ufm.Every(1)).fit for beta in betas]
    rows = []
    for beta, step in zip(betas, _matched_steps(fits), strict=True):
        run = _simulated(family, beta, ufm.At([*shown.tolist(), step]))
        row = ufm.compare(run)["ufm.row_sum_law"]
        assert row.prediction is not None
        here, alpha = int(np.searchsorted(run.steps, step)), nc0(run)
        kept = np.isin(run.steps, shown)
        rows.append(
            {
                "fit": run.fit[kept],
                "alpha": alpha[kept],
                "law": row_sum.nc0(shown, **family.law(beta), nc0_0=alpha[0]),
                "matched_step": step,
                "matched_fit": run.fit[here],
                "matched_alpha": alpha[here],
                "matched_law": row_sum.nc0(step, **family.law(beta), nc0_0=alpha[0]),
                "uncertainty": _uncertainty(row.prediction, here),
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _simulated(family: Family, beta: float, record: Any) -> ufm.Trajectory:
    decay = ufm.Mixed(coupled=family.coupled, decoupled=family.decoupled)
    return ufm.simulate(
        PROBLEM, ufm.Momentum(family.lr(beta), beta), decay, steps=STEPS, init=START, record=record
    )


def _matched_steps(fits: list[np.ndarray]) -> list[int]:
    """For each run the last step, or where its loss is another one there, the step nearest to the common loss.

    The common loss is the largest final one, which every run passes.
    """
    level = max(fit[-1] for fit in fits)
    misses = [np.abs(fit / level - 1) for fit in fits]
    return [len(miss) - 1 if miss[-1] <= MATCH else int(np.argmin(miss)) for miss in misses]


def _uncertainty(prediction: Any, record: int) -> float:
    """Largest relative error of ||m_t|| that the round-off bound on the largest entry of m_t allows."""
    m = prediction.predicted[record]
    return float(np.sqrt(len(m)) * prediction.bound[record] / np.linalg.norm(m))


def _pairs(runs: xarray.Dataset, family: Family) -> dict[str, np.ndarray]:
    """All pairs of runs of equal loss: ratio of NC0, the law's ratio, the bound on their quotient, and a control."""
    first, second = (list(column) for column in zip(*combinations(range(runs.sizes["beta"]), 2), strict=True))

    def ratio(values: np.ndarray) -> np.ndarray:
        return values[first] / values[second]

    step, d = runs["matched_step"].values, runs["uncertainty"].values
    wrong = np.array(
        [
            row_sum.nc0(t, **family.law(beta, CONTROL))
            for t, beta in zip(step, runs["beta"].values, strict=True)
        ]
    )
    law = ratio(runs["matched_law"].values)
    low, high = (1 - d) ** 2, (1 + d) ** 2
    bound = np.maximum(high[first] / low[second] - 1, 1 - low[first] / high[second])
    return {
        "mismatch": np.abs(ratio(runs["matched_fit"].values) - 1),
        "ratio": ratio(runs["matched_alpha"].values),
        "law": law,
        "bound": bound,
        "error": np.abs(ratio(runs["matched_alpha"].values) / law - 1),
        "control": np.abs(ratio(wrong) / law - 1) / bound,
    }


def _spread(ratio: np.ndarray) -> float:
    return float(np.exp(np.abs(np.log(ratio)).max()))


def _caption(data: xarray.Dataset) -> str:
    same, coupled, decoupled = (_spread(row) for row in data["pair_law"].values)
    misses = [f"{100 * row.max():.2g} %" for row in data["pair_mismatch"].values]
    informative = np.abs(np.log(data["pair_law"].values)) >= np.log(2)
    share = (data["pair_error"] / data["pair_bound"]).values
    control = data["pair_control"].values[informative]
    steps = data["matched_step"].values[2]
    return (
        "Training loss (top) and NC0 (middle; dots: simulation, dashed: row-sum law) for momentum beta = "
        f"{', '.join(f'{beta:g}' for beta in data['beta'].values)}. Rings mark steps of equal training loss; bottom: "
        "ratio of NC0 of every pair there against the law's. Left: same learning rate, decay and number of steps; "
        f"the losses agree to {misses[0]} at step {STEPS}, NC0 differs by factors up to {same:.1e}, for momentum "
        "multiplies its rate by 1/(1 - beta) long after the loss has settled. Middle: lr/(1 - beta) fixed; the losses "
        f"agree to {misses[1]} and NC0 to {100 * (coupled - 1):.1g} %: momentum rescales time and nothing else. "
        "Right: the same with decoupled decay, which momentum does not speed up; at one loss (to "
        f"{misses[2]}, after {steps.min()} to {steps.max()} steps) NC0 differs by factors up to {decoupled:.1f}. "
        f"{int(informative.sum())} of {informative.size} pairs differ by at least 2 in NC0; every measured ratio is "
        f"the law's to {share.max():.1g} of the propagated round-off bound, and a decay wrong by {CONTROL:g} would "
        f"miss the bound of those {int(informative.sum())} by at least {control.min():.2g} times."
    )


def draw(data: xarray.Dataset) -> Figure:
    """A column per family: loss, NC0, and the ratios of NC0 at equal loss."""
    figure = Figure(figsize=(8.6, 6.2), layout="constrained")
    grid = figure.subplots(3, 3, gridspec_kw={"height_ratios": [3, 4, 2.8]})
    colours = plotting.sequence(data.sizes["beta"])
    for i, (upper, middle, lower) in enumerate(grid.T):
        family = data.isel(family=i)
        _curves(upper, middle, family, colours)
        strip = _ratios(lower, family)
        upper.set_title(FAMILIES[i].title, loc="left")
        plotting.log_axis(upper, "y", 0.6 * float(data["fit"].min()), 4.0, ticks=3)
        lower.sharey(grid[2, 0])
    grid[1, 1].sharey(grid[1, 2])
    grid[0, 0].set_ylabel("training loss (fit)")
    grid[1, 0].set_ylabel(plotting.LABELS["alpha"])
    grid[2, 0].set_ylabel("|measured / law − 1|")
    low, high = float(data["pair_error"].where(data["pair_error"] > 0).min()), float(data["pair_bound"].max())
    plotting.log_axis(grid[2, 0], "y", low / 3, 300 * high, ticks=4)
    runs = [
        Line2D([], [], marker="o", color=colour, label=f"β = {beta:g}")
        for colour, beta in zip(colours, data["beta"].values, strict=True)
    ]
    law = Line2D([], [], linestyle="--", color=plotting.PREDICTION, label="law")
    ring = Line2D([], [], marker="o", linestyle="none", color="black", fillstyle="none", label="equal loss")
    plotting.legend_below(figure, [*runs, law, ring, *strip])
    return figure


def _curves(upper: Axes, middle: Axes, family: xarray.Dataset, colours: list[str]) -> None:
    """Loss and NC0 of the runs of one family over steps, with rings at equal loss."""
    steps = family["step"].values
    for j, colour in enumerate(colours):
        run = family.isel(beta=j)
        upper.plot(steps, run["fit"].values, color=colour)
        some = slice(None, None, len(steps) // 20)
        plotting.dots_and_line(middle, steps[some], run["alpha"].values[some], colour=colour)
        plotting.dots_and_line(middle, steps, predicted=run["law"].values)
        for ax, name in ((upper, "matched_fit"), (middle, "matched_alpha")):
            plotting.ring(ax, run["matched_step"].item(), run[name].item())
    for ax in (upper, middle):
        ax.set_yscale("log")
        ax.set_xlim(0, 1.04 * steps[-1])
    middle.set_xlabel(plotting.LABELS["step"])


def _ratios(ax: Axes, family: xarray.Dataset) -> list[Line2D]:
    """Errors of the ratios of NC0 below their bounds, one place per pair, the larger ratio printed above."""
    pairs = np.arange(family.sizes["pair"])
    error, bound = (family[f"pair_{name}"].values for name in ("error", "bound"))
    dots, dashes = plotting.error_strip(ax, pairs, error, bound)
    dots.set_markersize(5.0)
    dashes.set(linestyle="none", marker="_", markersize=8.0)
    ratios = np.exp(np.abs(np.log(family["pair_law"].values)))
    for pair, ratio in zip(pairs, ratios, strict=True):
        text = f"{ratio:.2f}" if ratio < 100 else f"{ratio:.0e}".replace("e+0", "e")
        ax.text(int(pair), 0.99, text, transform=ax.get_xaxis_transform(), ha="center", va="top", fontsize=7)
    betas = family["beta"].values
    names = [f"{first:g}\n{second:g}" for first, second in combinations(betas, 2)]
    ax.set_xticks(pairs, names)
    ax.set_xlim(-0.6, len(pairs) - 0.4)
    ax.set_xlabel("β of both runs; above: ratio of α")
    return [dots, dashes]
