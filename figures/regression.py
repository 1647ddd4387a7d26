"""Neural regression collapse: the optimum over the decay, NRC1 to NRC3 along a run, gamma, and norms."""

from __future__ import annotations

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.metrics import nrc1, nrc2, nrc3
from ufm.solutions import regression_optimum
from ufm.theory import regression as theory

COVARIANCE = np.array([[1.0, 0.5, 0.3], [0.5, 0.6, -0.1], [0.3, -0.1, 0.4]])
SAMPLES, WIDTH = 12, 5
PROBLEM = ufm.RegressionUFM(ufm.correlated_targets(COVARIANCE, SAMPLES), WIDTH, bias=True)
RANGE, POINTS, QUICK_POINTS = (0.01, 3.0), 15, 7
RUN_RATE, RUN_LR, STEPS, QUICK_STEPS = 0.03, 0.3, 50_000, 20_000
L_W, L_H = 0.01, (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
FLOOR = 1e-9  # of panel c: NRC3 at gamma = c is round-off
RATIO = 0.5  # l_H/l_W of the published covariances
SHARES = np.linspace(0.005, 0.98, 196)
COLOURS = ("blue", "orange", "green", "red")


def _decay(l_W: float, l_H: float, samples: int = SAMPLES) -> ufm.Coupled:
    return ufm.Coupled(W=l_W, H=l_H / samples)


def _eigenvalues(W: np.ndarray) -> np.ndarray:
    """Of W W^T, largest first."""
    return np.linalg.eigvalsh(W @ W.T)[::-1]


def compute(quick: bool) -> xarray.Dataset:
    """W W^T over c by L-BFGS and closed forms, metrics along a run, NRC3 over gamma, norms over l_H."""
    data = xarray.merge([_over_decay(quick), _along_a_run(quick), _over_gamma(), _norms()])
    off = float(np.abs(data["reached"] - data["least"]).max())
    worst = float((data["printed_loss"] - data["least_curve"]).max())
    ends = {name: float(data[name][-1]) for name in ("nrc1", "nrc2", "nrc3")}
    eigenvalues = ", ".join(f"{value:.3g}" for value in data["eigenvalue"].values)
    data.attrs = {
        "caption": (
            "Regression UFM, l_H = M lam_H and l_W = lam_W, c = l_H l_W. (a) Eigenvalues of W W^T at l_H = l_W for "
            f"correlated targets with covariance eigenvalues {eigenvalues} (dotted): L-BFGS (dots) and the closed "
            f"form (dashed); objectives agree to {off:.0e}. Thin red lines: the truncation to the first columns as "
            f"printed, whose objective lies up to {worst:.2g} above. (b) NRC1, NRC2 and NRC3 at gamma = c along "
            f"gradient descent at lr {RUN_LR:g}, l_H = l_W = {RUN_RATE:g}; {ends['nrc1']:.0e}, {ends['nrc2']:.0e} and "
            f"{ends['nrc3']:.0e} at the end. (c) NRC3 over gamma at the optimum for targets with published "
            f"smallest eigenvalues and correlations (variances, which are not printed, assumed equal), l_H = "
            f"{RATIO:g} l_W: zero at gamma = c, here at the share of lambda_min that was best for the published "
            "networks (ticks). (d) "
            f"||H||_F^2/M falls and ||W||_F^2 rises with l_H at l_W = {L_W:g}, for l_H ||H||_F^2/M = l_W ||W||_F^2: "
            "explicit optimum (dots), closed form (dashed)."
        ),
        "source": f"L-BFGS and simulation by this package; closed forms: {theory.PAPER}, completed here",
        "settings": (
            f"covariance {COVARIANCE.tolist()}, {SAMPLES} samples, width {WIDTH}, with bias; run: "
            f"{QUICK_STEPS if quick else STEPS} steps from Gaussian(0.1), seed 0"
        ),
    }
    return data


def _over_decay(quick: bool) -> xarray.Dataset:
    """Panel a: eigenvalues of W W^T by L-BFGS at some c, by both closed forms at many."""
    points = np.geomspace(*RANGE, QUICK_POINTS if quick else POINTS)
    many = np.geomspace(*RANGE, 200)
    found, reached, least = [], [], []
    for c in points:
        decay = _decay(c**0.5, c**0.5)
        best = ufm.minimise(PROBLEM, decay, starts=1, certificate=False)
        found.append(_eigenvalues(best.state["W"]))
        reached.append(best.loss)
        least.append(regression_optimum(PROBLEM, decay).loss)
    grams = [
        (theory.optimal_gram(COVARIANCE, c**0.5, c**0.5), theory.printed_gram(COVARIANCE, c**0.5, c**0.5))
        for c in many
    ]
    losses = [
        [theory.gram_loss(G, COVARIANCE, c**0.5, c**0.5) for G in pair]
        for pair, c in zip(grams, many, strict=True)
    ]
    closed, printed = np.array([[np.linalg.eigvalsh(G)[::-1] for G in pair] for pair in grams]).transpose(
        1, 0, 2
    )
    return xarray.Dataset(
        {
            "found": (("c", "mode"), np.array(found)),
            "reached": ("c", reached),
            "least": ("c", least),
            "closed": (("c_curve", "mode"), closed),
            "printed": (("c_curve", "mode"), printed),
            "least_curve": ("c_curve", [pair[0] for pair in losses]),
            "printed_loss": ("c_curve", [pair[1] for pair in losses]),
            "eigenvalue": ("mode", np.linalg.eigvalsh(COVARIANCE)[::-1]),
        },
        {"c": points, "c_curve": many},
    )


def _along_a_run(quick: bool) -> xarray.Dataset:
    """Panel b: the metrics along gradient descent."""
    run = ufm.simulate(
        PROBLEM, ufm.GD(RUN_LR), _decay(RUN_RATE, RUN_RATE), init=ufm.Gaussian(0.1),
        steps=QUICK_STEPS if quick else STEPS, record=ufm.LogSpaced(120),
    )  # fmt: skip
    values = {"nrc1": nrc1(run), "nrc2": nrc2(run), "nrc3": nrc3(run, gamma=RUN_RATE**2)}
    return xarray.Dataset({name: ("step", value) for name, value in values.items()}, {"step": run.steps})


def _over_gamma() -> xarray.Dataset:
    """Panel c: NRC3 over gamma at optima whose c is the published best gamma."""
    entries = [entry for entry in theory.published_covariances() if entry.best_share is not None]
    curves = []
    for entry in entries:
        samples = 4 * entry.outputs
        problem = ufm.RegressionUFM(
            ufm.correlated_targets(entry.assumed, samples), entry.outputs + 1, bias=True
        )
        c = entry.best_share * entry.smallest  # type: ignore[operator]
        W = regression_optimum(problem, _decay((c / RATIO) ** 0.5, (c * RATIO) ** 0.5, samples))["W"]
        shares = np.sort(np.append(SHARES, entry.best_share))  # type: ignore[arg-type]
        curves.append([nrc3(W, problem.targets.array, share * entry.smallest) for share in shares])
    grids = [np.sort(np.append(SHARES, entry.best_share)) for entry in entries]  # type: ignore[arg-type]
    return xarray.Dataset(
        {
            "nrc3_of_gamma": (("dataset", "place"), np.array(curves)),
            "share": (("dataset", "place"), np.array(grids)),
            "best_share": ("dataset", [entry.best_share for entry in entries]),
        },
        {"dataset": [entry.name for entry in entries]},
    )


def _norms() -> xarray.Dataset:
    """Panel d: norms of features and rows at the optimum over l_H."""
    rows, features = [], []
    for l_H in L_H:
        state = regression_optimum(PROBLEM, _decay(L_W, l_H))
        rows.append(np.sum(state["W"] ** 2))
        features.append(np.sum(state["H"] ** 2) / SAMPLES)
    many = np.geomspace(L_H[-1], L_H[0], 60)
    eigenvalues = np.linalg.eigvalsh(COVARIANCE)
    law = [
        [f(eigenvalues, L_W, l_H).sum() for l_H in many]
        for f in (theory.weight_square, theory.feature_square)
    ]
    return xarray.Dataset(
        {
            "rows": ("l_H", rows),
            "features": ("l_H", features),
            "rows_law": ("l_H_curve", law[0]),
            "features_law": ("l_H_curve", law[1]),
        },
        {"l_H": list(L_H), "l_H_curve": many},
    )


def draw(data: xarray.Dataset) -> Figure:
    """Four panels, as the caption says."""
    figure = Figure(figsize=(8.8, 5.8), layout="constrained")
    grid = figure.subplots(2, 2)
    _draw_decay(grid[0, 0], data)
    _draw_run(grid[0, 1], data)
    _draw_gamma(grid[1, 0], data)
    _draw_norms(grid[1, 1], data)
    return figure


def _draw_decay(ax: Axes, data: xarray.Dataset) -> None:
    for mode in range(data.sizes["mode"]):
        colour = plotting.COLOURS[COLOURS[mode]]
        ax.axvline(data["eigenvalue"].values[mode], color=plotting.QUIET, linestyle=":", linewidth=0.8)
        ax.plot(data["c_curve"], data["printed"][:, mode], color=plotting.COLOURS["red"], linewidth=0.7)
        plotting.dots_and_line(ax, data["c"].values, data["found"].values[:, mode], colour=colour)
        plotting.dots_and_line(ax, data["c_curve"].values, predicted=data["closed"].values[:, mode])
    ax.set_xscale("log")
    ax.set_xlabel("$c = l_H l_W$")
    ax.set_ylabel("eigenvalues of W Wᵀ")
    ax.set_title("(a) mode i is lost at c = λᵢ (dotted); thin: truncation as printed", loc="left")


def _draw_run(ax: Axes, data: xarray.Dataset) -> None:
    steps = data["step"].values
    plotting.metric_curves(ax, steps, {name.upper(): data[name].values for name in ("nrc1", "nrc2", "nrc3")})
    ax.legend()
    ax.set_xlabel(plotting.LABELS["step"])
    ax.set_title("(b) along gradient descent", loc="left")


def _draw_gamma(ax: Axes, data: xarray.Dataset) -> None:
    for i, name in enumerate(data["dataset"].values):
        colour = plotting.COLOURS[COLOURS[i]]
        best = data["best_share"].values[i]
        ax.plot(data["share"][i], data["nrc3_of_gamma"][i], color=colour, label=name)
        ax.plot([best], [FLOOR], "|", color=colour, markersize=9, markeredgewidth=1.5, clip_on=False)
    ax.set_yscale("log")
    ax.set_ylim(FLOOR, 30.0)
    ax.set_xlim(0.0, 1.0)
    ax.legend(loc="upper center", ncols=2)
    ax.set_xlabel("$γ/λ_{min}$")
    ax.set_ylabel("NRC3(γ)")
    ax.set_title("(c) zero at γ = c; ticks: best γ of the published networks", loc="left")


def _draw_norms(ax: Axes, data: xarray.Dataset) -> None:
    for name, label, colour in (("rows", "‖W‖²", "blue"), ("features", "‖H‖²/M", "orange")):
        plotting.dots_and_line(
            ax, data["l_H"].values, data[name].values, label=label, colour=plotting.COLOURS[colour]
        )
        plotting.dots_and_line(
            ax, data["l_H_curve"].values, predicted=data[f"{name}_law"].values, predicted_label="_"
        )
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.legend()
    ax.set_xlabel("$l_H$ at $l_W = 0.01$")
    ax.set_ylabel("squared norms")
    ax.set_title("(d) at the optimum features fall and rows of W rise with $l_H$", loc="left")
