"""overview(run) -> Figure: one run on a page, NC0 beside its prediction, the error, NC1 to NC3, and the objective."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from ufm.errors import invalid
from ufm.problems import RegressionUFM
from ufm.trajectory import Trajectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ufm.compare import Report, Row


def overview(run: Trajectory, report: Report | None = None) -> Figure:
    """Draw one run: NC0 and its prediction, their difference beside its bound, NC1 to NC3, and the objective.

    Parameters
    ----------
    run : Trajectory
        As simulated or loaded, with at least two records.
    report : Report, optional
        Its judgement, if `ufm.compare` has made it already.

    Returns
    -------
    Figure
        Four panels over steps; `Figure.savefig` writes it.

    Raises
    ------
    InvalidProblemError
        For anything but a trajectory, or for a single record.

    Notes
    -----
    NC0 and its prediction are those of the most specific claim that applies. A regression, whose outputs are no
    classes, shows norms instead of NC0, and NRC1 to NRC3 (Andriopoulos et al., arXiv 2409.04180) instead of NC1 to NC3.

    Examples
    --------
    >>> import ufm
    >>> run = ufm.simulate(ufm.UFM(3, 4, per_class=2), ufm.GD(0.1), ufm.Coupled(0.01), steps=100)
    >>> [ax.get_title(loc="left") for ax in ufm.overview(run).axes]
    ['zhao2026.thm3.2 holds', 'its error', 'neural collapse', 'objective']
    """
    if not isinstance(run, Trajectory):
        raise invalid("overview.run", run, "a Trajectory, as simulate and load return it")
    if len(run) < 2:
        raise invalid("overview.run: number of records", len(run), "at least 2, to be drawn over steps")
    from matplotlib.figure import Figure

    from ufm import plotting
    from ufm.compare import compare

    found = compare(run) if report is None else report
    with plotting.style():
        figure = Figure(figsize=(7.2, 5.0), layout="constrained")
        (of_nc0, of_error), (of_collapse, of_loss) = figure.subplots(2, 2)
        if isinstance(run.problem, RegressionUFM):
            _draw_norms(of_nc0, run)
        else:
            _draw_nc0(of_nc0, run, found.best)
        _draw_error(of_error, run, found)
        _draw_collapse(of_collapse, run)
        _draw_objective(of_loss, run, found)
        for ax in figure.axes:
            _over_steps(ax, run)
        figure.suptitle("\n".join(textwrap.wrap(_title(run), 110)), fontsize=8)
    return figure


def _title(run: Trajectory) -> str:
    """Shapes of the trained blocks, optimizer, decay and how the run ended."""
    shapes = (f"{name} {' x '.join(map(str, run.problem.shapes[name]))}" for name in run.problem.trained)
    parts = [f"{type(run.problem).__name__}: {', '.join(shapes)}", repr(run.run.optimizer)]
    decay = "no decay" if run.run.decay is None else repr(run.run.decay)
    return "; ".join([*parts, decay, f"{run.status.name} at step {run.status.step}"])


def _over_steps(ax: Axes, run: Trajectory) -> None:
    """Steps from 1 on, on a logarithmic axis."""
    from ufm.plotting import LABELS

    ax.set_xlabel(LABELS["step"])
    ax.set_xscale("log")
    ax.set_xlim(0.9, 1.1 * max(2, int(run.steps[-1])))


def _draw_nc0(ax: Axes, run: Trajectory, row: Row | None) -> None:
    from ufm.metrics import nc0
    from ufm.plotting import LABELS, nc0_curve

    predicted = None if row is None or row.prediction is None else row.prediction.nc0
    fits = predicted is not None and len(predicted) == len(run)  # a claim may judge some of the records only
    nc0_curve(ax, run.steps, nc0(run), predicted if fits else None)
    ax.set_ylabel("NC0   " + LABELS["alpha"])
    ax.set_title("no theorem predicts NC0" if row is None else f"{row.name} {row.verdict}", loc="left")
    ax.legend(loc="best")


def _draw_norms(ax: Axes, run: Trajectory) -> None:
    from ufm.plotting import metric_curves

    norms = {
        f"||{name}||": np.linalg.norm(run[name].reshape(len(run), -1), axis=1) for name in run.problem.trained
    }
    metric_curves(ax, run.steps, norms)
    ax.set_title("norms", loc="left")
    ax.legend(loc="best")


def _draw_error(ax: Axes, run: Trajectory, report: Report) -> None:
    """Error and bound of the claim shown; without one the hypothesis of the row-sum law that fails, in words."""
    from ufm.plotting import error_strip

    row = report.best
    if row is None or row.prediction is None:
        ax.set_title("no prediction", loc="left")
        reason = report["ufm.row_sum_law"].reason
        ax.text(0.02, 0.95, "\n".join(textwrap.wrap(reason, 48)), transform=ax.transAxes, va="top")
        ax.set_yticks([])
        return
    prediction = row.prediction
    if len(prediction.bound) == len(run):
        bound = np.where(prediction.judged, prediction.bound, np.nan)
        error_strip(ax, run.steps, prediction.error, bound, bound_label=prediction.allowance)
        ax.legend(loc="best")
    ax.set_title("its error", loc="left")


def _draw_collapse(ax: Axes, run: Trajectory) -> None:
    from ufm import metrics
    from ufm.plotting import metric_curves

    if isinstance(run.problem, RegressionUFM):
        curves = {"NRC1": metrics.nrc1(run), "NRC2": metrics.nrc2(run), "NRC3": metrics.nrc3(run)}
    else:
        curves = {"NC2": metrics.nc2(run), "NC3": metrics.nc3(run)}
        if max(run.problem.class_sizes) > 1:  # one sample is its own class mean
            curves = {"NC1": metrics.nc1(run), **curves}
    metric_curves(ax, run.steps, curves)
    ax.set_title("neural collapse", loc="left")
    ax.legend(loc="best")


def _draw_objective(ax: Axes, run: Trajectory, report: Report) -> None:
    """Objective and fit, and the lowest loss known in closed form as a line."""
    from ufm.plotting import QUIET, metric_curves

    curves = {"fit + penalty": run.loss, "fit": run.fit} if run.penalty.any() else {"fit": run.fit}
    metric_curves(ax, run.steps, curves)
    if report.ending is not None:
        best = report.ending.rows[0]
        if best.loss > 0:
            ax.axhline(best.loss, color=QUIET, linewidth=0.8, linestyle=":", label=best.name, zorder=0)
    ax.set_title("objective", loc="left")
    ax.legend(loc="best")
