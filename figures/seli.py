"""SELI: angles under STEP imbalance against the ratio, and how slowly small decay approaches them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.theory import minority_collapse, seli

HALF, N_B = 2, 2  # classes in each group, samples in a minority class
DECAYS = (1e-2, 1e-4, 1e-6)
RATIOS, QUICK_RATIOS = (1, 2, 3, 5, 7, 10, 15, 25, 40, 70, 100), (1, 3, 7, 25, 100)
PROFILES = {"20, 20, 2, 2": (20, 20, 2, 2), "9, 5, 2, 1": (9, 5, 2, 1)}
RUNS, QUICK_RUNS = (1e-2, 1e-3, 1e-4, 1e-5), (1e-2, 1e-3)
ANGLES = ("majority", "minority", "across")
COLOURS = dict(zip(ANGLES, ("blue", "red", "green"), strict=True))


def compute(quick: bool) -> xarray.Dataset:
    """Cosines in closed form, from the SVD and at certified optima; distances of optima and of L-BFGS."""
    ratios, runs = (QUICK_RATIOS, QUICK_RUNS) if quick else (RATIOS, RUNS)
    line = np.geomspace(1, 100, 60)
    closed = seli.step(HALF, HALF, line)
    sizes = [_step_sizes(R) for R in ratios]
    rates = np.geomspace(1e-2, 1e-7, 11)
    optima = [[_optimum(profile, rate) for rate in rates] for profile in PROFILES.values()]
    data = xarray.Dataset(
        {
            "closed": (("vectors", "angle", "line"), [products.cosines() for products in closed[1:]]),
            "svd": (("vectors", "angle", "ratio"), _from_svd(sizes)),
            "decayed": (("decay", "vectors", "angle", "ratio"), [_at_decay(sizes, rate) for rate in DECAYS]),
            "distance": (("profile", "rate"), [[float(seli.distance(Z)) for Z in row] for row in optima]),
            "law": (
                ("profile", "rate"),
                [[_law(profile, rate) for rate in rates] for profile in PROFILES.values()],
            ),
            "reached": (
                ("profile", "run"),
                [[_reached(profile, rate) for rate in runs] for profile in PROFILES.values()],
            ),
        },
        {
            "vectors": ["classifiers", "class-mean features"],
            "angle": list(ANGLES),
            "line": line,
            "ratio": list(ratios),
            "decay": list(DECAYS),
            "profile": list(PROFILES),
            "rate": rates,
            "run": list(runs),
        },
    )
    worst = float(np.abs(data["svd"] - _closed_at(ratios)).max())
    data.attrs = {
        "caption": (
            f"Left and middle, cosines of classifiers and of class-mean features in the SELI geometry with {HALF} "
            f"classes of R samples for every one in {HALF} others: closed form (lines), singular value "
            f"decomposition (dots, within {worst:.0e}), and minority pairs at the certified optimum of "
            f"cross-entropy with decay {', '.join(f'{rate:g}' for rate in DECAYS)} (crosses, darker for smaller). "
            "Minority classifiers stand at a right angle at R = 7. Right, normalised distance of the logits from "
            "the geometry against log(1/lam_Z): certified optimum (dots), L-BFGS on the model (rings), and the "
            "derived law of the margins, log(1/lam_Z) - log(-N M_ck) (dashed)."
        ),
        "source": f"minimisation by this package; {seli.PAPER}; closed forms and law derived here",
        "settings": (
            f"minority of {N_B} samples a class; profiles {'; '.join(PROFILES)}; L-BFGS from one start, seed 0"
        ),
    }
    return data


def _step_sizes(ratio: int) -> tuple[int, ...]:
    return (N_B * ratio,) * HALF + (N_B,) * HALF


def _cosines(gram: np.ndarray) -> tuple[float, float, float]:
    """Inside the majority, inside the minority, across."""
    lengths = np.sqrt(np.diag(gram))
    unit = gram / np.outer(lengths, lengths)
    return unit[0, 1], unit[-1, -2], unit[0, -1]


def _closed_at(ratios: Sequence[int]) -> np.ndarray:
    found = seli.step(HALF, HALF, np.array(ratios, dtype=float))
    return np.array([products.cosines() for products in found[1:]])


def _from_svd(sizes: Sequence[Sequence[int]]) -> np.ndarray:
    """Cosines by vectors, angle and ratio."""
    return np.array([[_cosines(gram) for gram in seli.geometry(one)[:2]] for one in sizes]).transpose(1, 2, 0)


def _optimum(sizes: Sequence[int], rate: float) -> np.ndarray:
    """Class means of the logits at the certified optimum."""
    problem = ufm.UFM(len(sizes), len(sizes), per_class=tuple(sizes))
    return minority_collapse.class_means(
        problem, minority_collapse.optimum(problem, ufm.Coupled(W=rate, H=rate))
    )


def _at_decay(sizes: Sequence[Sequence[int]], rate: float) -> np.ndarray:
    """Cosines at the optimum, by vectors, angle and ratio."""
    found = []
    for one in sizes:
        roots = np.sqrt(one)
        U, values, V = np.linalg.svd(_optimum(one, rate) * roots)
        found.append([_cosines((U * values) @ U.T), _cosines((V.T * values) @ V / np.outer(roots, roots))])
    return np.array(found).transpose(1, 2, 0)


def _law(sizes: Sequence[int], rate: float) -> float:
    """Distance of the logits with the margins of the law and columns that sum to 0."""
    margins = seli.limit_margins(sizes, rate)
    return float(seli.distance(margins.mean(axis=0) - margins))


def _reached(sizes: Sequence[int], rate: float) -> float:
    """Distance at the end of L-BFGS on W and H."""
    problem = ufm.UFM(len(sizes), len(sizes), per_class=tuple(sizes))
    decay = ufm.Coupled(W=rate, H=rate)
    state = ufm.minimise(problem, decay, starts=1, certificate=False, progress=False).state
    Z = state["W"] @ state["H"][:, np.searchsorted(problem.labels, range(len(sizes)))]
    return float(seli.distance(Z))


def draw(data: xarray.Dataset) -> Figure:
    """Angles of classifiers and of features, and the approach."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for ax, vectors in zip(axes, data["vectors"].values, strict=False):
        _angles(ax, data.sel(vectors=vectors), vectors)
    _approach(axes[2], data)
    return figure


