"""Squared error with a bias that decays: the optimum turns from a simplex ETF towards an orthogonal frame."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.theory.mse_bias import PAPER, optimum

CLASSES, PER_CLASS, WIDTH, LAM_W, LAM_H = 4, 5, 6, 5e-3, 2e-3
LOW, HIGH, POINTS = -3.0, 1.0, 200
MARKS, QUICK_MARKS, STARTS = 17, 5, 3
COLUMNS = ("loss", "cosine", "centred_square", "mean_square", "beta")


def compute(quick: bool) -> xarray.Dataset:
    """Closed form over the decay of the bias, and L-BFGS with squared error and with cross-entropy."""
    rates = np.logspace(LOW, HIGH, POINTS)
    marks = np.logspace(LOW, HIGH, QUICK_MARKS if quick else MARKS)
    starts = 1 if quick else STARTS
    closed = [optimum(CLASSES, PER_CLASS, LAM_H, LAM_W, rate) for rate in rates]
    squared = np.array([_searched("mse", rate, starts) for rate in marks])
    entropy = np.array([_searched("ce", rate, starts) for rate in marks])
    ends = [optimum(CLASSES, PER_CLASS, LAM_H, LAM_W, rate) for rate in (0.0, np.inf)]
    data = xarray.Dataset(
        {
            **{name: ("rate", [getattr(one, name) for one in closed]) for name in COLUMNS},
            **{f"found_{name}": ("mark", squared[:, i]) for i, name in enumerate(COLUMNS)},
            "entropy_cosine": ("mark", entropy[:, 1]),
            "entropy_mean": ("mark", entropy[:, 3]),
            "entropy_bias": ("mark", entropy[:, 4]),
            "free": ((), ends[0].loss),
            "none": ((), ends[1].loss),
            "transition": ((), ends[0].transition),
        },
        {"rate": rates, "mark": marks},
    )
    data.attrs = {
        "caption": _caption(data),
        "source": f"closed form derived here, of the model of {PAPER} (lemma read as restated); minima by this package",
        "settings": (
            f"UFM({CLASSES}, {WIDTH}, {PER_CLASS}, bias=True), Coupled(W={LAM_W:g}, H={LAM_H:g}, b=rate), "
            f"minimise(starts={starts})"
        ),
    }
    return data


def _searched(loss: str, rate: float, starts: int) -> list[float]:
    """Objective, mean cosine of rows of W, eigenvalues of W W^T (mean of the centred ones; along 1), largest |b|."""
    problem = ufm.UFM(CLASSES, WIDTH, PER_CLASS, loss=loss, bias=True)
    decay = ufm.Coupled(W=LAM_W, H=LAM_H, b=float(rate))
    found = ufm.minimise(problem, decay, starts=starts, certificate=False)
    W = found.state["W"]
    unit = W / np.linalg.norm(W, axis=1)[:, None]
    cosines = (unit @ unit.T)[~np.eye(CLASSES, dtype=bool)]
    along = float(np.sum(W.sum(axis=0) ** 2)) / CLASSES
    centred = (float(np.sum(W**2)) - along) / (CLASSES - 1)
    return [found.loss, float(cosines.mean()), centred, along, float(np.abs(found.state["b"]).max())]


def _caption(data: xarray.Dataset) -> str:
    exact = [optimum(CLASSES, PER_CLASS, LAM_H, LAM_W, float(rate)) for rate in data["mark"].values]
    relative = max(abs(float(x) / one.loss - 1) for x, one in zip(data["found_loss"], exact, strict=True))
    cosine = max(abs(float(x) - one.cosine) for x, one in zip(data["found_cosine"], exact, strict=True))
    return (
        f"Optimum of one layer with squared error over the decay of its bias, K = {CLASSES}, n = {PER_CLASS}, decays "
        f"{LAM_W:g} of W and {LAM_H:g} of H. Lines: closed form. Circles: lowest state of L-BFGS, whose loss agrees "
        f"to {relative:.0e} and cosine to {cosine:.0e}. (a) Loss, between that with a free bias and that without one. "
        "(b) Cosine between two rows of W: a simplex ETF, -1/(K-1), up to lam_b = c/(1-c) = "
        f"{float(data['transition']):.4f} (dashed), and towards an orthogonal frame above; with cross-entropy "
        f"(squares) an ETF at every rate, |b| at most {float(data['entropy_bias'].max()):.0e}. (c) Eigenvalues of "
        "W W^T: K - 1 orthogonal to 1, and the one along 1, which is NC0 = ||W^T 1||^2/K."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Loss, cosine and eigenvalues over the decay of the bias."""
    figure = Figure(figsize=(9.2, 3.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    blue, orange, green = (plotting.COLOURS[name] for name in ("blue", "red", "green"))
    _over_rates(left, data, "loss", blue, "closed form", "L-BFGS")
    for name, label, place in (("free", "free bias", -1), ("none", "no bias", 0)):
        left.axhline(float(data[name]), color=plotting.QUIET, linewidth=0.8, linestyle=":")
        left.annotate(
            label, (data["rate"].values[place], float(data[name])), (0, 2), textcoords="offset points", fontsize=7,
            color=plotting.QUIET, ha="right" if place else "left",
        )  # fmt: skip
    left.set_ylabel("loss at the optimum")
    left.legend(loc="center right")
    left.set_title("(a) loss", loc="left")

    _over_rates(middle, data, "cosine", blue, "MSE", "L-BFGS")
    middle.plot(
        data["mark"].values, data["entropy_cosine"].values, "s", color=orange, markerfacecolor="none",
        label="CE, L-BFGS",
    )  # fmt: skip
    middle.set_ylabel("cosine between rows of W")
    middle.legend(loc="center right")
    middle.set_title("(b) ETF, then towards a frame", loc="left")

    _over_rates(right, data, "centred_square", green, "⊥ 1, K − 1 times", None)
    _over_rates(right, data, "mean_square", blue, "along 1: NC0", None)
    right.set_ylabel("eigenvalues of WWᵀ")
    right.legend(loc="lower right", borderaxespad=1.5)
    right.set_title("(c) eigenvalues", loc="left")
    for ax in (left, middle, right):
        ax.axvline(float(data["transition"]), color=plotting.QUIET, linewidth=0.8, linestyle="--", zorder=0)
        ax.set_xlabel("decay λ of the bias")
    return figure


def _over_rates(
    ax: Axes, data: xarray.Dataset, name: str, colour: str, label: str, found: str | None
) -> None:
    ax.semilogx(data["rate"].values, data[name].values, "-", color=colour, label=label)
    ax.plot(
        data["mark"].values,
        data[f"found_{name}"].values,
        "o",
        color=colour,
        markerfacecolor="none",
        label=found,
    )
