"""Rounding floors of NC0: where ||W^T 1|| stops in float32 and float64 while its closed form falls on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import ufm
from ufm import plotting
from ufm.metrics import nc0
from ufm.theory import published_row_sum as published
from ufm.theory.row_sum import PAPER

PROBLEM = ufm.UFM(classes=10, width=16, per_class=5)
START = ufm.Start(W=ufm.LinearDefault(), H=ufm.Gaussian(0.1))
LAM, STEPS, QUICK_STEPS = 1e-2, 12_000, 6_000
# both have lr lam/(1 - beta) = 0.01, so that their closed forms fall at one rate
CONSTANT = {"GD": ufm.GD(1.0), "momentum": ufm.Momentum(0.1, 0.9)}
TABLE_2 = ufm.Momentum(
    ufm.Rates(published.epoch_rates(published.TABLE_2["lr"])), published.TABLE_2["momentum"]
)
PRINTED = 2.14e-4  # final ||W^T 1||_2 of SGD with coupled decay in table 2


class Case(NamedTuple):
    """One run: where it is drawn, and how it is simulated."""

    panel: str
    dtype: str
    batch: int | None = None

    @property
    def label(self) -> str:
        """Name in the legend."""
        return self.dtype if self.batch is None else f"{self.dtype}, batches of {self.batch}"


CASES = (
    *(Case(panel, dtype) for panel in CONSTANT for dtype in ("float64", "float32")),
    Case("table 2", "float64"),
    Case("table 2", "float32"),
    Case("table 2", "float32", batch=10),
)


def compute(quick: bool) -> xarray.Dataset:
    """||W^T 1||, alpha, law and floor of the error model at the records of every run."""
    runs = [_run(case, QUICK_STEPS if quick else STEPS, 80) for case in CASES]
    measured = [_measured(run) for run in runs]
    data = xarray.Dataset(
        {name: (("run", "record"), np.stack([row[name] for row in measured])) for name in measured[0]},
        {
            "panel": ("run", [case.panel for case in CASES]),
            "label": ("run", [case.label for case in CASES]),
        },
    )
    data["estimate"] = ("run", np.array([_estimate(run) for run in runs]))
    data.attrs = {
        "caption": _caption(data),
        "source": f"simulation by this package; table 2 and its schedule: {PAPER}",
        "settings": "; ".join(f"{run.run!r}" for run in runs[:4]).replace("\n", " ")
        + f"; table 2: lr {published.TABLE_2['lr']}, momentum {published.TABLE_2['momentum']}, coupled decay "
        f"{published.TABLE_2['decay']}, {published.EPOCHS} epochs of {published.STEPS_PER_EPOCH} steps, lr times "
        f"{published.FACTOR} at epochs {published.MILESTONES}",
        "printed": PRINTED,
        "classes": PROBLEM.classes,
    }
    return data


def _run(case: Case, steps: int, records: int) -> ufm.Trajectory:
    if case.panel in CONSTANT:
        optimizer, lam = CONSTANT[case.panel], LAM
    else:
        optimizer, lam = TABLE_2, published.TABLE_2["decay"]
        steps = published.EPOCHS * published.STEPS_PER_EPOCH
    when = np.unique(np.geomspace(1, steps, 4 * records).astype(int))
    some = when[np.linspace(0, len(when) - 1, records).astype(int)]
    return ufm.simulate(
        PROBLEM, optimizer, ufm.Coupled(lam), steps=steps, init=START, record=ufm.At(some.tolist()),
        batch=case.batch, dtype=case.dtype,
    )  # fmt: skip


def _measured(run: ufm.Trajectory) -> dict[str, np.ndarray]:
    """Norms in the simulation and in the law, and the error model's largest norm of their difference."""
    row = ufm.compare(run)["ufm.row_sum_law"]
    assert row.prediction is not None
    prediction, width = row.prediction, run["W"].shape[-1]
    return {
        "step": run.steps,
        "norm": nc0(run, "norm"),
        "alpha": nc0(run),
        "law": np.linalg.norm(prediction.predicted, axis=1),
        "floor": np.sqrt(width) * prediction.bound,
        "error": np.linalg.norm(prediction.observed - prediction.predicted, axis=1),
    }


def _estimate(run: ufm.Trajectory) -> float:
    """Where ||W^T 1|| should stop, from the last W alone; 0 for mini-batches, whose noise keeps W moving.

    W rests where its updates are below half a unit in the last place. The gradient has no row sum, so that this
    leaves ||m|| = (1 - beta)/(lr lam) times the row sum of K p numbers of that size, taken to be uniform and
    independent. Rates that fall later leave W where it rests. A heuristic, not a theorem.
    """
    if run.run.batch is not None:
        return 0.0
    lam, beta = run.run.coupled[run.problem.last], getattr(run.optimizer, "beta", 0.0)
    units = np.spacing(np.abs(run["W"][-1])).astype(np.float64)
    return float(np.linalg.norm(units) / np.sqrt(12) * (1 - beta) / (run.run.rates[0] * lam))


