"""What the claims read off a recorded run: row sums without round-off, gradients, and the sizes of their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from ufm.errors import invalid
from ufm.losses import UserLoss
from ufm.theory._double_double import DoubleDouble

if TYPE_CHECKING:
    from ufm.run import Run


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


def finite_records(run: Run) -> np.ndarray:
    """Records before the first whose loss, or a sum of as many entries as there are classes, is not finite."""
    if run.trajectory is None:
        raise invalid("Run.trajectory", None, "a simulated run; predictions are held against its records")
    limit = np.finfo(np.float64).max / (2 * run.problem.classes)
    good = (np.abs(run.trajectory.states.astype(np.float64)) < limit).all(axis=1) & np.isfinite(
        run.trajectory.fit
    )
    return np.arange(len(good) if good.all() else int(np.argmin(good)))


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
    from ufm.kernels.layout import chain_of
    from ufm.kernels.losses import pair

    kept, traj, problem = finite_records(run), run.trajectory, run.problem
    assert traj is not None
    head, chain = pair(problem.loss, "float64")[0], chain_of(problem, "float64")
    K, N = problem.classes, problem.samples
    factor, work = (chain.scale if chain.scale > 0 else 1.0 / N), np.zeros(3 * N)

    def residual(Z: np.ndarray) -> np.ndarray:
        R = np.zeros((K, N))
        head(np.ascontiguousarray(Z), chain.segments, chain.targets, chain.parameters, factor, R, work)
        return np.nan_to_num(np.abs(R), nan=0.0, posinf=0.0)

    user = isinstance(problem.loss, UserLoss)
    # residuals that are differences of numbers of this size keep its rounding error, however small they get
    floor = np.zeros(N)
    if user:
        floor = residual(np.zeros((K, N))).sum(axis=0)
    elif problem.targets is not None:
        floor = 2 * factor * np.abs(problem.targets).sum(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):  # records that are not kept may hold anything
        features = traj.features()
    values, largest, terms = [], [], []
    for i in kept:
        state = traj.state(int(i))
        G = problem.gradient({name: state[name] for name in problem.trained})[problem.last]
        X = features[i].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            Z = state[problem.last].astype(np.float64) @ X
            H, R = np.abs(X), residual(Z + state["b"].astype(np.float64)[:, None] if problem.bias else Z)
        if user:
            floor = np.maximum(floor, R.sum(axis=0))
        columns = np.maximum(R.sum(axis=0), floor)
        if run.batch is None:
            largest.append(np.abs(G).max())
            terms.append((H @ columns).max())
        else:  # the average over any batch is at most the largest of its samples
            largest.append(N * (H.max(axis=0) * R.max(axis=0)).max())
            terms.append(N * (H.max(axis=0) * columns).max())
        values.append(G)
    return Gradients(np.stack(values), np.array(largest), np.array(terms))


def known_rates(run: Run) -> np.ndarray | None:
    """Learning rates of a run, or None for a schedule over an unknown number of steps."""
    if run.steps is not None:
        return run.rates
    return np.array([float(run.optimizer.lr)]) if isinstance(run.optimizer.lr, float | int) else None
