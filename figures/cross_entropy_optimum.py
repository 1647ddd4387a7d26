"""The cross-entropy UFM with equal classes: its optimum, widths below K - 1, saddles, the dual gap and balancedness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.fenchel import lower_bound, optimality
from ufm.kernels.hessian import Objective
from ufm.solutions import Solution, merged
from ufm.solutions.known import partitions
from ufm.theory import balancedness
from ufm.theory import cross_entropy_optimum as theory

K, N = 4, 3  # classes, samples per class
RATIO = 4.0  # lam_W/lam_H
SMOOTHING = (0.0, 0.1)
STRENGTHS, QUICK_STRENGTHS = 12, 5  # values of K sqrt(n lam_W lam_H)
NARROW_CLASSES, WIDTHS = 6, (5, 4, 3, 2)
STARTS, QUICK_STARTS = 12, 4
MERGED_CLASSES = 5
STEPS, QUICK_STEPS = 3000, 400
LR, LAM = 0.5, 0.02
GRID = np.logspace(-2.5, 0.15, 120)
LOOKS = (("blue", "o"), ("orange", "s"), ("green", "^"), ("red", "v"), ("purple", "D"))


def compute(quick: bool) -> xarray.Dataset:
    """Closed forms on a grid of decays, L-BFGS and exact curvatures at some, and one run; fewer points if quick."""
    strengths = np.logspace(-2.4, 0.1, QUICK_STRENGTHS if quick else STRENGTHS)
    run = ufm.simulate(
        ufm.UFM(K, 6, N),
        ufm.GD(LR),
        ufm.Coupled(LAM),
        steps=QUICK_STEPS if quick else STEPS,
        init=ufm.Gaussian(0.5),
    )
    data = xarray.Dataset(
        {
            **_optimum(strengths),
            **_narrow(strengths, QUICK_STARTS if quick else STARTS),
            **_saddles(strengths[strengths < 1]),
            **_run(run),
        },
        {
            "smoothing": list(SMOOTHING),
            "grid": GRID,
            "strength": strengths,
            "width": list(WIDTHS),
            "merger": ["+".join(map(str, sizes)) for sizes in _mergers()],
            "saddle_strength": strengths[strengths < 1],
            "block": ["W", "H"],
        },
    )
    off = np.abs(data["found_loss"] / data["found_exact"] - 1).max()
    curved = np.abs(data["measured_curvature"] / data["exact_curvature"] - 1).max()
    data.attrs = {
        "caption": (
            "Cross-entropy UFM with equal classes. (a, b, c) Global minimum over K sqrt(n lam_W lam_H): loss, margin "
            "and squared norms (times sqrt(lam_W/(n lam_H)) for w, its inverse for h: both are (K-1)/K m), "
            f" closed form (lines) and L-BFGS (markers), K = {K}, n = {N}, lam_W = {RATIO:g} lam_H, "
            "without and with label smoothing 0.1; dotted, the threshold 1 - eps from which the origin is optimal; "
            f"L-BFGS is off by at most {float(off):.0e} in the loss. (d) Width below K - 1, K = {NARROW_CLASSES}: best "
            f"of {QUICK_STARTS if quick else STARTS} L-BFGS starts over the closed form for d >= K - 1; line, the "
            f"regular polygon. (e) Loss at the merged-class saddles of K = {MERGED_CLASSES}, the minimum below; (f) "
            "second derivative along the escape direction, exact products of the Hessian (markers, every partition) "
            f"over -2 (1/(K sqrt n) - sqrt(lam_W lam_H)), off by at most {float(curved):.0e}. (g) One run of gradient "
            "descent: loss minus the closed form, and minus its bound from duality, which knows no closed form. (h) "
            "The same run: largest entry of D = W^T W - H H^T, and its deviation from the law of one step, with and "
            "without the remainder of second order."
        ),
        "source": "simulation by this package; theorems after Zhu et al., arXiv 2105.02375 (recalled), closed forms "
        "derived here",
        "settings": f"K = {K}, n = {N}, width K; {NARROW_CLASSES} classes at widths {WIDTHS}, n = 1, lam_W = lam_H; "
        f"{run.run!r}",
    }
    return data


def _decay(strength: float, per_class: int, classes: int, ratio: float) -> ufm.Coupled:
    """Rates with K sqrt(n lam_W lam_H) = strength and lam_W = ratio lam_H."""
    mean = strength / (classes * np.sqrt(per_class))
    return ufm.Coupled(W=float(mean * np.sqrt(ratio)), H=float(mean / np.sqrt(ratio)))


def _optimum(strengths: np.ndarray) -> dict[str, tuple[Any, ...]]:
    lines = np.array([[theory.optimum(K, (x + eps) / K) for x in GRID] for eps in SMOOTHING])
    exact = np.array([[theory.optimum(K, (x + eps) / K).loss for x in strengths] for eps in SMOOTHING])
    losses, margins = np.empty((2, len(SMOOTHING), len(strengths)))
    norms = np.empty((len(SMOOTHING), len(strengths), 2))
    for i, eps in enumerate(SMOOTHING):
        problem = ufm.UFM(K, K, N, loss=ufm.CrossEntropy(smoothing=eps))
        for j, x in enumerate(strengths):
            found = ufm.minimise(
                problem,
                _decay(x, N, K, RATIO),
                starts=1,
                init=ufm.Gaussian(0.5),
                certificate=False,
                progress=False,
            )
            W, H = found.state["W"], found.state["H"]
            Z = (W @ H)[:, ::N]
            losses[i, j], margins[i, j] = (
                found.loss,
                np.trace(Z) / K - (Z.sum() - np.trace(Z)) / (K * (K - 1)),
            )
            # both squared norms in units in which they are (K-1)/K m
            unit = np.sqrt(N / RATIO)
            norms[i, j] = np.sum(W**2) / K / unit, np.sum(H**2) / (K * N) * unit
    return {
        "exact_loss": (("smoothing", "grid"), lines[..., 1]),
        "exact_margin": (("smoothing", "grid"), lines[..., 0]),
        "found_exact": (("smoothing", "strength"), exact),
        "found_loss": (("smoothing", "strength"), losses),
        "found_margin": (("smoothing", "strength"), margins),
        "found_norm": (("smoothing", "strength", "block"), norms),
    }


def _narrow(strengths: np.ndarray, starts: int) -> dict[str, tuple[Any, ...]]:
    """Best losses over that of the simplex; the widest is the simplex itself."""
    classes = NARROW_CLASSES
    found = np.empty((len(WIDTHS), len(strengths)))
    for j, x in enumerate(strengths):
        for i, width in enumerate(WIDTHS):
            best = ufm.minimise(
                ufm.UFM(classes, width),
                _decay(x, 1, classes, 1.0),
                starts=starts if width < classes - 1 else 1,
                init=ufm.Gaussian(0.5),
                certificate=False,
                progress=False,
            )
            found[i, j] = best.loss
    simplex = np.array([theory.optimum(classes, x / classes).loss for x in GRID])
    polygon = np.array([theory.polygon_optimum(classes, x / classes).loss for x in GRID])
    of_points = np.array([theory.optimum(classes, x / classes).loss for x in strengths])
    return {
        "narrow": (("width", "strength"), found / of_points),
        "polygon": ("grid", polygon / simplex),
    }


def _mergers() -> list[tuple[int, ...]]:
    return [sizes for sizes in partitions(MERGED_CLASSES) if 2 <= len(sizes) < MERGED_CLASSES]


def _saddles(strengths: np.ndarray) -> dict[str, tuple[Any, ...]]:
    classes, mergers = MERGED_CLASSES, _mergers()
    problem = ufm.UFM(classes, classes, 1)
    losses, measured = np.empty((2, len(mergers), len(strengths)))
    exact = np.empty(len(strengths))
    for j, x in enumerate(strengths):
        decay = _decay(x, 1, classes, RATIO)
        lam_W, lam_H = (dict(decay.blocks)[block] for block in ("W", "H"))
        exact[j] = theory.escape_curvature(theory.merged_sigma(classes, 1), lam_W, lam_H)
        for i, sizes in enumerate(mergers):
            starts = np.cumsum([0, *sizes])
            groups = [list(range(starts[g], starts[g + 1])) for g in range(len(sizes))]
            saddle = merged(problem, decay, groups)
            escape = optimality(problem, decay, saddle.blocks).escape
            assert escape is not None
            losses[i, j] = saddle.loss
            measured[i, j] = _second_derivative(problem, decay, saddle, escape)
    return {
        "saddle_loss": (("merger", "saddle_strength"), losses),
        "minimum": (
            "saddle_strength",
            np.array([theory.optimum(classes, x / classes).loss for x in strengths]),
        ),
        "measured_curvature": (("merger", "saddle_strength"), measured),
        "exact_curvature": ("saddle_strength", exact),
    }


def _second_derivative(
    problem: ufm.UFM, decay: ufm.Coupled, saddle: Solution, escape: Mapping[str, np.ndarray]
) -> float:
    """v^T Hess v by exact products of the Hessian."""
    objective, theta = Objective(problem, decay, "figure"), problem.pack(saddle.blocks)
    objective(theta)
    v = problem.pack(escape)
    return float(v @ objective.curvature(theta, np.ones(objective.buffers.X.size))(v))


def _run(run: ufm.Trajectory) -> dict[str, tuple[Any, ...]]:
    problem, decay = run.problem, run.run.decay
    kept = np.unique(np.logspace(0, np.log10(len(run) - 2), 60).astype(int))
    least = theory.optimum(K, float(theory.nuclear_decay(N, LAM, LAM))).loss
    bounds = np.array([lower_bound(problem, decay, run.state(int(i))) for i in kept])
    W, H = run["W"], run.features()
    D = [balancedness.imbalance(W[i], H[i]) for i in kept]
    after = [balancedness.imbalance(W[i + 1], H[i + 1]) for i in kept]
    off = np.empty((2, len(kept)))
    for j, i in enumerate(kept):
        gradient = problem.gradient(run.state(int(i)))
        for row, used in enumerate((1.0, 0.0)):
            expected = balancedness.next_imbalance(D[j], used * gradient["W"], used * gradient["H"], LR, LAM)
            off[row, j] = np.abs(after[j] - expected).max()
    return {
        "run_step": ("record", run.steps[kept]),
        "run_excess": ("record", run.loss[kept] - least),
        "run_gap": ("record", run.loss[kept] - bounds),
        "run_imbalance": ("record", np.array([np.abs(d).max() for d in D])),
        "run_deviation": (("law", "record"), off),
    }


def draw(data: xarray.Dataset) -> Figure:
    """Eight panels: minimum (loss, margin, norms), narrow widths; saddles (loss, curvature), gap, balancedness."""
    figure = Figure(figsize=(10.4, 5.2), layout="constrained")
    (loss, margin, norms, narrow), (saddles, curvature, gap, balance) = figure.subplots(2, 4)
    _draw_minimum(loss, margin, norms, data)
    _draw_narrow(narrow, data)
    _draw_saddles(saddles, curvature, data)
    _draw_run(gap, balance, data)
    for ax in (loss, margin, norms, narrow, saddles, curvature):
        ax.set_xscale("log")
        ax.set_xlabel("K √(n λ_W λ_H)")
    for ax in (gap, balance):
        ax.set_xlabel(plotting.LABELS["step"])
    return figure


def _draw_minimum(loss: Axes, margin: Axes, norms: Axes, data: xarray.Dataset) -> None:
    x, points = data["grid"].values, data["strength"].values
    for eps, (colour, marker) in zip(data["smoothing"].values, LOOKS, strict=False):
        one, shade = data.sel(smoothing=eps), plotting.COLOURS[colour]
        label = f"ε = {eps:g}"
        loss.plot(x, one["exact_loss"].values, "-", color=shade, linewidth=0.9, label=label)
        loss.plot(points, one["found_loss"].values, marker, color=shade, markerfacecolor="none")
        margin.plot(x, one["exact_margin"].values, "-", color=shade, linewidth=0.9, label=label)
        margin.plot(points, one["found_margin"].values, marker, color=shade, markerfacecolor="none")
        norms.plot(x, (K - 1) / K * one["exact_margin"].values, "-", color=shade, linewidth=0.9)
        for block, shape in (("W", "x"), ("H", "+")):
            norms.plot(
                points,
                one["found_norm"].sel(block=block).values,
                shape,
                color=shade,
                label=f"{block}, {label}",
            )
        for ax in (loss, margin, norms):
            ax.axvline(1 - eps, color=shade, linestyle=":", linewidth=0.8)
    loss.set_ylabel(plotting.LABELS["loss"])
    margin.set_ylabel("margin m")
    norms.set_ylabel("‖w‖² and ‖h‖², scaled")
    for ax, title in ((loss, "(a) global minimum"), (margin, "(b) its margin"), (norms, "(c) its norms")):
        ax.set_title(f"{title}, K = {K}", loc="left")
        ax.legend(fontsize=6.5)


def _draw_narrow(ax: Axes, data: xarray.Dataset) -> None:
    ax.plot(
        data["grid"].values,
        data["polygon"].values,
        "-",
        color=plotting.PREDICTION,
        linewidth=0.9,
        label="polygon",
    )
    for width, (colour, marker) in zip(data["width"].values, LOOKS, strict=False):
        ax.plot(
            data["strength"].values,
            data["narrow"].sel(width=width).values,
            marker,
            color=plotting.COLOURS[colour],
            markerfacecolor="none",
            label=f"d = {width}",
        )
    ax.set_ylabel("loss / loss of the simplex")
    ax.set_title(f"(d) width below K − 1, K = {NARROW_CLASSES}", loc="left")
    ax.legend(fontsize=6.5)


def _draw_saddles(saddles: Axes, curvature: Axes, data: xarray.Dataset) -> None:
    x = data["saddle_strength"].values
    saddles.plot(x, data["minimum"].values, "-", color=plotting.PREDICTION, linewidth=0.9, label="minimum")
    for merger, (colour, marker) in zip(data["merger"].values, LOOKS, strict=True):
        one, shade = data.sel(merger=merger), plotting.COLOURS[colour]
        saddles.plot(
            x, one["saddle_loss"].values, marker + "-", color=shade, linewidth=0.7, label=merger, markersize=3
        )
        curvature.plot(
            x, -one["measured_curvature"].values, marker, color=shade, markerfacecolor="none", label=merger
        )
    curvature.plot(
        x, -data["exact_curvature"].values, "-", color=plotting.PREDICTION, linewidth=0.9, label="closed form"
    )
    curvature.set_ylim(0, 1.1 * float(-data["exact_curvature"].min()))
    saddles.set_ylim(0, 2.3)
    saddles.set_ylabel(plotting.LABELS["loss"])
    curvature.set_ylabel("− second derivative")
    saddles.set_title(f"(e) merged classes, K = {MERGED_CLASSES}", loc="left")
    curvature.set_title("(f) along the escape direction", loc="left")
    for ax in (saddles, curvature):
        ax.legend(fontsize=6, ncols=2, loc="upper left" if ax is saddles else "lower left")


def _draw_run(gap: Axes, balance: Axes, data: xarray.Dataset) -> None:
    steps = data["run_step"].values
    plotting.metric_curves(
        gap,
        steps,
        {
            "above the bound from duality": data["run_gap"].values,
            "above the minimum": data["run_excess"].values,
        },
    )
    plotting.metric_curves(
        balance,
        steps,
        {
            "max |D|": data["run_imbalance"].values,
            "off (1 − ηλ)² D": data["run_deviation"].isel(law=1).values,
            "off the exact law": data["run_deviation"].isel(law=0).values,
        },
    )
    for ax, title in ((gap, "(g) gradient descent, K = 4"), (balance, "(h) D = WᵀW − HHᵀ")):
        ax.set_xscale("log")
        ax.set_title(title, loc="left")
        ax.legend(fontsize=6.5)
    gap.set_ylabel("loss")