def _caption(data: xarray.Dataset) -> str:
    def end(panel: str, label: str, name: str = "norm") -> float:
        chosen = (data["panel"] == panel) & (data["label"] == label)
        return float(data[name].values[chosen.values][0, -1])

    shares = (data["error"] / data["floor"]).values[:, -1]
    batches = next(case.label for case in CASES if case.batch is not None)
    resting = data["estimate"].values > 0
    rests = (data["norm"].values[:, -1] / np.where(resting, data["estimate"].values, 1.0))[
        resting & (data["norm"].values[:, -1] > 2 * data["law"].values[:, -1])
    ]
    double, single, law = (end("GD", *which) for which in (("float64",), ("float32",), ("float64", "law")))
    return (
        "||W^T 1||_2 under coupled weight decay (dots; alpha = norm^2/K on the right), the row-sum law (dashed) and "
        "what round-off may add to it by the error model of the law's claim (lines: law + sqrt(width) times "
        "round_off_bound). Left and middle: GD and momentum 0.9 at one lr lambda/(1 - beta) = 0.01. At the last step "
        f"the law is at {law:.0e} and {end('momentum', 'float64', 'law'):.0e}; GD stops at {double:.1e} in float64 and "
        f"{single:.1e} in float32 (alpha = {end('GD', 'float32', 'alpha'):.0e}), momentum at "
        f"{end('momentum', 'float64'):.1e} and {end('momentum', 'float32'):.1e}. GD's two floors are "
        f"{single / double:.1e} apart, the unit round-offs {2.0**29:.1e}. Right: schedule, momentum and decay of "
        f"table 2 of Zhao et al.; the law ends at {end('table 2', 'float64', 'law'):.2e}, float64 at "
        f"{end('table 2', 'float64'):.2e}, float32 at {end('table 2', 'float32'):.1e} with full batches and at "
        f"{end('table 2', batches):.1e} with {batches.split(', ')[1]}; the printed {PRINTED:.2e} of their ResNet9 lies "
        "where such floors lie, far above the law. Final errors are "
        f"{shares.min():.1g} to {shares.max():.1g} of what the model allows, which adds all roundings with one sign. "
        "Dotted: where full batches should stop if every entry's update ends uniform within half a unit in the last "
        f"place, a heuristic; the runs stop at {rests.min():.1f} to {rests.max():.1f} of it."
    )


def draw(data: xarray.Dataset) -> Figure:
    """One panel per optimizer and schedule, precisions in colours."""
    figure = Figure(figsize=(9.6, 3.7), layout="constrained")
    grid = figure.subplots(1, 3, sharey=True)
    titles = {
        "GD": "GD, η = 1, λ = 0.01",
        "momentum": "β = 0.9, η = 0.1, λ = 0.01",
        "table 2": "β = 0.9, η and λ of table 2",
    }
    colours = dict(zip(dict.fromkeys(data["label"].values), ("blue", "orange", "red"), strict=True))
    artists: dict[str, Any] = {}
    for ax, (panel, title) in zip(grid, titles.items(), strict=True):
        for i in np.flatnonzero((data["panel"] == panel).values):
            run = data.isel(run=int(i))
            label = run["label"].item()
            step, norm, predicted, allowed = (run[name].values for name in ("step", "norm", "law", "floor"))
            colour = plotting.COLOURS[colours[label]]
            dots, law, floor = plotting.floor_curve(ax, step, norm, predicted, allowed, colour)
            if run["estimate"].item() > max(predicted[-1], 1e-17):
                artists["estimate"] = plotting.level(
                    ax, run["estimate"].item(), step[-1] / 30, step[-1], colour
                )
            dots.set_label(label)
            floor.set_label(f"{label} bound")
            artists |= {label: dots, "law": law}
            if panel == "GD":
                artists[f"{label} bound"] = floor
        ax.set_title(title, loc="left")
        ax.set_xlabel(plotting.LABELS["step"])
        plotting.log_axis(ax, "x", 10.0, 1.2 * float(run["step"].max()))
        plotting.log_axis(ax, "y", 1e-17, 5.0, ticks=7)
    grid[0].set_ylabel(plotting.LABELS["norm"])
    _printed(grid[2], data.attrs["printed"])
    plotting.alpha_axis(grid[2], int(data.attrs["classes"]))
    artists["estimate"] = artists.pop("estimate")  # last
    plotting.legend_below(figure, list(artists.values()))
    return figure


def _printed(ax: Axes, value: float) -> None:
    ax.axhline(value, color=plotting.QUIET, linewidth=0.8, zorder=0)
    ax.text(
        12.0,
        1.4 * value,
        f"{value:.2e} printed (real network)",
        color=plotting.QUIET,
        fontsize=7,
        va="bottom",
    )
