"""Claims of the form "no state has an objective below this number", held against the records of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ufm.claims import Prediction
from ufm.losses import MSE, Regression
from ufm.theory._recorded import finite_records, parts

if TYPE_CHECKING:
    from ufm.run import Run
    from ufm.trajectory import Trajectory


def at_least(run: Run, least: float, where: str, rounding: np.ndarray | None = None) -> Prediction:
    """Objective at the records against a lower bound, predicted to be the larger of the two.

    Parameters
    ----------
    run : Run
        With squared error, or with cross-entropy against class labels, and a trajectory.
    least : float
        The lower bound on the objective, coupled decay included.
    where : str
        What the number is, for the name of the quantity.
    rounding : ndarray, shape (finite records,), optional
        Rounding error of the recorded objective, that of `objective_error` by default.
    """
    kept, trajectory = finite_records(run), run.trajectory
    assert trajectory is not None
    observed = trajectory.loss[kept]
    last = f"{observed[-1]:.8g} at the end" if len(observed) else "nowhere recorded"
    quantity = f"F, at least {least:.8g} ({where}) and {last},"
    bound = objective_error(run, kept) if rounding is None else rounding
    bound = bound + 8 * np.finfo(np.float64).eps * least
    return Prediction(quantity, np.maximum(observed, least), observed, bound)


def _logit_errors(part: Trajectory, eps: float) -> np.ndarray:
    """Largest rounding error of every logit, shape (records, classes, samples).

    A product of L + 1 matrices with inner sizes that sum to m is off by at most m eps times the product of their
    absolute values, entry by entry.
    """
    terms = sum(part.problem.widths) + part.problem.depth + 2
    return terms * eps * replace(part, states=np.abs(part.states)).logits()


def logit_error(run: Run, kept: np.ndarray) -> np.ndarray:
    """Largest rounding error of a logit at each record, shape (len(kept),)."""
    error, eps = np.empty(len(kept)), float(np.finfo(run.dtype).eps)
    with np.errstate(over="ignore", invalid="ignore"):
        for here, part in parts(run, kept):
            error[here] = _logit_errors(part, eps).max(axis=(1, 2))
    return np.where(np.isfinite(error), error, np.inf)


def objective_error(run: Run, kept: np.ndarray) -> np.ndarray:
    """Largest rounding error of the recorded objective, shape (len(kept),).

    With logits off by dz the squared error is off by (sum |Z - Y| dz + dz^2/2)/N, and cross-entropy, which changes by
    at most 2 max_k |dz_k| with a sample's logits, by the mean of 2 max_k dz_k and of K + 8 roundings of its largest
    logit or 1. The sums of squares are off by eps times their number of terms, each
    of which loses the smallest normal number where it underflows.
    """
    trajectory, problem, eps = run.trajectory, run.problem, float(np.finfo(run.dtype).eps)
    assert trajectory is not None
    given = problem.targets
    targets = np.eye(problem.classes)[:, problem.labels] if given is None else np.asarray(given)
    scale, error = problem.loss.reduction == "mean", np.empty(len(kept))
    with np.errstate(over="ignore", invalid="ignore"):
        for here, part in parts(run, kept):
            largest = _logit_errors(part, eps)
            if isinstance(problem.loss, MSE | Regression):
                in_fit = (np.abs(part.logits() - targets) * largest + largest**2 / 2).sum(axis=(1, 2))
            else:
                sizes = np.maximum(np.abs(part.logits()).max(axis=1), 1.0)
                in_fit = (2 * largest.max(axis=1) + (problem.classes + 8) * eps * sizes).sum(axis=1)
            error[here] = in_fit / (problem.samples if scale else 1)
        count = problem.size + targets.size + 2
        error += count * (eps * trajectory.loss[kept] + float(np.finfo(run.dtype).tiny))
    return np.where(np.isfinite(error), error, np.inf)
