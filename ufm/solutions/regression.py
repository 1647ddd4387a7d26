"""States of a regression in the singular directions of its targets: the optimum, and starts that stay aligned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ufm.checks import finite_array
from ufm.decay import Coupled, per_block
from ufm.errors import IncompatibleError, invalid
from ufm.initial import Given
from ufm.losses import Regression
from ufm.solutions.chain import LARGEST_RATE
from ufm.solutions.solution import Solution, check_problem, solution
from ufm.theory.linear_mse import factor_share, optimum
from ufm.theory.regression import Modes, aligned_blocks, modes_of, other_objective

if TYPE_CHECKING:
    from ufm.decay import Decay
    from ufm.problems import Problem


def regression_optimum(problem: Problem, decay: Decay) -> Solution:
    """Global optimum of a regression: the modes of the targets above the threshold, the `width` largest at most.

    Mode i of the covariance is kept iff l_i > c = M lam_H lam_W. For widths d >= n this is proved; for d < n it rests
    on the inequalities that `ufm.theory.linear_mse` cites. Other optima are this one with the features rotated.

    Parameters
    ----------
    problem : RegressionUFM
        All blocks trained.
    decay : Coupled
        A rate > 0 for W and H, none for the bias.

    Returns
    -------
    Solution

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For a problem whose optimum is not known in closed form, in one sentence.

    Examples
    --------
    >>> import ufm
    >>> targets = ufm.correlated_targets([[4.0, 0.0], [0.0, 0.25]], samples=10)
    >>> problem = ufm.RegressionUFM(targets, width=3)
    >>> found = regression_optimum(problem, ufm.Coupled(W=0.5, H=0.1))
    >>> round(found.loss, 12), found.rank, (found["W"] ** 2).sum(axis=1).round(12).tolist()
    (1.289213562373, 1, [1.828427124746, 0.0])
    """
    check_problem("regression_optimum", problem)
    where = "regression_optimum"
    modes, terms = _modes(where, problem), _rates(where, problem, decay)
    squares, M = problem.samples * modes.eigenvalues, problem.samples
    best = optimum(squares, terms["H"], [terms["W1"]], samples=M, rank=problem.widths[0])
    kept = np.flatnonzero(best.gains)
    share = factor_share(best.gains[kept], best.shortfalls[kept], M / squares[kept])
    blocks = aligned_blocks(problem, modes, np.sqrt(share / terms["W1"]), np.sqrt(share / (M * terms["H"])))
    return solution("regression optimum", problem, blocks, best.loss, len(kept), optimum=True)


def aligned_modes(
    problem: Problem, weights: float | Sequence[float], features: float | Sequence[float]
) -> Given:
    """Start of a regression in which every mode of the targets has its own two amplitudes, and the bias is the mean.

    W = U diag(a) and H = sqrt(M) diag(q) V^T in the first coordinates of the features; gradient descent stays so, see
    `ufm.theory.regression.mode_path`.

    Parameters
    ----------
    problem : RegressionUFM
        All blocks trained.
    weights, features : float or sequence of float
        Amplitudes a and q, one for all or one for each of the min(modes, width) modes, largest eigenvalue first.

    Returns
    -------
    Given

    Raises
    ------
    InvalidProblemError, IncompatibleError
        For another problem, or another number of amplitudes.

    Examples
    --------
    >>> import ufm
    >>> problem = ufm.RegressionUFM([[1.0, 0.0], [0.0, 0.5]], width=2)
    >>> start = aligned_modes(problem, weights=0.1, features=[0.2, 0.3])
    >>> run = ufm.simulate(problem, ufm.GD(0.1), ufm.Coupled(0.01), steps=20, init=start)
    >>> ufm.compare(run)["ufm.regression_modes"].verdict
    'holds'
    """
    check_problem("aligned_modes", problem)
    modes = _modes("aligned_modes", problem)
    count = min(len(modes.roots), problem.widths[0])
    amplitudes = []
    for name, given in (("weights", weights), ("features", features)):
        values = np.atleast_1d(finite_array(f"aligned_modes.{name}", given))
        if values.shape not in ((1,), (count,)):
            raise invalid(f"aligned_modes.{name}", given, f"one number, or one for each of {count} modes")
        amplitudes.append(np.broadcast_to(values, count))
    return Given(**aligned_blocks(problem, modes, *amplitudes))


def _modes(where: str, problem: Problem) -> Modes:
    """Modes of the targets of a regression that is trained in all blocks."""
    if not isinstance(problem.loss, Regression):
        raise IncompatibleError(f"{where}: problem.loss is {problem.loss!r}; allowed: a RegressionUFM.")
    if problem.frozen_values:
        raise IncompatibleError(
            f"{where}: {', '.join(problem.frozen_values)} is frozen; allowed: every block trained."
        )
    return modes_of(problem)


def _rates(where: str, problem: Problem, decay: Decay) -> dict[str, float]:
    """Coupled rates of W and H, > 0; the bias has none."""
    if decay is not None and not isinstance(decay, Coupled):
        raise IncompatibleError(f"{where}: decay is {decay!r}; allowed: Coupled, the decay in the objective.")
    coupled = dict(per_block(decay, problem)[0])
    reason = other_objective(problem, coupled)
    if reason is not None:
        raise IncompatibleError(f"{where}: {reason}; allowed: a coupled rate > 0 for W and for H.")
    for block, rate in coupled.items():
        if block == "b" and rate:
            raise invalid(f"{where}.decay.b", rate, "0: the closed form is that of a bias without decay")
        if rate > LARGEST_RATE:
            raise invalid(f"{where}: coupled decay of {block}", rate, f"a number up to {LARGEST_RATE:g}")
    return coupled
