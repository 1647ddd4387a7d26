"""Batch normalisation and weight decay: cosines at the end of training, and what a gap of the loss leaves of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.metrics import inter_class_cosine, intra_class_cosine
from ufm.normalisation import behind
from ufm.solutions.normalised import normalised_simplex
from ufm.theory.batch_normalisation import (
    EXPONENTS,
    PUBLISHED_EXPONENTS,
    fit_bound,
    intra_bound,
    largest_margin,
)

CLASSES, WIDTH, PER_CLASS = 4, 6, 5
NORMALISED = ufm.UFM(CLASSES, WIDTH, PER_CLASS, normalisation=ufm.BatchNorm())
PLAIN = ufm.UFM(CLASSES, WIDTH, PER_CLASS)
DECAYS, SEEDS, STEPS = np.geomspace(1e-4, 1e-1, 10), 5, 4000
QUICK_DECAYS, QUICK_SEEDS, QUICK_STEPS = np.geomspace(1e-3, 1e-1, 4), 2, 1500
OPTIMIZER, START = ufm.GD(0.5), ufm.Start(ufm.Gaussian(0.5), gamma=ufm.Given(np.ones(WIDTH)))
GAP_DECAY, SIZES = 1e-2, np.geomspace(1e-1, 1e-4, 10)  # of the right panel: decay, sizes of perturbations
DECAY = ufm.Coupled(W=GAP_DECAY, gamma=GAP_DECAY)
FLOOR = 1e-15  # cosines are known to about this
KINDS = ("batch normalisation", "none")


def compute(quick: bool) -> xarray.Dataset:
    """Cosines at the end of runs over decays; gap of the loss and cosines of perturbations and along one run."""
    decays, seeds, steps = (QUICK_DECAYS, QUICK_SEEDS, QUICK_STEPS) if quick else (DECAYS, SEEDS, STEPS)
    ends = np.array([
        [[_cosines(_run(kind, lam, seed, steps).features()[-1]) for seed in range(seeds)] for lam in decays]
        for kind in KINDS
    ])  # fmt: skip
    gaps = np.array([_perturbed(size, seed) for size in SIZES for seed in range(seeds)])
    run = _along_a_run(steps)
    data = xarray.Dataset(
        {
            "spread": (("kind", "decay", "seed"), ends[..., 0]),
            "excess": (("kind", "decay", "seed"), ends[..., 1]),
            "perturbed": (("state", "number"), gaps),
            "run": (("record", "number"), run),
        },
        {
            "kind": list(KINDS),
            "decay": decays,
            "seed": range(seeds),
            "number": ["gap", "spread", "excess", "bound"],
        },
    )
    factor = np.quantile(gaps[:, 3] / gaps[:, 1], [0.0, 1.0])
    logs = np.log(gaps[gaps[:, 0] < 1e-3])
    slopes = [float(np.polyfit(logs[:, 0], logs[:, i], 1)[0]) for i in (1, 2)]
    late = np.log(run[(run[:, 0] < 1e-4) & (run > FLOOR).all(axis=1)])
    of_run = [float(np.polyfit(late[:, 0], late[:, i], 1)[0]) for i in (1, 2)] if len(late) > 2 else []
    along = f"; along the run they are {of_run[0]:.2f} and {of_run[1]:.2f}" if of_run else ""
    data.attrs = {
        "caption": (
            f"Cosines of the features of {CLASSES} classes of {PER_CLASS} samples after {steps} steps of gradient "
            "descent, with batch normalisation and decay lambda on gamma and W, and without, with decay lambda on W "
            "and lambda/N on H, which has the same optimum. Left: 1 minus the smallest cosine within a class. Middle: "
            "the largest cosine between two classes above -1/(C-1). Every run is a dot, lines are medians; what is "
            f"below {FLOOR:g}, round-off, is drawn there. Right: both over the gap of the loss above the optimum at "
            f"lambda = {GAP_DECAY:g}: random perturbations of the optimum (dots), whose exponents are {slopes[0]:.3f} "
            f"and {slopes[1]:.3f}, and one run (lines){along}. Black dots: the bound on 1 minus the smallest cosine "
            f"within a class that holds at every state, {factor[0]:.0f} to {factor[1]:.0f} times what is found. Grey "
            "lines have the slopes of the published upper bounds, 1/2 and 1/6, whose constants are not given: only "
            "slopes compare."
        ),
        "source": (
            "simulation by this package; the sweep over decays follows figures 2 to 4 of Pan and Cao, arXiv 2309.04644 "
            "(known from its abstract and reports on it), which train networks"
        ),
        "settings": f"{NORMALISED!r}; {PLAIN!r}; {OPTIMIZER!r}, {START!r}, seeds 0 to {seeds - 1}",
        "slopes": slopes,
        "exponents": list(EXPONENTS),
    }
    return data


def _run(kind: str, lam: float, seed: int, steps: int) -> ufm.Trajectory:
    """A run with its end alone."""
    samples, record = CLASSES * PER_CLASS, ufm.At([])
    if kind == KINDS[0]:
        decay = ufm.Coupled(W=lam, gamma=lam)
        return ufm.simulate(NORMALISED, OPTIMIZER, decay, steps=steps, init=START, seed=seed, record=record)
    decay = ufm.Coupled(W=lam, H=lam / samples)
    return ufm.simulate(
        PLAIN, OPTIMIZER, decay, steps=steps, init=ufm.Gaussian(0.5), seed=seed, record=record
    )


def _cosines(H: np.ndarray) -> tuple[float, float]:
    """1 - worst cosine within a class, and worst cosine between classes above that of a simplex."""
    labels = NORMALISED.labels
    spread = 1 - intra_class_cosine(H, labels)
    excess = inter_class_cosine(H, labels) + 1 / (CLASSES - 1)
    return max(float(spread), FLOOR), max(float(excess), FLOOR)


def _numbers(blocks: Mapping[str, np.ndarray], value: float) -> tuple[float, ...]:
    """Gap of the objective at a state, its cosines, and the bound on the spread within classes."""
    H, W = behind(NORMALISED, blocks, 1, blocks["H"]), blocks["W"] - blocks["W"].mean(axis=0)
    best, squares = normalised_simplex(NORMALISED, DECAY).loss, (W**2).sum(axis=1)
    B = largest_margin(np.sqrt((H**2).sum(axis=0).mean()), np.sqrt(squares.sum()), CLASSES)
    gap = value - NORMALISED.penalty(blocks, DECAY) - fit_bound(B, CLASSES)
    bound = intra_bound(gap, B, squares.min() / squares.sum(), CLASSES)
    return value - best, *_cosines(H), float(bound)


def _perturbed(size: float, seed: int) -> tuple[float, ...]:
    """Numbers of a perturbed optimum."""
    noise = np.random.default_rng(seed).standard_normal(NORMALISED.size)
    best = normalised_simplex(NORMALISED, DECAY)
    blocks = NORMALISED.unpack(NORMALISED.pack(best.blocks) + size * noise)
    return _numbers(blocks, NORMALISED.value(blocks, DECAY))


def _along_a_run(steps: int) -> np.ndarray:
    """Numbers at records of one run, shape (records, 4)."""
    traj = ufm.simulate(
        NORMALISED, OPTIMIZER, DECAY, steps=steps, init=START, seed=0, record=ufm.Every(steps // 50)
    )
    rows = [_numbers(traj.state(i), float(traj.loss[i])) for i in range(1, len(traj))]
    return np.array([row for row in rows if row[0] > 1e-13])


def draw(data: xarray.Dataset) -> Figure:
    """Cosines over decay within and between classes, and over the gap of the loss."""
    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    decays = data["decay"].values
    for ax, name, title in (
        (left, "spread", "1 − worst cosine within a class"),
        (middle, "excess", "worst cosine between classes + 1/(C − 1)"),
    ):
        for kind, colour in zip(data["kind"].values, ("blue", "orange"), strict=True):
            values = data[name].sel(kind=kind)
            ax.plot(np.repeat(decays, data.sizes["seed"]), values.values.ravel(), ".", ms=3,
                    color=plotting.COLOURS[colour], alpha=0.5)  # fmt: skip
            ax.plot(decays, values.median("seed").values, color=plotting.COLOURS[colour],
                    label="no normalisation" if kind == KINDS[1] else kind)  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel=plotting.LABELS["decay"])
        ax.set_title(title, loc="left")
    left.legend(loc="lower left")
    _gaps(right, data)
    return figure


def _gaps(ax: Axes, data: xarray.Dataset) -> None:
    """Both cosines over the gap: dots of perturbations, lines of a run, and lines of the published slopes."""
    for name, colour, label, published in (
        ("spread", "green", "1 − worst within", PUBLISHED_EXPONENTS[0]),
        ("excess", "purple", "worst between + 1/(C − 1)", PUBLISHED_EXPONENTS[1]),
    ):
        dots, run = data["perturbed"], data["run"]
        gap = dots.sel(number="gap").values
        colour = plotting.COLOURS[colour]
        ax.plot(gap, dots.sel(number=name).values, ".", ms=4, color=colour, label=label)
        ax.plot(run.sel(number="gap").values, run.sel(number=name).values, color=colour)
        ends = np.array([gap.min(), gap.max()])
        ax.plot(ends, 3 * (ends / ends[1]) ** published, color=plotting.COLOURS["grey"], lw=0.8, ls="--")
    gap, bound = (data["perturbed"].sel(number=name).values for name in ("gap", "bound"))
    ax.plot(gap, bound, ".", ms=2, color=plotting.COLOURS["black"], label="bound on 1 − worst within")
    ax.set(xscale="log", yscale="log", xlabel="loss − optimum")
    ax.legend(loc="lower right")
    ax.set_title("Cosines over the gap of the loss", loc="left")
