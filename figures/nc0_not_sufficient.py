"""NC0 is neither sufficient for collapse nor, without a bound on W, necessary: a saddle and a counter-example."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.metrics import nc0, nc2w, nc3
from ufm.theory import necessity
from ufm.theory.row_sum import PAPER

CLASSES, WIDTH, PER_CLASS = 4, 6, 2
PROBLEM = ufm.UFM(CLASSES, WIDTH, PER_CLASS)
LAM = 5e-3
NUDGE = 1e-8  # standard deviation of the start around the saddle
FREE, QUICK_FREE = 2000, 500
ESCAPE, QUICK_ESCAPE = 3000, 600


def compute(quick: bool) -> xarray.Dataset:
    """NC0, NC2W and NC3 along a run without decay, and along an escape from the merged-class saddle."""
    free = ufm.simulate(
        PROBLEM, ufm.NormalisedGD(0.01), steps=QUICK_FREE if quick else FREE, record=ufm.LogSpaced(200)
    )
    escape = ufm.simulate(
        PROBLEM,
        ufm.GD(0.5),
        ufm.Coupled(LAM),
        steps=QUICK_ESCAPE if quick else ESCAPE,
        init=_beside_the_saddle(),
        record=ufm.LogSpaced(300),
    )
    data = xarray.Dataset({**_measured(free, "free"), **_measured(escape, "escape")})
    drift = float(np.abs(data["free_alpha"] / data["free_alpha"][0] - 1).max())
    data.attrs = {
        "caption": (
            "Left: normalised gradient descent without weight decay collapses (NC2W and NC3 fall) while alpha = "
            f"||W^T 1||^2/K stays at its start to {drift:.0e}, so proposition 2.1 of Zhao et al. needs a bound on "
            "||W||; alpha/||W||_F^2 falls, below min(NC3^2, NC2W). Right: gradient descent with coupled decay from "
            f"a start {NUDGE:g} beside a critical point at which classes are merged in two groups: alpha is at most "
            f"{float(data['escape_alpha'].max()):.0e} throughout while NC2W stays of order 1 until the run "
            "escapes: alpha -> 0 does not imply collapse."
        ),
        "source": f"simulation by this package; {PAPER}, proposition 2.1; saddle and counter-example derived here",
        "settings": f"{free.run!r}; {escape.run!r}, noise of scale {NUDGE:g} from seed 0",
    }
    return data


def _beside_the_saddle() -> ufm.Given:
    """The merged-class saddle plus a little noise."""
    state = necessity.merged_class_saddle(CLASSES, WIDTH, PER_CLASS, LAM, LAM)
    rng = np.random.default_rng(0)
    return ufm.Given(**{name: B + NUDGE * rng.standard_normal(B.shape) for name, B in state.items()})


def _measured(run: ufm.Trajectory, name: str) -> dict[str, tuple[str, np.ndarray]]:
    W = run["W"]
    alpha = nc0(run)
    values = {
        "step": run.steps,
        "alpha": alpha,
        "relative": alpha / (W**2).sum(axis=(1, 2)),
        "nc2w": nc2w(run),
        "nc3": nc3(run),
    }
    values["bound"] = np.minimum(*necessity.relative_nc0_bounds(values["nc2w"], values["nc3"]))
    return {f"{name}_{key}": (f"{name}_record", value) for key, value in values.items()}


def draw(data: xarray.Dataset) -> Figure:
    """Two panels: necessity fails without a bound on W; sufficiency fails at a saddle."""
    figure = Figure(figsize=(7.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    free = {name: data[f"free_{name}"].values for name in ("alpha", "relative", "nc2w", "nc3", "bound")}
    plotting.metric_curves(
        left,
        data["free_step"].values,
        {
            "NC2W": free["nc2w"],
            "α / ‖W‖²": free["relative"],
            "NC3": free["nc3"],
            "α / α₀": free["alpha"] / free["alpha"][0],
            "min(NC3², NC2W)": free["bound"],
        },
    )
    plotting.metric_curves(
        right,
        data["escape_step"].values,
        {
            "NC2W": data["escape_nc2w"].values,
            "α / ‖W‖²": data["escape_relative"].values,
        },
    )
    left.legend(loc="lower left")
    right.legend(loc="center right")
    left.set_title("no decay: collapse without α → 0", loc="left")
    right.set_title("beside a merged-class saddle: α ≈ 0 without collapse", loc="left")
    for ax in (left, right):
        ax.set_xscale("log")
        ax.set_xlabel(plotting.LABELS["step"])
    return figure