def _angles(ax: Axes, one: xarray.Dataset, vectors: str) -> None:
    for angle, colour in COLOURS.items():
        shade, chosen = plotting.COLOURS[colour], one.sel(angle=angle)
        ax.plot(chosen["line"], chosen["closed"], color=shade, label=angle)
        ax.plot(chosen["ratio"], chosen["svd"], "o", color=shade, markeredgewidth=0)
    for rate, shade in zip(one["decay"].values, ("0.75", "0.5", "0.0"), strict=True):
        chosen = one.sel(decay=rate, angle="minority")
        name = f"minority, λ = {rate:g}"
        ax.plot(chosen["ratio"], chosen["decayed"], "x", color=shade, markersize=4.5, label=name, zorder=4)
    ax.axhline(0, color=plotting.QUIET, linewidth=0.6, zorder=0)
    if vectors == "classifiers":
        ax.axvline(7, color=plotting.QUIET, linewidth=0.6, linestyle=":", zorder=0)
        ax.legend(fontsize=6.5, loc="lower left", ncols=2)
    plotting.log_axis(ax, "x", 0.9, 110)
    ax.set_ylim(-1.08, 1.08)
    ax.set_xlabel("ratio R of the class sizes")
    ax.set_ylabel("cosine")
    ax.set_title(str(vectors), loc="left")


def _approach(ax: Axes, data: xarray.Dataset) -> None:
    for profile, colour in zip(data["profile"].values, ("orange", "purple"), strict=True):
        one, shade = data.sel(profile=profile), plotting.COLOURS[colour]
        steps = np.log(1 / one["rate"].values)
        ax.plot(steps, one["distance"], "o", color=shade, markeredgewidth=0, label=f"sizes {profile}")
        ax.plot(steps, one["law"], "--", color=shade)
        rings = np.log(1 / one["run"].values)
        ax.plot(rings, one["reached"], "o", markerfacecolor="none", markeredgecolor="black", markersize=6.5)
    ax.set(xscale="log", yscale="log")
    ax.set_xticks([5, 7, 10, 15], ["5", "7", "10", "15"])
    ax.set_yticks([0.05, 0.1, 0.2, 0.3], ["0.05", "0.1", "0.2", "0.3"])
    ax.minorticks_off()
    ax.set_xlabel("log(1/λ)")
    ax.set_title("distance of the logits from SELI", loc="left")
    ax.legend(fontsize=6.5)
