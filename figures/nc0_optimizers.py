"""NC0 under every optimizer with coupled and decoupled decay, and what the theorem that applies predicts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import ufm
from ufm import plotting
from ufm.compare import Row
from ufm.metrics import nc0
from ufm.theory import row_sum, signgd_decoupled

TRAINED = ufm.UFM(classes=10, width=16, per_class=5)
TRAINED_START: Any = ufm.Start(W=ufm.LinearDefault(), H=ufm.Gaussian(0.1))
FROZEN = ufm.UFM(classes=10, width=10, features=ufm.SimplexETF())
STEPS, QUICK_STEPS, RECORDS = 10_000, 2_000, 60
LAM_TRAINED = 1e-3
LAMS, QUICK_LAMS = (5e-4, 1e-3, 5e-3), (5e-3,)
RATES = {"coupled": 0.01, "decoupled": 0.1}  # learning rates over the frozen simplex ETF
DECAYS: dict[str, Any] = {"coupled": ufm.Coupled, "decoupled": ufm.Decoupled}

OPTIMIZERS: dict[str, Any] = {
    "GD": ufm.GD(0.1),
    "momentum": ufm.Momentum(0.1, 0.9),
    "Nesterov": ufm.Momentum(0.1, 0.9, nesterov=True),
    "SignGD": ufm.SignGD(1e-3),
    "Signum": ufm.Signum(1e-3, 0.9),
    "Adam": ufm.Adam(1e-3),
}
SCALE_FREE = ("SignGD", "Signum", "Adam")


class Case(NamedTuple):
    """One run: where it is drawn, and how it is simulated."""

    setting: str
    name: str
    kind: str
    lam: float

    @property
    def panel(self) -> str:
        """Runs of one panel share it."""
        return self.name if self.setting == "trained" else f"{self.name}, {self.kind}"

    def simulated(self, steps: int) -> ufm.Trajectory:
        """The run, recorded at logarithmically spaced steps."""
        optimizer, problem, start = OPTIMIZERS[self.name], TRAINED, TRAINED_START
        if self.setting == "frozen":
            optimizer, problem, start = replace(optimizer, lr=RATES[self.kind]), FROZEN, ufm.Zeros()
        return ufm.simulate(
            problem,
            optimizer,
            DECAYS[self.kind](self.lam),
            steps=steps,
            init=start,
            record=ufm.LogSpaced(RECORDS),
        )


def compute(quick: bool) -> xarray.Dataset:
    """NC0 of every run over steps, and that of the most specific claim that applies."""
    cases = [Case("trained", name, kind, LAM_TRAINED) for name in OPTIMIZERS for kind in DECAYS]
    lams = QUICK_LAMS if quick else LAMS
    cases += [Case("frozen", name, kind, lam) for name in SCALE_FREE for kind in DECAYS for lam in lams]
    runs = [case.simulated(QUICK_STEPS if quick else STEPS) for case in cases]
    best = [ufm.compare(run).best for run in runs]
    data = xarray.Dataset(
        {
            "alpha": (("run", "record"), np.stack([nc0(run) for run in runs])),
            "predicted": (("run", "record"), np.stack([_predicted(row, len(runs[0].steps)) for row in best])),
            "ratio": ("run", np.array([row.ratio if row else 0.0 for row in best])),
            "step": ("record", runs[0].steps),
        },
        {
            "setting": ("run", [case.setting for case in cases]),
            "panel": ("run", [case.panel for case in cases]),
            "kind": ("run", [case.kind for case in cases]),
            "lam": ("run", [case.lam for case in cases]),
            "claim": ("run", [row.name if row else "none" for row in best]),
            "verdict": ("run", [row.verdict if row else "none" for row in best]),
        },
    )
    data.attrs = {
        "caption": _caption(data),
        "source": f"simulation by this package, after figure 9 of {row_sum.PAPER}; predictions by ufm.compare",
        "settings": (
            f"above: {TRAINED!r}, {TRAINED_START!r}, {'; '.join(map(repr, OPTIMIZERS.values()))}, decay {LAM_TRAINED}; "
            f"below: {FROZEN!r}, Zeros(), lr {RATES}, decay {lams}; seed 0, {runs[0].run.steps} steps"
        ),
    }
    return data


def _predicted(row: Row | None, records: int) -> np.ndarray:
    """NC0 of the claim at every record; 0, which has no place on a logarithmic axis, where none applies."""
    if row is None or row.prediction is None or row.prediction.nc0 is None:
        return np.zeros(records)
    return row.prediction.nc0


def _caption(data: xarray.Dataset) -> str:
    def last(setting: str, panel: str, kind: str, name: str = "alpha", lam: float | None = None) -> float:
        chosen = (data["setting"] == setting) & (data["panel"] == panel) & (data["kind"] == kind)
        chosen &= data["lam"] == (LAM_TRAINED if setting == "trained" else lam)
        return float(data[name].values[chosen.values][0, -1])

    lam = float(data["lam"].max())
    limit = signgd_decoupled.limit(lam, FROZEN.classes)
    judged = data["claim"].values != "none"
    holds = int((data["verdict"].values == "holds").sum())
    ends = "; ".join(
        f"{name} {last('trained', name, 'coupled'):.1e} and {last('trained', name, 'decoupled'):.1e}"
        for name in OPTIMIZERS
    )
    frozen = {
        name: [last("frozen", f"{name}, {kind}", kind, lam=lam) for kind in DECAYS] for name in SCALE_FREE
    }
    peak = {
        name: float(
            data["alpha"].values[((data["panel"] == f"{name}, coupled") & (data["lam"] == lam)).values].max()
        )
        for name in SCALE_FREE
    }
    return (
        f"NC0 over {int(data['step'][-1])} steps (dots) and the prediction of the most specific claim that applies "
        "(dashed, with gaps below the frame; its name in the panel). Above: UFM with features trained, decay "
        f"{LAM_TRAINED:g}; final alpha with coupled and decoupled decay, from {float(data['alpha'][0, 0]):.2f}: "
        f"{ends}. The SGD family follows the row-sum law: momentum speeds up coupled decay alone; no claim applies to "
        "the sign and adaptive methods there. Below: H frozen at the simplex ETF, W_0 = 0 (where the SGD family stays "
        f"at 0), lr {RATES['coupled']:g} coupled and {RATES['decoupled']:g} decoupled. Coupled SignGD rises and falls "
        f"(lambda {lam:g}: at most {peak['SignGD']:.1f} at the records), as do Signum ({peak['Signum']:.1f}) and Adam "
        f"({peak['Adam']:.1f}). Decoupled SignGD reaches {100 * frozen['SignGD'][1] / limit:.1f} % of the limit "
        f"((K - 2)/lambda)^2 = {limit:.2e} of theorem 3.3, Signum {100 * frozen['Signum'][1] / limit:.1f} %, Adam, "
        f"whose averages remember larger gradients, {100 * frozen['Adam'][1] / limit:.2g} %. {int(judged.sum())} of "
        f"{judged.size} runs are predicted, {holds} of these hold; largest error/bound "
        f"{float(data['ratio'].max()):.2f}."
    )


def draw(data: xarray.Dataset) -> Figure:
    """Above, one panel per optimizer; below, one per scale-free optimizer and kind of decay."""
    figure = Figure(figsize=(9.8, 5.0), layout="constrained")
    upper, lower = cast(Any, figure.subfigures(2, 1))
    steps = data["step"].values
    trained = data.isel(run=np.flatnonzero((data["setting"] == "trained").values))
    frozen = data.isel(run=np.flatnonzero((data["setting"] == "frozen").values))
    kinds = dict(zip(DECAYS, (plotting.COLOURS["blue"], plotting.COLOURS["orange"]), strict=True))
    lams = sorted(set(frozen["lam"].values.tolist()))
    shades = dict(zip(lams, plotting.sequence(len(lams)), strict=True))
    limits = ((1e-10, 1e3), (1e-6, 1e9))
    titles = (
        f"features trained, λ = {trained['lam'].values[0]:g}",
        "features frozen at the simplex ETF, W₀ = 0",
    )
    rows = ((upper, trained, "kind", kinds), (lower, frozen, "lam", shades))
    for (part, runs, by, colours), (low, high), title in zip(rows, limits, titles, strict=True):
        panels = list(dict.fromkeys(runs["panel"].values.tolist()))
        grid = part.subplots(1, len(panels), sharey=True)
        for ax, panel in zip(grid, panels, strict=True):
            one = runs.isel(run=np.flatnonzero((runs["panel"] == panel).values))
            _panel(ax, steps, one, [colours[key] for key in one[by].values.tolist()], low)
            ax.set_title(panel, loc="left")
            ax.set_xlabel(plotting.LABELS["step"])
            plotting.log_axis(ax, "x", 1.0, 1.5 * steps[-1], ticks=3)
            plotting.log_axis(ax, "y", low, high)
        grid[0].set_ylabel(plotting.LABELS["alpha"])
        part.suptitle(title, fontsize=9)
        names = {"kind": "{} decay", "lam": "λ = {:g}"}[by]
        marks = [
            Line2D([], [], marker="o", linestyle="none", color=colour, label=names.format(value))
            for value, colour in colours.items()
        ]
        marks.append(
            Line2D([], [], linestyle="--", color=plotting.PREDICTION, label="prediction of the claim named")
        )
        part.legend(handles=marks, loc="outside lower center", ncols=len(marks))
    return figure


def _panel(ax: Axes, steps: np.ndarray, runs: xarray.Dataset, colours: list[str], low: float) -> None:
    """Runs of one panel, and the names of the claims that predict them; predictions have gaps below `low`."""
    for i, colour in enumerate(colours):
        alpha, predicted = (runs[name].values[i] for name in ("alpha", "predicted"))
        visible = np.where(predicted > low, predicted, 0.0)
        dots, *_ = plotting.nc0_curve(ax, steps, alpha, visible, colour=colour, dots=len(steps))
        dots.set_markersize(2.5)
    claims = list(dict.fromkeys(runs["claim"].values.tolist()))
    names = [
        claim.split(".", 1)[1].replace("_", " ") if claim != "none" else "no theorem" for claim in claims
    ]
    ax.text(0.05, 0.04, ", ".join(names), transform=ax.transAxes, fontsize=7, color=plotting.QUIET)
