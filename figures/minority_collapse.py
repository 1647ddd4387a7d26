"""Minority collapse under cross-entropy: which classes merge, with weight decay and with norm budgets."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.theory import minority_collapse as room

K_A, K_B, N_B = 2, 2, 2  # majority and minority classes, samples in a minority class
MERGED = 1e-3  # largest difference of merged logits that L-BFGS leaves this far from a threshold
ASIDE = 0.9, 1.1  # of a threshold, where the model itself is minimised
RATIOS, QUICK_RATIOS = (2, 3, 5, 8, 12, 20, 30), (2, 5, 20)
COUNTS = ((5, 5), (3, 7), (2, 2))
BUDGETS, QUICK_BUDGETS = (0.5, 1.0, 1.5, 2.0), (0.5, 1.5)
FACTORS, QUICK_FACTORS = tuple(np.linspace(0.55, 1.25, 15)), (0.6, 0.8, 0.95, 1.1)
ACROSS = 5  # ratio of the panel that crosses the threshold
BIAS = {"no bias": None, "free bias": 0.0}
REGIONS = ("all apart", "minority merged", "all merged")


def compute(quick: bool) -> xarray.Dataset:
    """Thresholds, what L-BFGS finds beside them, R_0 against the budget, and amplitudes across a threshold."""
    ratios, budgets = (QUICK_RATIOS, QUICK_BUDGETS) if quick else (RATIOS, BUDGETS)
    factors = np.array(QUICK_FACTORS if quick else FACTORS)
    line = np.geomspace(1, 40, 60)
    samples = N_B * (K_A * line + K_B)
    tested = [(R, rate, *_merged(R, rate)) for R in ratios for rate in _beside(R)]
    angles = np.geomspace(0.05, 1.0, 200)
    curves = [room.peeled_curve(np.arcsin(np.sqrt(A / (A + B))) * angles, A, B) for A, B in COUNTS]
    peeled = [
        (budget, factor * room.peeled_threshold(2, 2, budget)) for budget in budgets for factor in ASIDE
    ]
    fine = np.linspace(0.5, 1.3, 17 if quick else 81)
    data = xarray.Dataset(
        {
            "minority": ("ratio", room.merging_threshold(N_B, samples)),
            "majority": ("ratio", room.merging_threshold(N_B * line, samples)),
            "coarse": ("ratio", room.coarse_threshold(N_B * line, N_B, K_A, K_B)),
            "tested": (("point", "axis"), np.array([one[:2] for one in tested])),
            "found": ("point", np.array([one[2] + one[3] for one in tested])),
            "budget": (("counts", "angle"), np.array([curve.budget for curve in curves])),
            "R_0": (("counts", "angle"), np.array([curve.ratio for curve in curves])),
            "peeled": (("trial", "axis"), np.array(peeled)),
            "peeled_merged": ("trial", np.array([_peeled_merged(*one) for one in peeled])),
            "amplitude": (("bias", "group", "fine"), np.array([_optima(fine, lb) for lb in BIAS.values()])),
            "spread": (
                ("bias", "group", "factor"),
                np.array([_spreads(factors, lb) for lb in BIAS.values()]),
            ),
        },
        {
            "ratio": line,
            "fine": fine,
            "factor": factors,
            "bias": list(BIAS),
            "group": ["majority", "minority"],
            "counts": [f"{A}, {B}" for A, B in COUNTS],
        },
    )
    data.attrs = {
        "caption": (
            f"Left, cross-entropy UFM with {K_A} classes of {N_B} R samples and {K_B} of {N_B}, without bias: "
            "classes of size n are merged iff lam_Z = sqrt(lam_W lam_H) >= sqrt(n)/N (lines; dotted, where two "
            f"merged groups would meet with a free bias). Dots, what L-BFGS finds at {ASIDE[0]:g} and {ASIDE[1]:g} "
            f"times the thresholds: {_counted(data['found'].values)}. Middle, layer-peeled model: ratio R_0 beyond "
            "which the minority is merged against the budget E = sqrt(E_W E_H), the explicit curve for three "
            f"choices of K_A, K_B; dots, direct minimisation at K_A = K_B = 2 and {ASIDE[0]:g}, {ASIDE[1]:g} R_0 "
            f"(filled: merged). Right, own logit less that of another class of the group at R = {ACROSS} across the "
            "threshold of the minority, certified optimum (lines) and L-BFGS (dots)."
        ),
        "source": (
            f"minimisation by this package; rule: {room.HONG}, made sharp here; {room.FANG}, curve derived here"
        ),
        "settings": (
            f"width {K_A + K_B}, lam_W = 2 lam_Z, lam_H = lam_Z/2, one start, seed 0; R = {ratios}; E = {budgets}"
        ),
    }
    return data


def _counted(found: np.ndarray) -> str:
    return ", ".join(f"{int((found == i).sum())} {name}" for i, name in enumerate(REGIONS))


def _beside(ratio: float) -> list[float]:
    """Decays on both sides of both thresholds."""
    samples = N_B * (K_A * ratio + K_B)
    return [
        factor * float(room.merging_threshold(size, samples))
        for size in (N_B, N_B * ratio)
        for factor in ASIDE
    ]


def _logit_spreads(ratio: int, rate: float, lam_b: float | None) -> tuple[float, float]:
    """Own class mean logit less that of the other class, in the majority and in the minority, by L-BFGS."""
    sizes = (N_B * ratio,) * K_A + (N_B,) * K_B
    problem = ufm.UFM(K_A + K_B, K_A + K_B, per_class=sizes, bias=lam_b is not None)
    decay = ufm.Coupled(W=2 * rate, H=rate / 2)
    state = ufm.minimise(problem, decay, starts=1, iterations=5_000, certificate=False, progress=False).state
    Z = state["W"] @ state["H"][:, np.searchsorted(problem.labels, range(K_A + K_B))]
    return float(Z[0, 0] - Z[1, 0]), float(Z[K_A, K_A] - Z[K_A + 1, K_A])


def _merged(ratio: int, rate: float) -> tuple[bool, bool]:
    majority, minority = _logit_spreads(ratio, rate, None)
    return majority < MERGED, minority < MERGED


def _peeled_merged(budget: float, ratio: float) -> bool:
    """Whether the logits of the two minority classes agree."""
    W, H = room.descend_peeled(2, 2, ratio, budget, budget)
    Z = W @ H
    return bool(Z[2, 2] - Z[3, 2] < MERGED)


def _threshold() -> float:
    return float(room.merging_threshold(N_B, N_B * (K_A * ACROSS + K_B)))


def _optima(factors: np.ndarray, lam_b: float | None) -> np.ndarray:
    """Certified amplitudes of both groups, shape (2, factors)."""
    sizes = (N_B * ACROSS,) * K_A + (N_B,) * K_B
    problem = ufm.UFM(K_A + K_B, K_A + K_B, per_class=sizes, bias=lam_b is not None)
    rates = [ufm.Coupled(W=factor * _threshold(), H=factor * _threshold()) for factor in factors]
    return np.array([room.optimum(problem, rate).amplitudes for rate in rates]).T


def _spreads(factors: np.ndarray, lam_b: float | None) -> np.ndarray:
    return np.array([_logit_spreads(ACROSS, factor * _threshold(), lam_b) for factor in factors]).T


def draw(data: xarray.Dataset) -> Figure:
    """Phase diagram, layer-peeled thresholds, and amplitudes across a threshold."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    _phases(left, data)
    _peeled(middle, data)
    _across(right, data)
    return figure


