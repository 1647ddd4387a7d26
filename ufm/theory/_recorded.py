"""What the claims read off a recorded run: row sums without round-off, gradients, and the sizes of their errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ufm.errors import invalid
from ufm.losses import UserLoss
from ufm.theory._double_double import DoubleDouble

if TYPE_CHECKING:
    from ufm.run import Run
    from ufm.trajectory import Trajectory

BLOCK = 2**18  # numbers of residuals and inputs held at once
# relative error that a control carries: what a run of that precision must still see
PERTURBATION = {"float64": 1e-6, "float32": 1e-2}


def exact_row_sum(W: np.ndarray) -> DoubleDouble:
    """W^T 1 over the last axis but one, in double-double arithmetic: the order of summation does not matter.

    Parameters
    ----------
    W : ndarray, shape (..., classes, width)
        Weights in float64.
    """
    rows = DoubleDouble.of(np.moveaxis(W, -2, 0))
    while len(rows.high) > 1:
        half = len(rows.high) // 2
        folded = rows[:half] + rows[half : 2 * half]
        if len(rows.high) % 2:
            folded = DoubleDouble(
                np.concatenate([folded.high, rows.high[-1:]]), np.concatenate([folded.low, rows.low[-1:]])
            )
        rows = folded
    return rows[0]


def running_maximum(values: np.ndarray) -> np.ndarray:
    """Largest |entry| up to and including the next record, shape (records,): covers what lies between."""
    largest = np.maximum.accumulate(np.abs(values).reshape(len(values), -1).max(axis=1))
    return np.append(largest[1:], largest[-1])


_finite_of: WeakKeyDictionary[Any, tuple[int, int]] = WeakKeyDictionary()  # classes, records


def finite_records(run: Run) -> np.ndarray:
    """Records before the first whose loss, or a sum of as many entries as there are classes, is not finite."""
    trajectory, K = run.trajectory, run.problem.classes
    if trajectory is None:
        raise invalid("Run.trajectory", None, "a simulated run; predictions are held against its records")
    classes, count = _finite_of.get(trajectory, (None, 0))
    if classes != K:
        limit, states = np.finfo(np.float64).max / (2 * K), trajectory.states
        good = np.isfinite(trajectory.fit)
        if states.shape[1]:
            good &= (states.max(axis=1) < limit) & (states.min(axis=1) > -limit)  # nan is neither
        count = len(good) if good.all() else int(np.argmin(good))
        _finite_of[trajectory] = K, count
    return np.arange(count)


def spread_evenly(records: np.ndarray, most: int) -> np.ndarray:
    """At most so many of the records, the first and the last included.

    Examples
    --------
    >>> spread_evenly(np.arange(9), 3).tolist(), spread_evenly(np.arange(2), 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    if len(records) <= most:
        return records
    spread: np.ndarray = records[np.unique(np.linspace(0, len(records) - 1, most).astype(int))]
    return spread


def parts(run: Run, kept: np.ndarray) -> Iterator[tuple[slice, Trajectory]]:
    """The records `kept` in float64, so many at once that their features and logits fit in memory."""
    trajectory, problem = run.trajectory, run.problem
    assert trajectory is not None
    at_once = max(1, BLOCK // (problem.samples * (max(problem.widths) + problem.classes) + problem.size))
    for first in range(0, len(kept), at_once):
        here = kept[first : first + at_once]
        states = trajectory.states[here].astype(np.float64)
        yield slice(first, first + at_once), replace(trajectory, states=states, steps=trajectory.steps[here])


class Gradients(NamedTuple):
    """Gradients of the last layer at the records, and the sizes that their errors scale with."""

    values: np.ndarray  # shape (records, classes, width)
    largest: np.ndarray  # max|grad W|, shape (records,); of any mini-batch, where there are some
    terms: np.ndarray  # max_j sum_k sum_i |R_ki| |H_ji|, shape (records,)


_gradients_of: WeakKeyDictionary[Any, Gradients] = WeakKeyDictionary()


def gradients(run: Run) -> Gradients:
    """Gradients at the finite records; kept for as long as the trajectory lives, for several claims ask."""
    found = _gradients_of.get(run.trajectory)
    if found is None:
        found = _gradients_of[run.trajectory] = _evaluate_gradients(run)
    return found


def _evaluate_gradients(run: Run) -> Gradients:
    """Residuals by the compiled head of the loss, their products by numpy, block by block of the records."""
    kept, problem = finite_records(run), run.problem
    N, (rows, width) = problem.samples, problem.shapes[problem.last]
    residuals, floor = _residuals_of(problem)
    values, largest, terms = np.empty((len(kept), rows, width)), np.empty(len(kept)), np.empty(len(kept))
    for here, part in parts(run, kept):
        with np.errstate(over="ignore", invalid="ignore"):
            X, R = part.features(), residuals(part.logits())
            G = values[here] = R @ X.swapaxes(1, 2)
            sizes, H = np.nan_to_num(np.abs(R), nan=0.0, posinf=0.0), np.abs(X)
            columns = sizes.sum(axis=1)
            if isinstance(problem.loss, UserLoss):
                floor = np.maximum.accumulate(np.concatenate([floor[-1:], columns]))[1:]
            columns = np.maximum(columns, floor)
            if not run.in_batches:
                largest[here] = np.abs(G).max(axis=(1, 2))
                terms[here] = (H @ columns[:, :, None]).max(axis=(1, 2))
            else:  # the average over any batch is at most the largest of its samples
                feature = H.max(axis=1)
                largest[here] = N * (feature * sizes.max(axis=1)).max(axis=1)
                terms[here] = N * (feature * columns).max(axis=1)
    return Gradients(values, largest, terms)


def _residuals_of(problem: Any) -> tuple[Callable[[np.ndarray], np.ndarray], np.ndarray]:
    """Residuals at logits of shape (records, classes, samples), and the least column sum to count, (1, samples).

    Residuals that are differences of numbers of some size keep its rounding error, however small they get.
    """
    from ufm.kernels.layout import chain_of
    from ufm.kernels.losses import pair

    head, chain, N = pair(problem.loss, "float64")[0], chain_of(problem, "float64"), problem.samples
    factor, work = (chain.scale if chain.scale > 0 else 1.0 / N), np.zeros(3 * N)

    def residuals(logits: np.ndarray) -> np.ndarray:
        found = np.zeros(logits.shape)
        for Z, R in zip(logits, found, strict=True):
            head(Z, chain.segments, chain.targets, chain.parameters, factor, R, work)
        return found

    if isinstance(problem.loss, UserLoss):
        at_zero = np.abs(residuals(np.zeros((1, problem.classes, N))))
        return residuals, np.nan_to_num(at_zero, nan=0.0, posinf=0.0).sum(axis=1)
    if problem.targets is not None:
        return residuals, 2 * factor * np.abs(np.asarray(problem.targets)).sum(axis=0)[None]
    return residuals, np.zeros((1, N))


def known_rates(run: Run) -> np.ndarray | None:
    """Learning rates of a run, or None for a schedule over an unknown number of steps."""
    if run.steps is not None:
        return run.rates
    return np.array([float(run.optimizer.lr)]) if isinstance(run.optimizer.lr, float | int) else None
