"""Which random starts SignGD with decoupled decay takes to its minimiser: the step in the logits decides."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.theory import row_sum
from ufm.theory import signgd_decoupled as theory

LOGIT_STEPS = (1.0, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 6.0, 8.0, 12.0, 20.0)
SHRINKAGES = (0.003, 0.01, 0.03, 0.1, 0.5, 1.0, 1.5)  # eta lam; theorem 3.3 needs it below 2
CLASSES = (3, 6, 10)
SCALES = (1.0, 20.0)
SEEDS = 10
CYCLE_CLASSES = 3  # where an attracting cycle is known
QUICK_LOGIT_STEPS, QUICK_SHRINKAGES, QUICK_SEEDS = (1.0, 2.5, 4.0, 20.0), (0.03, 0.1, 1.0), 4
LEGS = (12.0, 40.0)  # times 1/(eta lam): runs that have not locked at the first moment go on to the second
SMALL_STEP, LARGE_STEP = (
    2.5,
    4.0,
)  # of LOGIT_STEPS; the caption counts runs up to the one and from the other on


def compute(quick: bool) -> xarray.Dataset:
    """Starts that lock on to the minimiser, for every scale, number of classes, eta lam and step in the logits."""
    logit_steps, shrinkages, seeds = (
        (QUICK_LOGIT_STEPS, QUICK_SHRINKAGES, QUICK_SEEDS) if quick else (LOGIT_STEPS, SHRINKAGES, SEEDS)
    )
    coordinates: dict[str, list[Any]] = {
        "scale": list(SCALES),
        "classes": list(CLASSES),
        "eta_lam": list(shrinkages),
        "logit_step": list(logit_steps),
        "seed": list(range(seeds)),
    }
    shape = tuple(len(values) for values in coordinates.values())
    asymmetry, undecided = np.empty(shape), np.empty(shape, np.int32)
    for s, k, i, j, seed in np.ndindex(shape):
        asymmetry[s, k, i, j, seed], undecided[s, k, i, j, seed] = _run(
            CLASSES[k], logit_steps[j], shrinkages[i], SCALES[s], seed
        )
    axes = tuple(coordinates)
    data = xarray.Dataset({"asymmetry": (axes, asymmetry), "undecided_signs": (axes, undecided)}, coordinates)
    data["lock_radius"] = ("classes", [theory.lock_radius(K) for K in CLASSES])
    data["reached"] = (data["asymmetry"] < data["lock_radius"]).sum("seed").astype(np.int32)
    data.attrs = {
        "cycle_logit_step": _cycle_logit_step(),
        "caption": _caption(data),
        "source": (
            f"simulation by this package; {row_sum.PAPER}, theorem 3.3 starts at W = 0; the lock radius is derived "
            "here, the basin measured"
        ),
        "settings": (
            "UFM(classes=K, width=K, features=SimplexETF()), SignGD(lr), Decoupled(lam), lr = logit_step sqrt(K-1)/2, "
            f"lam = eta_lam/lr, Gaussian(scale) starts of seeds 0 to {seeds - 1}, {LEGS[-1]:g}/eta_lam + {LEGS[-1]:g} "
            "steps at most; reached: asymmetry(W) < lock_radius(K)"
        ),
    }
    return data


def _run(classes: int, logit_step: float, shrinkage: float, scale: float, seed: int) -> tuple[float, int]:
    """Asymmetry of the last W of one run, and how many signs float64 could not decide."""
    lr = logit_step / float(theory.logit_gap(-1.0, classes))
    first, *later = [int(times * (1 + 1 / shrinkage)) for times in LEGS]
    run = ufm.simulate(
        ufm.UFM(classes=classes, width=classes, features=ufm.SimplexETF()),
        ufm.SignGD(lr),
        ufm.Decoupled(shrinkage / lr),
        steps=first,
        init=ufm.Gaussian(scale),
        seed=seed,
        record=ufm.At([first]),
    )
    for steps in later:
        if theory.asymmetry(run["W"][-1]) >= theory.lock_radius(classes):
            run = run.resume(steps)
    return float(theory.asymmetry(run["W"][-1])), int(run.stats["undecided_signs"])


def _cycle_logit_step() -> float:
    """Step in the logits above which K = 3 has a cycle that attracts, at small lam."""
    return float(theory.cycle_threshold() * theory.logit_gap(-1.0, CYCLE_CLASSES))


def _caption(data: xarray.Dataset) -> str:
    seeds, reached = data.sizes["seed"], data["reached"]
    slow = reached.where(data["eta_lam"] < 1, drop=True)
    fast = reached.where(data["eta_lam"] >= 1, drop=True)
    small = slow.where(slow["logit_step"] <= SMALL_STEP, drop=True)
    large = slow.where(slow["logit_step"] >= LARGE_STEP, drop=True)
    near, wide = (large.sel(scale=scale) for scale in (min(SCALES), max(SCALES)))
    doubtful = (data["undecided_signs"] > 0).any("seed")
    return (
        f"How many of {seeds} Gaussian starts W_0 SignGD with decoupled decay takes to the minimiser (2I - J)/lambda, "
        "over eta lambda and 2 eta/sqrt(K-1), the most that the signs of one step move a difference of two logits. "
        f"With eta lambda < 1, {_share(small, seeds)} runs with a logit step of at most {SMALL_STEP:g} arrive, "
        f"whatever K, lambda and start; with a logit step of at least {LARGE_STEP:g}, {_share(wide, seeds)} from "
        f"starts of scale {max(SCALES):g} and {_share(near, seeds)} of scale {min(SCALES):g}. With eta lambda >= 1, "
        f"where a step forgets W or turns it round, {_share(fast, seeds)}. Dashed: above a logit step of "
        f"{_cycle_logit_step():.2f}, K = {CYCLE_CLASSES} has an attracting cycle (proved at small lambda). A run has "
        "arrived when W is nearer to the family x I + y J than the lock radius, inside which every later sign is "
        f"proved to be right; the others had not after {LEGS[-1]:g}/(eta lambda) steps. Signs that float64 cannot "
        f"decide, so that the outcome would be its own, occurred in {int(doubtful.sum())} of {doubtful.size} cells."
    )


def _share(reached: xarray.DataArray, seeds: int) -> str:
    return f"{int(reached.sum())} of {seeds * reached.size}"


def draw(data: xarray.Dataset) -> Figure:
    """Small multiples: classes across, scale of the start down; each cell prints how many starts arrived."""
    figure = Figure(figsize=(9.6, 5.0), layout="constrained")
    scales, classes, seeds = data["scale"].values, data["classes"].values, data.sizes["seed"]
    grid = figure.subplots(len(scales), len(classes), sharex=True, sharey=True, squeeze=False)
    for (s, k), ax in np.ndenumerate(grid):
        plotting.heatmap(
            ax,
            data["reached"].isel(scale=s, classes=k).values,
            data["eta_lam"].values,
            data["logit_step"].values,
            form=".0f",
            low=0.0,
            high=seeds,
            row_label="ηλ" if k == 0 else None,
            column_label="step in the logits 2η/√(K−1)" if s == len(scales) - 1 else None,
        )
        if classes[k] == CYCLE_CLASSES:
            column = np.searchsorted(data["logit_step"].values, data.attrs["cycle_logit_step"])
            ax.vlines(
                column, 0, (data["eta_lam"].values < 1).sum(), plotting.COLOURS["red"], "--", linewidth=1.4
            )
        ax.set_title(f"K = {classes[k]}, start of scale {scales[s]:g}", loc="left")
    figure.suptitle(
        f"SignGD with decoupled decay: how many of {seeds} random starts reach the minimiser (2I − J)/λ",
        fontsize=9,
    )
    return figure
