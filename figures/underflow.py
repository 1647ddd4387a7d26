"""Theorem 3.3 in floating point: where the probabilities underflow, a plain simulator loses the sign and the limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.theory import row_sum
from ufm.theory import signgd_decoupled as theory

CLASSES = 10
PROBLEM = ufm.UFM(classes=CLASSES, width=CLASSES, features=ufm.SimplexETF())
LR = 1.0
DECAYS = (1e-1, 5e-2, 2e-2, 1e-2, 8e-3, 6e-3, 5e-3, 2e-3, 1e-3, 8e-4, 7e-4, 5e-4, 2e-4)
SMALL_LR, SMALL_LR_DECAYS = 0.1, (1e-2, 5e-3, 1e-3, 5e-4)
QUICK_DECAYS, QUICK_SMALL_LR_DECAYS = (1e-1, 1e-2, 5e-3, 5e-4), (1e-1,)
PATH_DECAY = 5e-4  # the run drawn step by step, at rate LR
TIMES = 12.0  # steps in units of 1/(eta lam)
WRONG = 0.01  # errors beyond this are counted in the caption
DTYPES = ("float64", "float32")
PROGRAMS = tuple(f"{who}, {dtype}" for who in ("this package", "plain softmax") for dtype in DTYPES)


def compute(quick: bool) -> xarray.Dataset:
    """alpha over theorem 3.3 at the end of runs and along one, by this package and by plain numpy."""
    runs = [(LR, lam) for lam in (QUICK_DECAYS if quick else DECAYS)]
    runs += [(SMALL_LR, lam) for lam in (QUICK_SMALL_LR_DECAYS if quick else SMALL_LR_DECAYS)]
    lrs, lams = np.array(runs).T
    when = ufm.LogSpaced(80).steps(_steps(LR, PATH_DECAY))
    path = np.stack([_alpha(program, LR, PATH_DECAY, when) for program in PROGRAMS])
    ends = np.empty((len(PROGRAMS), len(runs)))
    for (m, i), _ in np.ndenumerate(ends):
        drawn = runs[i] == (LR, PATH_DECAY)
        ends[m, i] = path[m, -1] if drawn else _alpha(PROGRAMS[m], *runs[i], np.array([_steps(*runs[i])]))[-1]
    steps = np.array([_steps(*run) for run in runs])
    data = xarray.Dataset(
        {
            "ratio": (("program", "run"), ends / theory.nc0(steps, lrs, lams, CLASSES)),
            "lr": ("run", lrs),
            "lam": ("run", lams),
            "logit_gap": ("run", theory.logit_gap(theory.limit_weight(lams), CLASSES)),
            "path_alpha": (("program", "step"), path),
            "path_theory": ("step", theory.nc0(when, LR, PATH_DECAY, CLASSES)),
            "underflow_gap": ("dtype", [_underflow_gap(dtype) for dtype in DTYPES]),
            "underflow_step": ("dtype", [_underflow_step(dtype) for dtype in DTYPES]),
        },
        {"program": list(PROGRAMS), "step": when, "dtype": list(DTYPES)},
    )
    data.attrs = {
        "times": TIMES,
        "path_lam": PATH_DECAY,
        "caption": _caption(data),
        "source": (
            f"simulation by this package, and by plain numpy for comparison; law: {row_sum.PAPER}, theorem 3.3"
        ),
        "settings": (
            f"{PROBLEM!r}, Zeros() start, SignGD(lr), Decoupled(lam), {TIMES:g}/(lr lam) steps; plain softmax: largest "
            "logit subtracted, softmax minus one-hot, times H^T, numpy.sign, all in the precision named"
        ),
    }
    return data


def _steps(lr: float, lam: float) -> int:
    return round(TIMES / (lr * lam))


def _alpha(program: str, lr: float, lam: float, when: np.ndarray) -> np.ndarray:
    """alpha at the steps `when`, the last of which ends the run."""
    who, dtype = program.split(", ")
    run = _packaged if who == "this package" else _plain
    W = run(lr, lam, when, dtype).astype(np.float64)
    alpha: np.ndarray = (W.sum(axis=1) ** 2).sum(axis=1) / CLASSES
    return alpha


def _packaged(lr: float, lam: float, when: np.ndarray, dtype: str) -> np.ndarray:
    found = ufm.simulate(
        PROBLEM,
        ufm.SignGD(lr),
        ufm.Decoupled(lam),
        steps=int(when[-1]),
        init=ufm.Zeros(),
        record=ufm.At(when.tolist()),
        dtype=dtype,
    )
    return found["W"][np.isin(found.steps, when)]


def _plain(lr: float, lam: float, when: np.ndarray, dtype: str) -> np.ndarray:
    """The textbook program: a softmax that cannot overflow, minus one-hot, and the sign of the gradient."""
    number: Any = np.dtype(dtype).type
    labels = np.eye(CLASSES, dtype=dtype)
    H = PROBLEM.frozen_values["H"].astype(dtype)
    W = np.zeros((CLASSES, CLASSES), dtype)
    rate, keep, kept, wanted = number(lr), number(1) - number(lr) * number(lam), [], set(when.tolist())
    for t in range(int(when[-1]) + 1):
        if t in wanted:
            kept.append(W)
        Z = W @ H
        exponentials = np.exp(Z - Z.max(axis=0))
        softmax = exponentials / exponentials.sum(axis=0)
        W = keep * W - rate * np.sign((softmax - labels) @ H.T)
    return np.stack(kept)


def _underflow_gap(dtype: str) -> float:
    """Gap of logits beyond which a probability is not even a denormal number: 744.4 and 103.3."""
    return -float(np.log(np.finfo(dtype).smallest_subnormal.astype(np.longdouble)))


def _underflow_step(dtype: str) -> int:
    """First step of the drawn run at which theorem 3.3 puts the logit gap beyond that."""
    w = theory.weight(np.arange(_steps(LR, PATH_DECAY) + 1), LR, PATH_DECAY)
    return int(np.argmax(theory.logit_gap(w, CLASSES) > _underflow_gap(dtype)))


def _caption(data: xarray.Dataset) -> str:
    error = abs(data["ratio"] - 1)
    gaps = dict(zip(DTYPES, data["underflow_gap"].values, strict=True))
    worst = {m: float(error.sel(program=m).max()) for m in PROGRAMS if m.startswith("this")}
    wrong = []
    for dtype in DTYPES:
        wrong_runs = error.sel(program=f"plain softmax, {dtype}").values > WRONG
        beyond = data["logit_gap"].values > gaps[dtype]
        wrong.append(
            f"in {dtype} {wrong_runs[beyond].sum()} of {beyond.sum()} runs whose gap passes {gaps[dtype]:.0f} are "
            f"off by more than {100 * WRONG:g} percent, and {wrong_runs[~beyond].sum()} of the {(~beyond).sum()} others"
        )
    table = [
        f"lambda {lam:g}: {', '.join(f'{value:.3g}' for value in (single, double))}"
        for lr, lam, double, single in zip(
            data["lr"].values,
            data["lam"].values,
            data["ratio"].sel(program="plain softmax, float64").values,
            data["ratio"].sel(program="plain softmax, float32").values,
            strict=True,
        )
        if lr == SMALL_LR
    ]
    steps = dict(zip(DTYPES, data["underflow_step"].values, strict=True))
    return (
        f"SignGD with decoupled decay from W = 0, K = {CLASSES}: theorem 3.3 says alpha_t = ((K-2) w_t)^2, while the "
        "logit gap tends to 2/(lambda sqrt(K-1)). Left: |alpha/theorem - 1| after "
        f"{TIMES:g}/(eta lambda) steps, eta = {LR:g} (filled) and {SMALL_LR:g} (open), against that gap; dashed, where "
        "the smallest number of each precision underflows. A plain softmax follows the theorem up to there: "
        f"{'; '.join(wrong)}. This package carries exponents and stays within {worst[PROGRAMS[0]]:.0e} in float64 and "
        f"{worst[PROGRAMS[1]]:.0e} in float32 (round-off of W itself). Right: alpha along the run with eta = {LR:g}, "
        f"lambda = {PATH_DECAY:g}; the theorem puts the gap beyond float32 at step {steps['float32']} and beyond "
        f"float64 at step {steps['float64']}. Plain alpha/theorem at eta = {SMALL_LR:g} in float32 and float64: "
        f"{'; '.join(table)}."
    )


_COLOURS = ("blue", "sky", "red", "orange")
_MARKS = ("o", "s", "^", "v")


def draw(data: xarray.Dataset) -> Figure:
    """Left, errors at the end against the logit gap; right, alpha along one run."""
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _errors(left, data)
    artists = _path(right, data)
    large, small = data["lr"].values.max(), data["lr"].values.min()
    left.set_title(
        f"after {data.attrs['times']:g}/(ηλ) steps, η = {large:g} (open: η = {small:g})", loc="left"
    )
    right.set_title(f"one run, η = {large:g}, λ = {data.attrs['path_lam']:g}", loc="left")
    plotting.legend_below(figure, artists)
    return figure


def _errors(ax: Axes, data: xarray.Dataset) -> None:
    gap, lr, errors = data["logit_gap"].values, data["lr"].values, np.abs(data["ratio"].values - 1)
    ax.set(xscale="log", yscale="log", xlabel="final logit gap 2/(λ√(K−1))", ylabel="|α / theorem 3.3 − 1|")
    for error, colour, mark in zip(errors, _COLOURS, _MARKS, strict=True):
        shown, filled = np.maximum(error, 1e-16), lr == lr.max()
        style: dict[str, Any] = {"color": plotting.COLOURS[colour], "marker": mark}
        ax.plot(gap[filled], shown[filled], linewidth=0.8, **style)
        ax.plot(gap[~filled], shown[~filled], linestyle="none", markerfacecolor="white", zorder=3, **style)
    ax.set_ylim(2e-17, 50)
    plotting.place_marks(ax, data["underflow_gap"].values.tolist(), data["dtype"].values.tolist())
    top = ax.secondary_xaxis("top", functions=(_gap_of, _gap_of))
    top.set_xlabel("λ")


def _gap_of(lam: Any) -> Any:
    """Limit of the gap at lam, and of lam at a gap: one is the inverse of the other."""
    with np.errstate(divide="ignore"):
        return theory.logit_gap(theory.limit_weight(np.asarray(lam, float)), CLASSES)


def _path(ax: Axes, data: xarray.Dataset) -> list[Any]:
    ax.set(xscale="log", yscale="log", xlabel=plotting.LABELS["step"], ylabel=plotting.LABELS["alpha"])
    steps = np.where(data["step"].values > 0, data["step"].values, np.nan)
    [law] = ax.plot(
        steps, data["path_theory"].values, "-", color=plotting.COLOURS["black"], label="theorem 3.3"
    )
    dots = [
        ax.plot(
            steps, alpha, mark, color=plotting.COLOURS[colour], markersize=3.5, markeredgewidth=0, label=name
        )[0]
        for alpha, name, colour, mark in zip(
            data["path_alpha"].values, data["program"].values, _COLOURS, _MARKS, strict=True
        )
    ]
    plotting.place_marks(ax, data["underflow_step"].values.tolist(), data["dtype"].values.tolist())
    return [law, *dots]