def _phases(ax: Axes, data: xarray.Dataset) -> None:
    R, low, high = data["ratio"].values, data["minority"].values, data["majority"].values
    shades = [plotting.COLOURS[name] for name in ("green", "orange", "red")]
    bottom, top = float(low.min()) / 2, float(high.max()) * 1.6
    for lower, upper, shade in (
        (np.full_like(R, bottom), low, shades[0]),
        (low, high, shades[1]),
        (high, np.full_like(R, top), shades[2]),
    ):
        ax.fill_between(R, lower, upper, color=shade, alpha=0.15, linewidth=0)
    for line in (low, high):
        ax.plot(R, line, color=plotting.PREDICTION)
    ax.plot(R, data["coarse"].values, ":", color=plotting.QUIET)
    for i, (name, shade) in enumerate(zip(REGIONS, shades, strict=True)):
        points = data["tested"].values[data["found"].values == i]
        ax.plot(*points.T, "o", color=shade, markeredgewidth=0, label=name)
    plotting.log_axis(ax, "x", 1, float(R[-1]))
    plotting.log_axis(ax, "y", bottom, top)
    ax.set_title(f"weight decay, {K_A} + {K_B} classes", loc="left")
    ax.set_xlabel("ratio R of the class sizes")
    ax.set_ylabel("λ = √(decay of W × decay of H)")
    ax.legend(loc="lower left", fontsize=6.5)


def _peeled(ax: Axes, data: xarray.Dataset) -> None:
    for name, colour in zip(data["counts"].values, ("blue", "green", "purple"), strict=True):
        one = data.sel(counts=name)
        ax.plot(one["budget"], one["R_0"], color=plotting.COLOURS[colour], label=f"{name} classes")
    for merged, face in ((True, plotting.COLOURS["purple"]), (False, "white")):
        points = data["peeled"].values[data["peeled_merged"].values == merged]
        ax.plot(*points.T, "o", markerfacecolor=face, markeredgecolor=plotting.COLOURS["purple"])
    ax.set_xlim(0, 4)
    plotting.log_axis(ax, "y", 1, 1e4)
    ax.set_xlabel("budget E")
    ax.set_ylabel("R₀, minority merged above")
    ax.set_title("norm budgets (layer-peeled)", loc="left")
    ax.legend(loc="upper left", fontsize=6.5)


def _across(ax: Axes, data: xarray.Dataset) -> None:
    colours = {"majority": ("blue", "sky"), "minority": ("red", "orange")}
    for group, shades in colours.items():
        for bias, shade in zip(data["bias"].values, shades, strict=True):
            one, colour = data.sel(group=group, bias=bias), plotting.COLOURS[shade]
            ax.plot(one["fine"], one["amplitude"], color=colour, label=f"{group}, {bias}")
            ax.plot(one["factor"], one["spread"], "o", color=colour, markeredgewidth=0, markersize=3)
    ax.axvline(1, color=plotting.QUIET, linewidth=0.8, zorder=0)
    ax.set_ylim(-0.1, None)
    ax.set_xlabel("λ / threshold of the minority")
    ax.set_ylabel("logit difference inside a group")
    ax.set_title(f"across the threshold, R = {ACROSS}", loc="left")
    ax.legend(fontsize=6.5)
